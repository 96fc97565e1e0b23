"""Labels beside the points of a plot: each where it covers no other, and as little as possible of lines and markers."""

import itertools
from collections.abc import Sequence

from patchpad.pages.svg import CHARACTER_WIDTH, text_element

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in user units."""


def label_elements(paths: Sequence[Sequence[tuple[float, float, str]]], room: Box) -> list[str]:
    """Returns the labels that find a place inside `room`.

    Args:
        paths: for each series its points, in the order of its line: x and y in user units, and a text or "".
        room: no label may leave it, upwards excepted.
    """
    if not any(label for path in paths for *_, label in path):
        return []
    obstacles = [spot for path in paths for spot in _spots([(x, y) for x, y, _ in path])]
    taken: list[Box] = []
    elements = []
    for path in reversed(paths):  # later series are drawn on top, so their labels choose first
        order = sorted(range(len(path)), key=lambda index: index not in (0, len(path) - 1))
        for x, y, label in (path[index] for index in order if path[index][2]):
            fits = [
                (sum(_inside(spot, box) for spot in obstacles), place, box)
                for place, box in enumerate(_places(x, y, CHARACTER_WIDTH * len(label)))
                if box[0] >= room[0]
                and box[2] <= room[2]
                and box[3] <= room[3]
                and not any(_overlap(box, other) for other in taken)
            ]
            if fits:
                box = min(fits)[2]
                taken.append(box)
                middle = (box[0] + box[2]) / 2
                css = "plot-point-label plot-halo"
                elements.append(text_element(middle, box[3] - 3, label, anchor="middle", css=css))
    return elements


def _places(x: float, y: float, width: float) -> list[Box]:
    """Returns where a label so wide may lie around a point, best first."""
    return [
        (x + 7, y - 18, x + 7 + width, y - 5),
        (x - 7 - width, y + 5, x - 7, y + 18),
        (x - width / 2, y - 22, x + width / 2, y - 8),
        (x + 7, y + 5, x + 7 + width, y + 18),
        (x - 7 - width, y - 18, x - 7, y - 5),
    ]


def _spots(path: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the points of a path and spots along its segments."""
    between = [
        (x0 + (x1 - x0) * part / 12, y0 + (y1 - y0) * part / 12)
        for (x0, y0), (x1, y1) in itertools.pairwise(path)
        for part in range(1, 12)
    ]
    return [*path, *between]


def _inside(spot: tuple[float, float], box: Box) -> bool:
    return box[0] - 3 <= spot[0] <= box[2] + 3 and box[1] - 3 <= spot[1] <= box[3] + 3


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] + 3 and b[0] < a[2] + 3 and a[1] < b[3] and b[1] < a[3]
