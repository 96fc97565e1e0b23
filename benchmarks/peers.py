"""Ours and the peers side by side: forward, training step and generation at equal parameters, fp32, interleaved.

Usage: python benchmarks/peers.py [--size SIZE|all] [--only forward,training,generation] [--models NAME ...]
Peers come with the extra: pip install 'patchpad[bench]'. One that is missing or cannot run is listed with the reason.
"""

import argparse
import gc
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from measuring import Seconds, arguments, prepare, time_interleaved, time_once, write_results
from peer_models import Ours, Peer
from peer_packages import MODELS, PACKAGES, STAGES
from peer_report import report
from torch import Tensor

from patchpad.data import open_corpus

KINDS = ("forward", "training", "generation")
SHAPES = ((4, 1024), (1, 4096))
CONTEXTS = (128, 960, 8000)
FEWEST_REPEATS = 3
SECONDS_PER_TASK = 10.0
"""About what all repeats of one task of one model may take; slow ones get fewer repeats, at least three."""
GENERATED = 128
GENERATED_WITHOUT_CACHE = {128: 32, 960: 16, 8000: 8}
"""Most bytes per repeat, by length of the prompt."""
SHARE_OF_MEMORY = 0.75
"""Of the machine's, that all models of a size may take together."""
LONGEST_BYTE = 30.0
"""Seconds; a model that needs more for a byte is not run there."""

Row = dict[str, Any]


def main() -> None:
    """Measures the chosen sizes one after the other and writes the result files of each."""
    options = parse()
    prepare(options)
    limit_memory()
    torch.manual_seed(0)
    text = read_text()
    for size in STAGES if options.size == "all" else (options.size,):
        rows = measure_size(size, options, text)
        clock = "wall" if options.device == "cuda" else "cpu"
        write_results(options, f"peers-{size}", rows, report(rows, clock), installed())
        gc.collect()


def limit_memory() -> None:
    """Lets a model that needs most of the machine's memory fail with a message, where the system would end the run."""
    if sys.platform == "linux":
        import resource  # only there

        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        resource.setrlimit(resource.RLIMIT_DATA, (int(SHARE_OF_MEMORY * total), resource.RLIM_INFINITY))


def parse() -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = arguments(str(__doc__).splitlines()[0])
    parser.add_argument("--size", default="all", choices=(*STAGES, "all"))
    parser.add_argument("--only", default=",".join(KINDS), help="of forward,training,generation")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS), metavar="NAME")
    options = parser.parse_args()
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(KINDS):
        parser.error(f"--only {','.join(sorted(unknown))}; allowed: {', '.join(KINDS)}")
    return options


def installed() -> list[str]:
    """Returns the packages of the peers that are there."""
    found = []
    for name in PACKAGES:
        try:
            version(name)
        except PackageNotFoundError:
            continue
        found.append(name)
    return found


def read_text() -> bytes:
    """Returns the held-out novel that the package ships."""
    path = resources.files("patchpad") / "data" / "bundled" / "austen_validation.jsonl.xz"
    return b"".join(document.tobytes() for document in open_corpus(str(path)).documents)


def ids_of_shape(text: bytes, rows: int, length: int, device: str) -> Tensor:
    """Returns text as rows of ids; training and forward read other parts of it than generation."""
    start = len(text) // 2
    return torch.tensor(list(text[start : start + rows * length]), device=device).view(rows, length)


def measure_size(size: str, options: argparse.Namespace, text: bytes) -> list[Row]:
    """Builds the models of one size and measures all that is asked for."""
    models: dict[str, Peer] = {}
    rows: list[Row] = []
    for name in options.models:
        built = attempt(partial(MODELS[name], size, options.device))
        if isinstance(built, Peer):
            models[name] = built
        else:
            rows.append({"size": size, "name": name, "kind": "all", "at": "all", "reason": built})
    note(f"{size}: " + ", ".join(f"{name} {model.num_params:,}" for name, model in models.items()))
    if "generation" in options.only:
        for context in CONTEXTS:
            rows += measure_generation(size, models, context, options, text)
    for kind in ("forward", "training"):
        if kind in options.only:
            for shape in SHAPES:
                rows += measure_passes(size, models, kind, shape, options, text)
    return rows


def measure_passes(
    size: str, models: dict[str, Peer], kind: str, shape: tuple[int, int], options: argparse.Namespace, text: bytes
) -> list[Row]:
    """Times forward passes or training steps of all models on rows of one shape."""
    ids = ids_of_shape(text, *shape, options.device)
    plan = Plan(size, kind, f"{shape[0]} x {shape[1]:,}", options)
    for name, model in models.items():
        task = partial(model.forward if kind == "forward" else model.train_step, ids)
        probe = attempt(partial(probe_pass, model, task, ids, options.device))
        if isinstance(probe, Seconds):
            facts = {"trunk_calls_per_byte": model.trunk_calls_per_byte(ids)}
            plan.add(name, model, task, ids.numel(), probe.wall, facts)
        else:
            plan.leave_out(name, model, probe)
    return plan.run()


def probe_pass(model: Peer, task: Callable[[], object], ids: Tensor, device: str) -> Seconds:
    """Warms up, and returns about the seconds of one run."""
    model.set_patches(ids)
    if isinstance(model, Ours):
        task()  # its first call may compile
    return time_once(task, device)


def measure_generation(
    size: str, models: dict[str, Peer], context: int, options: argparse.Namespace, text: bytes
) -> list[Row]:
    """Times the bytes after a prompt; where there is a cache, the prompt has been read before."""
    plan = Plan(size, "generation", f"{context:,}", options)
    prompt, following = text[:context], text[context : context + GENERATED]
    for name, model in models.items():
        task = GenerationTask(model, prompt, following)
        probe = attempt(partial(task.probe, options.device))
        if not isinstance(probe, float):
            plan.leave_out(name, model, probe)
        elif probe > LONGEST_BYTE:
            plan.leave_out(name, model, f"one byte takes {probe:.0f} s")
        else:
            most = GENERATED if model.has_cache else GENERATED_WITHOUT_CACHE[context]
            fitting = math.floor(SECONDS_PER_TASK / (max(FEWEST_REPEATS, options.repeats) * probe))
            task.num_bytes = most if isinstance(model, Ours) else min(most, max(1, fitting))
            plan.add(name, model, task, task.num_bytes, probe * task.num_bytes, {"has_cache": model.has_cache})
            plan.before[name] = task.branch
            if isinstance(model, Ours) and model.compile:
                task.branch()
                task()  # compiles whatever these bytes need
    rows = plan.run()
    for row in rows:
        if "seconds" in row:
            model = models[row["name"]]
            row["trunk_calls_per_byte"] = model.generated_trunk_calls_per_byte(prompt, following, row["num_bytes"])
    return rows


class GenerationTask:
    """Generation from one prompt, as often as it is called after `branch`."""

    def __init__(self, model: Peer, prompt: bytes, following: bytes) -> None:
        self.model = model
        self.num_bytes = 0
        self.prompt, self.following = prompt, following
        self.root: Any = None
        self.state: Any = None

    def probe(self, device: str) -> float:
        """Reads the prompt, warms up, and returns about the seconds of one byte."""
        self.model.set_patches(self.model.ids_of(self.prompt + self.following))
        self.root = self.model.prefill(self.prompt, self.following)
        self.num_bytes = 4 if self.model.has_cache else 1
        self.branch()
        seconds = time_once(self, device).wall / self.num_bytes
        if self.model.has_cache or seconds < 1.0:  # the first calls are slower than those that follow
            self.branch()
            seconds = time_once(self, device).wall / self.num_bytes
        return seconds

    def branch(self) -> None:
        """Puts the state after the prompt in place."""
        self.state = self.model.branch(self.root)

    def __call__(self) -> None:
        """Generates."""
        assert len(self.model.generate(self.state, self.num_bytes)) >= self.num_bytes
        self.state = None


class Plan:
    """What is timed together: one kind of work at one shape or context, for all models."""

    def __init__(self, size: str, kind: str, at: str, options: argparse.Namespace) -> None:
        self.facts = {"size": size, "kind": kind, "at": at}
        self.options = options
        self.tasks: dict[str, Callable[[], object]] = {}
        self.before: dict[str, Callable[[], object]] = {}
        self.repeats: dict[str, int] = {}
        self.rows: dict[str, Row] = {}

    def add(self, name: str, model: Peer, task: Callable[[], object], num_bytes: int, probe: float, facts: Row) -> None:
        """Takes a task in; the seconds of its probe decide how often it is repeated."""
        most = self.options.repeats
        self.tasks[name] = task
        self.repeats[name] = min(most, max(FEWEST_REPEATS, math.floor(SECONDS_PER_TASK / probe)))
        self.rows[name] = {**self.row(name, model), "num_bytes": num_bytes, **facts}

    def leave_out(self, name: str, model: Peer, reason: object) -> None:
        """Notes why a model is not run."""
        self.rows[name] = {**self.row(name, model), "reason": f"not run: {reason}"}

    def row(self, name: str, model: Peer) -> Row:
        """Returns what every row of the raw results says."""
        return {**self.facts, "name": name, "num_params": model.num_params}

    def run(self) -> list[Row]:
        """Times all tasks in turn and returns the rows."""
        began = time.perf_counter()
        runs = time_interleaved(
            self.tasks, repeats=self.repeats, warmups=0, device=self.options.device, before=self.before
        )
        for name, timed in runs.items():
            self.rows[name]["seconds"] = [asdict(run) for run in timed]
        note(f"{' '.join(self.facts.values())}: {time.perf_counter() - began:.0f} s")
        return list(self.rows.values())


def attempt(task: Callable[[], Any]) -> Any:
    """Returns what a task returns, or one line that says why it failed."""
    try:
        return task()
    except ImportError as error:
        return f"not installed ({error.name}): pip install 'patchpad[bench]'"
    except Exception as error:  # whatever a peer raises is its result
        lines = str(error).splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def note(*words: object) -> None:
    """Says on standard error how far the run is."""
    print(*words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
