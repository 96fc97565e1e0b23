"""What claims about a study rest on: arms by their roles, and rows of differences between them. Torch-free."""

import itertools
from collections.abc import Mapping, Sequence

from patchpad.errors import DataError
from patchpad.pages.numbers import compact_number
from patchpad.study.results import Results
from patchpad.study.summary import Arm, Comparison, Spread, difference, of_shared_seeds, summarize
from patchpad.study.tables import DIFFERENCE_HEADINGS, NOTHING, difference_cells

COSTS = {
    "trunk calls per byte, of both": ("trunk_calls_per_byte", 4),
    "FLOPs per byte, of both": ("flops_per_byte", 0),
    "trunk KV bytes per byte, of both": ("trunk_cache_bytes_per_byte", 1),
}
CLAIM_HEADINGS = ("claim", "text, bytes seen", "arm", "less", *DIFFERENCE_HEADINGS, *COSTS)
Row = list[str]


class Findings:
    """The results of a study, arm by arm; `arms` maps roles to names of arms."""

    def __init__(self, results: Results, arms: Mapping[str, str]) -> None:
        self.results = results
        self.arms = arms
        self.comparisons = summarize(results)
        self._places: dict[str, tuple[Arm, Comparison]] = {
            arm.name: (arm, comparison) for comparison in self.comparisons for arm in comparison.arms
        }

    def arm(self, role: str) -> Arm | None:
        """Returns the arm of a role, if it has a result."""
        place = self._places.get(self.arms[role])
        return place[0] if place else None

    def comparison(self, arm: Arm) -> Comparison:
        """Returns the arms that an arm may be compared with."""
        return self._places[arm.name][1]

    def pair(self, role: str, other: str) -> tuple[Arm, Arm] | None:
        """Returns two arms that may be compared; None where one has no result.

        Raises:
            DataError: they did not see the same bytes.
        """
        one, base = self.arm(role), self.arm(other)
        if one is None or base is None:
            return None
        if self.comparison(one) is not self.comparison(base):
            raise DataError(f"{one.name} and {base.name} have not seen the same bytes of one text")
        return one, base

    def seen(self, arm: Arm) -> str:
        """Returns the text of an arm, and how much of it the arm has seen."""
        comparison = self.comparison(arm)
        return f"{comparison.text}, {compact_number(comparison.bytes_seen, digits=2)}"


def difference_rows(findings: Findings, claim: str, role: str, other: str, at: str = "stored") -> list[Row]:
    """Returns the row of an arm less another; none where one has no result.

    Args:
        findings: the study's.
        claim: begins the row.
        role: of the arm.
        other: role of what is taken away.
        at: the point of both; an arm that was not measured there stands at its stored threshold.
    """
    pair = findings.pair(role, other)
    if pair is None:
        return []
    places = [at if at in arm.points() else "stored" for arm in pair]
    found = pair[0].less(pair[1], *places)
    if found is None:
        return []
    names = (
        arm.label if place == "stored" else f"{arm.label} at {place}" for arm, place in zip(pair, places, strict=True)
    )
    costs = _costs_of_both(*of_shared_seeds(*pair), *places)
    return [[claim, findings.seen(pair[0]), *names, *difference_cells(*found), *costs]]


def equal_flops_rows(findings: Findings, claim: str, role: str, other: str) -> list[Row]:
    """Returns the row of an arm at exactly another's FLOPs per byte, less that other.

    Bits are those on the straight line between the arm's points on either side, seed by seed. Where the curve is
    convex, as it is below the trained rate, the line lies above it, against the arm.

    Args:
        findings: the study's.
        claim: begins the row.
        role: of the arm, measured along the threshold.
        other: role of what is taken away, at its stored threshold.

    Returns:
        One row; none where an arm has no result, or no seed of both has points on either side.
    """
    pair = findings.pair(role, other)
    if pair is None:
        return []
    arm, base = pair
    found = difference(arm.bits_at_flops(base.by_seed("flops_per_byte")), base.by_seed("bits_per_byte"))
    if found is None:
        return []
    names = (f"{arm.label} at equal FLOPs, between its points", base.label)
    return [[claim, findings.seen(arm), *names, *difference_cells(*found), *[NOTHING] * len(COSTS)]]


def curve_rows(findings: Findings, claim: str, role: str) -> list[Row]:
    """Returns each step along the threshold from the fewest trunk calls to the most, and whether bits only fall.

    They do where no step raises them in any seed. The stored threshold is left out: it lies beside the rate that it
    was trained for.
    """
    arm = findings.arm(role)
    if arm is None:
        return []
    rows, changes = [], []
    for before, after in itertools.pairwise(at for at in arm.points() if at != "stored"):
        found = arm.less(arm, after, before)
        if found is not None:
            changes.append(max(found[0].values))
            cells = (f"{arm.label} at {after}", f"at {before}", *difference_cells(*found))
            rows.append([claim, findings.seen(arm), *cells, *_costs_of_both(arm, arm, after, before)])
    if changes:
        risen = sum(change > 0 for change in changes)
        several = " in a seed or more" if len(arm.seeds) > 1 else ""
        words = f"higher after {risen} of {len(changes)} steps{several}: not monotonic"
        words = words if risen else "monotonic: never higher"
        rows.append([claim, findings.seen(arm), f"{arm.label}, all steps", NOTHING, words, *[NOTHING] * 6])
    return rows


def closeness_rows(findings: Findings, claim: str, roles: Sequence[str], words: str) -> list[Row]:
    """Returns how far the highest of several arms lies above the lowest, once all of them have results.

    Costs are the lowest and the highest among the arms, whichever has them.
    """
    pairs = [findings.pair(roles[0], role) for role in roles]
    arms = [pair[1] for pair in pairs if pair is not None]
    bits = [arm.by_seed("bits_per_byte") for arm in arms]
    shared = sorted(set.intersection(*map(set, bits))) if len(arms) == len(roles) else []
    if not shared:
        return []
    lowest = [min(one[seed] for one in bits) for seed in shared]
    apart = [max(one[seed] for one in bits) - low for seed, low in zip(shared, lowest, strict=True)]
    cells = difference_cells(Spread.of(apart), Spread.of(lowest).mean)
    names = (f"{words}: the highest", "the lowest")
    return [[claim, findings.seen(arms[0]), *names, *cells, *_range_of_costs(arms)]]


def share_rows(findings: Findings, claim: str, role: str, start: str, goal: str) -> list[Row]:
    """Returns how much of the way in bits per byte from one arm down to another a third has gone.

    Args:
        findings: the study's.
        claim: begins the row.
        role: of the arm in question.
        start: role of the arm that has gone 0 %.
        goal: role of the arm that has gone 100 %.

    Returns:
        One row; none where an arm has no result, no seed is common, or the goal is no better than the start.
    """
    pairs = findings.pair(role, start), findings.pair(role, goal)
    if pairs[0] is None or pairs[1] is None:
        return []
    arm, first, last = *pairs[0], pairs[1][1]
    bits, high, low = (one.by_seed("bits_per_byte") for one in (arm, first, last))
    shared = sorted(bits.keys() & high.keys() & low.keys())
    if not shared or any(high[seed] <= low[seed] for seed in shared):
        return []
    shares = [100 * (high[seed] - bits[seed]) / (high[seed] - low[seed]) for seed in shared]
    names = (f"{arm.label}, of the way from {first.label}", f"to {last.label}")
    each = ", ".join(f"{share:.0f} %" for share in shares)
    mean = f"{Spread.of(shares).mean:.0f} %"
    return [[claim, findings.seen(arm), *names, NOTHING, mean, str(len(shared)), each, *[NOTHING] * len(COSTS)]]


def _range_of_costs(arms: Sequence[Arm]) -> Row:
    """Returns the range of each cost over several arms."""
    cells = []
    for key, digits in COSTS.values():
        costs = [cost.mean for arm in arms if (cost := arm.at(key)) is not None]
        cells.append(f"{min(costs):,.{digits}f} to {max(costs):,.{digits}f}" if len(costs) == len(arms) else NOTHING)
    return cells


def _costs_of_both(arm: Arm, other: Arm, at: str = "stored", other_at: str = "stored") -> Row:
    """Returns each cost of two arms, or of two points, and their ratio."""
    cells = []
    for key, digits in COSTS.values():
        one, base = arm.at(key, at), other.at(key, other_at)
        if one is None or base is None or not base.mean:
            cells.append(NOTHING)
        else:
            cells.append(f"{one.mean:,.{digits}f} / {base.mean:,.{digits}f} = {one.mean / base.mean:.3g}")
    return cells
