"""Many streams at once against `patchpad serve`, and against the engine alone with the same requests, in turn.

Usage: python benchmarks/serving_load.py [--run RUN] [--streams 64] [--seconds 60] [--repeats 3] [--check 100]
Starts the server itself. The time is cut into `--repeats` parts; after each, the engine alone runs for as long in this
process, with requests drawn alike. Then the requests of streams are run alone, one by one, and compared.
"""

import argparse
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from measuring import arguments, prepare, write_results
from serving_check import check, unexplained
from serving_client import Answer, Asked, Load, percentile, put_load, read_answer, requests_of

import patchpad
from patchpad.data.bundled_text import bundled_excerpt
from patchpad.inference.engine import Engine, Request
from patchpad.inference.sampling import Sampling
from patchpad.model.language_model import LanguageModel

MODEL = "served"
WARM_UP_SECONDS = 3.0
PACKAGES = ("patchpad", "starlette", "uvicorn", "h11", "pydantic")


@contextmanager
def running_server(options: argparse.Namespace) -> Iterator[tuple[tuple[str, int], int]]:
    """Starts the server; yields its address and its process."""
    words = [sys.executable, "-m", "patchpad", "serve", *([options.run] if options.run else []), "--port", "0"]
    words += ["--batch-rows", str(options.streams), "--model-name", MODEL, "--device", options.device]
    words += ["--compile"] if options.compile else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://([^:]+):(\d+)", process.stdout.readline())
            if found is None:
                raise SystemExit("the server has not started")
            yield (found[1], int(found[2])), process.pid
        finally:
            process.terminate()
            process.wait(60)


def memory_bytes(pid: int) -> int:
    """Returns the memory of a process that is not swapped out."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def cpu_seconds(pid: int) -> float:
    """Returns how long a process has computed, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def engine_bytes(
    model: LanguageModel, requests: Iterator[Asked], rows: int, seconds: float
) -> tuple[int, float, float]:
    """Runs the engine alone for some seconds, a new row for each that ends; returns bytes, seconds and CPU seconds."""
    engine = Engine(model, batch_rows=rows)
    threshold = float(model.scratchpad_threshold_nats)

    def submit(count: int) -> None:
        engine.submit(
            [
                Request(
                    prompt=asked.prompt,
                    max_new_bytes=asked.max_new_bytes,
                    threshold=threshold,
                    sampling=Sampling(temperature=asked.temperature),
                    seed=asked.seed,
                )
                for asked in itertools.islice(requests, count)
            ]
        )

    submit(rows)
    total, began, cpu_began = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        released = engine.advance()
        total += sum(len(new.data) for new in released)
        ended = sum(new.is_last for new in released)
        if ended:
            submit(ended)
    return total, time.perf_counter() - began, time.process_time() - cpu_began


def bytes_until(load: Load, answers: list[Answer]) -> int:
    """Returns the bytes that came while new requests began."""
    return sum(
        size
        for answer in answers
        for seconds, size in zip(answer.event_times, answer.event_bytes, strict=True)
        if seconds <= load.ended
    )


def row_of(load: Load, answers: list[Answer], alone: tuple[int, float, float]) -> dict[str, Any]:
    """Returns the raw values of one part."""
    seconds = load.ended - load.began
    first, event_gaps, byte_gaps = [], [], []
    for received, answer in zip(load.streams, answers, strict=True):
        if answer.event_times:
            first.append(answer.event_times[0] - received.began)
        for (before, now), size in zip(itertools.pairwise(answer.event_times), answer.event_bytes[1:], strict=True):
            event_gaps.append(now - before)
            byte_gaps += [(now - before) / size] * size
    num_bytes = sum(sum(answer.event_bytes) for answer in answers)
    return {
        "streams": len(load.streams),
        "seconds": seconds,
        "bytes": num_bytes,
        "bytes_per_second": bytes_until(load, answers) / seconds,
        "engine_bytes_per_second": alone[0] / alone[1],
        "cpu_milliseconds_per_byte": 1000 * load.cpu_seconds / max(1, bytes_until(load, answers)),
        "engine_cpu_milliseconds_per_byte": 1000 * alone[2] / alone[0],
        "bytes_per_event": num_bytes / max(1, sum(len(answer.event_times) for answer in answers)),
        "first_byte_seconds": [percentile(first, share) for share in (0.5, 0.99)],
        "event_gap_seconds": [percentile(event_gaps, share) for share in (0.5, 0.99)],
        "byte_gap_seconds": [percentile(byte_gaps, share) for share in (0.5, 0.99)],
        "health_seconds": [percentile(load.health_seconds, share) for share in (0.5, 0.99, 1.0)],
        "health_questions": len(load.health_seconds),
    }


def report(rows: list[dict[str, Any]]) -> str:
    """Returns the table of all parts, and what was compared."""
    *parts, summary = rows
    lines = [
        "| part | streams | bytes/s | engine alone | share | CPU ms a byte | engine alone | first byte p50 / p99 ms | "
        "event gap p50 / p99 ms | byte gap p50 / p99 ms | bytes an event | /health p50 / p99 / most ms |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for number, row in enumerate(parts, 1):
        share = row["bytes_per_second"] / row["engine_bytes_per_second"]
        cells = [number, row["streams"], f"{row['bytes_per_second']:,.0f}", f"{row['engine_bytes_per_second']:,.0f}"]
        cells.append(f"{share:.0%}")
        cells += [f"{row[name]:.2f}" for name in ("cpu_milliseconds_per_byte", "engine_cpu_milliseconds_per_byte")]
        for name in ("first_byte_seconds", "event_gap_seconds", "byte_gap_seconds"):
            cells.append(" / ".join(f"{1000 * value:.0f}" for value in row[name]))
        cells.append(f"{row['bytes_per_event']:.1f}")
        cells.append(" / ".join(f"{1000 * value:.0f}" for value in row["health_seconds"]))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    memory = " -> ".join(f"{value / 2**20:.0f}" for value in summary["memory_bytes"])
    return "\n".join(
        [
            *lines,
            "",
            f"Memory of the server, MiB, after the warm-up and after each part: {memory}.",
            "",
            f"Compared with their requests alone: {summary['checked']} streams, {summary['differing']} differ, "
            f"{summary['unexplained']} of them for no reason that rounding explains.",
        ]
    )


def main() -> None:
    """Measures, compares and writes the results; exits with 1 if a stream differs for no known reason."""
    parser = arguments("many streams at once against `patchpad serve`")
    parser.add_argument("--run", help="folder of a run; default: the model that ships with patchpad")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0, help="of load in all")
    parser.add_argument("--check", type=int, default=100, help="streams to compare with their requests alone")
    parser.set_defaults(repeats=3)
    options = parser.parse_args()
    prepare(options)
    model = patchpad.load(options.run, device=options.device)
    text = bundled_excerpt().text
    seconds = options.seconds / options.repeats
    rows: list[dict[str, Any]] = []
    kept: list[tuple[Asked, Answer]] = []
    with running_server(options) as (address, pid):
        took = partial(cpu_seconds, pid)
        put_load(address, MODEL, requests_of(text, seed=1), options.streams, min(WARM_UP_SECONDS, seconds), took)
        memory = [memory_bytes(pid)]
        for part in range(options.repeats):
            load = put_load(address, MODEL, requests_of(text, seed=100 + part), options.streams, seconds, took)
            answers = [read_answer(received) for received in load.streams]
            kept += [(received.asked, answer) for received, answer in zip(load.streams, answers, strict=True)]
            memory.append(memory_bytes(pid))
            alone = engine_bytes(model, requests_of(text, seed=100 + part), options.streams, seconds)
            rows.append(row_of(load, answers, alone))
            print(report([*rows, {"memory_bytes": memory, "checked": 0, "differing": 0, "unexplained": 0}]), flush=True)
    step = max(1, len(kept) // max(1, options.check))
    checked = [check(model, asked, answer.text) for asked, answer in kept[::step]][: options.check]
    differing = [one for one in checked if not one.is_equal]
    rows.append(
        {
            "memory_bytes": memory,
            "checked": len(checked),
            "differing": len(differing),
            "explanations": [one.explanation for one in differing],
            "unexplained": unexplained(checked),
        }
    )
    print(report(rows))
    print(write_results(options, "serving-load", rows, report(rows), PACKAGES))
    if rows[-1]["unexplained"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
