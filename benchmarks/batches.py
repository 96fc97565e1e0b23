"""Batches: bytes per CPU second by the number of rows, beside one row and beside a full pass, and their memory.

Usage: python benchmarks/batches.py [--models shipped 20M] [--batches 1 8 32 128]

Two models: the shipped one continues held-out text at a temperature of 0.8, so that the text decides how often the
trunk is called; and one of 20M parameters with random weights, at 1/4 trunk call per byte. Prompts have different
lengths, and are not timed. The full pass reads the newest bytes of rows that the largest batch has at that moment, some
rows at a time. All take turns. Then rows join and leave again and again, and the memory of the process is looked at.
"""

import gc
import json
import lzma
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from machine import resident_bytes
from measuring import arguments, as_rows, markdown_table, median, prepare, time_interleaved, write_results
from origin import ROOT
from ours import ENDLESS, NO_END, Generation, SteadyGeneration, build, config_named, ragged_lengths
from rows import digits, only, rate, rate_cell, rate_ratio

import patchpad
from patchpad.config import SEPARATOR
from patchpad.inference.draft_rule import FixedDrafts
from patchpad.inference.engine import Engine, Request
from patchpad.model.byte_lm import ByteLM

BOOK = ROOT / "src" / "patchpad" / "data" / "bundled" / "austen_validation.jsonl.xz"
SHIPPED = "shipped"
SHORTEST_PROMPT = 128
PASS_ROWS = 16
PASS = "full pass"
LEAST_RUN_BYTES = 192
"""New bytes of a run, at least: one row has text of its own, which must not decide."""


def book_prompts(lengths: Sequence[int]) -> list[bytes]:
    """Returns prompts of the given lengths from different places of the held-out book."""
    with lzma.open(BOOK, "rt", encoding="utf-8") as file:
        book = json.loads(file.readline())["text"].encode()
    step = (len(book) - max(lengths)) // len(lengths)
    return [book[step * number :][:length] for number, length in enumerate(lengths)]


def request(model: ByteLM, prompt: bytes, seed: int, max_new_bytes: int) -> Request:
    """Returns a request that only its length ends."""
    return Request(
        prompt=prompt,
        max_new_bytes=max_new_bytes,
        threshold=float(model.scratchpad_threshold_nats),
        sampling=ENDLESS,
        seed=seed,
    )


def join_all(engine: Engine) -> None:
    """Has all rows that wait join."""
    while engine.next_to_join is not None:
        engine.join()


class TextGeneration(Generation):
    """A batch that samples without end; its prompts have been read already.

    Args:
        model: in eval mode.
        lengths: of the prompts.
        bytes_per_row: that a run generates, on average over the rows.
    """

    def __init__(self, model: ByteLM, lengths: Sequence[int], bytes_per_row: int) -> None:
        requests = [request(model, prompt, number, NO_END) for number, prompt in enumerate(book_prompts(lengths))]
        super().__init__(Engine(model, batch_rows=len(lengths)), requests, bytes_per_row * len(lengths), join_all)


def generation(name: str, model: ByteLM, batch_rows: int, run_bytes: int, runs: int) -> Generation:
    """Returns a batch of so many rows that has read its prompts."""
    lengths = ragged_lengths(batch_rows, SHORTEST_PROMPT)
    if name == SHIPPED:
        return TextGeneration(model, lengths, run_bytes)
    found = SteadyGeneration(model, lengths, bytes_per_row=run_bytes, runs=runs)
    found.engine.drafts = FixedDrafts(None)
    return found


class FullPass:
    """A pass over the newest bytes of some rows of a generation, as many of each as the shortest has.

    Args:
        model: in eval mode.
        of: the generation.
    """

    def __init__(self, model: ByteLM, of: Generation) -> None:
        self.model, self.of = model, of
        self.ids = torch.zeros(0, 0, dtype=torch.int64)
        self.amounts: list[int] = []

    def prepare(self) -> None:
        """Takes the bytes that there are now."""
        rows = self.of.rows[:: max(1, len(self.of.rows) // PASS_ROWS)][:PASS_ROWS]
        texts = [row.request.prompt + row.data for row in rows]
        length = min(map(len, texts))
        self.ids = torch.tensor([[SEPARATOR, *text[-length:]] for text in texts])
        self.amounts.append(len(texts) * length)

    @torch.inference_mode()
    def run(self) -> None:
        """Reads them."""
        self.model(self.ids)


def measure_speed(name: str, model: ByteLM, options: Any) -> list[dict[str, Any]]:
    """Times batches and the full pass in turns."""
    sides: dict[str, Generation] = {}
    for batch_rows in options.batches:
        run_bytes = max(options.run_bytes, -(-LEAST_RUN_BYTES // batch_rows)) if name == SHIPPED else options.run_bytes
        sides[f"{batch_rows} rows"] = generation(name, model, batch_rows, run_bytes, 1 + options.repeats)
    full_pass = FullPass(model, sides[f"{max(options.batches)} rows"])
    tasks = {**{key: side.run for key, side in sides.items()}, PASS: full_pass.run}
    runs = time_interleaved(tasks, repeats=options.repeats, before={PASS: full_pass.prepare})
    rows = as_rows(runs, model=name)
    for row in rows:
        if row["name"] == PASS:
            row["bytes"] = full_pass.amounts[1:]  # the first run was the warm-up
            continue
        side = sides[row["name"]]
        row["batch_rows"] = len(side.rows)
        row |= {key: [run[key] for run in side.counts[1:]] for key in side.counts[0]}
        row |= memory_of(side)
    return rows


def memory_of(side: Generation) -> dict[str, int]:
    """Returns the bytes of a batch's state."""
    state = side.engine.batch.state
    assert state is not None
    trunk = [*state.trunk.keys, *state.trunk.values]
    return {
        "state_bytes": sum(tensor.nbytes for tensor in state.tensors()),
        "trunk_cache_bytes": sum(tensor.nbytes for tensor in trunk),
    }


def measure_rounds(name: str, model: ByteLM, options: Any) -> dict[str, Any]:
    """Has rows join and leave again and again; returns the memory of the process after each round."""
    batch_rows = max(options.batches)
    found = []
    for _ in range(options.rounds):
        engine = Engine(model, batch_rows=batch_rows)
        lengths = ragged_lengths(2 * batch_rows, 8)  # half of them wait, and join where others have left
        prompts = book_prompts([min(length, 512) for length in lengths])
        engine.submit([request(model, prompt, number, 8 + number % 9) for number, prompt in enumerate(prompts)])
        while not engine.is_done:
            engine.advance()
        del engine
        gc.collect()
        found.append(resident_bytes())
    return {"name": "rounds", "model": name, "batch_rows": batch_rows, "resident_bytes": found}


def report(rows: list[dict[str, Any]], batches: Sequence[int]) -> str:
    """Returns the tables of a measurement."""
    lines, memory = [], []
    for name in dict.fromkeys(row["model"] for row in rows):
        single = only(rows, model=name, name=f"{min(batches)} rows")
        whole = only(rows, model=name, name=PASS)
        for batch_rows in batches:
            row = only(rows, model=name, name=f"{batch_rows} rows")
            share = rate_ratio(row, "bytes", single, "bytes", "cpu") * min(batches) / batch_rows
            calls = statistics.fmean(row["trunk_calls"]) / statistics.fmean(row["bytes"])
            lines.append(
                [
                    name,
                    str(batch_rows),
                    rate_cell(row, "bytes", "cpu"),
                    f"{share:.2f}",
                    f"{rate_ratio(row, 'bytes', whole, 'bytes', 'cpu'):.2f}",
                    f"{calls:.2f}",
                    digits(median(row["bytes"]) / median(row["trunk_batches"]) / batch_rows),
                ]
            )
            sizes = [row[key] for key in ("state_bytes", "trunk_cache_bytes")]
            memory.append([name, str(batch_rows), *(f"{size / 1e6:.1f}" for size in sizes)])
        lines.append([name, "full pass", rate_cell(whole, "bytes", "cpu"), "", "1.00", "", ""])
        assert rate(whole, "bytes", "cpu") > 0
    speed = markdown_table(
        [
            "model",
            "rows",
            "bytes per CPU second",
            "share of rows x single",
            "share of the full pass",
            "trunk calls per byte",
            "bytes per row between trunk calls",
        ],
        lines,
    )
    sizes = markdown_table(["model", "rows", "state, MB", "trunk's cache among it"], memory)
    rounds = [
        f"Resident after each round of {row['batch_rows']} rows, {row['model']}, MB: "
        + ", ".join(f"{size / 1e6:.0f}" for size in row["resident_bytes"])
        + ".\n"
        for row in rows
        if row["name"] == "rounds"
    ]
    return "\n".join([speed, sizes, *rounds])


def main() -> None:
    """Measures each model."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=[SHIPPED, "20M"], help=f"{SHIPPED}, 3M, 20M, 100M or tiny")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--run-bytes", type=int, default=24, help="bytes per row that a run generates")
    parser.add_argument("--rounds", type=int, default=6, help="times that rows join and leave")
    options = parser.parse_args()
    if options.device != "cpu" or options.compile:
        raise SystemExit("--device cuda, --compile: not for this benchmark; allowed: plain steps on a CPU")
    prepare(options)
    rows = []
    for name in options.models:
        model = patchpad.load() if name == SHIPPED else build(config_named(name)).eval()
        assert isinstance(model, ByteLM)
        rows += measure_speed(name, model, options)
        if options.rounds:
            rows.append(measure_rounds(name, model, options))
    write_results(options, "batches", rows, report(rows, options.batches))


if __name__ == "__main__":
    main()
