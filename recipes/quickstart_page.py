"""Writes the README's table of `make quickstart`, and docs/figures/quickstart.svg, from the newest result file.

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
README, FIGURE = ROOT / "README.md", ROOT / "docs" / "figures" / "quickstart.svg"
BEGIN = "<!-- measured: written by recipes/quickstart_page.py -->"


def newest() -> tuple[str, dict[str, Any]]:
    """Returns name and content of the newest result file."""
    file = max((ROOT / "docs" / "results").glob("*-quickstart.json"), key=lambda file: file.name)
    return file.name, json.loads(file.read_text(encoding="utf-8"))


def block() -> str:
    """Returns what the README says of the run."""
    name, result = newest()
    facts, points, stored = result["facts"], result["points"], result["stored_threshold_nats"]
    never = next(point for point in points if float(point["scratchpad_threshold_nats"]) == math.inf)
    chosen = next(point for point in points if point["scratchpad_threshold_nats"] == stored)
    text = (
        f"{facts['Parameters']} parameters, 16-byte patches, trained on five Austen novels ({facts['Trained on']}, "
        f"{result['seconds']:.0f} s in all,\n{facts['Versions']}); *Persuasion* held out, {never['num_bytes']:,} bytes "
        "of it. One seed, exploratory. Rows are one set of\nweights at different thresholds; `*` is the stored one. "
        f"From no scratchpads to it: {never['bits_per_byte']:.4f} to {chosen['bits_per_byte']:.4f} bits per byte\n"
        f"(**{result['change_percent']:+.2f} %**) for {never['trunk_calls_per_byte']:.3f} to "
        f"{chosen['trunk_calls_per_byte']:.3f} trunk calls per byte and the same trunk cache."
    )
    lines = [
        "| threshold (nats) | bits per byte | scratchpads per byte | trunk calls per byte | FLOPs per byte | "
        "trunk KV bytes per byte |",
        "|---|---|---|---|---|---|",
    ]
    for point in points:
        threshold = float(point["scratchpad_threshold_nats"])
        nats = f"{threshold:.3f}" if math.isfinite(threshold) else "∞" if threshold > 0 else "-∞"
        lines.append(
            f"| {nats}{' *' if point is chosen else ''} | {point['bits_per_byte']:.4f} | "
            f"{point['scratchpads_per_byte']:.4f} | {point['trunk_calls_per_byte']:.4f} | "
            f"{point['flops_per_byte']:,.0f} | {point['trunk_cache_bytes_per_byte']:.1f} |"
        )
    table = "\n".join(lines)
    return f"{text}\n\n{table}\n\nRaw values: [`docs/results/{name}`](docs/results/{name}).\n"


def filled(page: str) -> str:
    """Returns the README with its block made anew."""
    return fill_block(page, BEGIN, block())


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
    """Writes README and plot."""
    page, plot = filled(README.read_text(encoding="utf-8")), figure()
    write_atomically(README, page)
    write_atomically(FIGURE, plot)


if __name__ == "__main__":
    main()
