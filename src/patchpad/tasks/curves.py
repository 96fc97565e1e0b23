"""Quality against compute: a plot for each task that was measured at several thresholds."""

import math
from collections.abc import Sequence

from patchpad.files import write_atomically
from patchpad.pages.line_plot import Series, line_plot
from patchpad.tasks.folder import Evaluation
from patchpad.tasks.result import TaskResult

WIDTH, HEIGHT = 720, 400


def write_curves(evaluation: Evaluation, reference: Evaluation | None = None) -> list[str]:
    """Writes DIR/<task>.svg for each task that has several points, its own or the reference's.

    Args:
        evaluation: with the results to draw.
        reference: of another model on the same examples.

    Returns:
        The names of the files.
    """
    written = []
    for label in dict.fromkeys(result.task for result in evaluation.results):
        points = [result for result in evaluation.results if result.task == label]
        beside = [result for result in reference.results if result.task == label] if reference else []
        if len(points) + len(beside) < 2:
            continue
        names = (evaluation.suite["run"] or "model", (reference.suite["run"] or "reference") if reference else "")
        write_atomically(evaluation.path / f"{label}.svg", curve(points, beside, names))
        written.append(f"{label}.svg")
    return written


def curve(points: Sequence[TaskResult], beside: Sequence[TaskResult], names: tuple[str, str]) -> str:
    """Returns a standalone SVG of a task's main metric against FLOPs per byte; bars are standard errors.

    Args:
        points: results of one task, at least one.
        beside: those of the reference, or none.
        names: of the two models.
    """
    metric, chance = points[0].main_metric, points[0].main.chance
    series = [_series(points, names[0], 0), *([_series(beside, names[1], 1)] if beside else [])]
    return line_plot(
        series,
        title=f"{points[0].task}: {metric.replace('_', ' ')}",
        x_label="FLOPs per byte",
        y_label=metric.replace("_", " "),
        reference_lines=None if chance is None else {"chance": chance},
        width=WIDTH,
        height=HEIGHT,
        standalone=True,
    )


def _series(results: Sequence[TaskResult], name: str, look: int) -> Series:
    ordered = sorted(results, key=lambda result: result.compute.flops_per_byte)
    thresholds = [result.compute.scratchpad_threshold_nats for result in ordered]
    return Series(
        name,
        [(result.compute.flops_per_byte, result.main.value) for result in ordered],
        point_labels=[f"{value:.3g}" if math.isfinite(value) else str(value) for value in thresholds],
        deviations=[result.main.standard_error for result in ordered],
        look=look,
    )
