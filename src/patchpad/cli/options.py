"""Option types that several commands share, and what arguments mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from cyclopts import Parameter, Token

from patchpad.text import encode_text

RunPath = Annotated[Path, Parameter(name="RUN", help="A run, or one of its step folders (RUN/checkpoints/step-N).")]
OptionalRunPath = Annotated[
    Path | None,
    Parameter(
        name="RUN",
        help="A run, or one of its step folders. Default (or bundled): the small model that ships with patchpad.",
    ),
]
MeasuredPaths = Annotated[
    list[str] | None,
    Parameter(
        name="--data",
        negative=(),
        allow_leading_hyphen=True,
        help="File, glob or directory. May be repeated. - is stdin. Default: the excerpt that ships with patchpad.",
    ),
]
TextFormat = Annotated[
    Literal["auto", "raw"], Parameter(name="--format", help="With raw, the bytes of every file are one document.")
]
TextField = Annotated[str, Parameter(name="--text-field", help="Field or column that holds the text.")]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object.")]
Draft = Annotated[
    str,
    Parameter(
        name="--draft",
        help="How many bytes to guess at once, which one call of the trunk then checks. off: none. auto: guess where "
        "it is measured to be faster. The text stays the same.",
    ),
]
KeptWeights = Annotated[
    Literal["fp32", "int8", "int8-all"],
    Parameter(
        name="--weights",
        help="How the trunk keeps its weights: int8 takes a quarter of the memory and is faster for large trunks, on a "
        "CPU; int8-all does so in the local parts too.",
    ),
]
Device = Annotated[str, Parameter(name="--device", help="auto, cpu, cuda, cuda:N or mps.")]


def draft_option(given: str) -> int | Literal["auto", "off"]:
    """Returns a number where one was given; other values are refused later."""
    return int(given) if given.isascii() and given.isdigit() else cast(Literal["auto", "off"], given)


def split_numbers(kind: Any, tokens: Sequence[Token]) -> list[float]:
    """Reads `1,2,inf`, and the same flag given several times, as one list of numbers.

    Raises:
        ValueError: a part that is not a number.
    """
    numbers = []
    for token in tokens:
        for part in token.value.split(","):
            try:
                numbers.append(float(part))
            except ValueError:
                raise ValueError(f"{part!r} is not a number; allowed: numbers, inf and -inf") from None
    return numbers


Thresholds = Annotated[
    list[float],
    Parameter(
        name="--scratchpad-threshold",
        negative=(),
        allow_leading_hyphen=True,
        converter=split_numbers,
        help="In nats, inf (no scratchpads) or -inf (at every byte). For several: 1,2,inf, or repeat the flag.",
    ),
]


def argument_bytes(text: str) -> bytes:
    """Returns an argument as UTF-8; bytes that the locale could not decode come back as they were typed."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return encode_text(text)
