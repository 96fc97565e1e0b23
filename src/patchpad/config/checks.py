"""Checks of configuration values."""

import math
from typing import Any

from patchpad.errors import ConfigError


def require(condition: bool, message: str, allowed: str) -> None:
    """Raises a ConfigError that says what is wrong and what is allowed, unless the condition holds."""
    if not condition:
        raise ConfigError(
            f"{message}; allowed: {allowed}", hint="Change the value in the YAML file or on the command line."
        )


def require_positive(section: Any, *names: str) -> None:
    """Requires integers of at least 1."""
    for name in names:
        value = getattr(section, name)
        require(value >= 1, f"{name} is {value}", "an integer of at least 1")


def require_finite(section: Any, *names: str) -> None:
    """Requires finite numbers."""
    for name in names:
        value = getattr(section, name)
        require(math.isfinite(value), f"{name} is {value}", "a finite number")
