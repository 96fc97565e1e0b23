"""Axis ticks at round values, and short texts for numbers. Standard library only."""

import math
from collections.abc import Sequence

Number = int | float


def nice_ticks(values: Sequence[Number], *, target: int = 5) -> list[float]:
    """Returns ticks at multiples of 1, 2 or 5 times a power of ten, the first and last enclosing all `values`."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)) or high - low < 1e-250:
        pad = 0.05 * abs(low) if abs(low) > 1e-200 else 0.5
        low, high = low - pad, high + pad
    rough = (high - low) / target
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return [index * step for index in range(first, last + 1)]


def nice_log_ticks(values: Sequence[Number]) -> list[float]:
    """Returns ticks at 1, 2 and 5 times powers of ten (powers alone over a wide range) that enclose all `values`."""
    low, high = (min(values), max(values)) if values else (1.0, 10.0)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, math.ceil((last - first) / 7))
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    grid = [factor * 10.0**power for power in range(first - stride, last + stride + 1, stride) for factor in factors]
    below = max(index for index, tick in enumerate(grid) if tick <= low * (1 + 1e-9))
    above = min(index for index, tick in enumerate(grid) if tick >= high * (1 - 1e-9))
    if below == above:
        below, above = below - 1, above + 1
    return grid[below : above + 1]


def tick_texts(ticks: Sequence[float], *, even: bool = True) -> list[str]:
    """Returns the ticks' labels; evenly spaced ones share their number of decimals and their suffix (k, M, G, T)."""
    largest = max(abs(tick) for tick in ticks)
    if not even or not 1e-4 <= largest < 1e15:
        return [compact_number(tick, digits=4) for tick in ticks]
    divisor, suffix = _scale(largest) if largest >= 1e4 else (1.0, "")
    decimals = max(0, -math.floor(math.log10((ticks[1] - ticks[0]) / divisor) + 1e-6))
    return ["0" if tick == 0 else f"{tick / divisor:.{decimals}f}{suffix}" for tick in ticks]


def compact_number(value: Number, *, digits: int = 3) -> str:
    """Returns a number in `digits` significant digits with a suffix (k, M, G, T) from a thousand up, or ∞ and -∞."""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if math.isnan(value) or value == 0:
        return "0" if value == 0 else "–"  # noqa: RUF001  (a dash for "no value")
    rounded = float(f"{value:.{digits - 1}e}")  # first, so that 999,999 becomes 1M and not 1000k
    divisor, suffix = _scale(abs(rounded))
    return f"{rounded / divisor:.{digits}g}{suffix}"


def _scale(largest: float) -> tuple[float, str]:
    for divisor, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if divisor <= largest < divisor * 1e3:
            return divisor, suffix
    return 1.0, ""
