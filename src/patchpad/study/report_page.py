"""`report.html` of a study: one page of tables that can be sorted and arms that can be hidden. Torch-free."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from patchpad.pages.html_page import html_page, scroll_attributes
from patchpad.pages.line_plot import line_plot_svg
from patchpad.pages.plot_data import LinePlot
from patchpad.pages.svg import escape_text
from patchpad.study.report_texts import PLOT_TEXTS, heading, missing_line, provenance_line, text_line
from patchpad.study.results import Results
from patchpad.study.summary import Comparison
from patchpad.study.tables import Table, arms_table, classes_table, differences_table, threshold_table, training_table

WEB = Path(__file__).parent / "web"


def render_report_page(
    results: Results, comparisons: Sequence[Comparison], plots: Mapping[str, Mapping[str, LinePlot]]
) -> str:
    """Returns the page as HTML; `plots` are those of each comparison by its slug."""
    study = results.study
    notes = (provenance_line(results), missing_line(study["arms"], comparisons))
    head = "\n".join(f'<p class="note">{escape_text(note)}</p>' for note in notes if note)
    sections = "\n".join(
        _section(number, comparison, plots[comparison.slug]) for number, comparison in enumerate(comparisons)
    )
    return html_page(
        f"Study: {study['name']}",
        f"""\
<header>
<h1>{escape_text(study["name"])}</h1>
<p class="lead">{escape_text(study["text"])}</p>
{head}
</header>
{sections}
""",
        style=(WEB / "report.css").read_text(encoding="utf-8"),
        script=(WEB / "report.js").read_text(encoding="utf-8"),
    )


def _section(number: int, comparison: Comparison, plots: Mapping[str, LinePlot]) -> str:
    """Returns the arms that may be compared with one another: boxes to choose them, then tables and plots."""
    title = escape_text(heading(comparison))
    names = {arm.label: arm.name for arm in comparison.arms}
    tables = [
        _table("Quality and cost at the stored threshold", arms_table(comparison), names),
        *(
            _table(f"Differences from {reference.name}, seed by seed", differences_table(comparison, reference), names)
            for reference in comparison.arms
            if reference.name in comparison.references
        ),
        _folded("Along the threshold, each arm's own weights; means over seeds", threshold_table(comparison), names),
        _folded("Scratchpads per byte of each class, at the stored threshold", classes_table(comparison), names),
        _folded("What training took", training_table(comparison), names),
    ]
    figures = "\n".join(
        f"<figure {scroll_attributes(PLOT_TEXTS[key])}>"
        f"{line_plot_svg(plot, element_id=f'plot-{number}-{key}')}</figure>"
        for key, plot in plots.items()
    )
    return f"""\
<section data-comparison aria-labelledby="comparison-{number}">
<h2 id="comparison-{number}">{title}</h2>
<p class="note">{escape_text(text_line(comparison).replace("**", ""))}</p>
{_choice(comparison)}
{"".join(tables)}
{figures}
</section>"""


def _choice(comparison: Comparison) -> str:
    """Returns a box for each arm."""
    boxes = "\n".join(
        f'<li><label><input type="checkbox" checked data-toggles="{escape_text(arm.name)}">'
        f"{escape_text(arm.label)}</label></li>"
        for arm in comparison.arms
    )
    return f"""\
<fieldset class="arms"><legend>Arms shown in tables and plots</legend>
<ul>
{boxes}
</ul>
<div class="row"><button type="button" data-all="true">Show all</button>
<button type="button" data-all="false">Hide all</button><span class="shown" role="status"></span></div>
</fieldset>"""


def _table(caption: str, table: Table, names: Mapping[str, str]) -> str:
    """Returns a table whose headings are buttons that sort it; names tell to which arm a row belongs."""
    if not table.rows:
        return ""
    heads = "".join(f'<th scope="col"><button type="button">{escape_text(one)}</button></th>' for one in table.headings)
    rows = "\n".join(
        f'<tr{_of_arm(row[0], names)}><th scope="row">{escape_text(row[0])}</th>'
        f"{''.join(f'<td>{escape_text(cell)}</td>' for cell in row[1:])}</tr>"
        for row in table.rows
    )
    return f"""\
<div {scroll_attributes(caption)}>
<table class="sortable"><caption>{escape_text(caption)}</caption>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody></table></div>
"""


def _folded(caption: str, table: Table, names: Mapping[str, str]) -> str:
    if not table.rows:
        return ""
    return f"<details><summary>{escape_text(caption)}</summary>\n{_table(caption, table, names)}</details>\n"


def _of_arm(label: str, names: Mapping[str, str]) -> str:
    return f' data-arm="{escape_text(names[label])}"' if label in names else ""
