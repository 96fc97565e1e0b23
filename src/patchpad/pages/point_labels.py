"""Labels beside the marks of a plot: each nearer to its own mark than to any other, and over no other label.

Labels choose one after the other, those with the fewest places first, and each the place that covers least. A label
that finds no place is the first to choose in the next round. One that never finds a place is left out.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from patchpad.pages.svg import CHARACTER_WIDTH

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in user units."""
Spot = tuple[float, float]

ROUNDS = 30
HEIGHT = 13.0
"""Of a label."""
END_GAP, END_STEP = 16.0, 15.0
"""From the end of a line to its name, and between the names of lines."""
LEADER_FROM = 12.0
"""How far from its mark a label has a thin line that leads to it."""


@dataclass(frozen=True)
class Wish:
    """A label that wants a place beside a mark."""

    text: str
    mark: Spot


@dataclass(frozen=True)
class Placed:
    """A label that has found its place."""

    text: str
    mark: Spot
    box: Box
    leader: tuple[Spot, Spot] | None = None
    """Where a thin line from the mark to the label begins and ends, if there is one."""

    @property
    def start(self) -> tuple[float, str]:
        """Where its text stands, and which part of it: its start, its middle or its end, whatever the font's width."""
        if self.box[0] >= self.mark[0]:
            return self.box[0], "start"
        if self.box[2] <= self.mark[0]:
            return self.box[2], "end"
        return (self.box[0] + self.box[2]) / 2, "middle"


def place_labels(
    wishes: Sequence[Wish], marks: Sequence[Spot], lines: Sequence[Sequence[Spot]], room: Box, taken: Sequence[Box] = ()
) -> list[Placed | None]:
    """Returns where each label lies, or None where there is no place for it.

    Args:
        wishes: the labels; each mark is one of `marks`.
        marks: all marks of the plot; no label covers one.
        lines: points that lines visit in turn; labels cover as little of them as possible.
        room: no label may leave it.
        taken: boxes of other texts.
    """
    spots = [spot for line in lines for spot in _along(line)]
    places = [_places(wish, marks, spots, room, taken) for wish in wishes]
    order = sorted(range(len(wishes)), key=lambda index: len(places[index]))
    best: dict[int, tuple[float, Box, bool]] = {}
    for _ in range(ROUNDS):
        found = _chosen(order, places)
        if len(found) > len(best):
            best = found
        left_out = [index for index in order if index not in found]
        if not left_out:
            best = found
            break
        order = left_out + [index for index in order if index in found]
    return [
        _placed(wish, best[index][1], best[index][2]) if index in best else None for index, wish in enumerate(wishes)
    ]


def end_labels(wishes: Sequence[Wish], left: float, top: float, bottom: float) -> list[Placed]:
    """Returns names of lines in a column right of the plot, in the order of the lines' ends and joined to them.

    Args:
        wishes: the names; each mark is the end of a line.
        left: where the column begins.
        top: no name is higher while there is room below.
        bottom: no name is lower.
    """
    order = sorted(range(len(wishes)), key=lambda index: wishes[index].mark[1])
    middles = [max(top, wishes[index].mark[1]) for index in order]
    for lower in range(1, len(middles)):
        middles[lower] = max(middles[lower], middles[lower - 1] + END_STEP)
    limit = bottom
    for place in range(len(middles) - 1, -1, -1):
        middles[place] = min(middles[place], limit)
        limit = middles[place] - END_STEP
    found: dict[int, Placed] = {}
    for index, middle in zip(order, middles, strict=True):
        wish = wishes[index]
        box = (left, middle - HEIGHT / 2, left + width_of(wish.text), middle + HEIGHT / 2)
        found[index] = Placed(wish.text, wish.mark, box, (wish.mark, (left - 3, middle)))
    return [found[index] for index in range(len(wishes))]


def width_of(text: str) -> float:
    """Returns the room that a label takes."""
    return CHARACTER_WIDTH * len(text)


def distance(box: Box, spot: Spot) -> float:
    """Returns how far a spot lies from a box; 0 inside it."""
    across = max(box[0] - spot[0], 0.0, spot[0] - box[2])
    down = max(box[1] - spot[1], 0.0, spot[1] - box[3])
    return (across**2 + down**2) ** 0.5


def overlap(a: Box, b: Box) -> bool:
    """Returns whether two boxes come too close for their texts to be told apart."""
    return a[0] < b[2] + 3 and b[0] < a[2] + 3 and a[1] < b[3] and b[1] < a[3]


def _places(
    wish: Wish, marks: Sequence[Spot], spots: Sequence[Spot], room: Box, taken: Sequence[Box]
) -> list[tuple[float, Box, bool]]:
    """Returns the places that a label may have, each with what speaks against it, best first."""
    found = []
    others = [mark for mark in marks if mark != wish.mark]
    for number, (box, far) in enumerate(_around(wish)):
        own = distance(box, wish.mark)
        if not (room[0] <= box[0] and room[1] <= box[1] and box[2] <= room[2] and box[3] <= room[3]):
            continue
        if any(overlap(box, other) for other in taken) or any(distance(box, mark) < max(own + 1, 5) for mark in others):
            continue
        covered = sum(distance(box, spot) < 3 for spot in spots)
        found.append((covered + number / 4, box, far))
    return sorted(found, key=lambda place: place[0])


def _around(wish: Wish) -> list[tuple[Box, bool]]:
    """Returns boxes around a mark, the best first, and whether each is so far away that a line has to lead to it."""
    (x, y), width = wish.mark, width_of(wish.text)
    found = []
    for gap in (7.0, 13.0, 22.0, 34.0, 48.0, 64.0, 84.0):
        up, down = (y - gap - 11, y - gap + 2), (y + gap - 2, y + gap + 11)
        level = (y - HEIGHT / 2, y + HEIGHT / 2)
        right, left, centre = (x + gap, x + gap + width), (x - gap - width, x - gap), (x - width / 2, x + width / 2)
        for (x0, x1), (y0, y1) in (
            *((right, up), (left, down), (centre, (up[0] - 4, up[1] - 4)), (right, down), (left, up)),
            *((right, level), (left, level), (centre, (down[0] + 4, down[1] + 4))),
        ):
            found.append(((x0, y0, x1, y1), gap >= LEADER_FROM))
    return found


def _chosen(
    order: Sequence[int], places: Sequence[Sequence[tuple[float, Box, bool]]]
) -> dict[int, tuple[float, Box, bool]]:
    """Returns the best place of each label that those before it have left."""
    found: dict[int, tuple[float, Box, bool]] = {}
    for index in order:
        for place in places[index]:
            if not any(overlap(place[1], other[1]) for other in found.values()):
                found[index] = place
                break
    return found


def _placed(wish: Wish, box: Box, far: bool) -> Placed:
    (x, y), leader = wish.mark, None
    if far:
        end = (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))
        length = distance(box, wish.mark)
        start = (x + (end[0] - x) * 6 / length, y + (end[1] - y) * 6 / length) if length > 8 else None
        leader = (start, end) if start else None
    return Placed(wish.text, wish.mark, box, leader)


def _along(line: Sequence[Spot]) -> list[Spot]:
    """Returns the points of a line and spots between them."""
    between = [
        (x0 + (x1 - x0) * part / 12, y0 + (y1 - y0) * part / 12)
        for (x0, y0), (x1, y1) in itertools.pairwise(line)
        for part in range(1, 12)
    ]
    return [*line, *between]
