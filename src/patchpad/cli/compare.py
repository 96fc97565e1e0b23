"""`patchpad compare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from patchpad.cli.options import Json
from patchpad.cli.streams import print_json, print_text
from patchpad.errors import ConfigError

if TYPE_CHECKING:
    from patchpad.tasks.compare import Cell, Comparison, TaskRow

COLUMN_WIDTH = 30
"""Characters of a result's column, and of that of tasks; a table that is wider than the terminal is not folded."""


def compare(
    *results: Annotated[
        Path,
        Parameter(
            name="RESULT",
            help="Folder that `patchpad evaluate --suite` wrote, or its result.json; the first is the reference.",
        ),
    ],
    metric: Annotated[
        str | None, Parameter(help="Show this metric for tasks that have it, instead of each task's main one.")
    ] = None,
    seed: Annotated[int, Parameter(help="Seed of the random draws of examples.")] = 0,
    html: Annotated[Path | None, Parameter(help="Also write one self-contained page with the table and plots.")] = None,
    json: Json = False,
) -> None:
    """Show results of one suite side by side: quality and compute, and paired differences to the first result.

    Every result and every threshold is a column. Results with other data or other options are refused.
    """
    if not results:
        raise ConfigError("no RESULT is given; allowed: one or more", hint="Write: patchpad compare RESULT RESULT")

    from patchpad.tasks.compare import compare_columns
    from patchpad.tasks.compare_reading import read_columns

    comparison = compare_columns(read_columns(results), metric=metric, seed=seed)
    if html is not None:
        from patchpad.tasks.compare_page import write_comparison_page

        write_comparison_page(html, comparison)
    if json:
        print_json({**comparison.to_dict(), "html": html and str(html)})
        return
    _print_table(comparison)
    if html is not None:
        print_text(f"\n{html}")


def _print_table(comparison: "Comparison") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from patchpad.tasks.compare_texts import notes

    table = Table(box=None, pad_edge=False, header_style="bold", show_lines=False)
    table.add_column("task", overflow="fold")
    for column in comparison.columns:
        table.add_column(Text(column.label), justify="right", overflow="fold")
    for number, row in enumerate(comparison.rows):
        cells = (Text("-") if cell is None else Text("\n".join(_cell_lines(row, cell))) for cell in row.cells)
        table.add_row(Text("\n".join(_task_lines(row))), *cells, end_section=number + 1 < len(comparison.rows))
    console = Console(width=COLUMN_WIDTH * (1 + len(comparison.columns)), highlight=False)
    console.print(table)
    for note in notes(comparison):
        Console(width=100, highlight=False).print(Text(f"\n{note}"))


def _task_lines(row: "TaskRow") -> list[str]:
    from patchpad.tasks.compare_texts import chance_text, metric_text

    return [row.task, *(f"  {text}" for text in (*metric_text(row).split(", "), chance_text(row)) if text), ""]


def _cell_lines(row: "TaskRow", cell: "Cell") -> list[str]:
    from patchpad.tasks.compare_texts import compute_texts, difference_texts, p_value_text, value_text, verdict

    lines = [value_text(cell), *compute_texts(cell)]
    if cell.difference is not None:
        said = verdict(row, cell.difference)
        lines += [" ".join(difference_texts(cell.difference))]
        lines += [p_value_text(cell.difference) + (f": {said}" if said else "")]
    return [*lines, ""]
