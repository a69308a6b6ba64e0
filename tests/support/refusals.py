"""How a function refuses a file, in a process with little memory and time (see limited.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from limited import limited

from convnet.config import ConfigError
from convnet.data import DataError
from convnet.training import checkpoint


def refused(message: str, function: Callable[..., Any], *arguments: Any) -> None:
    """The call must end with the one error that bad files have, and soon."""
    with pytest.raises(
        (DataError, ConfigError, checkpoint.CheckpointError), match=message
    ) as found:
        limited(lambda: function(*arguments))
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 1000
