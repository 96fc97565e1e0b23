"""The plots of a study. Torch-free.

An arm's colour is that of its family. Its marks are open where it makes no scratchpads.
"""

import math
from collections.abc import Sequence

from patchpad.pages.numbers import Number
from patchpad.pages.plot_data import LinePlot, Series
from patchpad.study.summary import Arm, Comparison

WIDTH, HEIGHT = 720, 360
ROOM_FOR_NAMES = 230
"""Of the height, for the names at the ends of lines; a plot of more names is higher."""
NAME_STEP = 15
ROW_STEP = 34
LONGEST_POSITION = 32
MOST_ARMS = 6
"""In plots with several lines or marks for each arm."""
MOST_TOLD_SWITCHED_OFF = 3
"""Arms of a plot by position that have a line without scratchpads too; more would hide the lines that matter."""
MARKS_KEY = ("without scratchpads", "with scratchpads; an arrow joins the same patches")
FAR_OUT = 1.0
"""The highest values are cut off if they lie higher above the rest than this share of what the rest spans."""
MOST_CUT_OFF = 0.1
"""Share of the values that may be cut off."""
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


def study_plots(comparison: Comparison) -> dict[str, LinePlot]:
    """Returns the plots of a comparison by name; those with nothing to show are left out.

    An arm has one colour in all of them, also where a plot shows some of the arms only.
    """
    plots = {
        "flops": scatter(comparison.arms, "flops_per_byte", "FLOPs per byte (forward)", "compute"),
        "cache": scatter(comparison.arms, "trunk_cache_bytes_per_byte", "trunk KV bytes per byte of context", "cache"),
        "threshold": threshold_curves(comparison.arms),
        "positions": positions(comparison.claimed, comparison.arms),
        "letters": letters(comparison.claimed, comparison.arms),
        "classes": classes(comparison.claimed, comparison.arms) or classes(comparison.arms),
        "training": training(comparison.arms),
    }
    return {name: plot for name, plot in plots.items() if plot is not None}


def looks_of(arms: Sequence[Arm]) -> dict[Arm, int]:
    """Returns the number of each arm's colour: that of its family.

    Where all arms are of one family, and several make scratchpads, each has its own number instead.
    """
    if len({arm.look for arm in arms}) > 1 or sum(arm.has_scratchpads for arm in arms) < 2:
        return {arm: arm.look for arm in arms}
    return {arm: number for number, arm in enumerate(arms)}


def scatter(arms: Sequence[Arm], key: str, x_label: str, what: str) -> LinePlot | None:
    """Returns bits per byte against a kind of cost, a point for each arm at its stored threshold."""
    shown = [arm for arm in arms if arm.at(key) is not None and arm.at("bits_per_byte") is not None]
    if not shown:
        return None
    looks, series, places = looks_of(arms), [], {}
    for arm in shown:
        x, y, calls = arm.at(key), arm.at("bits_per_byte"), arm.at("trunk_calls_per_byte")
        if x is not None and y is not None:
            places[arm] = (x.mean, y.mean)
            label, text = _label(arm, arms), "" if calls is None else f"{calls.mean:.2f}"
            hollow, look = not arm.has_scratchpads, looks[arm]
            series.append(
                Series(
                    label,
                    [places[arm]],
                    [text],
                    line=False,
                    deviations=[y.deviation],
                    look=look,
                    hollow=hollow,
                    group=arm.name,
                )
            )
    arrows = [
        Series("", [places[one], places[other]], look=looks[one], arrow=True, group=other.name)
        for one, other in pairs(shown)
    ]
    spread = ", ± over seeds" if any(one.deviations != [None] for one in series) else ""
    title = f"Bits per byte against {what}{spread}; numbers are trunk calls per byte"
    costs = [x for x, _ in places.values() if x > 0]
    ends = (min(costs) / 1.25, max(costs) * 1.25) if costs else (None, None)
    return LinePlot(
        series=[*arrows, *series],
        title=title,
        x_label=x_label,
        y_label="bits per byte",
        log_x=True,
        x_ends=ends,
        width=WIDTH,
        height=HEIGHT + 80 if len(shown) > MOST_ARMS else HEIGHT,
        direct_labels=True,
        marks_key=MARKS_KEY if any(arm.has_scratchpads for arm in shown) else None,
    )


def pairs(arms: Sequence[Arm]) -> list[tuple[Arm, Arm]]:
    """Returns the arm without and the arm with scratchpads of each family that has one of each."""
    found = []
    for family in dict.fromkeys(arm.family for arm in arms):
        without = [arm for arm in arms if arm.family == family and not arm.has_scratchpads]
        having = [arm for arm in arms if arm.family == family and arm.has_scratchpads]
        if len(without) == len(having) == 1:
            found.append((without[0], having[0]))
    return found


def threshold_curves(arms: Sequence[Arm]) -> LinePlot | None:
    """Returns bits per byte against trunk calls per byte along the threshold, and arms without one as points."""
    series, looks = [], looks_of(arms)
    for arm in arms:
        points = []
        for at in arm.points():
            x, y = arm.at("trunk_calls_per_byte", at), arm.at("bits_per_byte", at)
            if x is not None and y is not None:
                points.append((min(x.mean, 1.0), y.mean))
        hollow = not arm.has_scratchpads
        series.append(Series(_label(arm, arms), points, look=looks[arm], hollow=hollow, group=arm.name))
    if not any(len(one.points) > 1 for one in series):
        return None
    return _lines(
        series,
        "Bits per byte along the threshold of each arm's weights, means over seeds",
        "trunk calls per byte",
        x_ends=(0, 1),
        highest_y=highest_of([float(y) for one in series for _, y in one.points]),
        marks_key=("without scratchpads when trained", "with scratchpads"),
    )


def highest_of(values: Sequence[float]) -> float | None:
    """Returns a height that leaves out a few values far above all others; None where there are none of these."""
    ordered = sorted(values)
    for cut in range(max(1, int(len(ordered) * MOST_CUT_OFF)), 0, -1):
        rest = ordered[:-cut]
        if len(rest) > 2 and ordered[-cut] - rest[-1] > FAR_OUT * (rest[-1] - rest[0]) > 0:
            return rest[-1] + 0.05 * (rest[-1] - rest[0])
    return None


def positions(arms: Sequence[Arm], among: Sequence[Arm] = ()) -> LinePlot | None:
    """Returns bits per byte by position inside the patch; of a few arms with and without scratchpads, else with.

    Colours are those that the arms have among others.
    """
    series = []
    shown = [arm for arm in arms if len(arm.by_position("stored")) > 1]
    looks = looks_of(among or arms)
    for arm in shown[:MOST_ARMS]:
        stored, without = arm.by_position("stored"), arm.by_position("without_scratchpads")
        is_told = stored != without and len(shown) <= MOST_TOLD_SWITCHED_OFF
        for rows, label, off in (
            (stored, _label(arm, arms), not arm.has_scratchpads),
            (without if is_told else [], f"{_label(arm, arms)}, switched off", True),
        ):
            kept = [row for row in rows if row[0] <= LONGEST_POSITION]
            dashed = off and arm.has_scratchpads
            series.append(Series(label, kept, look=looks[arm], dashed=dashed, hollow=off, group=arm.name))
    if not series:
        return None
    last = max((place for one in series for place, _ in one.points), default=1)
    title = f"Bits per byte by position inside the patch{_share(shown)}"
    label = "position of the predicted byte in its patch"
    return _lines(series, title, label, x_ends=(1, max(2, last)), x_ticks=_whole_ticks(1, max(2, last)))


def letters(arms: Sequence[Arm], among: Sequence[Arm] = ()) -> LinePlot | None:
    """Returns bits per byte by letter of the word, less those of the first arm, over the seeds that both have.

    Colours are those that the arms have among others.
    """
    known = [arm for arm in arms if arm.by_letter()]
    if len(known) < 2:
        return None
    first, *others = known
    looks, series = looks_of(among or arms), []
    for arm in others[:MOST_ARMS]:
        shared = arm.seeds & first.seeds
        base = dict(first.of_seeds(shared).by_letter())
        points = [(letter, bits - base[letter]) for letter, bits in arm.of_seeds(shared).by_letter() if letter in base]
        hollow = not arm.has_scratchpads
        series.append(Series(_label(arm, arms), points, look=looks[arm], hollow=hollow, group=arm.name))
    last = max((place for one in series for place, _ in one.points), default=1)
    title = f"Bits per byte by letter of the word, less those of {_label(first, arms)}{_share(others)}"
    label = "letter of the predicted byte in its word, 0: no letter"
    return _lines(series, title, label, x_ends=(0, max(1, last)), x_ticks=_whole_ticks(0, max(1, last)))


def classes(arms: Sequence[Arm], among: Sequence[Arm] = ()) -> LinePlot | None:
    """Returns the rate of scratchpads by class of byte, a row for each class. Colours as among others."""
    rates = {arm: arm.class_rates() for arm in arms}
    fired = [arm for arm in arms if any(rates[arm].values())]
    shown = fired[:MOST_ARMS]
    if not shown:
        return None
    looks = looks_of(among or arms)
    names = [name for name in CLASS_NAMES if any(name in rates[arm] for arm in shown)]
    series = []
    for number, arm in enumerate(shown):
        shift = (number - (len(shown) - 1) / 2) * 0.13  # marks of a row stand below one another
        points = [(rates[arm][name], row + shift) for row, name in enumerate(names) if name in rates[arm]]
        series.append(Series(_label(arm, arms), points, line=False, look=looks[arm], group=arm.name))
    return LinePlot(
        series=series,
        title=f"Scratchpads by class of the byte just read, at the stored threshold{_share(fired)}",
        x_label="scratchpads per byte of the class",
        y_label="",
        x_ends=(0, 1),
        row_names=[CLASS_NAMES[name] for name in names],
        width=WIDTH,
        height=150 + ROW_STEP * len(names) + (20 * math.ceil(len(shown) / 3) if len(shown) > 1 else 0),
    )


def training(arms: Sequence[Arm]) -> LinePlot | None:
    """Returns bits per byte on training text against bytes seen, for each arm's first seed."""
    series, looks = [], looks_of(arms)
    for arm in arms:
        curve = arm.first["training"]["curve"]
        points = [(row["bytes_seen"] / 1e6, row["training_bits_per_byte"]) for row in curve]
        label, dashed = _label(arm, arms), not arm.has_scratchpads
        marker = len(curve) < 2
        series.append(Series(label, points, look=looks[arm], dashed=dashed, marker=marker, group=arm.name))
    title = "Bits per byte while training, the first seed of each arm; dashed: without scratchpads"
    seen = [x for one in series for x, _ in one.points]
    ends = (min(seen), max(seen)) if seen and min(seen) < max(seen) else (None, None)
    return _lines(series, title, "training text seen (MB)", log_x=True, x_ends=ends)


def _share(arms: Sequence[Arm]) -> str:
    """Says in a title how many arms a plot leaves out."""
    return f" ({MOST_ARMS} of {len(arms)} arms)" if len(arms) > MOST_ARMS else ""


def _label(arm: Arm, arms: Sequence[Arm]) -> str:
    """Returns an arm's name, with a star where it is exploratory and others of the plot are not."""
    marked = arm.exploratory and not all(other.exploratory for other in arms)
    return f"{arm.name} *" if marked else arm.name


def _whole_ticks(first: int, end: Number) -> list[int]:
    """Returns both ends, which are whole numbers, and round ones between them."""
    last = round(end)
    step = max(1, math.ceil((last - first) / 8))
    step = step if step < 3 else 4 * math.ceil(step / 4)
    between = [tick for tick in range(step, last, step) if tick - first >= step / 2 and last - tick >= step / 2]
    return sorted({first, *between, last})


def _lines(series: Sequence[Series], title: str, x_label: str, **options: object) -> LinePlot:
    names = sum(bool(one.points) for one in series)
    return LinePlot(
        series=series,
        title=title,
        x_label=x_label,
        y_label="bits per byte",
        width=WIDTH,
        height=HEIGHT + max(0, NAME_STEP * names - ROOM_FOR_NAMES),
        direct_labels=True,
        **options,  # pyrefly: ignore
    )
