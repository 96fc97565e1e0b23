"""The plots of a study, each a standalone SVG file that follows the reader's light or dark setting. Torch-free."""

from collections.abc import Sequence

from patchpad.pages.bars import Bars, bar_plot
from patchpad.pages.line_plot import Series, legend_lines, line_plot
from patchpad.pages.svg import NUM_COLOURS
from patchpad.study.summary import Arm, Comparison

WIDTH, HEIGHT = 720, 360
LONGEST_POSITION = 32
MOST_ARMS = 6
"""In plots with several lines or bars for each arm."""
MOST_TOLD_SWITCHED_OFF = 3
"""Arms of a plot by position that have a line without scratchpads too; more would hide the lines that matter."""
CLASS_NAMES = {
    "letter": "letter",
    "digit": "digit",
    "space": "space, tab",
    "newline": "newline",
    "punctuation": "punctuation",
    "utf8_lead": "UTF-8 first",
    "utf8_continuation": "UTF-8 further",
    "control": "other control",
    "document_start": "document start",
}


def study_plots(comparison: Comparison) -> dict[str, str]:
    """Returns name -> SVG of the plots of a comparison; those with nothing to show are left out."""
    plots = {
        "flops": scatter(comparison.arms, "flops_per_byte", "FLOPs per byte (forward)", "compute"),
        "cache": scatter(comparison.arms, "trunk_cache_bytes_per_byte", "trunk KV bytes per byte of context", "cache"),
        "threshold": threshold_curves(comparison.arms),
        "positions": positions(comparison.claimed),
        "letters": letters(comparison.claimed),
        "classes": classes(comparison.claimed) or classes(comparison.arms),
        "training": training(comparison.arms),
    }
    return {name: plot for name, plot in plots.items() if plot}


def scatter(arms: Sequence[Arm], key: str, x_label: str, what: str) -> str:
    """Returns bits per byte against a kind of cost, a point for each arm at its stored threshold."""
    series = []
    for arm in arms:
        x, y, calls = arm.at(key), arm.at("bits_per_byte"), arm.at("trunk_calls_per_byte")
        if x is not None and y is not None:
            label, point, text = _label(arm, arms), (x.mean, y.mean), "" if calls is None else f"{calls.mean:.2f}"
            series.append(Series(label, [point], [text], line=False, deviations=[y.deviation], look=arm.look))
    spread = ", ± over seeds" if any(one.deviations != [None] for one in series) else ""
    title = f"Bits per byte against {what}{spread}; numbers are trunk calls per byte"
    return _plot(series, title, x_label, f"plot-{what}", log_x=True)


def threshold_curves(arms: Sequence[Arm]) -> str:
    """Returns bits per byte against trunk calls per byte along the threshold, and arms without one as points."""
    series = []
    for arm in arms:
        points = []
        for at in arm.points():
            x, y = arm.at("trunk_calls_per_byte", at), arm.at("bits_per_byte", at)
            if x is not None and y is not None:
                points.append((x.mean, y.mean))
        series.append(Series(_label(arm, arms), points, look=arm.look, dashed=_is_marked(arm, arms)))
    if not any(len(one.points) > 1 for one in series):
        return ""
    title = "Bits per byte along the threshold of each arm's weights, means over seeds"
    return _plot(series, title, "trunk calls per byte", "plot-threshold")


def positions(arms: Sequence[Arm]) -> str:
    """Returns bits per byte by position inside the patch; of a few arms with and without scratchpads, else with."""
    series = []
    shown = [arm for arm in arms if len(arm.by_position("stored")) > 1]
    for arm in shown[:MOST_ARMS]:
        stored, without = arm.by_position("stored"), arm.by_position("without_scratchpads")
        is_told = stored != without and len(shown) <= MOST_TOLD_SWITCHED_OFF
        for rows, label, dashed in (
            (stored, _label(arm, arms), False),
            (without if is_told else [], f"{_label(arm, arms)}, switched off", True),
        ):
            kept = [row for row in rows if row[0] <= LONGEST_POSITION]
            series.append(Series(label, kept, look=arm.look, dashed=dashed))
    title = f"Bits per byte by position inside the patch{_share(shown)}"
    return _plot(series, title, "position of the predicted byte in its patch", "plot-positions") if series else ""


def letters(arms: Sequence[Arm]) -> str:
    """Returns bits per byte by letter of the word, less those of the first arm, over the seeds that both have."""
    known = [arm for arm in arms if arm.by_letter()]
    if len(known) < 2:
        return ""
    first, *others = known
    series = []
    for arm in others[:MOST_ARMS]:
        shared = arm.seeds & first.seeds
        base = dict(first.of_seeds(shared).by_letter())
        points = [(letter, bits - base[letter]) for letter, bits in arm.of_seeds(shared).by_letter() if letter in base]
        series.append(Series(_label(arm, arms), points, look=arm.look))
    title = f"Bits per byte by letter of the word, less those of {_label(first, arms)}{_share(others)}"
    return _plot(series, title, "letter of the predicted byte in its word, 0: no letter", "plot-letters")


def classes(arms: Sequence[Arm]) -> str:
    """Returns the rate of scratchpads by class of byte."""
    rates = {arm: arm.class_rates() for arm in arms}
    fired = [arm for arm in arms if any(rates[arm].values())]
    shown = fired[:MOST_ARMS]
    if not shown:
        return ""
    looks = [arm.look for arm in shown]
    if len({look % NUM_COLOURS for look in looks}) < len(looks):  # bars have no markers to tell equal colours apart
        looks = list(range(len(shown)))
    names = [name for name in CLASS_NAMES if any(name in rates[arm] for arm in shown)]
    return bar_plot(
        [CLASS_NAMES[name] for name in names],
        [
            Bars(_label(arm, arms), [rates[arm].get(name) for name in names], look=look)
            for arm, look in zip(shown, looks, strict=True)
        ],
        title=f"Scratchpads by class of the byte just read, at the stored threshold{_share(fired)}",
        x_label="scratchpads per byte of the class",
        width=WIDTH,
        element_id="plot-classes",
        standalone=True,
    )


def training(arms: Sequence[Arm]) -> str:
    """Returns bits per byte on training text against bytes seen, for each arm's first seed."""
    series = []
    for arm in arms:
        curve = arm.first["training"]["curve"]
        points = [(row["bytes_seen"] / 1e6, row["training_bits_per_byte"]) for row in curve]
        series.append(
            Series(_label(arm, arms), points, look=arm.look, dashed=_is_marked(arm, arms), marker=len(curve) < 2)
        )
    title = "Bits per byte while training, the first seed of each arm"
    return _plot(series, title, "training text seen (MB)", "plot-training", log_x=True)


def _share(arms: Sequence[Arm]) -> str:
    """Says in a title how many arms a plot leaves out."""
    return f" ({MOST_ARMS} of {len(arms)} arms)" if len(arms) > MOST_ARMS else ""


def _is_marked(arm: Arm, arms: Sequence[Arm]) -> bool:
    """Whether to tell an exploratory arm from those that make claims."""
    return arm.exploratory and not all(other.exploratory for other in arms)


def _label(arm: Arm, arms: Sequence[Arm]) -> str:
    return f"{arm.name} *" if _is_marked(arm, arms) else arm.name


def _plot(series: Sequence[Series], title: str, x_label: str, element_id: str, *, log_x: bool = False) -> str:
    return line_plot(
        series,
        title=title,
        x_label=x_label,
        y_label="bits per byte",
        log_x=log_x,
        width=WIDTH,
        height=HEIGHT + 20 * legend_lines([one.label for one in series if one.points], WIDTH),
        element_id=element_id,
        standalone=True,
    )
