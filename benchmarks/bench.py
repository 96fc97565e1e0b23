"""The five main figures beside the last ones on record, or beside another version; ends with 1 if one is slower.

Usage: python benchmarks/bench.py [--figures NAME ...] [--update | --against PATH_OR_COMMIT]

Machines differ, and so does one machine from day to day. So a figure is the ratio of bytes per CPU second to what a
yardstick does per CPU second, a plain Transformer of torch alone, in runs that take turns. `--update` writes the ratios
to benchmarks/results/bench.json: do that on a machine that does nothing else.

`--against` compares two versions of the package, which is more exact: two processes take turns, the same benchmark in
both. It takes a folder with a checkout, or a commit, which is checked out into a temporary folder.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from bench_compare import (
    Speed,
    Verdict,
    against_record,
    in_pairs,
    rate_cell,
    recorded_speed,
    same_machine,
    table,
)
from bench_figures import FIGURES, SIZES, timed
from measuring import RESULTS
from origin import ROOT, provenance

from patchpad.files import write_atomically

RECORD = RESULTS / "bench.json"
TURNS = 11
"""Runs of each side."""


def rates(runs: Sequence[dict[str, Any]]) -> list[float]:
    """Returns what each run did per CPU second."""
    return [run["amount"] / run["cpu"] for run in runs]


def measure(name: str, size: str, turns: int) -> dict[str, Any]:
    """Times a figure and its yardstick in turns; returns every run, and the ratios of runs of one turn."""
    figure, sizes = FIGURES[name], SIZES[size]
    task, yardstick = figure.task(sizes, turns), figure.yardstick(sizes)
    task.run()
    yardstick.run()
    runs: dict[str, list[dict[str, Any]]] = {"runs": [], "yardstick_runs": []}
    for _ in range(turns):
        runs["yardstick_runs"].append(timed(yardstick))
        runs["runs"].append(timed(task))
    pairs = zip(rates(runs["runs"]), rates(runs["yardstick_runs"]), strict=True)
    return {**runs, "over_yardstick": [rate / unit for rate, unit in pairs]}


def compare_with_record(names: Sequence[str], size: str, turns: int, record: dict[str, Any] | None) -> dict[str, Any]:
    """Measures figures, prints them beside a record, and returns a record of them with the key `verdicts`."""
    origin = provenance("cpu", 1)
    is_same = record is None or same_machine(origin, record["provenance"])
    figures, cells, verdicts = {}, [], []
    for name in names:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        figures[name] = measure(name, size, turns)
        new, old = Speed.of(figures[name]["over_yardstick"]), recorded_speed(record, name)
        verdicts.append(against_record(new, old, is_same_machine=is_same))
        ratio = f"{new.value:.4g}"
        cells.append([rate_cell(rates(figures[name]["runs"])), ratio, "" if old is None else f"{old.value:.4g}"])
    columns = ["bytes per CPU second", "over the yardstick", "on record"]
    print(table([FIGURES[name].what for name in names], columns, cells, verdicts))
    if record is None:
        print("Nothing is on record yet. On a machine that does nothing else, `--update` writes the record.")
    else:
        of = record["provenance"]
        print(f"On record: commit {of['commit']}, {of['date']}, {of['hardware']}, torch {of['torch']}.")
        if not is_same:
            print("That was another machine or torch, so smaller changes than the bounds say nothing.")
    return {"provenance": origin, "figures": figures, "verdicts": verdicts}


@contextlib.contextmanager
def tree_of(version: str) -> Iterator[Path]:
    """Gives the folder of a version: one that is there, or a commit that is checked out for the time.

    Args:
        version: a folder, or a commit of this repository.
    """
    if (Path(version) / "src" / "patchpad").is_dir():
        yield Path(version).resolve()
        return
    asked = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{version}^{{commit}}"]
    if subprocess.run(asked, stdout=subprocess.DEVNULL).returncode != 0:
        raise SystemExit(f"--against {version}: neither a folder with src/patchpad in it nor a commit of {ROOT}")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(
            ["git", "-C", str(ROOT), "worktree", "add", "--quiet", "--detach", str(tree), version], check=True
        )
        try:
            yield tree
        finally:
            subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(tree)], check=True)


class Side:
    """A process that times one figure of one version, a run whenever it is told.

    Args:
        name: of the figure.
        tree: folder of the version.
        size: of `SIZES`.
        turns: how many runs there will be.
    """

    def __init__(self, name: str, tree: Path, size: str, turns: int) -> None:
        script = [str(ROOT / "benchmarks" / "bench_figures.py"), name, "--turns", str(turns), "--size", size]
        environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
        self.tree = tree
        self.process = subprocess.Popen(
            [sys.executable, *script], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def wait_until_ready(self) -> None:
        """Waits for the model to be warm."""
        self._expect("ready")

    def run(self) -> dict[str, Any]:
        """Has one run timed."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self._expect("{"))

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()

    def _expect(self, start: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(start):
                return line
        raise SystemExit(f"the benchmark of {self.tree} ended with status {self.process.wait()}; its error is above")


def measure_in_pairs(name: str, trees: Sequence[Path], size: str, turns: int) -> list[list[dict[str, Any]]]:
    """Times a figure of several versions in turns; each turn begins with another version."""
    with contextlib.ExitStack() as stack:
        sides = []
        for tree in trees:  # one by one: what one does to get ready would slow the other down
            sides.append(Side(name, tree, size, turns))
            stack.callback(sides[-1].close)
            sides[-1].wait_until_ready()
        runs: list[list[dict[str, Any]]] = [[] for _ in sides]
        for turn in range(turns):
            for number in range(len(sides)):
                which = (turn + number) % len(sides)
                runs[which].append(sides[which].run())
        return runs


def compare_in_pairs(names: Sequence[str], size: str, turns: int, version: str) -> list[Verdict]:
    """Measures figures of this checkout and of another version, prints them, and returns the verdicts."""
    cells, verdicts = [], []
    with tree_of(version) as tree:
        for name in names:
            print(f"measuring {name}", file=sys.stderr, flush=True)
            new, old = map(rates, measure_in_pairs(name, [ROOT, tree], size, turns))
            verdicts.append(in_pairs(new, old))
            cells.append([rate_cell(new), rate_cell(old)])
    columns = ["bytes per CPU second", f"of {version}"]
    print(table([FIGURES[name].what for name in names], columns, cells, verdicts))
    return verdicts


def main() -> int:
    """Measures and compares; returns 1 if a figure is slower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", nargs="+", choices=FIGURES, default=list(FIGURES))
    parser.add_argument("--turns", type=int, default=TURNS, help="runs of each side, at least 3")
    parser.add_argument("--size", choices=SIZES, default="default", help="tiny: for tests")
    parser.add_argument("--record", type=Path, default=RECORD)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--update", action="store_true", help="write the figures to the record")
    group.add_argument("--against", metavar="PATH_OR_COMMIT", help="compare with another version, in pairs")
    options = parser.parse_args()
    if options.update and len(options.figures) < len(FIGURES):
        parser.error("--update writes all figures; allowed without --figures")
    if options.turns < 3:
        parser.error(f"--turns is {options.turns}; allowed: at least 3")
    torch.set_num_threads(1)
    if options.against is not None:
        verdicts = compare_in_pairs(options.figures, options.size, options.turns, options.against)
    else:
        record = json.loads(options.record.read_text(encoding="utf-8")) if options.record.exists() else None
        new = compare_with_record(options.figures, options.size, options.turns, record)
        verdicts = new.pop("verdicts")
        if options.update:
            write_atomically(options.record, json.dumps(new, indent=1) + "\n")
            return 0
    return int(any(verdict.word == "slower" for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
