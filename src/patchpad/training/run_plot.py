"""What runs wrote to `metrics.jsonl`, finished or not, over one another in a plot. Imports no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from patchpad.errors import CheckpointError, ConfigError, near_matches
from patchpad.pages.curves import smoothed, thinned
from patchpad.pages.line_plot import LinePlot, Series, legend_lines, line_plot_svg
from patchpad.pages.svg import NUM_COLOURS
from patchpad.training.metrics import METRICS, read_metrics

WIDTH, HEIGHT = 720, 380
MOST_LINES = 2 * NUM_COLOURS
MOST_MARKED_POINTS = 40
"""A line with more points has no marker on each."""
VALIDATION, TRAINING = "val/bpb", "train/bpb"

XKey = Literal["bytes_seen", "step", "seconds"]
BITS = "bits per byte"
NAMES = {
    VALIDATION: ("bits per byte on held-out text", BITS),
    TRAINING: ("bits per byte on training text", BITS),
    "train/entropy_head_bpb": ("bits per byte of the entropy head", BITS),
    "learning_rate": ("learning rate", "learning rate"),
    "gradient_norm": ("gradient norm before clipping", "norm"),
    "scratchpads_per_byte": ("scratchpads per byte", "per byte"),
    "patches_per_byte": ("patches per byte", "per byte"),
    "mean_patch_size": ("mean patch size", "bytes"),
    "scratchpad_threshold_nats": ("scratchpad threshold", "nats"),
    "patch_threshold_nats": ("patch threshold", "nats"),
    "bytes_per_second": ("training speed", "bytes per second"),
    "seconds_left": ("time left", "seconds"),
    "data_wait_share": ("time that steps waited for their batches", "share of the time"),
    "padding_share": ("padding", "share of the positions"),
    "epoch": ("epochs", "epochs"),
    "flops_per_second": ("training arithmetic", "FLOPs per second"),
    "mfu": ("MFU", "share of the peak"),
    "host_memory_bytes": ("memory of the main process", "bytes"),
    "device_memory_bytes": ("largest memory on the device so far", "bytes"),
}
"""What a key means, and its unit; other keys stand for themselves."""


@dataclass(frozen=True)
class Curve:
    """One key of one run."""

    run: str
    """The run's name, as far as it tells it apart."""
    key: str
    points: Sequence[tuple[float, float]]


def run_plot(
    runs: Sequence[str | Path],
    keys: Sequence[str] = (),
    *,
    x: XKey = "bytes_seen",
    smooth: int = 1,
    log_x: bool = False,
) -> str:
    """Returns a standalone SVG of what `plot_of_runs` plots, which says what the arguments are."""
    plot = plot_of_runs(runs, keys, x=x, smooth=smooth, log_x=log_x)
    return line_plot_svg(plot, element_id="plot-metrics", standalone=True)


def plot_of_runs(
    runs: Sequence[str | Path],
    keys: Sequence[str] = (),
    *,
    x: XKey = "bytes_seen",
    smooth: int = 1,
    log_x: bool = False,
) -> LinePlot:
    """Returns a plot of metrics over the course of training.

    Args:
        runs: folders of runs or of their steps, or files of metrics.
        keys: of metrics, all of one unit; none: `val/bpb`, or `train/bpb` where no run has been validated yet.
        x: what the horizontal axis shows.
        smooth: lines of metrics whose mean each point is; above 1 the values themselves are drawn faintly behind.
        log_x: a logarithmic horizontal axis.

    Raises:
        CheckpointError: a run without metrics.
        ConfigError: a key that a run has not, keys of several units, or too many lines.
    """
    if smooth < 1:
        raise ConfigError(f"--smooth is {smooth}; allowed: an integer of at least 1", hint="1 smooths nothing.")
    read = {str(run): read_metrics(run) for run in runs}
    for run, lines in read.items():
        if not lines:
            raise CheckpointError(
                f"{run} has no line of metrics yet", hint="Wait until it has made `train.log_every` steps."
            )
    keys = list(dict.fromkeys(keys)) or [_default_key(read)]
    if len(read) * len(keys) > MOST_LINES:
        raise ConfigError(
            f"{len(read)} runs with {len(keys)} keys each make {len(read) * len(keys)} lines; allowed: {MOST_LINES}",
            hint="Draw fewer of them in one plot.",
        )
    units = dict.fromkeys(_unit(key) for key in keys)
    if len(units) > 1:
        raise ConfigError(
            f"the keys have several units: {', '.join(units)}; allowed: one", hint="Draw a plot for each unit."
        )
    names = _names([Path(run) for run in read])
    curves = [
        Curve(_with_state(name, Path(run), lines), key, _points(run, lines, x, key))
        for (run, lines), name in zip(read.items(), names, strict=True)
        for key in keys
    ]
    return _draw(curves, keys, x, smooth, log_x)


def _default_key(read: dict[str, list[dict[str, Any]]]) -> str:
    return VALIDATION if any(VALIDATION in line for lines in read.values() for line in lines) else TRAINING


def _points(run: str, lines: Sequence[dict[str, Any]], x: str, key: str) -> list[tuple[float, float]]:
    """Returns the finite values of a key.

    Raises:
        ConfigError: there are none.
    """
    for option, each in (("--x", x), ("--key", key)):
        found = [line[each] for line in lines if each in line]
        if not found:
            present = dict.fromkeys(name for line in lines for name in line)
            near = near_matches(each, present)
            raise ConfigError(
                f"{option} is {each}, which no line of {run} has; allowed: {', '.join(present)}",
                hint=near if option == "--key" and near.startswith("Did") else f"Choose another {option}.",
            )
        if all(isinstance(value, str | None) for value in found):
            raise ConfigError(
                f"{option} is {each}, which has no finite number in {run}, only {found[-1] or 'null'}",
                hint=f"Choose another {option}.",
            )
    pairs = [(line[x], line[key]) for line in lines if line.get(x) is not None and line.get(key) is not None]
    points = [(float(at), float(value)) for at, value in pairs]  # "inf" is a number here too
    return [point for point in points if math.isfinite(point[1])]


def _unit(key: str) -> str:
    return NAMES[_general(key)][1] if _general(key) in NAMES else key


def _general(key: str) -> str:
    """Returns the key that says what a key of a part or of a source of text means."""
    parts = key.split("/")
    if parts[0] in ("gradient_norm", "epoch"):
        return parts[0]
    return VALIDATION if len(parts) == 3 and parts[0] == "val" and parts[2] == "bpb" else key


def _meaning(key: str) -> str:
    general = _general(key)
    words = NAMES.get(general, (key, ""))[0]
    return words if general == key else f"{words}, {_special(key)}"


def _special(key: str) -> str:
    """Returns the part, or the source of text, of a key that has one."""
    return key.split("/")[1]


def _titles(keys: Sequence[str]) -> tuple[str, list[str]]:
    """Returns what all keys have in common, and what each is called beside that."""
    if len(keys) == 1:
        return _meaning(keys[0]), [""]
    general = {_general(key) for key in keys}
    if len(general) == 1 and all(key not in general for key in keys):
        return _meaning(general.pop()), [_special(key) for key in keys]
    return _unit(keys[0]), [_meaning(key) for key in keys]


def _names(runs: Sequence[Path]) -> list[str]:
    """Returns the ends of the runs' paths that tell them apart."""
    folders = [run.parent if run.name == METRICS else run for run in runs]
    parts = [(folder.absolute()).parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(path[-length:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _with_state(name: str, run: Path, lines: Sequence[dict[str, Any]]) -> str:
    """Adds to the name of a run that has not finished how far it has come."""
    goes_on = (run / "checkpoints").is_dir() and not (run / "manifest.json").exists()
    return f"{name} (step {lines[-1]['step']:,} so far)" if goes_on else name


def _draw(curves: Sequence[Curve], keys: Sequence[str], x: XKey, smooth: int, log_x: bool) -> LinePlot:
    scale, x_label = _x_axis(x, max((at for curve in curves for at, _ in curve.points), default=0.0))
    several_runs = len(curves) > len(keys)
    title, called = _titles(keys)
    behind, front = [], []
    for look, curve in enumerate(curves):
        points = [(at / scale, value) for at, value in curve.points]
        words = called[keys.index(curve.key)]
        label = ", ".join(filter(None, (curve.run if several_runs else "", words)))
        marker, dashed = len(points) <= MOST_MARKED_POINTS, look >= NUM_COLOURS
        if smooth > 1:
            behind.append(Series("", thinned(points), marker=False, look=look, faint=True))
            points, marker = smoothed(points, smooth), False
        front.append(Series(label, thinned(points), marker=marker, look=look, dashed=dashed))
    whose = "" if several_runs else f", run {curves[0].run}"
    mean = f"; means of {smooth} lines" if smooth > 1 else ""
    labels = [one.label for one in front]
    return LinePlot(
        series=[*behind, *front],
        title=f"{title[0].upper()}{title[1:]}{whose}{mean}",
        x_label=x_label,
        y_label=_unit(keys[0]),
        log_x=log_x,
        width=WIDTH,
        height=HEIGHT + 20 * (legend_lines(labels, WIDTH) - 1),
    )


def _x_axis(x: XKey, largest: float) -> tuple[float, str]:
    """Returns the unit of the horizontal axis, as a number of that of the metrics, and the axis's name."""
    units, words = {
        "bytes_seen": (((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "bytes")), "training text seen"),
        "seconds": (((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds")), "time in training"),
        "step": (((1.0, ""),), "training step"),
    }[x]
    scale, unit = next(((size, name) for size, name in units if largest >= 2 * size), units[-1])
    return scale, f"{words} ({unit})" if unit else words
