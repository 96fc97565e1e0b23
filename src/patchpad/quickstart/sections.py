"""The sections of the report as HTML. Standard library only."""

import math
from collections.abc import Sequence
from typing import Any

from patchpad.pages.html_page import scroll_attributes
from patchpad.pages.marked_text import marked_html, plain_html
from patchpad.pages.numbers import compact_number
from patchpad.pages.svg import escape_text
from patchpad.quickstart.content import Report
from patchpad.quickstart.plots import nats_text, threshold_of, tradeoff_figure, training_figure


def points_section(report: Report) -> str:
    """Returns the table of points along the threshold, and of other models of the text."""
    if not report.points:
        return _section("points", "Along the threshold", "<p>No points were evaluated.</p>")
    plain, stored = report.without_scratchpads, report.stored
    rows = []
    for point in sorted(report.points, key=threshold_of, reverse=True):
        chosen = point is stored
        badge = ' <span class="badge">stored</span>' if chosen else ""
        cells = (
            f"{point['scratchpads_per_byte']:.4f}",
            f"{point['bits_per_byte']:.4f}",
            (change_text(point, plain) or "0 %") if plain is not None else "",
            f"{point['trunk_calls_per_byte']:.4f}",
            compact_number(point["flops_per_byte"]),
            compact_number(point["trunk_cache_bytes_per_byte"]),
        )
        rows.append(
            f'<tr{" class=chosen" if chosen else ""}><th scope="row">{nats_text(threshold_of(point))}{badge}</th>'
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + "</tr>\n"
        )
    counts = sorted({int(point["num_bytes"]) for point in report.points})
    amount = " to ".join(f"{count:,}" for count in {counts[0]: None, counts[-1]: None})
    marked = " The marked row is the threshold stored with the model." if stored is not None else ""
    caption = (
        f"Held-out text, {amount} bytes, one model at several thresholds.{marked} At ∞ the same model runs with its "
        "scratchpads off, which is not a model trained without them."
    )
    headings = (
        "threshold (nats)",
        "scratchpads per byte",
        "bits per byte",
        "change against no scratchpads",
        "trunk calls per byte",
        "FLOPs per byte",
        "trunk KV bytes per byte of context",
    )
    return _section(
        "points", "Along the threshold", _table("points", caption, headings, "".join(rows)) + _baselines(report)
    )


def _baselines(report: Report) -> str:
    if not report.baselines:
        return ""
    point = report.stored
    entries = [(name, value, "") for name, value in report.baselines.items()]
    if point is not None:
        name = f"this model at {nats_text(report.stored_threshold_nats)} nats"
        entries.append((name, point["bits_per_byte"], " class=chosen"))
    rows = "".join(
        f'<tr{css}><th scope="row">{escape_text(name)}</th><td>{value:.4f}</td></tr>\n'
        for name, value, css in sorted(entries, key=lambda entry: -entry[1])
    )
    caption = (
        "On the same held-out text. A compressor sees nothing but that text; the model was trained on other text first."
    )
    return "\n<h3>Beside other models of the text</h3>\n" + _table(
        "baselines", caption, ("model", "bits per byte"), rows
    )


def plots_section(report: Report) -> str:
    """Returns bits per byte against trunk calls and against FLOPs, or "" without points."""
    if not report.points:
        return ""
    figures = [
        tradeoff_figure(report.points, report.stored, report.baselines, key=key, x_label=x_label, element_id=name)
        for key, x_label, name in (
            ("trunk_calls_per_byte", "trunk calls per byte", "plot-calls"),
            ("flops_per_byte", "FLOPs per byte (forward)", "plot-flops"),
        )
    ]
    note = "<p>Lower is better, and further left is cheaper. The numbers at the points are thresholds in nats.</p>"
    return _section("tradeoff", "Quality against compute", note + f'<div class="columns">{"".join(figures)}</div>')


def training_section(report: Report) -> str:
    """Returns the course of training, and the facts about the run."""
    facts = ""
    if report.facts:
        rows = "".join(
            f'<tr><th scope="row">{escape_text(name)}</th><td>{escape_text(value)}</td></tr>\n'
            for name, value in report.facts.items()
        )
        facts = _table("facts", "About the run.", (), rows)
    return _section("training", "The run", f'<div class="columns">{training_figure(report.training)}{facts}</div>')


def sample_section(report: Report) -> str:
    """Returns what the model wrote, plain and with its marks, or "" without a sample."""
    prompt = report.prompt_bytes
    if not prompt and not report.sample:
        return ""
    bold = " The prompt is in bold." if prompt else ""
    body = (
        f"<p>What the model writes.{bold} Grey marks stand for a newline, \\n, and for bytes that "
        "are not part of a printable character, such as \\x1F (in hexadecimal).</p>\n"
        f'<pre class="bytes panel">{f"<b class=prompt>{plain_html(prompt)}</b>" if prompt else ""}'
        f"{plain_html(report.sample)}</pre>\n"
    )
    if report.sample_entropy_nats or report.sample_scratchpads or report.sample_patch_ends:
        body += _marked_sample(report)
    return _section("sample", "A sample", body)


def _marked_sample(report: Report) -> str:
    data = report.prompt_bytes + report.sample
    entropies = report.sample_entropy_nats
    deepest = max((math.ceil(2 * value) / 2 for value in entropies if math.isfinite(value)), default=0.0)
    legend = []
    if entropies:
        shades = "".join(f'<i class="e{level}"> </i>' for level in (1, 3, 5, 7, 9))
        text = (
            "The deeper the background, the less sure the model is, after this character, of the byte that follows "
            f"(entropy, from 0 to {deepest:g} nats)."
        )
        legend.append((shades, text))
    if report.sample_scratchpads:
        text = "A bar below a character is a scratchpad: the trunk ran there inside the open patch, and kept nothing."
        legend.append(('<i class="pad">a</i>', text))
    if report.sample_patch_ends:
        text = "A line after a character ends a patch: the trunk ran there, and its result stays in the cache."
        legend.append(('<i class="end">a</i>', text))
    items = "".join(
        f'<li><span class="key" aria-hidden="true">{key}</span><span>{escape_text(text)}</span></li>\n'
        for key, text in legend
    )
    marked = marked_html(
        data,
        num_prompt_bytes=len(report.prompt_bytes),
        entropy_nats=entropies or [0.0] * len(data),
        scratchpads=report.sample_scratchpads or [False] * len(data),
        patch_ends=report.sample_patch_ends or [False] * len(data),
        full_shade_nats=deepest,
    )
    return (
        "<h3>Where it spent compute</h3>\n"
        f'<ul class="legend">\n{items}</ul>\n<pre class="bytes marked panel">{marked}</pre>\n'
    )


def reading_section() -> str:
    """Returns what the words of the page mean."""
    words = (
        (
            "Patch",
            "Consecutive bytes that share one run of the trunk, the large part of the model, and one cache entry.",
        ),
        (
            "Scratchpad",
            "An extra run of the trunk inside an open patch that refreshes what the next bytes are predicted "
            "from, and is then discarded.",
        ),
        (
            "Threshold",
            "The entropy, in nats, above which a scratchpad is issued: ∞ issues none, and -∞ runs the trunk at "
            "every byte.",
        ),
        (
            "Bits per byte",
            "What one byte of held-out text costs the model on average; lower is better, and 8 would be no "
            "compression at all.",
        ),
    )
    rows = "".join(f"<dt>{word}</dt><dd>{meaning}</dd>\n" for word, meaning in words)
    return _section("reading", "How to read this page", f'<dl class="words">\n{rows}</dl>')


def making_section(report: Report) -> str:
    """Returns the command that was run, and how to get the same numbers again."""
    body = ""
    for heading, text in (("The command", report.command), ("To reproduce", report.reproduce)):
        if text:
            body += f'<h3>{heading}</h3>\n<pre class="code panel">{escape_text(text)}</pre>\n'
    return _section("making", "How it was made", body) if body else ""


def _section(name: str, heading: str, body: str) -> str:
    return f'<section aria-labelledby="{name}-heading">\n<h2 id="{name}-heading">{heading}</h2>\n{body}\n</section>\n'


def _table(css: str, caption: str, headings: Sequence[str], rows: str) -> str:
    """Returns a table that scrolls sideways where it does not fit; `caption` and `headings` are escaped here."""
    head = ""
    if headings:
        cells = (f'<th scope="col">{escape_text(text)}</th>' for text in headings)
        head = f"<thead><tr>{''.join(cells)}</tr></thead>\n"
    return (
        f"<div {scroll_attributes(caption)}>\n"
        f'<table class="{css}">\n<caption>{escape_text(caption)}</caption>\n'
        f"{head}<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )


def change_text(point: dict[str, Any], plain: dict[str, Any] | None) -> str:
    """Returns the change of bits per byte against `plain` in per cent, or "" where there is nothing to compare."""
    if plain is None or plain is point or not plain["bits_per_byte"]:
        return ""
    return f"{100 * (point['bits_per_byte'] / plain['bits_per_byte'] - 1):+.2f} %"
