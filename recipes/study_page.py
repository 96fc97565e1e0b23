"""Writes what is measured in docs/study.md, its appendix and the README, and docs/figures/study-*.svg.

Reads docs/results/laptop alone. With --pdf, each figure is also written into DIR as PDF.

Usage: python recipes/study_page.py [--pdf DIR]
"""

import argparse
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from measured_blocks import fill_block
from study_arms import ARMS, BYTE_MODELS, CLAIMS, CURVE, EQUAL_FLOPS, PARTS, PATCHIFIERS, SHARES
from study_claims import (
    CLAIM_HEADINGS,
    Findings,
    closeness_rows,
    curve_rows,
    difference_rows,
    equal_flops_rows,
    share_rows,
)
from study_figures import claim_figures

from patchpad.errors import DataError, PatchpadError
from patchpad.files import write_atomically
from patchpad.pages.line_plot import line_plot_svg
from patchpad.pages.markdown import markdown_table
from patchpad.pages.numbers import compact_number
from patchpad.pages.pdf import pdf_of, require_pdf
from patchpad.pages.plot_data import LinePlot
from patchpad.study.plots import MOST_ARMS, study_plots
from patchpad.study.report import all_differences
from patchpad.study.report_texts import PLOT_TEXTS, missing_line, provenance_line, text_line
from patchpad.study.results import STUDY, read_result_files
from patchpad.study.summary import Arm, Comparison, of_shared_seeds
from patchpad.study.tables import (
    ARM_COLUMNS,
    BITS,
    NOTHING,
    Cell,
    arms_table,
    number,
    percent,
    threshold_table,
)

README_ROWS = {
    "byte model": "a trunk call at every byte: the byte model",
    "plain 4": "4-byte patches",
    "plain 16": "16-byte patches",
    "16": "16-byte patches with scratchpads",
}
README_COSTS = (
    "trunk calls per byte",
    "FLOPs over the byte model's",
    "trunk KV bytes per byte",
    "seeds",
)
LEFT_OUT = ("scratchpads per byte", "mean patch lag", "bytes per second in training")
SAME_PATCHES = "fixed16-"  # how arms begin whose patches are those of the study's main arm
README_FIGURE = "![bits per byte against FLOPs per byte](docs/figures/study-finding.svg)"
FIGURES_SHOWN = {  # of all arms, and of parts of them: equal patches have equal caches, and some plots hold six arms
    "": ("flops", "cache", "threshold", "positions", "letters", "classes"),
    "16-byte patches": ("flops", "threshold", "positions", "letters", "classes"),
    "patchifiers": ("flops", "cache", "threshold", "classes"),
}

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results" / "laptop"
FIGURES = ROOT / "docs" / "figures"
PAGE, README = ROOT / "docs" / "study.md", ROOT / "README.md"
APPENDIX = ROOT / "docs" / "study_appendix.md"
WRITTEN = "(written by recipes/study_page.py) -->"
NO_RESULTS = "No results yet."
BLOCKS = {PAGE: ("finding",), APPENDIX: ("runs", "claims", *PARTS), README: ("study",)}


def claims_table(findings: Findings) -> str:
    """Returns a row for each comparison that a claim rests on, as far as it has results."""
    rows = [row for pair in CLAIMS for row in difference_rows(findings, *pair)]
    rows += [row for pair in EQUAL_FLOPS for row in equal_flops_rows(findings, *pair)]
    rows += [row for way in SHARES for row in share_rows(findings, *way)]
    rows += curve_rows(findings, "C4", CURVE)
    for words in ("without", "with"):
        roles = [f"plain {name}" if words == "without" else name for name in PATCHIFIERS]
        rows += closeness_rows(findings, "C5", roles, f"{', '.join(PATCHIFIERS)}, {words} scratchpads")
    rows.sort(key=lambda row: row[0])  # stable: within a claim they keep their order
    missing = missing_line(planned(findings, ARMS.values()), findings.comparisons)
    return "\n\n".join(part for part in (markdown_table(CLAIM_HEADINGS, rows) if rows else NO_RESULTS, missing) if part)


def comparisons_of(findings: Findings, name: str) -> list[Comparison]:
    """Returns the comparisons of a part of the page."""
    return [
        comparison
        for comparison in findings.comparisons
        if (comparison.text, min(arm.tier for arm in comparison.arms)) == PARTS[name]
    ]


def part(findings: Findings, name: str) -> str:
    """Returns tables and plots of a part of the page."""
    parts = []
    for comparison in comparisons_of(findings, name):
        seen = compact_number(comparison.bytes_seen, digits=3)
        parts.append(f"**{comparison.text}, {seen} bytes seen by each arm.** {text_line(comparison)}")
        parts += [arms_table(comparison, columns(findings, comparison.text)).markdown(), *all_differences(comparison)]
        curves = threshold_table(comparison).markdown()
        if curves:
            summary = "Along the threshold, each arm's own weights; means over seeds"
            parts += [f"<details><summary>{summary}</summary>", curves, "</details>"]
        for words, shown in plotted(findings, comparison).items():
            about = ", ".join(part for part in (comparison.text, f"{seen} bytes seen", words) if part)
            parts += [
                f"![{PLOT_TEXTS[key]}: {about}](figures/{figure_name(shown, key, words)})"
                for key in plots_of(shown, words)
            ]
    return "\n\n".join(parts) or NO_RESULTS


def columns(findings: Findings, text: str) -> dict[str, Cell]:
    """Returns the columns of an arms table: those of every study, and FLOPs against the byte model."""
    byte_model = findings.arm(BYTE_MODELS[text])

    def against_byte_model(arm: Arm) -> str:
        if byte_model is None:
            return NOTHING
        flops, base = (one.at("flops_per_byte") for one in of_shared_seeds(arm, byte_model))
        return f"{flops.mean / base.mean:.3f}" if flops and base else NOTHING

    chosen: dict[str, Cell] = {}
    for heading, cell in ARM_COLUMNS.items():
        if heading not in LEFT_OUT:
            chosen[heading] = cell
        if heading == "FLOPs per byte":
            chosen["FLOPs over the byte model's"] = against_byte_model
    chosen["bytes per processor second in training"] = bytes_per_processor_second
    return chosen


def bytes_per_processor_second(arm: Arm) -> str:
    """Returns an arm's speed: arms share a machine two at a time, so that seconds by the clock say little."""
    return number(arm.spread(lambda one: one["training"]["bytes_seen"] / one["training"]["processor_seconds"]), 0)


def runs(findings: Findings) -> str:
    """Returns what was run, at which sizes, and what is still missing."""
    config: dict[str, Any] = findings.results.runs[0]["config"]
    model, train = config["model"], config["train"]
    sizes = (
        f"{model['trunk_layers']} trunk layers of width {model['trunk_dim']}; {model['encoder_layers']} encoder and "
        f"{model['decoder_layers']} decoder layers of width {model['byte_dim']} with windows of "
        f"{model['window_bytes']} bytes; {len(model['ngram_sizes'])} tables of {model['ngram_vocab_size']:,} n-grams; "
        f"documents in windows of {model['context_bytes']:,} bytes, {train['batch_rows']} rows a step, learning rate "
        f"{train['learning_rate']:g}, of the trunk {train['learning_rate'] * trunk_ratio(train):g}."
    )
    missing = missing_line(findings.results.study["arms"], findings.comparisons)
    lines = (sizes, provenance_line(findings.results), missing)
    return "\n\n".join(line for line in lines if line)


def trunk_ratio(train: dict[str, Any]) -> float:
    """Returns the trunk's learning rate over `learning_rate`; results of 2026-11 have an older key for it."""
    return train.get("trunk_learning_rate_ratio") or train["learning_rate_ratios"].get("trunk", 1)


def short_table(findings: Findings) -> str:
    """Returns what the front page shows: the arms of tier 1, and what they cost."""
    shown = {role: arm for role in README_ROWS if (arm := findings.arm(role)) is not None}
    if not shown:
        return NO_RESULTS
    any_arm = next(iter(shown.values()))
    comparison = findings.comparison(any_arm)
    cells, rows = columns(findings, comparison.text), []
    for role, arm in shown.items():
        pair = findings.pair(role, "byte model") if role != "byte model" else None
        found = pair[0].less(pair[1]) if pair else None
        against = percent(found[0].mean, found[1]) if found else NOTHING
        rows.append([README_ROWS[role], cells[BITS](arm), against, *(cells[key](arm) for key in README_COSTS)])
    evaluated = any_arm.first["data"]["evaluated"]["num_bytes"]
    seen = compact_number(comparison.bytes_seen, digits=2)
    line = (
        f"Text: {comparison.text}, {seen} bytes seen by each model, measured on {evaluated:,} held-out bytes. ± is the "
        "standard deviation over seeds. Percentages compare equal seeds. FLOPs are calculated, for the forward pass."
    )
    headings = ("model", BITS, "against the byte model", *README_COSTS)
    missing = missing_line(planned(findings, [ARMS[role] for role in README_ROWS]), findings.comparisons)
    return "\n\n".join(one for one in (markdown_table(headings, rows), line, missing) if one)


def planned(findings: Findings, names: Collection[str]) -> list[dict[str, Any]]:
    """Returns what the study has planned of some arms."""
    return [arm for arm in findings.results.study["arms"] if arm["name"] in names]


def plotted(findings: Findings, comparison: Comparison) -> dict[str, Comparison]:
    """Returns words -> the arms that plots show together: all of them, or two parts where they are too many for one.

    The parts are arms with the patches of the main arm, and those with others beside that arm and the plain one.
    """
    if len(comparison.arms) <= MOST_ARMS:
        return {"": comparison}
    anchors = [arm for role in ("short plain 16", "short 16") if (arm := findings.arm(role)) in comparison.arms]
    same = [arm for arm in comparison.arms if arm.name.startswith(SAME_PATCHES)]
    others = [arm for arm in comparison.arms if arm not in same or arm in anchors]
    return {
        words: replace(comparison, arms=tuple(arms))
        for words, arms in (("16-byte patches", same), ("patchifiers", others))
        if len(arms) > 1
    }


def plots_of(comparison: Comparison, words: str) -> dict[str, LinePlot]:
    """Returns the plots that the page shows of a comparison, or of a part of its arms."""
    return {key: plot for key, plot in study_plots(comparison).items() if key in FIGURES_SHOWN[words]}


def figure_name(comparison: Comparison, key: str, words: str = "") -> str:
    """Returns the name of a plot's file."""
    return "-".join(part for part in ("study", comparison.slug, words.replace(" ", "-"), key) if part) + ".svg"


def read() -> Findings:
    """Reads the committed results.

    Raises:
        DataError: there are none, one cannot be read, or a comparison has no place on the page.
    """
    if not (RESULTS / STUDY).is_file():
        where = RESULTS.relative_to(ROOT)
        hint = f"Copy the files of DIR/results of `patchpad study configs/studies/laptop.yaml --out DIR` to {where}."
        raise DataError(f"{where} holds no results of the study", hint=hint)
    findings = Findings(read_result_files(RESULTS), ARMS)
    placed = [comparison for name in PARTS for comparison in comparisons_of(findings, name)]
    for comparison in findings.comparisons:
        if comparison not in placed:
            raise DataError(f"no block of the page is for {comparison.slug}", hint="Add it to PARTS and to the page.")
    return findings


def contents(findings: Findings | None) -> dict[Path, dict[str, str]]:
    """Returns what the blocks of each page hold; without results, that there are none."""
    if findings is None:
        return {page: dict.fromkeys(names, NO_RESULTS) for page, names in BLOCKS.items()}
    parts = {name: part(findings, name) for name in PARTS}
    return {
        PAGE: {"finding": short_table(findings)},
        APPENDIX: {"runs": runs(findings), "claims": claims_table(findings), **parts},
        README: {"study": f"{short_table(findings)}\n\n{README_FIGURE}"},
    }


def figures(findings: Findings | None) -> dict[Path, LinePlot]:
    """Returns the files of the plots."""
    if findings is None:
        return {}
    claims = {FIGURES / f"study-{name}.svg": plot for name, plot in claim_figures(findings).items()}
    return claims | {
        FIGURES / figure_name(shown, key, words): plot
        for comparison in findings.comparisons
        for words, shown in plotted(findings, comparison).items()
        for key, plot in plots_of(shown, words).items()
    }


def drawn(path: Path, plot: LinePlot) -> str:
    """Returns a plot as the file that the page shows."""
    return line_plot_svg(plot, element_id=f"plot-{path.stem}", standalone=True) + "\n"


def filled(page: str, blocks: Mapping[str, str]) -> str:
    """Returns a page with its blocks made anew.

    Raises:
        DataError: the page's blocks are not these.
    """
    found = re.findall(rf"<!-- measured: (.+) {re.escape(WRITTEN)}", page)
    if sorted(found) != sorted(blocks):
        raise DataError(f"the page has the blocks {found}, not {list(blocks)}")
    for name, content in blocks.items():
        page = fill_block(page, f"<!-- measured: {name} {WRITTEN}", content)
    return page


def write(findings: Findings, pdf: Path | None = None) -> None:
    """Makes all pages and plots, then writes them, and removes plots of earlier results.

    Args:
        findings: the study's.
        pdf: a folder for the plots as PDF; none: there are no PDFs.
    """
    pages = {page: filled(page.read_text(encoding="utf-8"), blocks) for page, blocks in contents(findings).items()}
    plots = figures(findings)
    for path, plot in plots.items():
        write_atomically(path, drawn(path, plot))
        if pdf is not None:
            pdf.mkdir(parents=True, exist_ok=True)
            write_atomically(pdf / f"{path.stem}.pdf", pdf_of(plot))
    for path, text in pages.items():
        write_atomically(path, text)
    for path in FIGURES.glob("study-*.svg"):
        if path not in plots:
            path.unlink()


def main(arguments: Sequence[str]) -> None:
    """Writes all, or says what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pdf", metavar="DIR", type=Path, help="write each figure as PDF too")
    pdf = parser.parse_args(arguments).pdf
    try:
        if pdf is not None:
            require_pdf()
        write(read(), pdf)
    except PatchpadError as error:
        sys.exit(f"{error.message}\n{error.hint or ''}".strip())


if __name__ == "__main__":
    main(sys.argv[1:])
