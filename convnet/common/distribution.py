"""The distribution that this package comes in: its name, its extras, and what may lie over it.

The import name and the command are `convnet`, the distribution is not: `convnet` on PyPI is another
project, which installs files into a folder of the same name.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Literal

from convnet.common.exit_codes import FAILED
from convnet.common.typecheck import ConfigError

DISTRIBUTION = "convnet-kernels"
VERSION = "0.1.0"
OTHER = "convnet"  # the other project's, and this one's before it was renamed

Extra = Literal["completion", "cuda12", "cuda13", "dedup", "faiss", "mpi", "plot", "tensorboard"]


class InstallationError(ImportError):
    """This package's files are not all here, or not all its own."""

    exit_code = FAILED


def version(name: str) -> str | None:
    """The version of an installed distribution, or None."""
    import importlib.metadata  # takes as long as the rest of `import convnet`

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def how_to_install(extra: Extra) -> str:
    """The command that installs what an extra consists of."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def require(module: str, extra: Extra, purpose: str) -> ModuleType:
    """Imports an optional module.

    Args:
        module: its name.
        extra: the one that installs it.
        purpose: what needs it; the error begins with that.

    Raises:
        ConfigError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            found = f"is not installed: {how_to_install(extra)}"
        else:
            found = f"cannot be imported: {str(error).strip().partition(chr(10))[0]}"
        raise ConfigError(f"{purpose}: {module} {found}") from None


def check_package() -> None:
    """Called by modules that run although the package's own `__init__.py` may not have.

    Raises:
        InstallationError: another distribution has put its own there, or taken this one's away.
    """
    package = sys.modules["convnet"]
    if getattr(package, "__distribution__", None) == DISTRIBUTION:
        return
    where = package.__file__ or f"{next(iter(package.__path__))}/__init__.py (which is missing)"
    raise InstallationError(f"{where} is not that of {DISTRIBUTION}. {_repair()}")


def overlap() -> str | None:
    """What is wrong where both distributions are installed; None where this one is alone."""
    found = version(OTHER)
    if found is None:
        return None
    return f"the distribution {OTHER} {found} is installed beside {DISTRIBUTION}. {_repair()}"


def _repair() -> str:
    return (
        f"{OTHER} on PyPI is another project, with files in the same folder: "
        f"pip uninstall {OTHER} {DISTRIBUTION}, then install {DISTRIBUTION} again"
    )
