"""Ranks models over languages, from results of `patchpad evaluate --suite` alone.

Usage: python recipes/languages_page.py RESULT... --out DIR

RESULT is the folder of a model's results; its name is the model's. DIR then holds, for each task of kind `parallel`,
TASK.md and TASK.html with tables and heat maps, TASK-GROUP.svg, and TASK.json with the numbers behind them.
"""

import sys
from pathlib import Path

from patchpad.files import strict_json, write_atomically
from patchpad.tasks.folder import read_evaluation
from patchpad.tasks.ranks import ranks_by_task
from patchpad.tasks.ranks_page import ranks_markdown, ranks_page, ranks_plots


def main(results: list[str], out: Path) -> None:
    """Writes the files of each task."""
    by_model = {Path(folder).name: read_evaluation(folder).results for folder in results}
    out.mkdir(parents=True, exist_ok=True)
    for task, ranks in ranks_by_task(by_model).items():
        plots = {f"{task}-{group}.svg": plot for group, plot in ranks_plots(ranks).items()}
        for name, plot in plots.items():
            write_atomically(out / name, plot)
        write_atomically(out / f"{task}.md", ranks_markdown(ranks, plots=list(plots)))
        write_atomically(out / f"{task}.html", ranks_page(ranks))
        write_atomically(out / f"{task}.json", strict_json(ranks.to_dict(), indent=1))
        sys.stdout.write(f"{out / task}.md\n")


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[-2] != "--out":
        sys.exit(__doc__)
    main(sys.argv[1:-2], Path(sys.argv[-1]))
