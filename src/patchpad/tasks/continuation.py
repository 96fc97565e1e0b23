"""One continuation for each context: is it what the model would write, and how many bits does it cost?

LAMBADA asks for the last word of a passage in this way.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from patchpad.tasks.choices import REQUESTS_AT_ONCE, Scores
from patchpad.tasks.definition import Kind, PromptedTask, TaskOptions
from patchpad.tasks.result import Metric, TaskResult
from patchpad.tasks.rows import Row
from patchpad.tasks.scoring import Request
from patchpad.tasks.shots import Prompts, request_after
from patchpad.tasks.template import as_bytes


@dataclass(frozen=True, kw_only=True)
class ContinuationTask(PromptedTask):
    """A task of kind `continuation`."""

    continuation: str
    """Template of what follows context and delimiter."""

    def template_keys(self) -> tuple[str, ...]:
        """Returns the keys whose values are templates."""
        return (*super().template_keys(), "continuation")


def run_continuation(task: ContinuationTask, rows: Sequence[Row], scorer: Scores, options: TaskOptions) -> TaskResult:
    """Scores the continuation of every row.

    `accuracy` is the share of continuations each of whose bytes is the likeliest one, so that greedy generation would
    write it. `bits_per_byte` is that of all continuations together.

    Args:
        task: says what is scored.
        rows: at least one.
        scorer: a `Scorer`, or what does as it does.
        options: shots, seed, noise.

    Raises:
        ConfigError: more shots than there are rows.
        DataError: a row whose continuation is empty.
    """
    prompts = _prompts(task, options)
    examples: list[dict[str, Any]] = []
    num_cut_bytes = num_cut_examples = 0
    for begin in range(0, len(rows), REQUESTS_AT_ONCE):
        part = rows[begin : begin + REQUESTS_AT_ONCE]
        requests = [_request(task, row, prompts, options) for row in part]
        for row, score in zip(part, scorer.score(requests), strict=True):
            values = {"accuracy": float(score.is_greedy), "bits_per_byte": score.bits_per_byte}
            examples.append({"id": row.id, **values, "bits": score.bits, "num_bytes": score.num_bytes})
            num_cut_bytes += score.num_cut_bytes
            num_cut_examples += score.num_cut_bytes > 0
        options.progress(len(part))
    bits, num_bytes = ([example[name] for example in examples] for name in ("bits", "num_bytes"))
    return TaskResult(
        task=options.label or task.name,
        kind=task.kind,
        num_examples=len(examples),
        metrics={
            "accuracy": Metric.mean_of([example["accuracy"] for example in examples]),
            "bits_per_byte": Metric.ratio_of(bits, num_bytes),
        },
        main_metric="accuracy",
        compute=scorer.compute(),
        num_cut_examples=num_cut_examples,
        num_cut_bytes=num_cut_bytes,
        examples=examples,
        details={"shots": prompts.num_shots, "bits_per_continuation": math.fsum(bits) / len(bits)},
    )


def check_continuation(task: ContinuationTask, rows: Sequence[Row], options: TaskOptions) -> None:
    """Checks all that a task needs before anything is scored; the errors are those of `run_continuation`."""
    prompts = _prompts(task, options)
    for row in rows:
        _request(task, row, prompts, options)


def _prompts(task: ContinuationTask, options: TaskOptions) -> Prompts:
    return Prompts(task, options, lambda row: b"".join(_rendered(task, row, options)))


def _request(task: ContinuationTask, row: Row, prompts: Prompts, options: TaskOptions) -> Request:
    return request_after(prompts.before(row), *_rendered(task, row, options), row)


def _rendered(task: ContinuationTask, row: Row, options: TaskOptions) -> tuple[bytes, bytes]:
    """Returns context and continuation of a row."""
    context = as_bytes(task.template("context").render(row, options.for_context(row)))
    continuation = task.template("continuation").render(row, options.for_choices(row))
    return context, as_bytes(task.delimiter + continuation)


KIND = Kind(ContinuationTask, run_continuation, check_continuation)
"""Makes tasks of this kind."""
