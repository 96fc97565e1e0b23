"""A comparison as one self-contained HTML page: the table, and quality against compute for each task."""

from pathlib import Path

from patchpad.files import write_atomically
from patchpad.pages.html_page import html_page, scroll_attributes
from patchpad.pages.line_plot import Series, line_plot
from patchpad.pages.svg import escape_text
from patchpad.tasks.compare import Cell, Comparison, TaskRow
from patchpad.tasks.compare_texts import (
    chance_text,
    compute_texts,
    difference_texts,
    metric_text,
    notes,
    p_value_text,
    value_text,
    verdict,
)
from patchpad.tasks.ranks_page import ranks_section

PLOT_WIDTH, PLOT_HEIGHT = 440, 300


def write_comparison_page(path: Path, comparison: Comparison) -> None:
    """Writes the page to a temporary name, then renames it.

    Raises:
        OSError: the file cannot be written; a page that was there before is intact.
    """
    write_atomically(path, render_comparison_page(comparison))


def render_comparison_page(comparison: Comparison) -> str:
    """Returns the page as HTML."""
    names = list(dict.fromkeys(column.run_label for column in comparison.columns))
    title = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    plots = "\n".join(f"<figure>{task_plot(comparison, row)}</figure>" for row in comparison.rows)
    ranks = "".join(map(ranks_section, comparison.ranks.values()))
    remarks = "\n".join(f'<p class="note">{escape_text(note)}</p>' for note in notes(comparison))
    return html_page(
        f"Comparison: {title}",
        f"""\
<header>
<h1>{escape_text(title)}</h1>
<p class="lead">{len(comparison.rows)} task{"s" if len(comparison.rows) > 1 else ""}, the same examples for all;
differences are those to {escape_text(comparison.columns[0].label)}</p>
</header>
<section>
<h2>Quality and compute</h2>
<div {scroll_attributes("Quality and compute")}>
<table class="points">
{_head(comparison)}
<tbody>
{"".join(_row(row) for row in comparison.rows)}</tbody>
</table>
</div>
<div style="margin-top:1.25rem">
{remarks}
</div>
</section>
<section>
<h2>Quality against trunk calls per byte</h2>
<div class="columns">
{plots}
</div>
<p class="note" style="margin-top:1.25rem">Bars are one standard error; the dotted line is chance.</p>
</section>
{ranks}<section>
<h2>What was compared</h2>
{_facts(comparison)}
</section>
""",
    )


def task_plot(comparison: Comparison, row: TaskRow, *, standalone: bool = False) -> str:
    """Returns quality against trunk calls per byte for one task: a line for each result, a point for each threshold.

    Args:
        comparison: that the row belongs to.
        row: the task.
        standalone: a file of its own.
    """
    points: dict[int, list[tuple[float, float, float | None]]] = {}
    labels: dict[int, str] = {}
    for column, cell in zip(comparison.columns, row.cells, strict=True):
        if cell is not None:
            calls = cell.result.compute.trunk_calls_per_byte
            points.setdefault(column.run, []).append((calls, cell.metric.value, cell.metric.standard_error))
            labels[column.run] = column.run_label
    series = [
        Series(
            labels[run],
            [(calls, value) for calls, value, _ in sorted(several)],
            deviations=[error for _, _, error in sorted(several)],
            look=run,
        )
        for run, several in points.items()
    ]
    number = comparison.rows.index(row)
    return line_plot(
        series,
        title=row.task,
        x_label="trunk calls per byte",
        y_label=metric_text(row),
        width=PLOT_WIDTH,
        height=PLOT_HEIGHT,
        reference_lines={} if row.chance is None else {"chance": row.chance},
        element_id=f"task-{number}",
        standalone=standalone,
    )


def _head(comparison: Comparison) -> str:
    columns = "".join(f'<th scope="col">{escape_text(column.label)}</th>' for column in comparison.columns)
    return f'<thead><tr><th scope="col">task</th>{columns}</tr></thead>'


def _row(row: TaskRow) -> str:
    below = "".join(
        f'<br><span class="note">{escape_text(text)}</span>' for text in (metric_text(row), chance_text(row)) if text
    )
    cells = "".join(_cell(row, cell) for cell in row.cells)
    return f'<tr><th scope="row" style="vertical-align:top">{escape_text(row.task)}{below}</th>{cells}</tr>\n'


def _cell(row: TaskRow, cell: Cell | None) -> str:
    if cell is None:
        return "<td>–</td>"  # noqa: RUF001  (a dash for "no value")
    lines = [escape_text(value_text(cell)), _muted(", ".join(compute_texts(cell)))]
    if cell.difference is not None:
        said = verdict(row, cell.difference)
        badge = f'<span class="badge">{said}</span>' if said else ""
        mean, interval = difference_texts(cell.difference)
        lines += [escape_text(mean) + badge, escape_text(interval), _muted(p_value_text(cell.difference))]
    return f'<td style="vertical-align:top">{"<br>".join(lines)}</td>'


def _muted(text: str) -> str:
    return f'<span class="note">{escape_text(text)}</span>'


def _facts(comparison: Comparison) -> str:
    rows = []
    for column in comparison.columns:
        facts = "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in column.facts.items())
        rows.append(f'<tr><th scope="row">{escape_text(column.label)}</th><td>{escape_text(facts)}</td></tr>\n')
    return f'<table class="facts"><tbody>\n{"".join(rows)}</tbody></table>'
