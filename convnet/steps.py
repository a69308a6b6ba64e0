"""The training step of a net: what runs between the batch and the updated weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from convnet import divergence, fusedupdate
from convnet.divergence import DivergedError, Origin
from convnet.layer import Array, Parameter, Randomness
from convnet.passes import Passes
from convnet.sgd import SGD


class Steps(Passes):
    """What of `Net` makes a training step of its passes.

    Attributes:
        diverged: the error that a step ended with; None once weights have been loaded.
    """

    diverged: DivergedError | None
    _last: tuple[Array, Array, SGD] | None = None  # the step that was begun last
    _random: Randomness

    def write_state(self, sgd: SGD | None = None) -> None:
        """Gives the devices what is this step's own; the rates only where an update follows."""
        assert self._random.state is not None
        seed, step = self._random.seed, self._random.step
        self._random.state.write(seed, step, None if sgd is None else sgd.rates)

    def plain_step(self, x: Array, labels: Array, sgd: SGD) -> None:
        """The operations of a step, node by node, on checked arrays; see `train_step`."""
        with fusedupdate.during(self, sgd) as self._updated:
            self.run_gradients(x, labels)
        if self.partition is not None:
            self.partition.links.before_update()
        self.update(sgd, self._updated)

    def update(self, sgd: SGD, done: Sequence[Parameter] = ()) -> None:
        """The update at the end of a step. An optimiser of another kind is not asked for one if a
        gradient is not finite.

        Args:
            done: parameters that have been updated.
        """
        state = self._random.state
        assert state is not None
        if not fusedupdate.is_usual(sgd):
            number = divergence.first_not_finite(sgd.params)
            if number:
                return state.note_diverged(self.backend, number)
        return sgd.update(state, done) if done else sgd.update(state)

    def run_gradients(self, x: Array, labels: Array, scale: float | None = None) -> None:
        """The operations of `gradients`, on checked arrays."""
        self._forward(x, True, labels, scale)
        for param in self.params:
            param.zero_grad()
        self._backward()

    def on_device(self, x: Array, labels: Array) -> tuple[Array, Array]:
        """x and labels of a batch in the net's memory, if they can be used."""
        raise NotImplementedError

    def begin_step(self, x: Array, labels: Array, sgd: SGD) -> tuple[Array, Array]:
        """Gives the devices what is this step's own, and returns its batch there. Raises:
        DivergedError where an earlier step did."""
        if self.diverged is not None:
            raise DivergedError(
                f"the net has diverged ({self.diverged}); it trains on when weights are loaded",
                self.diverged.parameter,
                self.diverged.node,
            )
        x, labels = self.on_device(x, labels)
        self._last = x, labels, sgd
        self.write_state(sgd)
        return x, labels

    def check_updates(self, each: Callable[[Origin | None], list[Origin | None]]) -> None:
        """Looks whether the updates of all steps so far were finite; waits for the devices.

        Args:
            each: what all processes of the job say, in their order, of what this one does.

        Raises: DivergedError, the same in all of them. It says where the NaN began if the last
            batch tells; on a GPU there may have been others since.
        """
        assert self._random.state is not None
        number, step = self._random.state.diverged, self._random.state.diverged_step
        if not number or self._last is None:
            return
        x, labels, sgd = self._last
        origins = [origin for origin in each(divergence.in_batch(self, x, labels)) if origin]
        what = sgd.params[number - 1].name
        what += "" if step == self._random.state.step + 1 else f" in step {step}"
        self.diverged = divergence.error_of(
            sgd.params[number - 1].name, what, origins[0] if origins else None
        )
        raise self.diverged

    def forget_divergence(self) -> None:
        """Lets a net that has diverged train on, with the weights that it has."""
        if self.diverged is not None and self._random.state is not None:
            self.diverged = None
            self._random.state.clear_diverged()
