"""Ranks models over languages, from results of `patchpad evaluate --suite` alone.

Usage: python recipes/languages_page.py RESULT... --out DIR [--docs DOCS]

RESULT is the folder of a model's results; its name is the model's. DIR then holds, for each task of kind `parallel`,
TASK.md and TASK.html with tables and heat maps, TASK-GROUP.svg, and TASK.json with the numbers behind them. With
--docs, the block of DOCS/languages.md is filled too; its plots go to DOCS/figures, tables of all languages to
DOCS/results/languages.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from measured_blocks import fill_block

from patchpad.files import strict_json, write_atomically
from patchpad.pages.markdown import markdown_table
from patchpad.tasks.folder import Evaluation, read_evaluation
from patchpad.tasks.ranks import LanguageRanks, ranks_by_task
from patchpad.tasks.ranks_page import (
    GROUP_TITLES,
    METHOD,
    agreement_table,
    ranks_markdown,
    ranks_page,
    ranks_plots,
    summary_table,
)

BEGIN = "<!-- measured: languages (written by recipes/languages_page.py) -->"


def write_folder(ranks: LanguageRanks, out: Path) -> None:
    """Writes tables, plots and numbers of a task."""
    plots = {f"{ranks.task}-{group}.svg": plot for group, plot in ranks_plots(ranks).items()}
    for name, plot in plots.items():
        write_atomically(out / name, plot)
    write_atomically(out / f"{ranks.task}.md", ranks_markdown(ranks, plots=list(plots)))
    write_atomically(out / f"{ranks.task}.html", ranks_page(ranks))
    write_atomically(out / f"{ranks.task}.json", strict_json(ranks.to_dict(), indent=1))
    sys.stdout.write(f"{out / ranks.task}.md\n")


def docs_block(every: Sequence[LanguageRanks], evaluations: Sequence[Evaluation], docs: Path) -> str:
    """Returns the block of the page; writes its plots, and a page with all languages of each task."""
    results = docs / "results" / "languages"
    results.mkdir(parents=True, exist_ok=True)
    parts = []
    for ranks in every:
        parts.append(f"**`{ranks.task}`**")
        for group, indices in ranks.groups.items():
            if group != "all" or len(ranks.groups) == 1:
                parts += [f"{GROUP_TITLES[group]} ({len(indices)}):", markdown_table(*summary_table(ranks, group))]
        parts += ["Agreement over all languages:", markdown_table(*agreement_table(ranks, "all"))]
        for group, plot in ranks_plots(ranks).items():
            write_atomically(docs / "figures" / f"languages-{ranks.task}-{group}.svg", plot)
            parts.append(f"![rank of each model, {group}](figures/languages-{ranks.task}-{group}.svg)")
        write_atomically(results / f"{ranks.task}.md", f"# All languages: {ranks.task}\n\n{ranks_markdown(ranks)}")
        write_atomically(results / f"{ranks.task}.json", strict_json(ranks.to_dict(), indent=1))
        parts.append(
            f"All languages: [table](results/languages/{ranks.task}.md), "
            f"[numbers](results/languages/{ranks.task}.json)."
        )
    origin = evaluations[0].suite["provenance"]
    versions = f"patchpad {origin['package_version']}, torch {origin['torch_version']}"
    measured = f"Measured with {versions}, commit {str(origin['commit'])[:9]}."
    return "\n\n".join([*parts, METHOD, measured])


def main(results: Sequence[str], out: Path, docs: Path | None) -> None:
    """Writes the files of each task, and the block of the page."""
    evaluations = {Path(folder).name: read_evaluation(folder) for folder in results}
    every = list(ranks_by_task({name: one.results for name, one in evaluations.items()}).values())
    out.mkdir(parents=True, exist_ok=True)
    for ranks in every:
        write_folder(ranks, out)
    if docs is not None:
        page = docs / "languages.md"
        block = docs_block(every, list(evaluations.values()), docs)
        write_atomically(page, fill_block(page.read_text(encoding="utf-8"), BEGIN, block))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    main(given.results, given.out, given.docs)
