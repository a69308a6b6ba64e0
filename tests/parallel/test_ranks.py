"""Data parallelism in several processes, under MPI: the run of one process, and what ends a job."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import time

import pytest
from as_one_process import assert_close
from mpi import MPIEXEC, OPEN_MPI, needs_mpi
from tiny import command, environment, metrics, write_config, write_data

import convnet
from convnet.common import environment as variables
from convnet.training.checkpoint import read
from convnet.training.run_folder import RunError


def mpiexec_is_hydra():
    """Whether it is that of MPICH and its relatives."""
    words = [MPIEXEC, "--version"]
    return "HYDRA" in subprocess.run(words, capture_output=True, text=True, check=False).stdout


def mpirun(ranks, *words, cwd, timeout=100, **variables):
    """Runs a command in several processes; `variables` are added to the environment."""
    return subprocess.run(
        [MPIEXEC, "-n", str(ranks), *words],
        cwd=cwd,
        env=environment(**OPEN_MPI, **variables),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def newest(run):
    return read(max((run / "checkpoints").glob("step-*.safetensors"))).arrays


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A folder with data, a configuration with dropout, crops, mirrors and noise, and the run of
    one process."""
    folder = tmp_path_factory.mktemp("mpi")
    augment = {"pad": 1, "crop": [8, 8], "mirror": True, "colour_noise": 0.1}
    path = write_config(folder / "tiny.toml", write_data(folder / "data"), augment=augment)
    convnet.train(path, device="cpu", run_dir=folder / "one", quiet=True)
    return folder


@needs_mpi
@pytest.mark.parametrize(("ranks", "device"), [(2, "cpu"), (4, "cpu"), (3, "cpu:0,cpu:1")])
def test_ranks_follow_one_process(one, tmp_path, ranks, device):
    run = tmp_path / "run"
    words = command("train", one / "tiny.toml", "--device", device, "--run-dir", run)
    result = mpirun(ranks, *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert_close(newest(run), newest(one / "one"))
    assert result.stdout.count("done: best") == 1  # only one process prints
    assert result.stdout.count(f"ranks     {ranks} processes") == 1
    found, expected = metrics(run), metrics(one / "one")
    assert len(found) == len(expected)
    for line, right in zip(found, expected, strict=True):
        assert line.keys() == right.keys()
        for key, value in right.items():
            assert line[key] == (pytest.approx(value, rel=1e-4) if key != "kind" else value), key


@needs_mpi
def test_ranks_with_first_weights_frozen_layers_and_a_board(one, tmp_path):
    words = ["--device", "cpu:0,cpu:1", "--tensorboard", "--epochs", "2"]
    words += ["--init", one / "one", "--set", "net.lr_mult.conv1=0"]
    runs = {count: tmp_path / f"run{count}" for count in (1, 3)}
    for count, run in runs.items():
        begin = command("train", one / "tiny.toml", "--run-dir", run, *words)
        result = mpirun(count, *begin, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert len(list((run / "tensorboard").iterdir())) == 1  # of rank 0
        assert [list(line["update_ratio"]) for line in metrics(run) if "update_ratio" in line] == [
            ["fc2"]
        ] * 2
    assert "to train at batch 16 in each of 3 processes; " in result.stdout
    assert result.stdout.count("conv1 frozen") == 1
    assert_close(newest(runs[3]), newest(runs[1]))


@needs_mpi
def test_resume_with_any_number(one, tmp_path):
    run = tmp_path / "run"
    train = command("train", one / "tiny.toml", "--device", "cpu", "--run-dir", run)
    assert mpirun(2, *train, "--epochs", "1", cwd=tmp_path).returncode == 0
    resume = command("train", "--resume", run, "--device", "cpu")
    assert mpirun(4, *resume, "--epochs", "2", cwd=tmp_path).returncode == 0
    assert subprocess.run([*resume, "--epochs", "3"], cwd=tmp_path, env=environment(),
                          capture_output=True, check=False).returncode == 0  # fmt: skip
    assert_close(newest(run), newest(one / "one"))
    assert len(metrics(run)) == len(metrics(one / "one"))


@needs_mpi
def test_a_rank_that_dies_ends_the_job(one, tmp_path):
    run = tmp_path / "run"
    script = tmp_path / "dies.py"
    script.write_text(
        textwrap.dedent(f"""
        import os, signal
        import convnet
        from convnet.nn.net import Net
        from mpi4py import MPI

        gradients = Net.start_gradients

        def dying(self, *arguments, **options):
            if MPI.COMM_WORLD.rank == 1 and self.step == 14:
                os.kill(os.getpid(), signal.SIGKILL)
            return gradients(self, *arguments, **options)

        Net.start_gradients = dying
        convnet.train({str(one / "tiny.toml")!r}, device="cpu", run_dir={str(run)!r})
    """)
    )
    start = time.monotonic()
    result = mpirun(4, sys.executable, str(script), cwd=tmp_path, timeout=60)
    assert result.returncode != 0
    assert time.monotonic() - start < 30
    resume = command("train", "--resume", run, "--device", "cpu")
    assert mpirun(2, *resume, cwd=tmp_path).returncode == 0
    assert_close(newest(run), newest(one / "one"))


@needs_mpi
@pytest.mark.parametrize(("rank", "where"), [(0, "start_gradients"), (2, "_finish_epoch")])
def test_a_rank_that_hangs_ends_the_job(one, tmp_path, where, rank):
    """It is alive and does nothing: in the middle of a step, or before validation."""
    run = tmp_path / "run"
    script = tmp_path / "hangs.py"
    script.write_text(
        textwrap.dedent(f"""
        import os, signal, sys
        from convnet.cli import main as cli
        from convnet.nn.net import Net
        from convnet.training.trainer import Trainer
        from mpi4py import MPI

        owner = Net if {where!r} == "start_gradients" else Trainer
        plain = getattr(owner, {where!r})

        def hanging(self, *arguments, **options):
            step = self.step if owner is Net else self.net.step
            if MPI.COMM_WORLD.rank == {rank} and step >= 14:
                os.kill(os.getpid(), signal.SIGSTOP)
            return plain(self, *arguments, **options)

        setattr(owner, {where!r}, hanging)
        sys.exit(cli.main(sys.argv[1:]))
    """)
    )
    words = ["train", one / "tiny.toml", "--device", "cpu", "--run-dir", run]
    start = time.monotonic()
    result = mpirun(
        3, sys.executable, str(script), *map(str, words), cwd=tmp_path, timeout=100,
        CONVNET_MPI_TIMEOUT="2",
    )  # fmt: skip
    assert result.returncode != 0
    assert re.search(
        rf"convnet: error: rank \d of 3: rank {rank} of 3 did not take part in .* within 2 s; "
        r"the last checkpoint is .*step-0",
        result.stderr,
    ), result.stderr
    assert "Traceback" not in result.stderr
    resumed = None
    while resumed is None:
        try:
            resumed = convnet.train(resume=run, device="cpu", quiet=True)
        except RunError:  # the process that hangs has not been killed yet
            assert time.monotonic() - start < 60
            time.sleep(0.2)
    assert_close(newest(run), newest(one / "one"))


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
def test_a_timeout_that_makes_no_sense(monkeypatch, text):
    monkeypatch.setenv("CONVNET_MPI_TIMEOUT", text)
    with pytest.raises(ValueError, match="CONVNET_MPI_TIMEOUT: expected a number of seconds"):
        variables.seconds("CONVNET_MPI_TIMEOUT", 300)


@needs_mpi
@pytest.mark.parametrize(("rank", "count"), [(0, 1), (1, 1)])
def test_an_error_in_one_rank_ends_the_job(one, tmp_path, rank, count):
    script = tmp_path / "fails.py"
    script.write_text(
        textwrap.dedent(f"""
        import convnet
        from convnet.data import Dataset, DataError
        from convnet.data.loader import Loader
        from mpi4py import MPI

        vary = Loader._vary

        def failing(self, epoch, indices):
            if MPI.COMM_WORLD.rank == {rank} and epoch == 1:
                raise DataError("image 5: it is not there")
            return vary(self, epoch, indices)

        Loader._vary = failing
        convnet.train({str(one / "tiny.toml")!r}, device="cpu", run_dir={str(tmp_path / "run")!r})
    """)
    )
    result = mpirun(2, sys.executable, str(script), cwd=tmp_path, timeout=60)
    assert result.returncode != 0
    message = f"convnet: error: rank {rank} of 2: image 5: it is not there"
    assert result.stderr.count(message) == count
    assert "Traceback" not in result.stderr


@needs_mpi
def test_a_signal_saves_the_run(one, tmp_path):
    script, run = tmp_path / "slow.py", tmp_path / "run"
    script.write_text(
        textwrap.dedent("""
        import sys, time
        from convnet.cli import main as cli
        from convnet.nn.net import Net

        gradients = Net.start_gradients

        def slow(self, *arguments, **options):
            time.sleep(0.1)
            return gradients(self, *arguments, **options)

        Net.start_gradients = slow
        sys.exit(cli.main(sys.argv[1:]))
    """)
    )
    words = [MPIEXEC, "-n", "2", sys.executable, script, "train", one / "tiny.toml"]
    process = subprocess.Popen(
        [str(word) for word in [*words, "--device", "cpu", "--run-dir", run]],
        cwd=tmp_path, env=environment(**OPEN_MPI), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not list(run.glob("checkpoints/step-*4.safetensors")) and time.monotonic() < end:
        time.sleep(0.05)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    if mpiexec_is_hydra():  # Open MPI's ends the processes before they have saved
        assert process.returncode == 143, err
        assert out.count("interrupted at step ") == 1
    resumed = convnet.train(resume=run, device="cpu", quiet=True)
    assert resumed.status == "done"
    assert_close(newest(run), newest(one / "one"))


@needs_mpi
def test_bad_input_is_said_once(one, tmp_path):
    path = write_config(tmp_path / "wrong.toml", one / "data", train={"batch": 3})
    words = command("train", path, "--device", "cpu", "--run-dir", tmp_path / "run")
    result = mpirun(4, *words, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.count("convnet: error: rank 0 of 4:") == 1
    assert "expected at least 4, an image for each process, got 3" in result.stderr
    assert not (tmp_path / "run").exists()
