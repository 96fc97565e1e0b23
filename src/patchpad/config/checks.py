"""Checks of configuration values."""

import math
from typing import Any

from patchpad.errors import ConfigError

LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127
"""Thresholds are stored with the weights, in fp32."""


def require(condition: bool, message: str, allowed: str) -> None:
    """Raises a ConfigError that says what is wrong and what is allowed, unless the condition holds."""
    if not condition:
        raise ConfigError(
            f"{message}; allowed: {allowed}", hint="Change the value in the YAML file or on the command line."
        )


def require_positive(section: Any, *names: str) -> None:
    """Requires integers of at least 1 that 64 bits can hold."""
    for name in names:
        value = getattr(section, name)
        require(1 <= value < 2**63, f"{name} is {value}", "an integer of at least 1, below 2^63")


def require_finite(section: Any, *names: str) -> None:
    """Requires finite numbers."""
    for name in names:
        value = getattr(section, name)
        require(math.isfinite(value), f"{name} is {value}", "a finite number")


def require_threshold(name: str, value: float) -> None:
    """Requires a threshold that fp32 can hold: any number or infinity, no NaN."""
    require(not math.isnan(value), f"{name} is nan", "a number, inf or -inf")
    require(
        math.isinf(value) or abs(value) <= LARGEST_FLOAT32,
        f"{name} is {value}",
        f"a number from {-LARGEST_FLOAT32:.6e} to {LARGEST_FLOAT32:.6e}, inf or -inf",
    )
