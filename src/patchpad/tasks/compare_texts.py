"""How numbers of a comparison are written, in the terminal and on the page alike. Torch-free."""

import math
from collections.abc import Iterable

from patchpad.pages.numbers import compact_number
from patchpad.tasks.bootstrap import COVERAGE, FEW_EXAMPLES, NUM_DRAWS, Difference
from patchpad.tasks.compare import Cell, Comparison, TaskRow, is_mean_of_examples
from patchpad.tasks.ranks import KIND

SURPRISING = 0.05
"""P-values below are marked."""


def value_text(cell: Cell) -> str:
    """Returns a metric with its standard error."""
    error = cell.metric.standard_error
    return f"{cell.metric.value:.4f}" + ("" if error is None else f" ± {error:.4f}")


def threshold_text(nats: float) -> str:
    """Returns a threshold in nats with three decimals, or inf and -inf."""
    return str(nats) if math.isinf(nats) else f"{nats:.3f}"


def compute_texts(cell: Cell) -> tuple[str, str]:
    """Returns trunk calls and FLOPs per byte."""
    compute = cell.result.compute
    return f"{compute.trunk_calls_per_byte:.3f} trunk calls", f"{compact_number(compute.flops_per_byte)} FLOPs"


def difference_texts(difference: Difference) -> tuple[str, str]:
    """Returns a difference and its interval."""
    return f"{difference.mean:+.4f}", f"[{difference.low:+.4f}, {difference.high:+.4f}]"


def p_value_text(difference: Difference) -> str:
    """Returns the p-value and the number of examples that both results have."""
    return f"p = {difference.p_value:.2g}, n = {difference.num_examples:,}"


def verdict(row: TaskRow, difference: Difference) -> str:
    """Returns `better`, `worse`, or "" where the p-value is too large to say."""
    if difference.p_value >= SURPRISING:
        return ""
    return "better" if (difference.mean > 0) == row.higher_is_better else "worse"


def chance_text(row: TaskRow) -> str:
    """Returns what guessing gives, where that is known."""
    return "" if row.chance is None else f"chance {row.chance:.4f}"


def metric_text(row: TaskRow) -> str:
    """Returns a metric's name in words, and which end is good where it is the lower one."""
    return row.metric.replace("_", " ") + ("" if row.higher_is_better else ", lower is better")


def notes(comparison: Comparison) -> list[str]:
    """Returns what a reader has to know of the numbers, a sentence or two each."""
    reference = comparison.columns[0].label
    texts = ["± is the standard error over examples. Trunk calls and FLOPs are per byte."]
    if comparison.num_differences:
        texts[0] += (
            f" Differences are those to {reference}, example by example, over the n examples that both have, with the "
            f"interval that holds {COVERAGE:.0%} of {NUM_DRAWS:,} redrawn sets of examples; the p-value is two-sided, "
            "from the same draws."
        )
    if comparison.num_differences > 1:
        expected = SURPRISING * comparison.num_differences
        texts.append(
            f"{comparison.num_differences} differences are shown. If none were real, about {expected:.2g} of them "
            f"would have p < {SURPRISING} by chance alone."
        )
    cells = [(row, cell) for row in comparison.rows for cell in row.cells if cell is not None]
    few = dict.fromkeys(
        row.task for row, cell in cells if cell.difference is not None and cell.difference.num_examples < FEW_EXAMPLES
    )
    if few:
        texts.append(
            f"With fewer than {FEW_EXAMPLES} examples, intervals are too narrow and p-values too small: "
            f"{_listed(few, comparison)}."
        )
    other = dict.fromkeys(row.task for row, cell in cells if not is_mean_of_examples(cell.result, row.metric))
    if other:
        texts.append(
            "The metric is not the mean over examples, of which differences are taken, so that it may differ by "
            f"another number: {_listed(other, comparison)}."
        )
    cut = {row.task: cell.result.kind for row, cell in cells if cell.result.num_cut_examples}
    in_windows = [task for task, kind in cut.items() if kind == KIND]
    at_the_left = [task for task in cut if task not in in_windows]
    if at_the_left:
        listed = _listed(at_the_left, comparison)
        texts.append(f"The context of some examples was cut on the left to fit a model: {listed}.")
    if in_windows:
        listed = _listed(in_windows, comparison)
        texts.append(f"Some sentences were longer than a model's context and were read in windows: {listed}.")
    return texts


def _listed(tasks: Iterable[str], comparison: Comparison) -> str:
    names = list(tasks)
    return "all tasks" if len(names) == len(comparison.rows) > 1 else ", ".join(names)
