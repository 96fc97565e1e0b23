"""Sections of a configuration: dataclasses whose fields are checked for type and range when they are made."""

import dataclasses
import functools
import math
import typing
from typing import Annotated, Any, ClassVar

from patchpad.config.conversion import CHANGE_IT, Range, convert
from patchpad.errors import ConfigError

LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127
"""Thresholds are stored with the weights, in fp32."""

Positive = Annotated[int, Range("an integer of at least 1, below 2^63", lambda value: value >= 1)]
NotNegative = Annotated[int, Range("an integer of at least 0, below 2^63", lambda value: value >= 0)]
AboveZero = Annotated[float, Range("a number above 0", lambda value: 0 < value < math.inf)]
AboveOne = Annotated[float, Range("a number above 1", lambda value: 1 < value < math.inf)]
AtLeastZero = Annotated[float, Range("a number of at least 0", lambda value: 0 <= value < math.inf)]
Share = Annotated[float, Range("a number from 0 to 1", lambda value: 0 <= value <= 1)]
BetweenZeroAndOne = Annotated[float, Range("a number between 0 and 1, both excluded", lambda value: 0 < value < 1)]
ShareBelowOne = Annotated[float, Range("a number from 0 to below 1", lambda value: 0 <= value < 1)]
Nats = Annotated[
    float,
    Range(
        f"a number from {-LARGEST_FLOAT32:.6e} to {LARGEST_FLOAT32:.6e}, inf or -inf",
        lambda value: math.isinf(value) or abs(value) <= LARGEST_FLOAT32,
    ),
]


class Section:
    """Base of the configuration's dataclasses.

    Making one converts each field to its declared type and checks its range, whether values come from Python or from a
    file; then `check` looks at what fields mean together.
    """

    SECTION: ClassVar[str] = ""
    """Dotted path of the section, for messages."""

    def __post_init__(self) -> None:
        prefix = f"{self.SECTION}." if self.SECTION else ""
        for name, kind in field_types(type(self)).items():
            value = convert(kind, getattr(self, name), prefix + name)
            object.__setattr__(self, name, value)
        self.check()

    def check(self) -> None:
        """Checks what single fields cannot say.

        Raises:
            ConfigError: fields that do not fit each other.
        """

    def require(self, condition: bool, message: str, allowed: str) -> None:
        """Raises a ConfigError that says what is wrong and what is allowed, unless the condition holds.

        Args:
            condition: what has to hold.
            message: starts with the name of a field of this section.
            allowed: what is allowed.
        """
        if not condition:
            prefix = f"{self.SECTION}." if self.SECTION else ""
            raise ConfigError(f"{prefix}{message}; allowed: {allowed}", hint=CHANGE_IT)


@functools.cache
def field_types(section: type) -> dict[str, Any]:
    """Returns the declared type of each field of a dataclass, with its `Range` if it has one."""
    hints = typing.get_type_hints(section, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(section)}
