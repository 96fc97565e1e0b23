"""One figure for the finding of the study, and one for each claim. Torch-free."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from study_arms import EQUAL_RATE, PATCHIFIERS
from study_claims import Findings

from patchpad.pages.plot_data import LinePlot, Series
from patchpad.study.summary import Arm, difference

WIDTH, HEIGHT, ROW_STEP = 480, 320, 34
"""Narrower than the plots of the appendix, so that their text is larger on a telephone."""
BITS, CALLS = "bits_per_byte", "trunk_calls_per_byte"
WITHOUT_AND_WITH = ("without scratchpads", "with them; an arrow joins the same patches")
FINDING = {  # role -> its name beside its mark
    "byte model": "byte model",
    "plain 4": "4-byte patches",
    "plain 16": "16-byte patches",
    "16": "16-byte patches with scratchpads",
}
PAIRS_OF_C1 = {
    "books, 16 MB, three seeds": ("plain 16", "16"),
    "books, 8 MB, one seed": ("short plain 16", "short 16"),
    "code, 8 MB, one seed": ("code plain 16", "code 16"),
}
PAIRS_OF_C2 = {
    "books, 16 MB, three seeds": ("plain 16", "16", "byte model"),
    "code, 8 MB, one seed": ("code plain 16", "code 16", "code byte model"),
}
GOAL_OF_C2 = 2.0
"""Percent of bits per byte behind the byte model."""
ROWS_OF_C3 = {
    "books, 16 MB": ("16", "plain 4"),
    "books, 8 MB": ("short 16", "short plain 4"),
    "the same, 8 heads": ("8 heads", "plain 4, 8 heads"),
    "code, 8 MB": ("code 16", "code plain 4"),
}
CURVES_OF_C4 = {  # role -> the plain arm that it is set against, its name, and what its line looks like
    "16": ("plain 16", "one rate, 16 MB", False, 2),
    "short 16": ("short plain 16", "one rate, 8 MB", True, 2),
    "spread": ("short plain 16", "several rates, 8 MB", False, 5),
    "always": ("short plain 16", "every byte, 8 MB", False, 6),
}
HIGHEST_OF_C4 = 2.0
"""In percent; above, a curve is cut."""
ROWS_OF_C6 = {  # role -> its row, and where along the threshold
    "short plain 16": ("no scratchpads", "stored"),
    "random": ("random", "stored"),
    "stride": ("every fourth byte", "stored"),
    "entropy jump": ("where the entropy rises", EQUAL_RATE),
    "short 16": ("entropy", EQUAL_RATE),
    "whitespace": ("whitespace", "stored"),
    "at the rate of whitespace": ("entropy, as whitespace", "stored"),
    "always": ("every byte", "stored"),
}


@dataclass(frozen=True)
class Row:
    """Marks of one row, from the one without scratchpads to the one with, where both are there."""

    name: str
    marks: Sequence[tuple[float, bool, str]]
    """Value, whether it is open, and its label."""
    look: int


def claim_figures(findings: Findings) -> dict[str, LinePlot]:
    """Returns the figures that have results, by the end of their files' names."""
    made: Mapping[str, Callable[[Findings], LinePlot | None]] = {
        "finding": finding,
        "claim-1": same_patches,
        "claim-2": behind_the_byte_model,
        "claim-3": equal_compute,
        "claim-4": along_the_threshold,
        "claim-5": patchifiers,
        "claim-6": triggers,
    }
    return {name: plot for name, make in made.items() if (plot := make(findings)) is not None}


def finding(findings: Findings) -> LinePlot | None:
    """Returns bits per byte against FLOPs of the four arms of tier 1."""
    arms = {role: arm for role in FINDING if (arm := findings.arm(role)) is not None}
    if len(arms) < len(FINDING):
        return None
    title = "Bits per byte against compute: books, 16 MB, three seeds; bars are ±"
    return _against_flops({FINDING[role]: arm for role, arm in arms.items()}, title, arms["plain 16"], arms["16"])


def same_patches(findings: Findings) -> LinePlot | None:
    """Returns 16-byte patches without and with scratchpads, a row for each text."""
    rows = []
    for name, roles in PAIRS_OF_C1.items():
        pair = findings.pair(roles[1], roles[0])
        less = pair[0].less(pair[1]) if pair else None
        if pair is not None and less is not None:
            label = f"{100 * less[0].mean / less[1]:+.1f} %"
            marks = [(_mean(pair[1], BITS), True, ""), (_mean(pair[0], BITS), False, label)]
            rows.append(Row(name, marks, pair[0].look))
    title = "16-byte patches without and with scratchpads, at their stored threshold"
    return _rows(rows, title, "bits per byte", marks_key=WITHOUT_AND_WITH)


def behind_the_byte_model(findings: Findings) -> LinePlot | None:
    """Returns how far 16-byte patches are behind the byte model, without and with scratchpads."""
    rows = []
    for name, (plain, scratch, base) in PAIRS_OF_C2.items():
        pairs = findings.pair(plain, base), findings.pair(scratch, base)
        marks = []
        for pair, hollow in zip(pairs, (True, False), strict=True):
            less = pair[0].less(pair[1]) if pair else None
            if less is not None:
                percent = 100 * less[0].mean / less[1]
                marks.append((percent, hollow, f"{percent:+.1f} %"))
        if len(marks) == len(pairs) and pairs[1] is not None:
            rows.append(Row(name, marks, pairs[1][0].look))
    title = "How many more bits per byte than the byte model, in percent"
    lines = {"byte model": 0.0, "goal: 2 %": GOAL_OF_C2}
    label = "bits per byte above the byte model's (%)"
    return _rows(rows, title, label, marks_key=WITHOUT_AND_WITH, upright_lines=lines, x_ends=(0, None))


def equal_compute(findings: Findings) -> LinePlot | None:
    """Returns scratchpads less plain 4-byte patches at equal trunk calls and at equal FLOPs, each seed a mark."""
    rows = []
    for name, roles in ROWS_OF_C3.items():
        pair = findings.pair(*roles)
        if pair is None:
            continue
        arm, base = pair
        at_flops = difference(arm.bits_at_flops(base.by_seed("flops_per_byte")), base.by_seed(BITS))
        for words, found in (("trunk calls", arm.less(base, EQUAL_RATE)), ("FLOPs", at_flops)):
            if found is not None:
                marks = [(100 * value / found[1], False, "") for value in found[0].values]
                rows.append(Row(f"{name}: {words}", marks, arm.look))
    title = "Scratchpads against 4-byte patches, each seed; below 0 they are better"
    lines = {"plain 4-byte patches": 0.0}
    return _rows(rows, title, "difference in bits per byte (%)", upright_lines=lines)


def along_the_threshold(findings: Findings) -> LinePlot | None:
    """Returns bits per byte along the threshold, in percent of plain patches that saw the same bytes."""
    series = []
    for role, (plain, name, dashed, look) in CURVES_OF_C4.items():
        pair = findings.pair(role, plain)
        if pair is None:
            continue
        points = []
        for at in pair[0].points():
            less = pair[0].less(pair[1], at)
            if less is not None:
                points.append((min(_mean(pair[0], CALLS, at), 1.0), 100 * less[0].mean / less[1]))
        series.append(Series(name, points, look=look, dashed=dashed))
    if not series:
        return None
    return LinePlot(
        series=series,
        title="Along the threshold; lines are named by the rates of training",
        x_label="trunk calls per byte",
        y_label="bits per byte against 16-byte patches (%)",
        x_ends=(0, 1),
        highest_y=HIGHEST_OF_C4,
        reference_lines={"plain 16-byte patches": 0.0},
        direct_labels=True,
        width=WIDTH,
        height=HEIGHT + 60,
    )


def patchifiers(findings: Findings) -> LinePlot | None:
    """Returns bits per byte against FLOPs of each patchifier without and with scratchpads, and of BPE tokens."""
    names: dict[str, Arm] = {}
    for name in PATCHIFIERS:
        pair = findings.arm(f"plain {name}"), findings.arm(name)
        if pair[0] is None or pair[1] is None:
            return None
        names[pair[0].family] = pair[0]
        names[f"{pair[0].family} +"] = pair[1]
    bpe = findings.arm("bpe")
    if bpe is not None:
        names["BPE tokens"] = bpe
    title = "Bits per byte against compute: books, 8 MB, one seed; + is with scratchpads"
    return _against_flops(names, title)


def triggers(findings: Findings) -> LinePlot | None:
    """Returns bits per byte by what fires the scratchpads, a row for each trigger."""
    rows = []
    for role, (name, at) in ROWS_OF_C6.items():
        arm = findings.arm(role)
        if arm is not None and arm.at(BITS, at) is not None:
            bits = _mean(arm, BITS, at)
            rate = _mean(arm, "scratchpads_per_byte", at)
            name = f"{name}: {rate:.2f}" if rate else name
            rows.append(Row(name, [(bits, not rate, f"{bits:.4f}")], arm.look))
    title = "What fires the scratchpads, and how many per byte: books, 8 MB, one seed"
    return _rows(rows, title, "bits per byte", marks_key=("without scratchpads", "with scratchpads"))


def _against_flops(
    arms: Mapping[str, Arm], title: str, without: Arm | None = None, having: Arm | None = None
) -> LinePlot:
    """Returns bits per byte against FLOPs, an arrow from each arm without scratchpads to that with them.

    Args:
        arms: by the names that are written beside their marks.
        title: of the plot.
        without: the arm that an arrow begins at; none: every arm, followed by one with its patches.
        having: the arm that it ends at.
    """
    places = {arm: (_mean(arm, "flops_per_byte"), _mean(arm, BITS)) for arm in arms.values()}
    ordered = list(arms.values())
    joined = [(without, having)] if without and having else _joined(ordered)
    arrows = [Series("", [places[one], places[other]], look=one.look, arrow=True) for one, other in joined]
    marks = [
        Series(
            name,
            [places[arm]],
            line=False,
            look=arm.look,
            hollow=not arm.has_scratchpads,
            deviations=[spread.deviation if (spread := arm.at(BITS)) else None],
        )
        for name, arm in arms.items()
    ]
    flops = [x for x, _ in places.values()]
    return LinePlot(
        series=[*arrows, *marks],
        title=title,
        x_label="FLOPs per byte (forward)",
        y_label="bits per byte",
        log_x=True,
        x_ends=(min(flops) / 1.2, max(flops) * 1.2),
        direct_labels=True,
        marks_key=WITHOUT_AND_WITH,
        width=WIDTH,
        height=HEIGHT + 60,
    )


def _joined(arms: Sequence[Arm]) -> list[tuple[Arm, Arm]]:
    """Returns each arm without scratchpads and the arm of its family with them."""
    return [
        (one, other)
        for one in arms
        for other in arms
        if one.family == other.family and not one.has_scratchpads and other.has_scratchpads
    ]


def _rows(rows: Sequence[Row], title: str, x_label: str, **options: object) -> LinePlot | None:
    """Returns a plot of rows, or None if there are none."""
    if not rows:
        return None
    series = []
    for place, row in enumerate(rows):
        points = [(value, float(place)) for value, _, _ in row.marks]
        if len({hollow for _, hollow, _ in row.marks}) > 1:
            series.append(Series("", points, look=row.look, arrow=True))
        series += [
            Series("", [point], [label], line=False, look=row.look, hollow=hollow)
            for point, (_, hollow, label) in zip(points, row.marks, strict=True)
        ]
    return LinePlot(
        series=series,
        title=title,
        x_label=x_label,
        y_label="",
        row_names=[row.name for row in rows],
        direct_labels=True,
        width=WIDTH,
        height=190 + ROW_STEP * len(rows),
        **options,  # pyrefly: ignore
    )


def _mean(arm: Arm, key: str, at: str = "stored") -> float:
    """Returns a field's mean over the seeds; the arm has been measured there."""
    spread = arm.at(key, at)
    assert spread is not None
    return spread.mean
