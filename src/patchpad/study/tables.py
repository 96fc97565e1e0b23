"""The tables of a study. Torch-free."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from patchpad.pages.markdown import markdown_table
from patchpad.study.plots import CLASS_NAMES
from patchpad.study.summary import Arm, Comparison, Spread

NOTHING = "–"  # noqa: RUF001  (a dash for "does not apply")
BITS = "bits per byte"
Cell = Callable[[Arm], str]


def _entropy_head(arm: Arm) -> str:
    count = arm.first["parameters"].get("entropy_head")
    return f"{count:,}" if count else NOTHING


def _at(key: str, digits: int) -> Cell:
    return lambda arm: number(arm.at(key), digits)


def _measured(key: str) -> Cell:
    return lambda arm: number(arm.spread(lambda one: one["measured"][key]), 4)


def _trained(key: str, digits: int) -> Cell:
    return lambda arm: number(arm.spread(lambda one: one["training"][key]), digits)


def _lag(arm: Arm) -> str:
    return number(arm.spread(lambda one: (one["measured"]["stored"] or {}).get("mean_patch_lag")), 2)


ARM_COLUMNS: dict[str, Cell] = {
    "seeds": lambda arm: str(len(arm.results)),
    "parameters": lambda arm: f"{sum(arm.first['parameters'].values()):,}",
    "of these, entropy head": _entropy_head,
    "scratchpads per byte": _at("scratchpads_per_byte", 4),
    "trunk calls per byte": _at("trunk_calls_per_byte", 4),
    "FLOPs per byte": _at("flops_per_byte", 0),
    "trunk KV bytes per byte": _at("trunk_cache_bytes_per_byte", 1),
    BITS: lambda arm: with_spread(arm.at("bits_per_byte")),
    "without the trunk's context": _measured("null_context_bits_per_byte"),
    "the head's bits per byte": _measured("entropy_head_bits_per_byte"),
    "mean patch lag": _lag,
    "bytes per second in training": _trained("bytes_per_second", 0),
}
"""Heading -> what an arm's cell holds: quality and cost at its stored threshold."""


@dataclass(frozen=True)
class Table:
    """Cells in plain text; each row begins with an arm's label."""

    headings: tuple[str, ...]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Returns it as Markdown, or "" if it has no rows."""
        return markdown_table(self.headings, self.rows) if self.rows else ""


def arms_table(comparison: Comparison, columns: Mapping[str, Cell] = ARM_COLUMNS) -> Table:
    """Returns a row for each arm and each compressor; of the latter, bits per byte alone are known."""
    rows = [[arm.label, *(cell(arm) for cell in columns.values())] for arm in comparison.arms]
    for name, bits in comparison.arms[0].first["compressors"].items():
        known = (f"{bits:.4f}" if heading == BITS else NOTHING for heading in columns)
        rows.append([f"{name} (compressor)", *known])
    return Table(("arm", *columns), rows)


def differences_table(comparison: Comparison, reference: Arm) -> Table:
    """Returns bits per byte less those of the reference arm, per equal seed; no rows if nothing can be compared."""
    rows = [[arm.label, *difference_cells(found, base)] for arm, found, base in comparison.differences(reference)]
    return Table(("arm", *DIFFERENCE_HEADINGS), rows)


DIFFERENCE_HEADINGS = ("bits per byte, difference", "of the reference", "seeds in common", "each seed")


def difference_cells(found: Spread, base: float) -> list[str]:
    """Returns a difference, its share of the reference's mean, the number of seeds and each seed's."""
    each = ", ".join(f"{value:+.4f}" for value in found.values)
    return [with_spread(found, sign="+"), percent(found.mean, base), str(len(found.values)), each]


def threshold_table(comparison: Comparison) -> Table:
    """Returns the points of all arms that have more than one; no rows if none has."""
    rows = []
    for arm in comparison.arms:
        points = arm.points()
        for at in points if len(points) > 1 else ():
            keys = (("scratchpads_per_byte", 4), ("trunk_calls_per_byte", 4), ("flops_per_byte", 0))
            cells = [number(arm.at(key, at), digits) for key, digits in keys]
            rows.append([arm.label, at, *cells, with_spread(arm.at("bits_per_byte", at))])
    headings = ("arm", "at", "scratchpads per byte", "trunk calls per byte", "FLOPs per byte", BITS)
    return Table(headings, rows)


def classes_table(comparison: Comparison) -> Table:
    """Returns scratchpads per byte of each class; no rows if no arm has any."""
    rates = {arm: arm.class_rates() for arm in comparison.arms}
    shown = [arm for arm in comparison.arms if any(rates[arm].values())]
    names = [name for name in CLASS_NAMES if any(name in rates[arm] for arm in shown)]
    rows = [
        [arm.label, *(f"{rates[arm][name]:.3f}" if name in rates[arm] else NOTHING for name in names)] for arm in shown
    ]
    return Table(("arm", *(CLASS_NAMES[name] for name in names)), rows)


TRAINING_COLUMNS: dict[str, Cell] = {
    "seeds": lambda arm: " ".join(str(one["seed"]) for one in arm.results),
    "steps": lambda arm: f"{arm.first['training']['steps']:,}",
    "bytes seen": _trained("bytes_seen", 0),
    "learning rate": lambda arm: f"{arm.first['config']['train']['learning_rate']:g}",
    "wall seconds": _trained("wall_seconds", 1),
    "processor seconds": _trained("processor_seconds", 1),
}


def training_table(comparison: Comparison) -> Table:
    """Returns bytes seen, times and learning rate of each arm."""
    rows = [[arm.label, *(cell(arm) for cell in TRAINING_COLUMNS.values())] for arm in comparison.arms]
    return Table(("arm", *TRAINING_COLUMNS), rows)


def number(spread: Spread | None, digits: int) -> str:
    """Returns a mean, or a dash."""
    return NOTHING if spread is None else f"{spread.mean:,.{digits}f}"


def with_spread(spread: Spread | None, *, sign: str = "") -> str:
    """Returns a mean with its standard deviation over seeds, or a dash."""
    if spread is None:
        return NOTHING
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.4f}"
    return f"{spread.mean:{sign}.4f}{deviation}"


def percent(difference: float, base: float) -> str:
    """Returns a difference in percent of what it is a difference from."""
    return f"{100 * difference / base:+.2f} %"
