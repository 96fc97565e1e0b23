"""One page from the results of `gpu_day.sh`.

Usage: python benchmarks/gpu_report.py FOLDER
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gpu_parity
import presets_report
import savings
import savings_report
from measuring import markdown_table
from rows import Row, chosen

from patchpad.files import write_atomically

Rows = list[dict[str, Any]]


def tests_table(rows: Rows) -> str:
    """Returns how the tests marked `gpu` ended."""
    counts = {outcome: len(chosen(rows, outcome=outcome)) for outcome in ("passed", "failed", "skipped")}
    lines = [
        [f"`{row['test']}`", "**failed**" if row["outcome"] == "failed" else row["outcome"], f"{row['seconds']:.1f}"]
        for row in rows
    ]
    summed = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    return f"## Tests\n\n{summed}.\n\n" + markdown_table(["test", "outcome", "seconds"], lines)


def savings_tables(rows: Rows) -> str:
    """Returns the tables of `savings.py`."""
    return savings_report.report(rows, savings.SCRATCHPADS, savings.PLAIN)


PARTS: Mapping[str, Callable[[Rows], str]] = {
    "gpu-tests": tests_table,
    "gpu-parity": gpu_parity.report,
    "gpu-training": presets_report.training_table,
    "gpu-generation": presets_report.generation_table,
    "gpu-savings": savings_tables,
    "gpu-memory": presets_report.memory_table,
}


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the content of the newest result file of each part that has one, in the order of the day."""
    found = {}
    for part in PARTS:
        files = sorted(folder.glob(f"{part}_*.json"))
        if files:
            found[part] = json.loads(files[-1].read_text(encoding="utf-8"))
    return found


def page(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the Markdown of all parts; one whose rows are odd does not keep the others off the page."""
    texts = [_head(next(iter(found.values()))["provenance"])]
    for part, table in PARTS.items():
        if part not in found:
            texts.append(f"## {part}\n\nNot run.\n")
            continue
        try:
            texts.append(table(found[part]["rows"]))
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            texts.append(f"## {part}\n\nNo table ({type(error).__name__}: {error}); the rows are in the result file.\n")
    return "\n".join(texts)


def _head(origin: Row) -> str:
    facts = [f"commit {origin['commit']}", f"torch {origin['torch']}"]
    facts += [f"{key} {origin[key]}" for key in ("driver", "cuda") if key in origin]
    changed = {True: "with changes", False: "", None: "changes unknown"}[origin["changes_since_commit"]]
    facts += [changed] if changed else []
    title = f"# A day with a GPU: {origin['hardware']}, {origin['date']}"
    return f"{title}\n\n`benchmarks/gpu_day.sh` at {', '.join(facts)}.\n"


def main(folder: Path) -> None:
    """Writes the page beside the results, and prints it."""
    found = results(folder)
    if not found:
        raise SystemExit(f"{folder} holds no result of gpu_day.sh; allowed: the folder that it wrote to")
    origin = next(iter(found.values()))["provenance"]
    text = page(found)
    write_atomically(folder / f"gpu-day_{origin['device']}_{origin['date']}_{origin['commit']}.md", text)
    print(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
