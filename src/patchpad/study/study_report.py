"""`report.md` of a study: every table and plot from the result files alone. Torch-free."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchpad.files import write_atomically
from patchpad.pages.ticks import compact_number
from patchpad.study.study_plots import CLASS_NAMES, study_plots
from patchpad.study.study_results import Results, read_results
from patchpad.study.study_summary import Arm, Comparison, Spread, summarize

REPORT, PLOTS = "report.md", "plots"
NOTHING = "–"  # noqa: RUF001  (a dash for "does not apply")
PLOT_TEXTS = {
    "flops": "bits per byte against FLOPs per byte",
    "cache": "bits per byte against trunk KV bytes per byte",
    "threshold": "bits per byte along the threshold",
    "positions": "bits per byte by position inside the patch",
    "classes": "scratchpads by class of byte",
    "training": "bits per byte while training",
}


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
    planned = {arm["name"] for arm in study["arms"]}
    missing = sorted(planned - {arm.name for comparison in comparisons for arm in comparison.arms})
    parts = [f"# {study['name']}", study["text"], _provenance_line(results)]
    if missing:
        parts.append(f"No result yet of: {', '.join(missing)}.")
    for comparison in comparisons:
        parts += [_heading(comparison), _text_line(comparison), arms_table(comparison)]
        for reference in (arm for arm in comparison.arms if arm.name in comparison.references):
            differences = differences_table(comparison, reference)
            if differences:
                parts += [f"Differences from {reference.name}, seed by seed:", differences]
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


def arms_table(comparison: Comparison) -> str:
    """Returns quality and cost of each arm at its stored threshold, and the compressors."""
    rows = []
    for arm in comparison.arms:
        parameters = arm.first["parameters"]
        rows.append(
            [
                arm.label,
                str(len(arm.results)),
                f"{sum(parameters.values()):,}",
                f"{parameters['entropy_head']:,}" if parameters.get("entropy_head") else NOTHING,
                number(arm.at("scratchpads_per_byte"), 4),
                number(arm.at("trunk_calls_per_byte"), 4),
                number(arm.at("flops_per_byte"), 0),
                number(arm.at("trunk_cache_bytes_per_byte"), 1),
                with_spread(arm.at("bits_per_byte")),
                number(arm.spread(lambda one: one["measured"]["null_context_bits_per_byte"]), 4),
                number(arm.spread(lambda one: one["measured"]["entropy_head_bits_per_byte"]), 4),
                number(_lag(arm), 2),
            ]
        )
    for name, bits in comparison.arms[0].first["compressors"].items():
        rows.append([f"{name} (compressor)", *[NOTHING] * 7, f"{bits:.4f}", *[NOTHING] * 3])
    return table(
        (
            *("arm", "seeds", "parameters", "of these, entropy head", "scratchpads per byte"),
            *("trunk calls per byte", "FLOPs per byte", "trunk KV bytes per byte", "bits per byte"),
            *("without the trunk's context", "the head's bits per byte", "mean patch lag"),
        ),
        rows,
    )


def _lag(arm: Arm) -> Spread | None:
    return arm.spread(lambda one: (one["measured"]["stored"] or {}).get("mean_patch_lag"))


def differences_table(comparison: Comparison, reference: Arm) -> str:
    """Returns bits per byte less those of the reference arm, per equal seed; "" if nothing can be compared."""
    rows = []
    for arm, found, base in comparison.differences(reference):
        each = ", ".join(f"{value:+.4f}" for value in found.values)
        percent = f"{100 * found.mean / base:+.2f} %"
        rows.append([arm.label, with_spread(found, sign="+"), percent, str(len(found.values)), each])
    headings = ("arm", "bits per byte, difference", "of the reference", "seeds in common", "each seed")
    return table(headings, rows) if rows else ""


def threshold_table(comparison: Comparison) -> str:
    """Returns the points of all arms that have more than one; "" if none has."""
    rows = []
    for arm in comparison.arms:
        points = arm.points()
        for at in points if len(points) > 1 else ():
            keys = (("scratchpads_per_byte", 4), ("trunk_calls_per_byte", 4), ("flops_per_byte", 0))
            cells = [number(arm.at(key, at), digits) for key, digits in keys]
            rows.append([arm.label, at, *cells, with_spread(arm.at("bits_per_byte", at))])
    headings = ("arm", "at", "scratchpads per byte", "trunk calls per byte", "FLOPs per byte", "bits per byte")
    return table(headings, rows) if rows else ""


def classes_table(comparison: Comparison) -> str:
    """Returns scratchpads per byte of each class; "" if no arm has any."""
    rates = {arm: arm.class_rates() for arm in comparison.arms}
    shown = [arm for arm in comparison.arms if any(rates[arm].values())]
    names = [name for name in CLASS_NAMES if any(name in rates[arm] for arm in shown)]
    rows = [
        [arm.label, *(f"{rates[arm][name]:.3f}" if name in rates[arm] else NOTHING for name in names)] for arm in shown
    ]
    return table(("arm", *(CLASS_NAMES[name] for name in names)), rows) if rows else ""


def training_table(comparison: Comparison) -> str:
    """Returns bytes seen, times and learning rate of each arm."""
    rows = []
    for arm in comparison.arms:
        train = arm.first["config"]["train"]
        rows.append(
            [
                arm.label,
                " ".join(str(one["seed"]) for one in arm.results),
                f"{arm.first['training']['steps']:,}",
                number(arm.spread(lambda one: one["training"]["bytes_seen"]), 0),
                f"{train['learning_rate']:g}",
                number(arm.spread(lambda one: one["training"]["wall_seconds"]), 1),
                number(arm.spread(lambda one: one["training"]["processor_seconds"]), 1),
                number(arm.spread(lambda one: one["training"]["bytes_per_second"]), 0),
            ]
        )
    return table(
        (
            *("arm", "seeds", "steps", "bytes seen", "learning rate", "wall seconds", "processor seconds"),
            "bytes per second",
        ),
        rows,
    )


def _provenance_line(results: Results) -> str:
    """Returns machine, versions and commits of the results, each once."""

    def each(key: str) -> str:
        return ", ".join(sorted({str(run["provenance"][key]) for run in results.runs}))

    dates = sorted(run["provenance"]["date"][:10] for run in results.runs)
    spread = "± is the standard deviation over seeds; one seed has none and is a hint, no claim."
    return (
        f"{len(results.runs)} runs, {dates[0]} to {dates[-1]}, on {each('hardware')} with {each('threads')} thread(s), "
        f"patchpad {each('package_version')}, torch {each('torch_version')}, commit {each('commit')}. {spread}"
    )


def _heading(comparison: Comparison) -> str:
    return f"## Text: {comparison.text}, {compact_number(comparison.bytes_seen, digits=3)} bytes seen"


def _text_line(comparison: Comparison) -> str:
    runs = [run for arm in comparison.arms for run in arm.results]
    data: dict[str, Any] = runs[0]["data"]
    line = (
        f"{data['training']['num_bytes']:,} bytes of {data['training']['num_documents']:,} documents to train on; "
        f"measured on {data['evaluated']['num_bytes']:,} of {data['validation']['num_bytes']:,} held-out bytes. "
        "Numbers are those at the stored threshold. FLOPs are analytic, of the forward pass. In plots, * marks "
        "exploratory arms."
    )
    windows = {run["data"]["evaluated"]["sha256"] for run in runs}
    return line + (
        f" **The arms were measured on {len(windows)} different sets of windows** (their `context_bytes` differ), so "
        "small differences between them mean nothing."
        if len(windows) > 1
        else ""
    )


def number(spread: Spread | None, digits: int) -> str:
    """Returns a mean, or a dash."""
    return NOTHING if spread is None else f"{spread.mean:,.{digits}f}"


def with_spread(spread: Spread | None, *, sign: str = "") -> str:
    """Returns a mean with its standard deviation over seeds, or a dash."""
    if spread is None:
        return NOTHING
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.4f}"
    return f"{spread.mean:{sign}.4f}{deviation}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
