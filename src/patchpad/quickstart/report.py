"""One self-contained HTML page about a trained model: numbers, plots, a sample with its scratchpads, how it was made.

Standard library only. The page loads nothing, runs no script, and follows the reader's light or dark setting.
"""

import math
from pathlib import Path

from patchpad.files import write_atomically
from patchpad.pages.html_page import html_page
from patchpad.pages.numbers import compact_number
from patchpad.pages.svg import escape_text
from patchpad.quickstart.content import Report
from patchpad.quickstart.plots import threshold_of
from patchpad.quickstart.sections import (
    change_text,
    making_section,
    plots_section,
    points_section,
    reading_section,
    sample_section,
    training_section,
)

NO_BREAK_SPACE = "\u00a0"


def write_report(path: Path, report: Report) -> None:
    """Writes the page to a temporary name, then renames it.

    Raises:
        OSError: the file cannot be written; a page that was there before is intact.
    """
    write_atomically(path, render_report(report))


def render_report(report: Report) -> str:
    """Returns the page as HTML."""
    sections = (
        points_section(report),
        plots_section(report),
        sample_section(report),
        reading_section(),
        training_section(report),
        making_section(report),
    )
    body = f"""\
<header>
<h1>{escape_text(report.title)}</h1>
<p class="lead">{escape_text(report.summary.replace(" %", NO_BREAK_SPACE + "%"))}</p>
{_tiles(report)}
</header>
{"".join(section for section in sections if section)}"""
    return html_page(report.title, body)


def _tiles(report: Report) -> str:
    point, plain = report.stored, report.without_scratchpads
    tiles: list[tuple[str, str, str]] = []
    if point is not None:
        change = change_text(point, plain)
        against = f"{change} against {plain['bits_per_byte']:.3f} with scratchpads off" if plain and change else ""
        tiles.append(("bits per byte", f"{point['bits_per_byte']:.3f}", against))
        parts = f"{point['patches_per_byte']:.4g} patches and {point['scratchpads_per_byte']:.4g} scratchpads"
        tiles.append(("trunk calls per byte", f"{point['trunk_calls_per_byte']:.3f}", parts))
        full = next((p for p in report.points if threshold_of(p) == -math.inf), None)
        share = (
            f"{100 * point['flops_per_byte'] / full['flops_per_byte']:.0f} % of running the trunk at every byte"
            if full and full is not point and full["flops_per_byte"]
            else ""
        )
        tiles.append(("FLOPs per byte", compact_number(point["flops_per_byte"]), share))
        patches = point["patches_per_byte"]
        every = f": one entry every {compact_number(1 / patches)} bytes, none for scratchpads" if patches else ""
        cache = compact_number(point["trunk_cache_bytes_per_byte"])
        tiles.append(("KV bytes per byte", cache, f"the trunk's cache{every}"))
    if report.baselines:
        label, best = min(report.baselines.items(), key=lambda item: item[1])
        others = [f"{name} {value:.3f}" for name, value in report.baselines.items() if name != label]
        tiles.append((f"bits per byte of {label}", f"{best:.3f}", "; ".join(["on the same text", *others])))
    if not tiles:
        return ""
    rows = "".join(
        f'<div><dt>{escape_text(name)}</dt><dd class="figure">{escape_text(figure)}</dd>'
        f'<dd class="detail">{escape_text(detail)}</dd></div>\n'
        for name, figure, detail in tiles
    )
    return f'<dl class="tiles">\n{rows}</dl>'
