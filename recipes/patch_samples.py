"""Writes docs/patches.md: how each patchifier cuts the same samples, in runs that benchmarks/patchifiers.py trained.

Usage: python recipes/patch_samples.py RUNS
"""

import sys
from pathlib import Path

import patchpad
from patchpad.files import write_atomically
from patchpad.pages.marked_text import visible_units

TARGET = Path(__file__).parent.parent / "docs" / "patches.md"
SAMPLES = {
    "English": "It is a truth universally acknowledged, that a single man in possession of a good fortune",
    "Chinese": "凡是有财产的单身汉,必定需要娶位太太",
    "Python": "def area(width: float, height: float) -> float:\n    return width * height",
    "JSON": '{"name": "Emma", "age": 21, "rich": true, "tags": ["clever", "handsome"]}',
}
PATCHIFIERS = ("fixed", "spacebyte", "entropy", "hnet")
TEXT = """# How patchifiers cut

A *patchifier* is the rule that cuts bytes into patches ([concepts](concepts.md#patches)). This page shows how four of
them cut the same texts.

- The models are the four runs with scratchpads of [the comparison of patchifiers](log.md). Each was trained on 3.07
  MB of English books. Chinese, code and JSON are new to them, so `entropy` and `hnet` cut those texts by what they
  learned from English.
- `|` marks the end of a patch. `hnet` commits at the first byte of a chunk, so there the mark stands before that
  byte.
- `/` marks a cut inside a character.
- `fixed`, `entropy` and `hnet` aim at 6 bytes per patch. For `spacebyte` the text decides.

`recipes/patch_samples.py` writes this page.
"""


def marked(text: str, ends: list[bool], *, before: bool) -> str:
    """Returns the text with a mark at each patch end."""
    parts = []
    for unit in visible_units(text.encode()):
        inside = [index for index in range(unit.start, unit.stop) if ends[index]]
        places = [index if before else index + 1 for index in inside]
        shown = "⏎" if unit.breaks_line else unit.text
        whole = {unit.start, unit.stop}
        parts += ["|" if place == unit.start else "" for place in places]
        parts += [shown, *("/" for place in places if place not in whole)]
        parts += ["|" for place in places if place == unit.stop]
    return "".join(parts)


def main(runs: str) -> None:
    """Inspects every sample with every run."""
    sections = []
    for name, sample in SAMPLES.items():
        rows = []
        for patchifier in PATCHIFIERS:
            model = patchpad.load(Path(runs) / f"{patchifier}-entropy")
            inspection = patchpad.inspect(model, sample)
            cut = marked(sample, inspection.patch_end.tolist(), before=patchifier == "hnet")
            size = inspection.num_bytes / max(1, inspection.num_patches)
            rows.append(f"{patchifier:<9} {size:5.1f}  {cut}")
        body = "\n".join(rows)
        sections.append(f"\n## {name}\n\n```\npatchifier bytes per patch\n{body}\n```\n")
    write_atomically(TARGET, TEXT + "".join(sections))


if __name__ == "__main__":
    main(*sys.argv[1:])
