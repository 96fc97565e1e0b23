"""The plots of a report: quality against compute, and the course of training. Standard library only."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from patchpad.files import json_float
from patchpad.pages.curves import smoothed
from patchpad.pages.line_plot import Series, line_plot
from patchpad.pages.numbers import Number, compact_number
from patchpad.pages.svg import escape_text

PLOT_WIDTH, PLOT_HEIGHT = 460, 330  # narrow, so that text stays readable when a phone shrinks the plot


def tradeoff_figure(
    points: Sequence[dict[str, Any]],
    stored: dict[str, Any] | None,
    baselines: Mapping[str, Number],
    *,
    key: str,
    x_label: str,
    element_id: str,
) -> str:
    """Returns a figure of bits per byte against a kind of compute.

    Args:
        points: evaluation points, at least one.
        stored: the one of them to mark.
        baselines: bits per byte of others; those near the curve are drawn as lines, those far away are named below.
        key: which compute: `trunk_calls_per_byte` or `flops_per_byte`.
        x_label: its name and unit.
        element_id: unique within the page.
    """
    points = sorted(points, key=lambda point: point[key])
    positions = [(float(point[key]), float(point["bits_per_byte"])) for point in points]
    # The line passes through the stored point too, but that point's label belongs to its own marker.
    labels = ["" if point is stored else nats_text(threshold_of(point), digits=2) for point in points]
    series = [Series("all thresholds" if len(points) > 1 else "", positions, point_labels=labels)]
    if stored is not None:
        chosen = (float(stored[key]), float(stored["bits_per_byte"]))
        label = nats_text(threshold_of(stored), digits=2)
        series.append(Series("stored threshold", [chosen], point_labels=[label]))
    low, high = min(y for _, y in positions), max(y for _, y in positions)
    reach = max(1.5 * (high - low), 0.02 * high)  # a far line would squeeze the curve flat
    near = {name: value for name, value in baselines.items() if low - reach <= value <= high + reach}
    far = [f"{name} ({value:.3f})" for name, value in baselines.items() if name not in near]
    plot = line_plot(
        series,
        title=f"Bits per byte against {x_label.split(' (')[0]}",
        x_label=x_label,
        y_label="bits per byte",
        width=PLOT_WIDTH,
        height=PLOT_HEIGHT,
        reference_lines=near,
        element_id=element_id,
    )
    verb = "lies" if len(far) == 1 else "lie"
    return _figure(plot, f"Outside the plot {verb} {', '.join(far)}." if far else "")


def training_figure(training: Sequence[dict[str, Any]]) -> str:
    """Returns a figure of bits per byte while training, or "" when no line has any."""
    train = _finite_pairs(training, "train/bpb")
    validation = _finite_pairs(training, "val/bpb")
    if not train and not validation:
        return ""
    window = max(1, len(train) // 40) | 1
    largest = max(x for x, _ in [*train, *validation])
    scale, unit = next(((s, u) for s, u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if largest >= s), (1.0, "bytes"))
    plot = line_plot(
        [
            Series("training", [(x / scale, y) for x, y in smoothed(train, window)], marker=False),
            Series("validation", [(x / scale, y) for x, y in validation], line=False),
        ],
        title="Bits per byte while training",
        x_label=f"bytes of training text seen ({unit})",
        y_label="bits per byte",
        log_x=True,  # most of the fall comes early: on a linear axis it is a wall, and the rest a flat line
        width=PLOT_WIDTH,
        height=PLOT_HEIGHT,
        element_id="plot-training",
    )
    return _figure(plot, f"Training: the mean of {window} neighbouring steps." if window > 1 else "")


def _finite_pairs(lines: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    pairs = [(float(line["bytes_seen"]), json_float(line[key])) for line in lines if line.get(key) is not None]
    return [pair for pair in pairs if math.isfinite(pair[1])]


def threshold_of(point: Mapping[str, Any]) -> float:
    """Returns the threshold of an evaluation point, in nats."""
    return json_float(point["scratchpad_threshold_nats"])


def nats_text(threshold: Number, *, digits: int = 3) -> str:
    """Returns a threshold with `digits` decimals, or ∞ and -∞."""
    return compact_number(threshold) if math.isinf(threshold) else f"{threshold:.{digits}f}"


def _figure(plot: str, caption: str) -> str:
    below = f"<figcaption>{escape_text(caption)}</figcaption>" if caption else ""
    return f"<figure>{plot}{below}</figure>"
