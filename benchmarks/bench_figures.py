"""The five main figures, and a yardstick of torch alone for each; this file is also the process that times one of them.

Usage of that process, by `benchmarks/bench.py --against`: python benchmarks/bench_figures.py FIGURE --turns N
It says `ready` when the model is warm. Each line on stdin then has one run timed, and the result is a line of JSON.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from measuring import time_once
from ours import TINY, Prefill, SteadyGeneration, TrainingStep, build, ragged_lengths, text_batch
from torch import Tensor, nn
from torch.nn import functional as F

from patchpad.config import ModelConfig
from patchpad.inference.draft_rule import FixedDrafts
from patchpad.model.byte_lm import ByteLM

PROMPT_BYTES = 512
MANY_ROWS = 128
SHORTEST_PROMPT = 100


@dataclass(frozen=True)
class Size:
    """How much a run of each figure does."""

    config: ModelConfig
    rows: int = 4
    context_bytes: int = 1024
    """Of training and prefill."""
    plain_bytes: int = 192
    compiled_bytes: int = 384
    many_rows: int = MANY_ROWS
    bytes_per_row: int = 16
    """That each of the many rows generates."""


SIZES = {
    "default": Size(ModelConfig()),
    "tiny": Size(TINY, rows=2, context_bytes=64, plain_bytes=16, compiled_bytes=16, many_rows=4, bytes_per_row=8),
}
"""The model that `patchpad train` makes by default, and one for tests."""


@dataclass(frozen=True)
class Task:
    """What is timed."""

    run: Callable[[], object]
    amount: Callable[[], float]
    """What the last run did: bytes, or for yardsticks runs."""


def training(size: Size, turns: int) -> Task:
    """A whole training step on rows of text."""
    batch = text_batch(size.rows, size.context_bytes)
    step = TrainingStep(_model(size), batch)
    return Task(step.run, lambda: batch.num_bytes)


def prefill(size: Size, turns: int) -> Task:
    """Prompts of equal length, read together."""
    reading = Prefill(_model(size), size.rows, size.context_bytes)
    return Task(reading.run, lambda: reading.num_bytes)


def plain(size: Size, turns: int) -> Task:
    """One row, generated in plain steps."""
    return _generation(size, [PROMPT_BYTES], size.plain_bytes, turns)


def compiled(size: Size, turns: int) -> Task:
    """One row, generated in compiled steps."""
    return _generation(size, [PROMPT_BYTES], size.compiled_bytes, turns, compile=True)


def many(size: Size, turns: int) -> Task:
    """Many rows, generated together in plain steps."""
    return _generation(size, ragged_lengths(size.many_rows, SHORTEST_PROMPT), size.bytes_per_row, turns)


def _model(size: Size) -> ByteLM:
    torch.manual_seed(0)
    return build(size.config)


def _generation(size: Size, prompts: list[int], run_bytes: int, turns: int, *, compile: bool = False) -> Task:
    model = _model(size).eval()
    generation = SteadyGeneration(model, prompts, bytes_per_row=run_bytes, runs=1 + turns, compile=compile)
    generation.engine.drafts = FixedDrafts(None)
    return Task(generation.run, lambda: generation.counts[-1]["bytes"])


class Yardstick(nn.Module):
    """A plain Transformer over bytes, of torch alone: what it takes to run depends on the machine and on torch.

    Its sizes must stay as they are: figures are compared over months as ratios to it.
    """

    DIM, HEADS, LAYERS, VOCAB = 256, 4, 4, 256

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def weight(rows: int, columns: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=generator) / math.sqrt(columns))

        dim = self.DIM
        self.embedding = weight(self.VOCAB, dim)
        self.layers = nn.ModuleList(
            nn.ParameterDict(
                {
                    "qkv": weight(3 * dim, dim),
                    "out": weight(dim, dim),
                    "up": weight(4 * dim, dim),
                    "down": weight(dim, 4 * dim),
                }
            )
            for _ in range(self.LAYERS)
        )

    def forward(self, ids: Tensor, caches: list[tuple[Tensor, Tensor]] | None = None) -> Tensor:
        """Returns logits: of whole rows, or of one id per row after what caches hold."""
        states = F.embedding(ids, self.embedding)
        for number, layer in enumerate(self.layers):
            normed = F.rms_norm(states, (self.DIM,))
            parts = F.linear(normed, layer["qkv"]).unflatten(-1, (3, self.HEADS, -1)).transpose(1, 3)
            query, key, value = parts.unbind(2)
            if caches is None:
                mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            else:
                keys, values = caches[number]
                keys[:, :, -1:], values[:, :, -1:] = key, value
                mixed = F.scaled_dot_product_attention(query, keys, values)
            states = states + F.linear(mixed.transpose(1, 2).flatten(2), layer["out"])
            hidden = F.silu(F.linear(F.rms_norm(states, (self.DIM,)), layer["up"]))
            states = states + F.linear(hidden, layer["down"])
        return F.linear(states, self.embedding)


def yardstick_training(size: Size) -> Task:
    """A training step of the yardstick."""
    model, ids = Yardstick(), text_batch(size.rows, size.context_bytes // 2).byte_ids % Yardstick.VOCAB
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=True)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
        optimizer.step()

    return Task(run, _one)


def yardstick_pass(size: Size) -> Task:
    """A pass of the yardstick without gradients."""
    model, ids = Yardstick(), text_batch(size.rows, size.context_bytes // 2).byte_ids % Yardstick.VOCAB
    return Task(torch.inference_mode()(lambda: model(ids)), _one)


def yardstick_steps(rows: int, steps: int, places: int = 128) -> Task:
    """Steps of the yardstick after caches of so many places."""
    model, ids = Yardstick(), torch.zeros(rows, 1, dtype=torch.int64)
    shape = (rows, Yardstick.HEADS, places, Yardstick.DIM // Yardstick.HEADS)
    caches = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(Yardstick.LAYERS)]

    @torch.inference_mode()
    def run() -> None:
        for _ in range(steps):
            model(ids, caches)

    return Task(run, _one)


def yardstick_reads(steps: int) -> Task:
    """Products of the yardstick's weights with one vector each: little but reading them."""
    weights = [weight for weight in Yardstick().parameters() if weight.dim() == 2]
    vectors = [(torch.ones(len(weight[0])), torch.empty(len(weight))) for weight in weights]

    @torch.inference_mode()
    def run() -> None:
        for _ in range(steps):
            for weight, (vector, out) in zip(weights, vectors, strict=True):
                torch.mv(weight, vector, out=out)

    return Task(run, _one)


def _one() -> float:
    return 1.0


@dataclass(frozen=True)
class Figure:
    """One of the main figures."""

    what: str
    task: Callable[[Size, int], Task]
    yardstick: Callable[[Size], Task]
    """A kind of work that the same things slow down: large products, many small operations, or reading weights."""


FIGURES = {
    "training": Figure("training", training, yardstick_training),
    "prefill": Figure("reading prompts", prefill, yardstick_pass),
    "plain": Figure("generation, 1 row", plain, lambda size: yardstick_steps(1, size.plain_bytes)),
    "compiled": Figure(
        "generation, 1 row, compiled steps", compiled, lambda size: yardstick_reads(size.compiled_bytes // 4)
    ),
    "many": Figure(
        f"generation, {MANY_ROWS} rows", many, lambda size: yardstick_steps(size.many_rows, size.bytes_per_row)
    ),
}
"""By name, in the order of the table."""


def timed(task: Task) -> dict[str, Any]:
    """Runs a task once; returns its seconds and its amount."""
    seconds = time_once(task.run)
    return {**asdict(seconds), "amount": task.amount()}


def main() -> None:
    """Gets a figure ready, then times a run for each line on stdin."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figure", choices=FIGURES)
    parser.add_argument("--turns", type=int, required=True)
    parser.add_argument("--size", choices=SIZES, default="default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = FIGURES[options.figure].task(SIZES[options.size], options.turns)
    task.run()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(timed(task)), flush=True)


if __name__ == "__main__":
    main()
