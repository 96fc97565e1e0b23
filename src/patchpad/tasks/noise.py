"""Seeded noise in text: typing errors, letter case, repeated, dropped, swapped characters, homoglyphs, broken UTF-8.

Each kind changes each character that it can change with the probability `rate`, one by one and independently. The
random numbers come from the seed, the kind and a name of the place, so a text gets the same noise whatever was read
before it. All kinds but `invalid_utf8` turn valid UTF-8 into valid UTF-8.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from patchpad.errors import ConfigError, near_matches, number_or_nan
from patchpad.text import encode_text

KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
"""Rows of letters on a US keyboard; each row is shifted by about half a key against the one above."""

HOMOGLYPHS = dict(
    zip(
        "aceijopsxyABCEHIJKMOPSTXYZ",
        "\u0430\u0441\u0435\u0456\u0458\u043e\u0440\u0455\u0445\u0443"  # Cyrillic
        "\u0410\u0412\u0421\u0415\u041d\u0406\u0408\u041a\u041c\u041e\u0420\u0405\u0422\u0425\u03a5\u0396",
        strict=True,
    )
)
"""Latin letters and what looks the same in most fonts: Cyrillic letters, and the Greek capitals Upsilon and Zeta."""

NEVER_IN_PLACE = (*range(0x80, 0xC2), *range(0xF5, 0x100))
"""Bytes that are invalid wherever a character may begin: those that continue one, those that UTF-8 never has."""

MOST_COPIES = 4
"""Of a repeated character, itself included."""


def _neighbours() -> dict[str, str]:
    """Returns the keys that touch each letter's key, for both cases."""
    found: dict[str, str] = {}
    for number, row in enumerate(KEYBOARD):
        for place, letter in enumerate(row):
            beside = [row[at] for at in (place - 1, place + 1) if 0 <= at < len(row)]
            above = KEYBOARD[number - 1][place : place + 2] if number else ""
            below = KEYBOARD[number + 1][max(place - 1, 0) : place + 1] if number + 1 < len(KEYBOARD) else ""
            found[letter] = "".join(beside) + above + below
            found[letter.upper()] = found[letter].upper()
    return found


NEIGHBOURS = _neighbours()

Draw = Callable[[], float]
"""Returns the next random number in [0, 1)."""


def _picked(draw: Draw, choices: str) -> str:
    return choices[int(draw() * len(choices))]


def _typo(text: str, rate: float, draw: Draw) -> str:
    return "".join(_picked(draw, NEIGHBOURS[c]) if c in NEIGHBOURS and draw() < rate else c for c in text)


def _case(text: str, rate: float, draw: Draw) -> str:
    return "".join(c.swapcase() if c.swapcase() != c and draw() < rate else c for c in text)


def _uppercase(text: str, rate: float, draw: Draw) -> str:
    return "".join(c.upper() if c.upper() != c and draw() < rate else c for c in text)


def _repeat(text: str, rate: float, draw: Draw) -> str:
    return "".join(c * (2 + int(draw() * (MOST_COPIES - 1))) if draw() < rate else c for c in text)


def _drop(text: str, rate: float, draw: Draw) -> str:
    kept = "".join(c for c in text if draw() >= rate)
    return kept or text[int(draw() * len(text)) :][:1]  # a choice without any byte could not be scored


def _swap(text: str, rate: float, draw: Draw) -> str:
    characters, at = list(text), 0
    while at + 1 < len(characters):
        if characters[at].isalpha() and characters[at + 1].isalpha() and draw() < rate:
            characters[at : at + 2] = characters[at + 1], characters[at]
            at += 1
        at += 1
    return "".join(characters)


def _homoglyph(text: str, rate: float, draw: Draw) -> str:
    return "".join(HOMOGLYPHS[c] if c in HOMOGLYPHS and draw() < rate else c for c in text)


def _invalid_utf8(text: str, rate: float, draw: Draw) -> str:
    def broken() -> str:
        return bytes([NEVER_IN_PLACE[int(draw() * len(NEVER_IN_PLACE))]]).decode("utf-8", "surrogateescape")

    return "".join(broken() if draw() < rate else c for c in text)


def _antspeak(text: str, rate: float, draw: Draw) -> str:
    return " ".join(text.upper())


@dataclass(frozen=True)
class Kind:
    """One kind of noise."""

    apply: Callable[[str, float, Draw], str]
    default_rate: float
    text: str
    """What it does, for documentation and errors."""


KINDS = {
    "typo": Kind(_typo, 0.05, "a letter becomes one whose key touches its own, on a US keyboard"),
    "case": Kind(_case, 0.5, "a letter changes its case; at 0.5, every letter's case is a coin's"),
    "uppercase": Kind(_uppercase, 1.0, "a letter becomes a capital"),
    "repeat": Kind(_repeat, 0.2, "a character stands two to four times"),
    "drop": Kind(_drop, 0.1, "a character is missing; one character always stays"),
    "swap": Kind(_swap, 0.05, "two letters side by side change places"),
    "homoglyph": Kind(_homoglyph, 0.1, "a Latin letter becomes a Cyrillic or Greek one that looks the same"),
    "invalid_utf8": Kind(_invalid_utf8, 0.05, "a character becomes a byte that no character begins with"),
    "antspeak": Kind(_antspeak, 1.0, "capitals with a space between all characters; always the whole text"),
}


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Noise as an entry of a suite asks for it."""

    kind: str
    """One of `KINDS`."""
    rate: float | int | None = None
    """Probability of a change, for each character that the kind can change; None: the kind's own."""
    seed: int = 0
    where: Literal["context", "both"] | None = None
    """`context`, or `both` contexts and what is scored after them; None: see `reaches_choices`."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"noise.kind is {self.kind!r}", hint=near_matches(str(self.kind), KINDS))
        if self.rate is None:
            object.__setattr__(self, "rate", KINDS[self.kind].default_rate)
        if not 0 < number_or_nan(self.rate) <= 1:
            raise ConfigError(f"noise.rate is {self.rate!r}; allowed: a number above 0, up to 1")
        if self.kind == "antspeak" and self.rate != 1:
            raise ConfigError(f"noise.rate is {self.rate!r} with the kind `antspeak`; allowed: 1, or leave it out")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise ConfigError(f"noise.seed is {self.seed!r}; allowed: an integer")

    def reaches_choices(self, task_kind: str) -> bool:
        """Returns whether noise is in what is scored too, and not in the context alone.

        With None in `where` it is for `choices` alone: all choices suffer alike there, so the question stays the same.
        What other tasks score is what the model should write, and noise in that would ask it to guess the noise.
        """
        return self.where == "both" or (self.where is None and task_kind == "choices")

    def change(self, text: str, example: str) -> str:
        """Returns a text of an example with noise; its draws depend on seed, kind, the example's id and the text.

        So choices of one length do not all change at the same places, and the order of texts does not matter.

        Args:
            text: bytes that are not UTF-8 stand in it as lone surrogates, as `surrogateescape` makes them, here and in
                what is returned.
            example: its id.
        """
        return self._applied(text, f"{example}/{text}")

    def _applied(self, text: str, place: str) -> str:
        assert self.rate is not None
        seed = f"{self.seed}/{self.kind}/{place}".encode("utf-8", "surrogatepass")
        return KINDS[self.kind].apply(text, self.rate, random.Random(seed).random)


def noisy(text: str | bytes, kind: str, rate: int | float | None = None, seed: int = 0, place: str = "") -> bytes:
    """Returns a text with noise, as bytes.

    Args:
        text: bytes that are not UTF-8 count as a character each.
        kind: one of `KINDS`.
        rate: probability of a change, for each character that the kind can change; None: the kind's own.
        seed: the same one gives the same noise at a place.
        place: name of the text, such as the example's id and its field.

    Raises:
        ConfigError: an unknown kind, or a rate that is not above 0 and up to 1.
    """
    noise = Noise(kind=kind, rate=rate, seed=seed)
    characters = encode_text(text).decode("utf-8", "surrogateescape")
    return noise._applied(characters, place).encode("utf-8", "surrogateescape")
