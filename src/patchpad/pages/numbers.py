"""Short texts for numbers. Standard library only."""

import math

Number = int | float


def compact_number(value: Number, *, digits: int = 3) -> str:
    """Returns a number in `digits` significant digits with a suffix (k, M, G, T) from a thousand up, or ∞ and -∞."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if math.isnan(value) or value == 0:
        return "0" if value == 0 else "–"  # noqa: RUF001  (a dash for "no value")
    rounded = float(f"{value:.{digits - 1}e}")  # first, so that 999,999 becomes 1M and not 1000k
    divisor, suffix = scale_of(abs(rounded))
    return f"{rounded / divisor:.{digits}g}{suffix}"


def scale_of(largest: float) -> tuple[float, str]:
    """Returns a power of a thousand and its suffix: (1e6, "M") for millions; (1, "") outside of 1e3 to 1e15."""
    for divisor, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if divisor <= largest < divisor * 1e3:
            return divisor, suffix
    return 1.0, ""
