"""Tasks on a converted model and on its source: the same prompts, answers, metrics and ties for both.

What asks and what counts is `patchpad.tasks` for both, so the source answers the very requests of `patchpad evaluate
--suite`. It splits tokens as lm-eval does (`Source.split_pair`), and gets no chat template.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from conversion_bits import Pair, Text, main_thresholds
from conversion_source import Source, SourceScore

from patchpad.errors import ConfigError
from patchpad.files import sha256_of
from patchpad.model.language_model import LanguageModel
from patchpad.tasks.compute import Compute
from patchpad.tasks.definition import Task, TaskOptions
from patchpad.tasks.generation import BITS, EXACT, GenerationTask, answer_of, is_answer, prompt_end, prompts_of
from patchpad.tasks.kinds import check_task, kind_of, run_task, task_names
from patchpad.tasks.result import Metric, TaskResult
from patchpad.tasks.rows import Row
from patchpad.tasks.scoring import Request, Scored, Scorer
from patchpad.tasks.suite import Entry, with_changes, with_tasks
from patchpad.tasks.template import as_bytes

CUTE = "cute_"
TASKS = ("lambada", "hellaswag", *(name for name in task_names() if name.startswith(CUTE)))
GOLD_BITS = ("gold_bits_per_byte", "bits_per_byte", BITS)
"""What a right answer costs, in tasks of choices, of continuations and of written answers."""


class SourceScorer:
    """Scores requests as `patchpad.tasks.scoring.Scorer` does, with the source.

    Args:
        source: the model.
        counts_longer: whether tokens that go on beyond an answer count, as they do in a byte model's likelihood;
            otherwise likelihoods are those of the answer's tokens, as in lm-eval.
        known: scores by request, which scorers may share.
    """

    def __init__(self, source: Source, *, counts_longer: bool, known: dict[Request, SourceScore]) -> None:
        self.source, self.counts_longer, self.known = source, counts_longer, known
        self.read: list[Request] = []
        """All that was scored, in order."""

    def score(self, requests: Sequence[Request]) -> list[Scored]:
        """Returns the score of each request, in order."""
        return [self._score(request) for request in requests]

    def _score(self, request: Request) -> Scored:
        if request not in self.known:
            self.known[request] = self.source.score_pair(request.context, request.continuation)
        self.read.append(request)
        found = self.known[request]
        return Scored(
            log_likelihood_nats=-(found.open_nats if self.counts_longer else found.nats),
            is_greedy=found.is_greedy,
            num_cut_bytes=0,
            num_bytes=len(request.continuation),
        )

    def compute(self) -> Compute:
        """Returns the compute of all that was scored; the source's tokens are its patches."""
        sizes = [len(request.context) + len(request.continuation) for request in self.read]
        windows = [(size, self.known[request].num_read) for size, request in zip(sizes, self.read, strict=True)]
        rates = self.source.rates(windows)
        return Compute(
            scratchpad_threshold_nats=math.inf,
            bytes_scored=sum(len(request.continuation) for request in self.read),
            bytes_in_requests=sum(sizes),
            bytes_read=sum(sizes),
            patches_per_byte=rates["trunk_calls_per_byte"],
            scratchpads_per_byte=0.0,
            **rates,
        )


def source_generation(
    source: Source, task: GenerationTask, rows: Sequence[Row], scorer: SourceScorer, options: TaskOptions
) -> TaskResult:
    """Lets the source write an answer to every row, greedily; see `patchpad.tasks.generation.run_generation`."""
    shown, examples = prompts_of(task, options), []
    for row in rows:
        prompt, answer = shown.before(row) + prompt_end(task, row, options), as_bytes(answer_of(task, row))
        written = source.write(prompt, task.max_new_bytes, stops=tuple(map(as_bytes, task.stop)))
        (score,) = scorer.score([Request(prompt, answer)])
        is_right = is_answer(written, answer, task.ignores_case)
        examples.append({"id": row.id, EXACT: float(is_right), BITS: score.bits_per_byte})
    return TaskResult(
        task=options.label or task.name,
        kind=task.kind,
        num_examples=len(rows),
        metrics={
            EXACT: Metric.mean_of([example[EXACT] for example in examples], chance=task.chance),
            BITS: Metric.mean_of([example[BITS] for example in examples]),
        },
        main_metric=EXACT,
        compute=scorer.compute(),
        examples=examples,
    )


def on_source(source: Source, task: Task, rows: list[Row], options: TaskOptions) -> dict[str, Any]:
    """Returns what the source gives; `open` has what it gives where longer tokens count."""
    known: dict[Request, SourceScore] = {}
    scorers = [SourceScorer(source, counts_longer=longer, known=known) for longer in (False, True)]
    if isinstance(task, GenerationTask):
        results = [source_generation(source, task, rows, scorers[0], options)]
        bits = [one.bits_per_byte for one in scorers[1].score(scorers[0].read)]
        examples = [{**row, BITS: cost} for row, cost in zip(results[0].examples, bits, strict=True)]
        results.append(replace(results[0], examples=examples, compute=scorers[1].compute()))
    else:
        results = [kind_of(task.kind).run(task, rows, scorer, options) for scorer in scorers]
    return {**compact(results[0]), "open": compact(results[1])}


def on_ours(
    model: LanguageModel, task: Task, rows: list[Row], options: TaskOptions, batch_positions: int
) -> dict[str, Any]:
    """Returns what the converted model gives at the threshold of the options."""
    if kind_of(task.kind).takes != "scorer":
        return compact(run_task(task, model, options, rows))
    threshold = options.scratchpad_threshold_nats
    scorer = Scorer(model, scratchpad_threshold_nats=threshold, batch_positions=batch_positions)
    return compact(kind_of(task.kind).run(task, rows, scorer, options))


def compact(result: TaskResult) -> dict[str, Any]:
    """Returns a result with the score and the bits per byte of each example in lists, without texts.

    `num_bytes` has the bytes of the answers where bits per byte are a ratio of sums.
    """
    bits = next(name for name in GOLD_BITS if name in result.metrics)
    sizes = [example["num_bytes"] for example in result.examples if "num_bytes" in example]
    return {
        "metric": result.main_metric,
        "chance": result.main.chance,
        "ids": [example["id"] for example in result.examples],
        "scores": [example[result.main_metric] for example in result.examples],
        "bits_per_byte": [round(example[bits], 4) for example in result.examples],
        "num_bytes": sizes or None,
        "num_cut_examples": result.num_cut_examples,
        "compute": result.compute.to_dict(),
    }


def measure_tasks(pair: Pair, text: Text, data: Path, names: Sequence[str], limit: int) -> None:
    """Measures tasks: cells `tasks/<task>/source` and `tasks/<task>/<point>`.

    Args:
        pair: the models.
        text: on which thresholds are set.
        data: the folder of the tasks' files.
        names: of tasks; those of CUTE share the limit.
        limit: about how many examples of each task.

    Raises:
        ConfigError: a task without answers.
    """
    num_cute = sum(name.startswith(CUTE) for name in names)
    entries: list[Entry] = []
    for name in names:
        share = math.ceil(limit / num_cute) if name.startswith(CUTE) else limit
        entries += with_changes(with_tasks(None, [name]), limit=share).entries
    prepared = []
    for entry in entries:
        options, rows = entry.options(data), entry.task.rows(data, entry.fields.limit)
        if isinstance(entry.task, GenerationTask) and not entry.task.answer:
            raise ConfigError(f"the task `{entry.label}` has no answers", hint="Leave it out.")
        check_task(entry.task, rows, options)
        prepared.append((entry, options, rows))
    thresholds = main_thresholds(pair, text)
    positions = pair.batch_rows * (pair.context_bytes + 1)
    for entry, options, rows in prepared:
        files: Mapping[str, str] = {file.name: sha256_of(file) for file in entry.task.files(data)}
        inputs = {"data": files, "limit": entry.fields.limit, "seed": entry.seed}
        place = f"tasks/{entry.label}"
        pair.record.cell(
            f"{place}/source", inputs, lambda: on_source(pair.source, entry.task, rows, options)  # noqa: B023
        )  # fmt: skip
        for point, threshold in thresholds.items():
            given = replace(options, scratchpad_threshold_nats=threshold)
            known = {**inputs, "threshold_nats": threshold}
            pair.record.cell(
                f"{place}/{point}", known, lambda: on_ours(pair.model, entry.task, rows, given, positions)  # noqa: B023
            )  # fmt: skip
