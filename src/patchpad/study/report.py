"""`report.md` of a study: every table and plot from the result files alone. Torch-free."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from patchpad.files import write_atomically
from patchpad.pages.numbers import compact_number
from patchpad.study.plots import study_plots
from patchpad.study.results import RESULTS_OF_RUNS, Results, StudyFolder, read_results
from patchpad.study.summary import Comparison, summarize
from patchpad.study.tables import (
    arms_table,
    classes_table,
    differences_table,
    threshold_table,
    training_table,
)

REPORT, PLOTS = "report.md", "plots"
PLOT_TEXTS = {
    "flops": "bits per byte against FLOPs per byte",
    "cache": "bits per byte against trunk KV bytes per byte",
    "threshold": "bits per byte along the threshold",
    "positions": "bits per byte by position inside the patch",
    "letters": "bits per byte by letter of the word, against the first arm",
    "classes": "scratchpads by class of byte",
    "training": "bits per byte while training",
}


def has_results(folder: str | Path) -> bool:
    """Returns whether a study's folder holds a result of any run."""
    return any(StudyFolder(Path(folder)).results.glob(RESULTS_OF_RUNS))


def write_study_report(folder: str | Path) -> Path:
    """Writes DIR/report.md and DIR/plots/*.svg from DIR/results.

    Raises:
        DataError: there are no results, or one cannot be read.
    """
    folder = Path(folder)
    results = read_results(folder)
    comparisons = summarize(results)
    plots = {
        f"{comparison.slug}-{name}.svg": plot
        for comparison in comparisons
        for name, plot in study_plots(comparison).items()
    }
    (folder / PLOTS).mkdir(exist_ok=True)
    for name, plot in plots.items():
        write_atomically(folder / PLOTS / name, plot)
    write_atomically(folder / REPORT, render_study_report(results, comparisons, plots))
    return folder / REPORT


def render_study_report(
    results: Results, comparisons: Sequence[Comparison], plots: Sequence[str] | dict[str, str]
) -> str:
    """Returns the report as Markdown; `plots` are the names of the files beside it that exist."""
    study = results.study
    parts = [f"# {study['name']}", study["text"], provenance_line(results), missing_line(study["arms"], comparisons)]
    for comparison in comparisons:
        parts += [_heading(comparison), text_line(comparison), arms_table(comparison)]
        parts += all_differences(comparison)
        curves = threshold_table(comparison)
        if curves:
            parts += ["Along the threshold, each arm's own weights; means over seeds:", curves]
        rates = classes_table(comparison)
        if rates:
            parts += ["Scratchpads per byte of each class, at the stored threshold:", rates]
        parts += ["What training took:", training_table(comparison)]
        for name, words in PLOT_TEXTS.items():
            file = f"{comparison.slug}-{name}.svg"
            if file in plots:
                parts.append(f"![{words}]({PLOTS}/{file})")
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def all_differences(comparison: Comparison) -> list[str]:
    """Returns a line and a table for each reference that has been measured."""
    parts = []
    for reference in (arm for arm in comparison.arms if arm.name in comparison.references):
        differences = differences_table(comparison, reference)
        if differences:
            parts += [f"Differences from {reference.name}, seed by seed:", differences]
    return parts


def missing_line(planned: Iterable[Mapping[str, Any]], comparisons: Sequence[Comparison]) -> str:
    """Returns which of the study's arms, or which seeds of them, have no result yet; "" if all have."""
    done = {arm.name: arm.seeds for comparison in comparisons for arm in comparison.arms}
    missing = []
    for arm in planned:
        seeds = [str(seed) for seed in arm["seeds"] if seed not in done.get(arm["name"], ())]
        if arm["name"] not in done:
            missing.append(arm["name"])
        elif seeds:
            missing.append(f"{arm['name']} (seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)})")
    return f"No result yet of: {', '.join(missing)}." if missing else ""


def provenance_line(results: Results) -> str:
    """Returns machine, versions and commits of the results, each once."""

    def each(key: str) -> str:
        return ", ".join(sorted({str(run["provenance"][key]) for run in results.runs}))

    commits = {run["provenance"]["commit"] for run in results.runs}
    commits.update(*(run["training"].get("commits", ()) for run in results.runs))
    dates = sorted(run["provenance"]["date"][:10] for run in results.runs)
    spread = "± is the standard deviation over seeds; one seed has none and is a hint, no claim."
    return (
        f"{len(results.runs)} runs, {dates[0]} to {dates[-1]}, on {each('hardware')} with {each('threads')} thread(s), "
        f"patchpad {each('package_version')}, torch {each('torch_version')}, "
        f"commit {', '.join(sorted(map(str, commits)))}. {spread}"
    )


def _heading(comparison: Comparison) -> str:
    return f"## Text: {comparison.text}, {compact_number(comparison.bytes_seen, digits=3)} bytes seen"


def text_line(comparison: Comparison) -> str:
    """Returns what the arms were trained and measured on."""
    runs = [run for arm in comparison.arms for run in arm.results]
    data: dict[str, Any] = runs[0]["data"]
    line = (
        f"{data['training']['num_bytes']:,} bytes of {data['training']['num_documents']:,} documents to train on; "
        f"measured on {data['evaluated']['num_bytes']:,} of {data['validation']['num_bytes']:,} held-out bytes. "
        "Numbers are those at the stored threshold. FLOPs are analytic, of the forward pass. Compressors read the "
        "measured windows, joined to one file. In plots, * marks exploratory arms."
    )
    windows = {run["data"]["evaluated"]["sha256"] for run in runs}
    return line + (
        f" **The arms were measured on {len(windows)} different sets of windows** (their `context_bytes` differ), so "
        "small differences between them mean nothing."
        if len(windows) > 1
        else ""
    )
