"""Axis ticks at round values. Standard library only."""

import math
from collections.abc import Sequence

from patchpad.pages.numbers import Number, compact_number, scale_of


def nice_ticks(values: Sequence[Number], *, target: int = 5) -> list[float]:
    """Returns ticks at multiples of 1, 2 or 5 times a power of ten, the first and last enclosing all `values`."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)) or high - low < 1e-250:
        pad = 0.05 * abs(low)
        low, high = (low - pad, high + pad) if abs(low) > 1e-200 else (0.0, 1.0)
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
    divisor, suffix = scale_of(largest) if largest >= 1e4 else (1.0, "")
    decimals = max(0, -math.floor(math.log10((ticks[1] - ticks[0]) / divisor) + 1e-6))
    return ["0" if tick == 0 else f"{tick / divisor:.{decimals}f}{suffix}" for tick in ticks]
