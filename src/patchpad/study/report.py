"""`report.md` and `report.html` of a study: every table and plot from the result files alone. Torch-free."""

from collections.abc import Container, Sequence
from pathlib import Path

from patchpad.files import write_atomically
from patchpad.pages.line_plot import line_plot_svg
from patchpad.pages.pdf import pdf_of, require_pdf
from patchpad.study.plots import study_plots
from patchpad.study.report_page import render_report_page
from patchpad.study.report_texts import PLOT_TEXTS, heading, missing_line, provenance_line, text_line
from patchpad.study.results import RESULTS_OF_RUNS, Results, StudyFolder, read_results
from patchpad.study.summary import Comparison, summarize
from patchpad.study.tables import (
    arms_table,
    classes_table,
    differences_table,
    threshold_table,
    training_table,
)

REPORT, PAGE, PLOTS = "report.md", "report.html", "plots"


def has_results(folder: str | Path) -> bool:
    """Returns whether a study's folder holds a result of any run."""
    return any(StudyFolder(Path(folder)).results.glob(RESULTS_OF_RUNS))


def write_study_report(folder: str | Path, *, pdf: bool = False) -> Path:
    """Writes DIR/report.md, DIR/report.html and DIR/plots/*.svg from DIR/results.

    Args:
        folder: the study's.
        pdf: also write each plot as PDF.

    Raises:
        DataError: there are no results, or one cannot be read.
        MissingExtraError: a PDF is asked for, and its library is not installed.
    """
    if pdf:
        require_pdf()
    folder = Path(folder)
    results = read_results(folder)
    comparisons = summarize(results)
    by_comparison = {comparison.slug: study_plots(comparison) for comparison in comparisons}
    plots = {f"{slug}-{name}.svg": plot for slug, group in by_comparison.items() for name, plot in group.items()}
    (folder / PLOTS).mkdir(exist_ok=True)
    for name, plot in plots.items():
        element_id = f"plot-{name.removesuffix('.svg')}"
        write_atomically(folder / PLOTS / name, line_plot_svg(plot, element_id=element_id, standalone=True))
        if pdf:
            write_atomically((folder / PLOTS / name).with_suffix(".pdf"), pdf_of(plot))
    write_atomically(folder / REPORT, render_study_report(results, comparisons, plots))
    write_atomically(folder / PAGE, render_report_page(results, comparisons, by_comparison))
    return folder / REPORT


def render_study_report(results: Results, comparisons: Sequence[Comparison], plots: Container[str]) -> str:
    """Returns the report as Markdown; `plots` are the names of the files beside it that exist."""
    study = results.study
    parts = [f"# {study['name']}", study["text"], provenance_line(results), missing_line(study["arms"], comparisons)]
    for comparison in comparisons:
        parts += [f"## {heading(comparison)}", text_line(comparison), arms_table(comparison).markdown()]
        parts += all_differences(comparison)
        curves = threshold_table(comparison).markdown()
        if curves:
            parts += ["Along the threshold, each arm's own weights; means over seeds:", curves]
        rates = classes_table(comparison).markdown()
        if rates:
            parts += ["Scratchpads per byte of each class, at the stored threshold:", rates]
        parts += ["What training took:", training_table(comparison).markdown()]
        for name, words in PLOT_TEXTS.items():
            file = f"{comparison.slug}-{name}.svg"
            if file in plots:
                parts.append(f"![{words}]({PLOTS}/{file})")
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def all_differences(comparison: Comparison) -> list[str]:
    """Returns a line and a table for each reference that has been measured."""
    parts = []
    for reference in (arm for arm in comparison.arms if arm.name in comparison.references):
        differences = differences_table(comparison, reference).markdown()
        if differences:
            parts += [f"Differences from {reference.name}, seed by seed:", differences]
    return parts
