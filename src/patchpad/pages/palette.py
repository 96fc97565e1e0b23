"""The colours of what texts, figures and plots are marked with: one for each thing, everywhere.

Most are of Okabe and Ito, told apart by every common kind of colour vision; what shares a picture differs in shape too.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """A colour on light and on dark paper, as #rrggbb."""

    light: str
    dark: str


PALETTE = {
    "commit": Colour("#0072b2", "#56b4e9"),
    "scratchpad": Colour("#d55e00", "#ff8f57"),
    "lag": Colour("#cc79a7", "#cc79a7"),
    "entropy": Colour("#e69f00", "#e69f00"),
    "saved": Colour("#009e73", "#2bb88c"),
    "lost": Colour("#b83280", "#e36db1"),
}
"""`saved` and `lost` are bits that scratchpads save, and those that they cost."""


def palette_variables(*, dark: bool = False) -> str:
    """Returns CSS declarations: `--commit` and the like, and `--commit-rgb` and the like as three numbers."""
    found = []
    for name, colour in PALETTE.items():
        value = colour.dark if dark else colour.light
        numbers = " ".join(str(int(value[place : place + 2], 16)) for place in (1, 3, 5))
        found += [f"--{name}:{value}", f"--{name}-rgb:{numbers}"]
    return ";".join(found)
