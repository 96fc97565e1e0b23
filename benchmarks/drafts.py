"""Drafts: how many bytes of them stay, what that saves of trunk passes, and bytes per second where the trunk is large.

Usage: python benchmarks/drafts.py kept OUT.json TEXT [TEXT ...] [--run RUN]
       python benchmarks/drafts.py speed OUT.json KEPT.json [--size 100M] [--compile]

`kept` continues pieces of texts with a trained model, the shipped one by default, one row at a time, and counts. It
times nothing. `speed` times random weights in turns: with and without drafts, by limits on slots and by rows. Random
weights say nothing about how many guesses are right. So their drafts are guessed and checked as ever, but of each draft
as many bytes stay as of one of the trained model, in the order in which `kept` has recorded them, and at most all.
"""

import argparse
import json
import lzma
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from origin import provenance
from ours import config_named

import patchpad
from patchpad.config import SEPARATOR, TriggerConfig
from patchpad.inference import rounds
from patchpad.inference.draft_rule import FixedDrafts
from patchpad.inference.drafting import DraftLimits, Verified
from patchpad.inference.engine import Engine, Request
from patchpad.inference.sampling import Sampling
from patchpad.model.byte_lm import ByteLM

ALL_LIMITS: tuple[DraftLimits | None, ...] = (
    None,
    *(
        DraftLimits(most_bytes=most_bytes, most_slots=most_slots)
        for most_bytes, most_slots in ((16, 2), (16, 3), (16, 4), (16, None), (24, 3), (24, 5), (32, None))
    ),
)
TEMPERATURES = (0.0, 0.8, 1.0)
PROMPT_BYTES = 200
TEMPERATURE, CALLS_PER_BYTE = 0.8, 0.25
"""At which speed is measured."""


def prompts_of(paths: list[Path], count: int) -> list[bytes]:
    """Returns pieces from the middle of documents, as many of each text."""
    found = []
    for path in paths:
        with (lzma.open if path.suffix == ".xz" else open)(path, "rt", encoding="utf-8") as file:
            if ".jsonl" in path.name:
                texts = [json.loads(line)["text"].encode() for line, _ in zip(file, range(count), strict=False)]
            else:
                whole = file.read(400_000).encode()
                texts = [whole[begin:] for begin in range(0, len(whole), max(1, len(whole) // count))][:count]
        found += [text[len(text) // 2 :][:PROMPT_BYTES] for text in texts]
    return [prompt for prompt in found if len(prompt) == PROMPT_BYTES]


@contextmanager
def all_verified(change: Callable[[Verified, Sequence[Sequence[int]]], Verified]) -> Iterator[None]:
    """Has a function see what passes make of drafts, and change it."""
    plain = rounds.verify
    rounds.verify = lambda *given: change(plain(*given), given[4])
    try:
        yield
    finally:
        rounds.verify = plain


def generated(model: ByteLM, limits: DraftLimits | None, requests: list[Request], *, together: bool) -> dict[str, Any]:
    """Generates, and says what that took of the trunk; rows run one by one, or in one batch."""
    lengths: list[int] = []

    def note(verified: Verified, drafts: Sequence[Sequence[int]]) -> Verified:
        lengths.extend(kept for kept, ids in zip(verified.num_kept, drafts, strict=True) if ids)
        return verified

    with all_verified(note):
        return {**_totals(model, limits, requests, together=together), "kept_lengths": lengths}


def _totals(
    model: ByteLM,
    limits: DraftLimits | None,
    requests: list[Request],
    *,
    together: bool,
    compile: bool = False,
) -> dict[str, Any]:
    totals = dict.fromkeys(("bytes", "passes", "kept_calls", "drafts", "drafted", "kept", "drafted_calls"), 0)
    seconds = cpu_seconds = 0.0
    for group in [requests] if together else [[one] for one in requests]:
        engine = Engine(model, batch_rows=len(group), compile=compile)
        engine.drafts = FixedDrafts(limits)
        rows = engine.submit(group)
        engine.join()
        engine.refresh_counts()
        prompt_calls = sum(row.trunk_calls for row in rows)
        began, cpu_began = time.perf_counter(), time.process_time()
        while not engine.is_done:
            engine.advance()
        seconds += time.perf_counter() - began
        cpu_seconds += time.process_time() - cpu_began
        totals["bytes"] += sum(len(row.data) for row in rows)
        totals["passes"] += engine.batch.num_trunk_batches
        totals["kept_calls"] += sum(row.trunk_calls for row in rows) - prompt_calls
        for name, number in zip(("drafts", "drafted", "kept", "drafted_calls"), engine.batch.drafts, strict=True):
            totals[name] += number
    return {**totals, "seconds": seconds, "cpu_seconds": cpu_seconds}


def described(limits: DraftLimits | None, totals: dict[str, Any]) -> dict[str, Any]:
    """Returns totals with what they come to for each byte and each draft."""
    count, drafts = totals["bytes"], max(1, totals["drafts"])
    calls = totals["kept_calls"] if limits is None else totals["drafted_calls"]
    return {
        "most_bytes": None if limits is None else limits.most_bytes,
        "most_slots": None if limits is None else limits.most_slots,
        "passes_per_byte": totals["passes"] / count,
        "trunk_calls_per_byte": calls / count,
        "kept_calls_per_byte": totals["kept_calls"] / count,
        "drafted_per_draft": totals["drafted"] / drafts,
        "kept_per_draft": totals["kept"] / drafts,
        **totals,
    }


def measure_kept(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Counts on a trained model, by temperature, threshold and limits."""
    model = patchpad.load(options.run)
    assert isinstance(model, ByteLM), "drafts are the patch model's"
    prompts = prompts_of(options.texts, options.prompts)
    thresholds = [math.inf, float(model.scratchpad_threshold_nats), -math.inf]
    if model.calibration is not None:
        computes = [float(row["trunk_calls_per_byte"]) for row in model.calibration.rows]
        wanted = [one for one in options.computes if min(computes) <= one <= max(computes)]
        thresholds[1:2] = [model.calibration.threshold_for(one) for one in wanted]
    results = []
    for temperature in TEMPERATURES:
        for threshold in thresholds:
            for limits in ALL_LIMITS:
                requests = [
                    Request(
                        prompt=prompt,
                        max_new_bytes=options.bytes,
                        threshold=threshold,
                        sampling=Sampling(temperature=temperature),
                        seed=seed,
                    )
                    for seed, prompt in enumerate(prompts)
                ]
                totals = generated(model, limits, requests, together=False)
                del totals["seconds"], totals["cpu_seconds"]
                facts = {"temperature": temperature, "threshold_nats": str(threshold)}
                results.append({**facts, **described(limits, totals)})
                print(json.dumps(results[-1]), flush=True)
    return results


def random_requests(rows: int, num_bytes: int, threshold: float) -> list[Request]:
    """Returns requests whose prompts differ in length."""
    return [
        Request(
            prompt=b"some words, " * 5 + b"x" * (20 + 7 * row),
            max_new_bytes=num_bytes,
            threshold=threshold,
            sampling=Sampling(temperature=TEMPERATURE, logit_bias=((SEPARATOR, -100),)),  # documents do not end
            seed=row,
        )
        for row in range(rows)
    ]


def recorded_lengths(path: Path) -> dict[DraftLimits | None, list[int]]:
    """Returns how many bytes of each draft have stayed with a trained model, at about a quarter of a call per byte."""
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    steps = [one for one in results if one["most_bytes"] is None and one["temperature"] == TEMPERATURE]
    nearest = min(steps, key=lambda one: abs(one["trunk_calls_per_byte"] - CALLS_PER_BYTE))["threshold_nats"]
    return {
        DraftLimits(most_bytes=one["most_bytes"], most_slots=one["most_slots"]): one["kept_lengths"]
        for one in results
        if one["most_bytes"] and (one["temperature"], one["threshold_nats"]) == (TEMPERATURE, nearest)
    }


def measure_speed(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Times steps and drafts in turns, on random weights, with the lengths of a trained model."""
    trigger = TriggerConfig(kind="random", scratchpads_per_byte=3 / 16)
    config = replace(config_named(options.size), trigger=trigger)
    model = ByteLM(config, seed=0).eval()
    threshold, recorded = float(model.scratchpad_threshold_nats), recorded_lengths(options.kept)
    results = []
    for rows in options.rows:
        times: dict[Any, list[dict[str, Any]]] = {limits: [] for limits in ALL_LIMITS}
        for repeat in range(1 + options.repeats):
            for limits, runs in times.items():
                lengths = cycle(() if limits is None else recorded[limits])

                def replay(
                    verified: Verified, drafts: Sequence[Sequence[int]], lengths: Iterator[int] = lengths
                ) -> Verified:
                    return verified._replace(num_kept=[min(len(ids), next(lengths)) if ids else 0 for ids in drafts])

                with all_verified(replay):
                    requests = random_requests(rows, options.bytes, threshold)
                    run = _totals(model, limits, requests, together=True, compile=options.compile)
                runs += [run] if repeat > 0 else []  # the first is the warm-up
        for limits, runs in times.items():
            middle = statistics.median(run["seconds"] for run in runs)
            facts: dict[str, Any] = {"rows": rows, "bytes_per_second": runs[0]["bytes"] / middle}
            middle = statistics.median(run["cpu_seconds"] for run in runs)
            facts["bytes_per_cpu_second"] = runs[0]["bytes"] / middle
            facts["seconds_of_runs"] = [(run["seconds"], run["cpu_seconds"]) for run in runs]
            results.append({**facts, **described(limits, runs[0])})
            print(json.dumps(results[-1]), flush=True)
    return results


def main() -> None:
    """Measures one part and writes its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    kept = parts.add_parser("kept")
    kept.add_argument("out", type=Path)
    kept.add_argument("texts", type=Path, nargs="+")
    kept.add_argument("--run", default=None, help="a run; without it, the shipped model")
    kept.add_argument("--prompts", type=int, default=12, help="of each text")
    kept.add_argument("--bytes", type=int, default=150, help="generated for each prompt")
    kept.add_argument("--computes", type=float, nargs="+", default=[0.125, 0.25, 0.5])
    speed = parts.add_parser("speed")
    speed.add_argument("out", type=Path)
    speed.add_argument("kept", type=Path, help="what `kept` has written")
    speed.add_argument("--size", default="100M")
    speed.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8])
    speed.add_argument("--bytes", type=int, default=96, help="generated in each row")
    speed.add_argument("--repeats", type=int, default=3)
    speed.add_argument("--compile", action="store_true", help="compiled steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = measure_kept(options) if options.part == "kept" else measure_speed(options)
    given = {key: value for key, value in vars(options).items() if key != "out"}
    files = {"texts": [path.name for path in options.texts]} if options.part == "kept" else {"kept": options.kept.name}
    facts = provenance("cpu", threads=1)
    del facts["command"]  # it names folders of this machine; the options are below
    head = json.dumps({**facts, "options": {**given, **files}}, default=str).removesuffix("}")
    lines = ",\n".join(map(json.dumps, results))
    options.out.write_text(f'{head}, "results": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
