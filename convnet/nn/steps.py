"""Training steps of a net: what runs between the batch and the updated weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from convnet import backend as backends
from convnet.layers.layer import Array
from convnet.layers.loss import UNRANKED
from convnet.nn import divergence
from convnet.nn.divergence import Origin, Watch
from convnet.nn.eager import Eager, Forward, mean_loss
from convnet.nn.inputs import checked_labels, checked_x
from convnet.nn.programs import Programs
from convnet.nn.structure import Structure
from convnet.optim.sgd import SGD, DivergedError

Origins = Callable[[Origin | None], list[Origin | None]]


def alone(origin: Origin | None) -> list[Origin | None]:
    """Stands for the exchange between processes where there is only one."""
    return [origin]


Method = TypeVar("Method", bound=Callable[..., Any])


def on_own_backend(method: Method) -> Method:
    """Runs a method of Net with NumPy arrays going to the net's backend, on its (first) device."""

    @functools.wraps(method)
    def run(self: Steps, *args: Any, **kwargs: Any) -> Any:
        with backends.use(self.backend):
            return method(self, *args, **kwargs)

    return run  # type: ignore[return-value]


class Steps(Structure):
    """The part of `Net` that trains: its passes, made into steps.

    Attributes:
        programs: what passes are run as; see `convnet.nn.programs`.
        diverged: the error that a step ended with; None once weights have been loaded.
        last: what the last pass has left: outputs that were asked for, losses and ranks.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.diverged: DivergedError | None = None
        self.last = Forward({})
        self.programs, self._eager = Programs(self), Eager(self)
        self._recent: tuple[Array, Array] | None = None  # the last batch
        self._begun: tuple[Array, Array, SGD] | None = None  # the step that was begun last

    @on_own_backend
    def train_step(self, x: Array, labels: Array, sgd: SGD) -> float:
        """One step: forward, backward, update.

        Args:
            x: float32 [N, *in_shape], or of the type that the net stores, on the host or on the
                net's device; only read.
            labels: integers [N] in 0 .. classes - 1.
            sgd: updates the parameters.

        Returns: the mean loss of the batch before the update.
        Raises:
            ValueError: x or labels do not fit.
            DivergedError: an update would not have been finite, or was not in an earlier step.
                All weights are still finite, but not all were updated: the net trains on when
                weights have been loaded (`load_state`).
        """
        self.run_step(x, labels, sgd)
        self._verify()
        self.check_updates()
        self.step += 1
        return self._mean_loss()

    @on_own_backend
    def start_step(self, x: Array, labels: Array, sgd: SGD) -> None:
        """As `train_step`, without waiting for a GPU: what comes of it `finish_steps` finds, and
        the loss `convnet.nn.step_results`.

        Args:
            x, labels, sgd: as in `train_step`.

        Raises: as `train_step`.
        """
        self.run_step(x, labels, sgd)
        self.step += 1

    @on_own_backend
    def finish_steps(self, each: Origins = alone) -> None:
        """Waits for the steps that were started.

        Args:
            each: what all processes of the job say, in their order, of what this one does.

        Raises: what was wrong with them, as `train_step`.
        """
        self._verify()
        self.check_updates(each)

    def wait_for(self, event: Any) -> None:
        """Waits for an event of the net's device: for ever on one that is alone, and where a net is
        on several, as long as its links do.

        Args:
            event: what `Backend.record` has returned; None: nothing is waited for.

        Raises: LinkError.
        """
        if self.partition is None or event is None:
            self.backend.wait(event)
        else:
            self.partition.links.wait_for(event, self.backend)

    @on_own_backend
    def gradients(self, x: Array, labels: Array, scale: float | None = None) -> float:
        """The mean loss, leaving its gradient in `Parameter.grad`; no update.

        Those of frozen parameters (`lr_mult` 0) are not computed and are zero.

        Args:
            x, labels: as in `train_step`.
            scale: multiplies the sum of the samples' gradients; 1 / N by default, for their mean.

        Returns: the mean loss of the batch.
        Raises: ValueError: x or labels do not fit.
        """
        self.start_gradients(x, labels, scale)
        return self._mean_loss()

    @on_own_backend
    def start_gradients(self, x: Array, labels: Array, scale: float | None = None) -> None:
        """As `gradients`, without waiting for a GPU that is alone.

        Args:
            x, labels, scale: as in `gradients`.

        Raises: as `gradients`.
        """
        x, labels = self.on_device(x, labels)
        self.write_state()
        self.last = self.runner.gradients(x, labels, scale)
        self._verify()  # before anything is made of what arrived

    @on_own_backend
    def training_loss(self, x: Array, labels: Array) -> float:
        """The mean loss as `gradients` sees it, with the dropout masks of this step.

        Args:
            x, labels: as in `train_step`.
        """
        x, labels = self.on_device(x, labels)
        self.write_state()
        self._measure(x, labels, train=True)
        return self._mean_loss()

    def _measure(self, x: Array, labels: Array, train: bool) -> None:
        """Losses and ranks."""
        self.last = self.runner.losses(x, labels, train)
        self._verify()

    def _verify(self) -> None:
        if self.partition is not None:
            self.partition.links.verify()

    def _mean_loss(self) -> float:
        return mean_loss([(coeff, self.backend.to_host(loss)) for coeff, loss in self.last.losses])

    def write_state(self, sgd: SGD | None = None) -> None:
        """Writes seed and step to the devices; the rates only where an update follows."""
        seed, step = self._random.seed, self._random.step
        self.step_state.write(seed, step, None if sgd is None else sgd.rates)

    @property
    def runner(self) -> Programs | Eager:
        """What runs the passes: programs, or without `trace` the layers one by one."""
        return self.programs if self.trace else self._eager

    def checked(self, x: Array, labels: Array) -> tuple[Array, Array]:
        """Checks x and labels, which may be in any memory, and returns them."""
        if not self._losses:
            raise ValueError(
                "the net has no loss; end it with a SoftmaxCrossEntropy layer to train it"
            )
        x = checked_x(x, self.in_shape, self.backend, self.stored)
        return x, checked_labels(labels, len(x), self.classes or UNRANKED, self.backend)

    def on_device(self, x: Array, labels: Array) -> tuple[Array, Array]:
        """Checks x and labels of a batch, and returns them in the memory of the device."""
        x, labels = map(self.backend.asarray, self.checked(x, labels))
        self._recent = x, labels
        return x, labels

    def begin_step(self, x: Array, labels: Array, sgd: SGD) -> tuple[Array, Array]:
        """Writes the state of the step to the devices, and returns its batch there. Raises:
        DivergedError where an earlier step has diverged."""
        if self.diverged is not None:
            raise DivergedError(
                f"the net has diverged ({self.diverged}); it trains on when weights are loaded",
                self.diverged.parameter,
                self.diverged.node,
            )
        x, labels = self.on_device(x, labels)
        self._begun = x, labels, sgd
        self.write_state(sgd)
        sgd.write_rates()
        return x, labels

    def run_step(self, x: Array, labels: Array, sgd: SGD) -> None:
        """A step, as a program, with its update unless that is a rule of the optimiser's own."""
        x, labels = self.begin_step(x, labels, sgd)
        if self.trace and sgd.usual:
            self.last = self.programs.train(x, labels, sgd)
            return
        self.last = self.runner.gradients(x, labels, None)
        if self.partition is not None:
            self.partition.links.share_aborts()
        self.update(sgd)
        if not self.keep_gradients:
            for param in self.params:
                param.grad = None

    def update(self, sgd: SGD) -> None:
        """The update at the end of a step. An optimiser of another kind is not asked for one if a
        gradient is not finite."""
        if not sgd.usual:
            number = divergence.first_not_finite(sgd.params)
            if number:
                self.step_state.note_diverged(self.backend, number)
                return
        sgd.update(self.step_state)

    def check_updates(self, each: Origins = alone) -> None:
        """Checks that the updates of all steps so far were finite; waits for the devices.

        Args:
            each: what all processes of the job say, in their order, of what this one does.

        Raises: DivergedError, the same in all of them. It says where the NaN began if the last
            batch tells; on a GPU there may have been others since.
        """
        number = self.step_state.diverged
        if not number or self._begun is None:
            return
        step = self.step_state.diverged_step
        x, labels, sgd = self._begun
        origins = [origin for origin in each(self.find_origin(x, labels)) if origin]
        what = sgd.params[number - 1].name
        what += "" if step == self.step_state.step + 1 else f" in step {step}"
        self.diverged = divergence.error_of(
            sgd.params[number - 1].name, what, origins[0] if origins else None
        )
        raise self.diverged

    def find_origin(self, x: Array, labels: Array) -> Origin | None:
        """Runs a batch forward and backward, node by node, and looks at all of it as it is
        computed. No update is made, no gradient kept, and no other process told."""
        watch = self._watch()
        passes = self._eager.passes(self.step_nodes, watch)
        passes.backward(passes.forward(x, True, labels), lambda param, grad: None)
        return watch.origin

    def find_in_parameters(self) -> Origin | None:
        """The first node with a parameter that is not finite."""
        watch = self._watch()
        for node in self.step_nodes:
            watch.see(node.name, params=node.layer.params)
        return watch.origin

    def _watch(self) -> Watch:
        return Watch({} if self.partition is None else self.partition.origin)

    def forget_divergence(self) -> None:
        """Lets a net that has diverged train on, with the weights that it has."""
        if self.diverged is not None:
            self.diverged = None
            self.step_state.clear_diverged()
