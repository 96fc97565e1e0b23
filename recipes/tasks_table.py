"""Writes the table of results on docs/evaluation.md from folders of `patchpad evaluate --suite` on the same tasks.

Usage: python recipes/tasks_table.py EVALUATION... [--keep docs/tasks]
Each folder is a model at one threshold; its name is that of its run. With --keep, what `result.json` says of each is
kept there, which is the raw side of the table. Without the block on the page yet, the table is printed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from measured_blocks import fill_block

from patchpad.errors import ConfigError
from patchpad.files import write_atomically
from patchpad.pages.markdown import markdown_table
from patchpad.pages.numbers import compact_number
from patchpad.tasks.folder import RESULT, Evaluation, read_evaluation, require_same_tasks
from patchpad.tasks.result import TaskResult

PAGE = Path(__file__).parent.parent / "docs" / "evaluation.md"
BEGIN = "<!-- measured: tasks -->"
GOLD_BITS = ("gold_bits_per_byte", "bits_per_byte")
"""What the right answer costs, in tasks of choices and of continuations."""


def table(evaluations: Sequence[Evaluation]) -> str:
    """Returns the table: a row for each task, the models side by side, and below it what they took.

    Raises:
        ConfigError: a model was measured at several thresholds, or not on the same examples as the first.
    """
    by_task = [{result.task: result for result in one.results} for one in evaluations]
    for one, results in zip(evaluations, by_task, strict=True):
        if len(one.results) > len(results):
            raise ConfigError(f"{one.path} has several thresholds; allowed: one", hint="Evaluate it at one alone.")
    names = [one.suite["run"] for one in evaluations]
    for other, name in zip(evaluations[1:], names[1:], strict=True):
        require_same_tasks(evaluations[0].suite, other.suite, (names[0], name))
    rows = []
    for task, first in by_task[0].items():
        shown = [results.get(task) for results in by_task]
        chance = "-" if first.main.chance is None else f"{first.main.chance:.3f}"
        scores = ["-" if one is None else _score(one) for one in shown]
        bits = ["-" if one is None else _bits(one) for one in shown]
        rows.append([task, first.main_metric.replace("_", " "), f"{first.num_examples:,}", chance, *scores, *bits])
    headings = ["task", "metric", "examples", "chance", *names, *(f"{name}, bits per byte" for name in names)]
    return "\n".join([markdown_table(headings, rows), "", *map(_compute_line, evaluations)])


def _score(result: TaskResult) -> str:
    error = "" if result.main.standard_error is None else f" ± {result.main.standard_error:.3f}"
    return f"{result.main.value:.3f}{error}"


def _bits(result: TaskResult) -> str:
    found = next((result.metrics[name] for name in GOLD_BITS if name in result.metrics), None)
    return "-" if found is None else f"{found.value:.3f}"


def _compute_line(evaluation: Evaluation) -> str:
    """Returns what a model took: the ranges over tasks."""
    compute = [result.compute for result in evaluation.results]
    calls = sorted(one.trunk_calls_per_byte for one in compute)
    flops = sorted(one.flops_per_byte for one in compute)
    origin = evaluation.suite["provenance"]
    return (
        f"- {evaluation.suite['run']}: {evaluation.suite['model']['num_params'] / 1e6:.2f}M parameters, threshold "
        f"{compute[0].scratchpad_threshold_nats:.4g}, {calls[0]:.3f} to {calls[-1]:.3f} trunk calls and "
        f"{compact_number(flops[0], digits=3)} to {compact_number(flops[-1], digits=3)} FLOPs per byte. "
        f"`{origin['command']}`, {origin['hardware']}, commit {str(origin['commit'])[:9]}, {origin['date'][:10]}"
    )


def main(folders: Sequence[Path], keep: Path | None) -> None:
    """Fills the block of the page, or prints the table where there is none."""
    evaluations = [read_evaluation(folder) for folder in folders]
    made = table(evaluations)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        for one in evaluations:
            write_atomically(keep / f"{one.path.name}.json", (one.path / RESULT).read_bytes())
    page = PAGE.read_text(encoding="utf-8")
    if BEGIN in page:
        write_atomically(PAGE, fill_block(page, BEGIN, made))
    else:
        sys.stdout.write(f"{made}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", nargs="+", type=Path)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    main(given.evaluations, given.keep)
