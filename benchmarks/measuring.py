"""Interleaved timing with CPU and wall time, and result files that say where every number comes from."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from origin import ROOT, provenance

from patchpad.files import write_atomically

RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Seconds:
    """One timed run."""

    cpu: float
    """Of all threads of the process."""
    wall: float


def time_once(task: Callable[[], object], device: str = "cpu") -> Seconds:
    """Runs a task once; on CUDA until the device has finished."""
    _synchronize(device)
    cpu, wall = time.process_time(), time.perf_counter()
    task()
    _synchronize(device)
    return Seconds(time.process_time() - cpu, time.perf_counter() - wall)


def time_interleaved(
    tasks: Mapping[str, Callable[[], object]],
    *,
    repeats: int | Mapping[str, int],
    warmups: int = 1,
    device: str = "cpu",
    before: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, list[Seconds]]:
    """Runs all tasks in turn, `repeats` times over, so that a busy moment of the machine falls on all of them.

    Args:
        tasks: what to run, by name.
        repeats: timed runs of each, or of each by name.
        warmups: runs of each before, not timed.
        device: "cpu" or "cuda".
        before: what is run before a task each time, not timed, by name.

    Returns:
        Every timed run, by name.
    """
    counts = dict.fromkeys(tasks, repeats) if isinstance(repeats, int) else repeats
    before = before or {}
    for _ in range(warmups):
        for name, task in tasks.items():
            before.get(name, _nothing)()
            task()
    runs: dict[str, list[Seconds]] = {name: [] for name in tasks}
    for turn in range(max(counts.values(), default=0)):
        for name, task in tasks.items():
            if turn < counts[name]:
                before.get(name, _nothing)()
                runs[name].append(time_once(task, device))
    return runs


def median(values: Sequence[float]) -> float:
    """Returns the median."""
    return statistics.median(values)


def spread(values: Sequence[float]) -> float:
    """Returns (largest - smallest) / median."""
    return (max(values) - min(values)) / statistics.median(values)


def paired_ratio(numerator: Sequence[Seconds], denominator: Sequence[Seconds], clock: str = "cpu") -> float:
    """Returns the median of the ratios of runs that were made in the same turn."""
    return statistics.median(
        getattr(top, clock) / getattr(bottom, clock) for top, bottom in zip(numerator, denominator, strict=True)
    )


def as_rows(runs: Mapping[str, list[Seconds]], **facts: Any) -> list[dict[str, Any]]:
    """Returns runs as rows of a result file: one per task, with every raw value."""
    return [{"name": name, **facts, "seconds": [asdict(run) for run in timed]} for name, timed in runs.items()]


def arguments(description: str) -> argparse.ArgumentParser:
    """Returns a parser with the options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on the CPU")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="compiled blocks and steps; on CUDA captured graphs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--gate", type=Path, help="file whose appearance starts the timing, where a benchmark knows it")
    return parser


def prepare(options: argparse.Namespace) -> None:
    """Sets the threads; ends with a plain sentence where the device is absent."""
    torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: this torch finds no CUDA device; allowed here: cpu")


def write_results(
    options: argparse.Namespace,
    what: str,
    rows: Sequence[Mapping[str, Any]],
    report: str,
    packages_used: Sequence[str] = (),
) -> Path:
    """Writes `<what>_<device>_<date>_<commit>.json` with every raw value, and the report beside it as .md.

    Args:
        options: of `arguments`.
        what: name of the benchmark.
        rows: raw values.
        report: Markdown made from the rows; a head with the provenance is put before it.
        packages_used: further packages whose versions matter.

    Returns:
        Path of the JSON file.
    """
    origin = provenance(options.device, options.threads, packages_used)
    options.out.mkdir(parents=True, exist_ok=True)
    stem = f"{what}{'-compiled' if options.compile else ''}_{origin['device']}_{origin['date']}_{origin['commit']}"
    path = options.out / f"{stem}.json"
    _write_rows(path, origin, rows)
    versions = ", ".join(
        f"{name} {version}" for name, version in {"torch": origin["torch"], **origin["packages"]}.items()
    )
    described = (
        f"# {what}: {origin['hardware']}, {origin['date']}\n\n"
        f"`{origin['command']}` at commit {origin['commit']}; {origin['threads']} thread(s); {versions}.\n"
        f"Every raw value: [{path.name}]({path.name}).\n\n"
    )
    path.with_suffix(".md").write_text(described + report, encoding="utf-8")
    print(described + report)
    return path


def add_to_results(options: argparse.Namespace, what: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Adds rows to `<what>_<device>_<date>_<commit>.json`, which is written anew as a whole; returns its path.

    Several commands may add to one file: its provenance names them all.
    """
    origin = provenance(options.device, options.threads)
    path = options.out / f"{what}_{origin['device']}_{origin['date']}_{origin['commit']}.json"
    if path.exists():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        commands = dict.fromkeys((*earlier["provenance"]["command"].split("; "), origin["command"]))
        origin["command"] = "; ".join(commands)
        rows = [*earlier["rows"], *rows]
    options.out.mkdir(parents=True, exist_ok=True)
    _write_rows(path, origin, rows)
    return path


def _write_rows(path: Path, origin: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    write_atomically(path, f'{{"provenance": {json.dumps(origin, indent=1)},\n"rows": [\n{lines}\n]}}\n')


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table; the first column is text, the others numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _nothing() -> None:
    """Is run before tasks that need nothing before them."""


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
