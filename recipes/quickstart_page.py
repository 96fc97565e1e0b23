"""Writes the tables of `make quickstart` in README and tour, and docs/figures/quickstart.svg, from the newest result.

Usage: python recipes/quickstart_page.py
A run's `quickstart.json` is kept as docs/results/DATE-quickstart.json.
"""

import json
import math
from pathlib import Path
from typing import Any

from measured_blocks import fill_block

from patchpad.files import write_atomically
from patchpad.pages.line_plot import Series, line_plot

ROOT = Path(__file__).resolve().parent.parent
README, TOUR = ROOT / "README.md", ROOT / "docs" / "tour.md"
FIGURE = ROOT / "docs" / "figures" / "quickstart.svg"
SOME_SCRATCHPADS = 1 / 16
"""Per byte: the rate of the README's row between none and the stored threshold."""
BEGIN = "<!-- measured: written by recipes/quickstart_page.py -->"


def newest() -> tuple[str, dict[str, Any]]:
    """Returns name and content of the newest result file."""
    file = max((ROOT / "docs" / "results").glob("*-quickstart.json"), key=lambda file: file.name)
    return file.name, json.loads(file.read_text(encoding="utf-8"))


def short_block() -> str:
    """Returns what the README says of the run: four of its thresholds."""
    _, result = newest()
    points, stored = result["points"], result["stored_threshold_nats"]
    chosen = [
        (points[0], "no scratchpads"),
        (min(points, key=lambda point: abs(point["scratchpads_per_byte"] - SOME_SCRATCHPADS)), "few scratchpads"),
        (next(point for point in points if point["scratchpad_threshold_nats"] == stored), "as trained"),
        (points[-1], "the trunk at every byte"),
    ]
    lines = [
        "| scratchpads | threshold (nats) | trunk calls per byte | bits per byte | trunk cache, bytes per byte |",
        "|---|---:|---:|---:|---:|",
    ]
    for point, name in chosen:
        lines.append(
            f"| {name} | {_nats(point)} | {point['trunk_calls_per_byte']:.3f} | {point['bits_per_byte']:.4f} | "
            f"{point['trunk_cache_bytes_per_byte']:.0f} |"
        )
    facts = result["facts"]
    about = (
        f"{facts['Parameters']} parameters, patches of 16 bytes ({facts['Trained on']}), measured on a novel that "
        "was held out. One seed. Fewer bits are better."
    )
    return "\n".join(lines) + f"\n\n{about}\n"


def full_block() -> str:
    """Returns what the tour says of the run."""
    name, result = newest()
    facts, points, stored = result["facts"], result["points"], result["stored_threshold_nats"]
    never = next(point for point in points if float(point["scratchpad_threshold_nats"]) == math.inf)
    chosen = next(point for point in points if point["scratchpad_threshold_nats"] == stored)
    bits, calls = (
        " to ".join(f"{point[key]:.{digits}f}" for point in (never, chosen))
        for key, digits in (("bits_per_byte", 4), ("trunk_calls_per_byte", 3))
    )
    text = (
        f"{facts['Parameters']} parameters, 16-byte patches, trained on five Austen novels ({facts['Trained on']}, "
        f"{result['seconds']:.0f} s in all, {facts['Versions']}). *Persuasion* was held out. "
        f"{never['num_bytes']:,} bytes of it are measured. One seed, exploratory. The rows are one set of weights at "
        f"different thresholds. `*` is the stored one. From no scratchpads to it: {bits} bits per byte "
        f"(**{result['change_percent']:+.2f} %**) for {calls} trunk calls per byte and the same trunk cache."
    )
    lines = [
        "| threshold (nats) | bits per byte | scratchpads per byte | trunk calls per byte | FLOPs per byte | "
        "trunk KV bytes per byte |",
        "|---|---|---|---|---|---|",
    ]
    for point in points:
        lines.append(
            f"| {_nats(point)}{' *' if point is chosen else ''} | {point['bits_per_byte']:.4f} | "
            f"{point['scratchpads_per_byte']:.4f} | {point['trunk_calls_per_byte']:.4f} | "
            f"{point['flops_per_byte']:,.0f} | {point['trunk_cache_bytes_per_byte']:.1f} |"
        )
    table = "\n".join(lines)
    return f"{text}\n\n{table}\n\nRaw values: `docs/results/{name}`.\n"


def _nats(point: dict[str, Any]) -> str:
    threshold = float(point["scratchpad_threshold_nats"])
    return f"{threshold:.3f}" if math.isfinite(threshold) else "∞" if threshold > 0 else "-∞"


BLOCKS = {README: short_block, TOUR: full_block}


def filled(page: Path) -> str:
    """Returns a page with its block made anew."""
    return fill_block(page.read_text(encoding="utf-8"), BEGIN, BLOCKS[page]())


def figure() -> str:
    """Returns the plot of the run: bits per byte against trunk calls per byte."""
    _, result = newest()
    stored = result["stored_threshold_nats"]
    points = sorted(result["points"], key=lambda point: point["trunk_calls_per_byte"])
    at = [(point["trunk_calls_per_byte"], point["bits_per_byte"]) for point in points]
    chosen = [place for place, point in zip(at, points, strict=True) if point["scratchpad_threshold_nats"] == stored]
    return line_plot(
        [
            Series("held-out text, one set of weights", at),
            Series("stored threshold", chosen[:1], point_labels=["stored"]),
        ],
        title="Compute dialled after training",
        x_label="trunk calls per byte",
        y_label="bits per byte",
        element_id="plot",
        standalone=True,
    )


def main() -> None:
    """Writes both tables and the plot."""
    made = {**{page: filled(page) for page in BLOCKS}, FIGURE: figure()}
    for path, content in made.items():
        write_atomically(path, content)


if __name__ == "__main__":
    main()
