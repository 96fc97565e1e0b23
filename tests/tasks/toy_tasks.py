"""Tasks and data of a few rows, and scorers that need no model."""

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from patchpad.tasks.compute import Compute
from patchpad.tasks.definition import Task, TaskOptions
from patchpad.tasks.kinds import build_task
from patchpad.tasks.rows import Row
from patchpad.tasks.scoring import Request, Scored

COMPUTE = Compute(
    scratchpad_threshold_nats=1.5,
    bytes_scored=10,
    bytes_in_requests=100,
    bytes_read=60,
    patches_per_byte=0.25,
    scratchpads_per_byte=0.0,
    trunk_calls_per_byte=0.25,
    flops_per_byte=1e6,
    trunk_cache_bytes_per_byte=12.0,
)


@dataclass
class StandIn:
    """Scores requests by a function of context and continuation, and keeps them."""

    nats: Callable[[Request], float]
    is_greedy: bool = False
    num_cut_bytes: int = 0
    requests: list[Request] = field(default_factory=list)

    def score(self, requests: Sequence[Request]) -> list[Scored]:
        """Returns a score for each request."""
        self.requests += requests
        return [Scored(self.nats(one), self.is_greedy, self.num_cut_bytes, len(one.continuation)) for one in requests]

    def compute(self) -> Compute:
        """Returns the same for all."""
        return COMPUTE


def uniform(request: Request) -> float:
    """ln p of a model that finds all bytes equally likely."""
    return -len(request.continuation) * math.log(256)


def at_random(request: Request, seed: int = 0) -> float:
    """A likelihood that depends on the request in no way that means anything."""
    source = random.Random(f"{seed}/{request.context!r}/{request.continuation!r}")
    return -sum(source.expovariate(1 / 3) for _ in request.continuation)


def task_of(**keys: object) -> Task:
    """Returns a task of multiple choice, with other keys than the usual ones."""
    values = {
        "kind": "choices",
        "data": "toy.jsonl",
        "context": "Question: {question}\nAnswer:",
        "choices": "{choices}",
    }
    return build_task({**values, **keys}, "toy", "toy.yaml")


def rows_of(examples: Sequence[dict], name: str = "toy.jsonl") -> list[Row]:
    """Returns rows as a file of that name would give them."""
    return [Row(example, Path(name), number) for number, example in enumerate(examples, start=1)]


def random_examples(count: int, seed: int = 0) -> list[dict]:
    """Returns examples with two to five choices of different lengths, the right one drawn at random."""
    source = random.Random(seed)
    words = ["a", "bc", "def", "gh ij", "klm nop", "q", "größer", "xy"]
    found = []
    for number in range(count):
        choices = source.sample(words, source.randrange(2, 6))
        found.append({"question": f"number {number}", "choices": choices, "gold": source.randrange(len(choices))})
    return found


def write_rows(folder: Path, examples: Sequence[dict], name: str = "toy.jsonl") -> Path:
    """Writes examples as a file of rows."""
    path = folder / name
    path.write_text("".join(json.dumps(example) + "\n" for example in examples))
    return path


def options_of(**values: object) -> TaskOptions:
    """Returns options for data that nobody reads."""
    return TaskOptions(**{"data": Path("nowhere"), **values})
