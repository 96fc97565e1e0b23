"""Rows of result files: choosing them, rates, ratios of runs of the same turn, and numbers for tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from measuring import median, spread

Row = Mapping[str, Any]


def chosen(rows: Sequence[Row], /, **facts: Any) -> list[Row]:
    """Returns the rows that have all the given values, in order."""
    return [row for row in rows if all(row.get(key) == value for key, value in facts.items())]


def only(rows: Sequence[Row], /, **facts: Any) -> Row:
    """Returns the one row that has all the given values."""
    (row,) = chosen(rows, **facts)
    return row


def values(rows: Sequence[Row], key: str) -> list[Any]:
    """Returns the different values of a key, in the order in which they come."""
    return list(dict.fromkeys(row[key] for row in rows if key in row))


def rates(row: Row, what: str, clock: str) -> list[float]:
    """Returns what each run did per second.

    Args:
        row: has `what` either once, the same for all runs, or as a list with a value for each.
        what: "bytes", "flops" or "moved_bytes".
        clock: "cpu" or "wall".
    """
    amounts = row[what] if isinstance(row[what], list) else [row[what]] * len(row["seconds"])
    return [amount / run[clock] for amount, run in zip(amounts, row["seconds"], strict=True)]


def rate(row: Row, what: str, clock: str) -> float:
    """Returns the median of `rates`."""
    return median(rates(row, what, clock))


def rate_ratio(top: Row, top_what: str, bottom: Row, bottom_what: str, clock: str) -> float:
    """Returns the median of the ratios of rates of runs that were made in the same turn."""
    pairs = zip(rates(top, top_what, clock), rates(bottom, bottom_what, clock), strict=True)
    return median([upper / lower for upper, lower in pairs])


def rate_cell(row: Row, what: str, clock: str, unit: float = 1.0) -> str:
    """Returns the median rate with its spread, for a table."""
    timed = rates(row, what, clock)
    return f"{digits(median(timed) / unit)} ({spread(timed):.0%})"


def digits(value: float) -> str:
    """Returns a number with three digits that count, and thousands set off."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
