"""Long prompts: CPU seconds, cache, peak memory and bits per byte, by the length of one document.

Usage: python benchmarks/long_contexts.py [--lengths N ...] [--windows W ...] [--turns N] [--out JSON]

The models are the shipped one and one of its size with random weights, each as it is and with windows of the trunk. A
document is read in blocks, as every long prompt is, on one thread. Lengths come in turns, and each is compared with the
first one in the same turn; short ones are read several times in a turn. The text is the held-out book of the package,
which begins again where it is too short: bits per byte are given up to its end. Peak memory is that of a process of its
own that runs `patchpad generate` on the prompt, for one new byte.

The default lengths take about 5 minutes. A million bytes take 10 more without a window, and 2 with one:
`--lengths 2048 1000000`.
"""

import argparse
import json
import lzma
import math
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from origin import ROOT, provenance

import patchpad
from patchpad.files import write_atomically
from patchpad.inference.blocks import read_in_blocks
from patchpad.inference.steppers import stepper_for
from patchpad.model.byte_lm import ByteLM

BOOK = ROOT / "src" / "patchpad" / "data" / "bundled" / "austen_validation.jsonl.xz"
LEAST_BYTES = 16_384
"""Bytes that are read in a turn, at least: short lengths are read more than once."""
SCRATCHPADS_PER_BYTE = 3 / 16
"""Of random weights; the shipped model has what it was trained for."""


def document(length: int) -> tuple[bytes, int]:
    """Returns a document, and how many of its bytes come before the book begins again."""
    with lzma.open(BOOK, "rt", encoding="utf-8") as file:
        book = json.loads(file.readline())["text"].encode()
    return (book * -(-length // len(book)))[:length], min(length, len(book))


def model_with(weights: str, window: int | None) -> tuple[ByteLM, float]:
    """Returns a model with a window of the trunk, and the threshold at which it reads."""
    shipped = patchpad.load()
    assert isinstance(shipped, ByteLM)
    model = ByteLM(replace(shipped.config, trunk_window_patches=window), seed=0).eval()
    if weights == "shipped":
        model.load_state_dict(shipped.state_dict())
        return model, float(shipped.scratchpad_threshold_nats)
    text, _ = document(2048)
    with torch.no_grad():
        scores = model.eligible_scores(model(torch.tensor([[patchpad.SEPARATOR, *text]]), math.inf))
    size = model.config.patchifier.target_patch_size
    return model, float(scores.quantile(1 - SCRATCHPADS_PER_BYTE * size / (size - 1)))


@torch.inference_mode()
def read(model: ByteLM, threshold: float, text: bytes, num_scored: int) -> dict[str, Any]:
    """Reads a document once; what it takes to score its bytes is not counted.

    Args:
        model: to read with.
        threshold: in nats.
        text: of the document.
        num_scored: bytes whose nats are summed up.
    """
    stepper, thresholds = stepper_for(model), torch.tensor([threshold])
    begin = time.process_time()
    before, state = stepper.prefill([b""], thresholds)
    seconds, nats, num_bytes, calls = time.process_time() - begin, 0.0, 0, 0
    blocks = read_in_blocks(stepper, state, [list(text)], thresholds)
    while True:
        begin = time.process_time()
        block = next(blocks, None)
        seconds += time.process_time() - begin
        if block is None:
            break
        logits = block.extension.logits
        shifted, size = torch.cat((before, logits[:-1])), len(logits)
        wanted = torch.tensor(list(text[num_bytes : num_bytes + size]))
        losses = torch.nn.functional.cross_entropy(shifted, wanted, reduction="none")
        nats += float(losses[: max(0, num_scored - num_bytes)].double().sum())
        before, state, num_bytes = logits[-1:], block.state, num_bytes + size
        calls += int(block.extension.num_commits + block.extension.num_scratchpads)
    trunk = [*state.trunk.keys, *state.trunk.values]
    place_bytes = sum(part.nbytes for part in trunk) // state.trunk.capacity
    return {
        "cpu_seconds": seconds,
        "bits_per_byte": nats / (math.log(2) * num_scored),
        "trunk_calls_per_byte": calls / len(text),
        "cache_bytes": int(state.num_places) * place_bytes,
        "held_cache_bytes": state.trunk.capacity * place_bytes,
    }


def measure_speed(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row for each model and length; ratios are those of one turn."""
    rows = []
    for weights in options.weights:
        for window in options.windows:
            model, threshold = model_with(weights, window)
            microseconds: dict[int, list[float]] = {length: [] for length in options.lengths}
            facts: dict[int, dict[str, Any]] = {}
            for _ in range(options.turns):
                for length in options.lengths:
                    text, num_held_out = document(length)
                    times = []
                    for _ in range(max(1, LEAST_BYTES // length)):
                        facts[length] = read(model, threshold, text, num_held_out)
                        times.append(facts[length]["cpu_seconds"])
                    microseconds[length].append(statistics.fmean(times) / length * 1e6)
            for length, values in microseconds.items():
                first = microseconds[options.lengths[0]]
                ratio = statistics.median(value / base for value, base in zip(values, first, strict=True))
                rows.append(
                    {
                        "weights": weights,
                        "window": window,
                        "length": length,
                        **{key: value for key, value in facts[length].items() if key != "cpu_seconds"},
                        "cpu_microseconds_per_byte": values,
                        "ratio": ratio,
                    }
                )
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def peak_mib(length: int, tree: Path) -> float:
    """Returns the peak resident memory of `patchpad generate` on a prompt, in MiB.

    Args:
        length: bytes of the prompt.
        tree: folder of the package's source.
    """
    text, _ = document(length)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prompt.jsonl"
        path.write_text(json.dumps({"prompt": text.decode(errors="ignore")}) + "\n", encoding="utf-8")
        command = ["-m", "patchpad", "generate", "--prompts", str(path), "--max-new-bytes", "1", "--json"]
        environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        with open(os.devnull, "wb") as nowhere:
            child = os.posix_spawn(
                sys.executable,
                [sys.executable, *command],
                environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, nowhere.fileno(), 1)],
            )
        _, status, usage = os.wait4(child, 0)
    if status != 0:
        raise SystemExit(f"patchpad generate on {length} bytes ended with status {status}")
    return usage.ru_maxrss / 1024


def main() -> None:
    """Measures, prints a table, and writes the raw values where --out says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 32_768, 102_400])
    parser.add_argument("--windows", type=int, nargs="+", default=[0, 256], help="in patches; 0: none")
    parser.add_argument("--weights", nargs="+", choices=["shipped", "random"], default=["shipped", "random"])
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--source", type=Path, default=ROOT / "src", help="of the package whose memory is measured")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    options.windows = [window or None for window in options.windows]
    torch.set_num_threads(1)
    rows = measure_speed(options) if options.turns else []
    memory = {} if options.no_memory else {length: peak_mib(length, options.source) for length in options.lengths}
    print("| weights | window | bytes | CPU us per byte | over the first | trunk calls | bits per byte | cache MB |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['weights']} | {row['window'] or 'none'} | {row['length']:,} "
            f"| {statistics.median(row['cpu_microseconds_per_byte']):.0f} | {row['ratio']:.2f} "
            f"| {row['trunk_calls_per_byte']:.3f} | {row['bits_per_byte']:.3f} | {row['cache_bytes'] / 1e6:.2f} |"
        )
    for length, peak in memory.items():
        print(f"peak memory of a prompt of {length:,} bytes: {peak:.0f} MiB")
    if options.out is not None:
        content = {**provenance("cpu", 1), "rows": rows, "peak_mib": memory}
        write_atomically(options.out, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
