"""Multiple choice by log-likelihood: which of several continuations does the model find likeliest?"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from patchpad.errors import ConfigError, DataError
from patchpad.tasks.compute import Compute
from patchpad.tasks.definition import Kind, PromptedTask, TaskOptions
from patchpad.tasks.result import Metric, TaskResult
from patchpad.tasks.rows import Row
from patchpad.tasks.scoring import Request, Scored
from patchpad.tasks.shots import Prompts, request_after
from patchpad.tasks.template import LETTERS, as_bytes

CHOICE = "choice"
"""What the templates of context and continuation call the choice that is being scored."""
TIE_NATS = 1e-4
"""Choices whose log-likelihoods lie this close are tied: rounding could order them either way."""
REQUESTS_AT_ONCE = 1024
BYTES_AT_ONCE = 1 << 20
"""About how many requests, and bytes of them, a scorer gets at once at most, so that progress can be shown."""
METRICS = {
    "sum": "accuracy",
    "per_byte": "accuracy_per_byte",
    "per_character": "accuracy_per_character",
    "unconditional": "accuracy_against_unconditional",
}
"""Normalisation -> its metric."""
GOLD_BITS = "gold_bits_per_byte"

Normalisation = Literal["sum", "per_byte", "per_character", "unconditional"]


@runtime_checkable
class Scores(Protocol):
    """What scores requests; see `patchpad.tasks.scoring.Scorer`."""

    def score(self, requests: Sequence[Request]) -> list[Scored]:
        """Returns the score of each request, in order."""
        ...

    def compute(self) -> Compute:
        """Returns the compute of all that was scored."""
        ...


@dataclass(frozen=True, kw_only=True)
class ChoicesTask(PromptedTask):
    """A task of kind `choices`."""

    choices: tuple[str, ...]
    """Templates of the choices; one that is nothing but a field with a list, such as `{choices}`, gives all of them."""
    continuation: str = "{choice}"
    """Template of what is scored after context and delimiter. `context` may have `{choice}` too: then each choice has a
    context of its own."""
    gold: str = "gold"
    """The field that says which choice is right."""
    gold_is: Literal["index", "number", "letter", "text"] = "index"
    """What it holds: 0 for the first choice, 1 for the first choice, A for the first choice, or the choice itself."""
    unconditional_context: str = "Answer:"
    """What choices are scored after to see how likely they are without the question; empty: they are not."""
    normalisation: Normalisation = "per_byte"
    """What decides in the main metric: `sum`, the log-likelihood; `per_byte`, divided by the bytes that were scored,
    the delimiter among them; `per_character`, divided by the characters of the choice alone; `unconditional`, less the
    log-likelihood after `unconditional_context`."""
    group_by: str = ""
    """A field: the result has a table of the main metric by its values."""

    def template_keys(self) -> tuple[str, ...]:
        """Returns the keys whose values are templates, or several."""
        return (*super().template_keys(), "choices", "continuation")

    def given_fields(self) -> tuple[str, ...]:
        """Returns names that templates may use and that no row has."""
        return (CHOICE,)

    def fields(self) -> tuple[str, ...]:
        """Returns the fields that each row must have."""
        further = [name for name in (self.gold, self.group_by) if name]
        return tuple(dict.fromkeys([*super().fields(), *further]))

    def check(self, source: str) -> None:
        """Checks that a row can be scored in the way that is asked for; see `Task.check`."""
        super().check(source)
        if not self.choices:
            raise ConfigError(f"{source}: `choices` is empty; allowed: at least one template", hint="Add one.")
        if self.normalisation == "unconditional" and not self.unconditional_context:
            raise ConfigError(
                f"{source}: `normalisation` is unconditional, and `unconditional_context` is empty",
                hint="Set `unconditional_context`, such as 'Answer:'.",
            )
        if self.unconditional_context and self.has_context_for_each_choice:
            raise ConfigError(
                f"{source}: `context` has {{{CHOICE}}}, and `unconditional_context` is "
                f"{self.unconditional_context!r}; allowed: an empty one, since the choices differ in the context",
                hint="Write unconditional_context: ''.",
            )

    @property
    def has_context_for_each_choice(self) -> bool:
        """Whether the choice is in the context, so that its likelihood is not what is scored."""
        return CHOICE in self.template("context").fields


@dataclass(frozen=True)
class Example:
    """A row, ready to be scored."""

    row: Row
    requests: tuple[Request, ...]
    """One for each choice."""
    choices: tuple[str, ...]
    gold: int


def run_choices(task: ChoicesTask, rows: Sequence[Row], scorer: Scores, options: TaskOptions) -> TaskResult:
    """Scores the choices of every row.

    Args:
        task: says what is scored.
        rows: at least one.
        scorer: a `Scorer`, or what does as it does.
        options: shots, seed, noise, normalisation.

    Raises:
        ConfigError: a normalisation that the task does not have, or more shots than there are rows.
        DataError: a row without choices, or whose gold is none of them.
    """
    main = _main_metric(task, options)
    prompts = _prompts(task, options)
    unconditional: dict[bytes, float] = {}
    examples: list[dict[str, Any]] = []
    num_ties = num_cut_bytes = num_cut_examples = 0
    for part in _parts(example_of(task, row, prompts, options) for row in rows):
        scored = iter(scorer.score([request for example in part for request in example.requests]))
        of_examples = [[next(scored) for _ in example.requests] for example in part]
        if task.unconditional_context:
            _score_unconditionally(task, part, scorer, unconditional)
        for example, scores in zip(part, of_examples, strict=True):
            values, has_tie = _values(task, example, scores, unconditional, main)
            examples.append(values)
            num_ties += has_tie
            cut = sum(score.num_cut_bytes for score in scores)
            num_cut_bytes += cut
            num_cut_examples += cut > 0
        options.progress(len(part))
    chance = math.fsum(1 / len(example["log_likelihoods_nats"]) for example in examples) / len(examples)
    metrics = {
        name: Metric.mean_of([example[name] for example in examples], chance=None if name == GOLD_BITS else chance)
        for name in (*METRICS.values(), GOLD_BITS)
        if name in examples[0]
    }
    return TaskResult(
        task=options.label or task.name,
        kind=task.kind,
        num_examples=len(examples),
        metrics=metrics,
        main_metric=main,
        compute=scorer.compute(),
        num_cut_examples=num_cut_examples,
        num_cut_bytes=num_cut_bytes,
        examples=examples,
        details={
            "shots": prompts.num_shots,
            "num_ties": num_ties,
            **({"by_group": _by_group(task, rows, examples, main)} if task.group_by else {}),
        },
    )


def check_choices(task: ChoicesTask, rows: Sequence[Row], options: TaskOptions) -> None:
    """Checks all that a task needs before anything is scored; the errors are those of `run_choices`."""
    _main_metric(task, options)
    prompts = _prompts(task, options)
    for row in rows:
        example_of(task, row, prompts, options)


def _prompts(task: ChoicesTask, options: TaskOptions) -> Prompts:
    return Prompts(task, options, lambda row: _worked(task, row, options))


def example_of(task: ChoicesTask, row: Row, prompts: Prompts, options: TaskOptions) -> Example:
    """Returns a row with what has to be scored for it.

    Raises:
        ConfigError: there are not enough rows for the shots.
        DataError: the row has fewer than two choices, an empty one, or its gold is none of them.
    """
    before = prompts.before(row)
    choices = _choices(task, row)
    if len(choices) < 2:
        raise DataError(f"{row.place} has {len(choices)} choices; allowed: two or more", hint="Fix the row.")
    gold = _gold(task, row, choices)
    noise = options.for_choices(row)
    shown = [noise(choice) for choice in choices] if noise else choices
    requests = []
    for choice in shown:
        requests.append(request_after(before, *_rendered(task, row, choice, options), row))
    return Example(row, tuple(requests), tuple(shown), gold)


def _choices(task: ChoicesTask, row: Row) -> list[str]:
    return [choice for template in task.templates["choices"] for choice in template.render_each(row)]


def _rendered(task: ChoicesTask, row: Row, choice: str, options: TaskOptions) -> tuple[bytes, bytes]:
    """Returns context and continuation of a choice, which has its noise already."""
    given = row.with_values(**{CHOICE: choice})
    context = task.template("context").render(given, options.for_context(row), keep=(CHOICE,))
    continuation = task.template("continuation").render(given, options.for_choices(row), keep=(CHOICE,))
    return as_bytes(context), as_bytes(task.delimiter + continuation)


def _worked(task: ChoicesTask, row: Row, options: TaskOptions) -> bytes:
    """Returns a row as a shot: its context with the choice that is right."""
    choices = _choices(task, row)
    choice = choices[_gold(task, row, choices)]
    noise = options.for_choices(row)
    return b"".join(_rendered(task, row, noise(choice) if noise else choice, options))


def _gold(task: ChoicesTask, row: Row, choices: Sequence[str]) -> int:
    """Returns the index of the choice that is right."""
    value = row[task.gold]
    found = -1
    if task.gold_is == "text" and isinstance(value, str):
        found = choices.index(value) if value in choices else -1
    elif task.gold_is == "letter" and isinstance(value, str):
        found = LETTERS.find(value.strip().upper()) if len(value.strip()) == 1 else -1
    elif task.gold_is in ("index", "number") and not isinstance(value, bool | float) and str(value).isdecimal():
        found = int(value) - (task.gold_is == "number")
    if not 0 <= found < len(choices):
        allowed = {
            "index": f"0 to {len(choices) - 1}",
            "number": f"1 to {len(choices)}",
            "letter": f"A to {LETTERS[len(choices) - 1]}",
            "text": "one of the choices",
        }[task.gold_is]
        raise DataError(f"{row.place}: `{task.gold}` is {value!r}; allowed: {allowed}", hint="Fix the row.")
    return found


def _main_metric(task: ChoicesTask, options: TaskOptions) -> str:
    wanted = options.normalisation or task.normalisation
    allowed = [name for name in METRICS if name != "unconditional" or task.unconditional_context]
    if wanted not in allowed:
        raise ConfigError(
            f"the normalisation of the task `{task.name}` is {wanted!r}; allowed: {', '.join(allowed)}",
            hint="Change `normalisation` in the suite.",
        )
    return METRICS[wanted]


def _parts(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Yields the examples some at a time."""
    part: list[Example] = []
    num_requests = num_bytes = 0
    for example in examples:
        part.append(example)
        num_requests += len(example.requests)
        num_bytes += sum(len(request.context) + len(request.continuation) for request in example.requests)
        if num_requests >= REQUESTS_AT_ONCE or num_bytes >= BYTES_AT_ONCE:
            yield part
            part, num_requests, num_bytes = [], 0, 0
    if part:
        yield part


def _score_unconditionally(
    task: ChoicesTask, part: Sequence[Example], scorer: Scores, known: dict[bytes, float]
) -> None:
    """Adds the log-likelihood of each continuation that is not known yet."""
    continuations = dict.fromkeys(request.continuation for example in part for request in example.requests)
    new = [continuation for continuation in continuations if continuation not in known]
    context = as_bytes(task.unconditional_context)
    for continuation, score in zip(new, scorer.score([Request(context, one) for one in new]), strict=True):
        known[continuation] = score.log_likelihood_nats


def _values(
    task: ChoicesTask, example: Example, scores: Sequence[Scored], unconditional: dict[bytes, float], main: str
) -> tuple[dict[str, Any], bool]:
    """Returns what an example's result says, and whether choices were tied in the main metric."""
    nats = [score.log_likelihood_nats for score in scores]
    weights = {"sum": [1.0] * len(nats), "per_byte": [1 / score.num_bytes for score in scores]}
    weights["per_character"] = [1 / max(1, len(choice)) for choice in example.choices]
    compared = dict.fromkeys(weights, nats)
    if task.unconditional_context:
        compared["unconditional"] = [
            value - unconditional[request.continuation] for value, request in zip(nats, example.requests, strict=True)
        ]
        weights["unconditional"] = weights["sum"]
    values: dict[str, Any] = {"id": example.row.id, "gold": example.gold, "log_likelihoods_nats": nats}
    has_tie = False
    for name, metric in METRICS.items():
        if name in compared:
            chosen, tied = first_best(compared[name], weights[name])
            values[metric] = float(chosen == example.gold)
            if metric == main:
                values["chosen"], has_tie = chosen, tied
    values[GOLD_BITS] = scores[example.gold].bits_per_byte
    return values, has_tie


def first_best(nats: Sequence[float], weights: Sequence[float]) -> tuple[int, bool]:
    """Returns the first of the choices that are best or tied with it, and whether any are tied.

    Args:
        nats: of each choice.
        weights: what they are multiplied by before they are compared; two choices are tied where less than `TIE_NATS`
            of the one would have to change for both to be equal.
    """
    best = max(value * weight for value, weight in zip(nats, weights, strict=True))
    tied = [
        number
        for number, (value, weight) in enumerate(zip(nats, weights, strict=True))
        if best - value * weight <= TIE_NATS * weight
    ]
    return tied[0], len(tied) > 1


def _by_group(
    task: ChoicesTask, rows: Sequence[Row], examples: Sequence[dict[str, Any]], main: str
) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[float]] = {}
    for row, example in zip(rows, examples, strict=True):
        groups.setdefault(str(row[task.group_by]), []).append(example[main])
    return {
        name: {**Metric.mean_of(values).to_dict(), "num_examples": len(values)}
        for name, values in sorted(groups.items())
    }


KIND = Kind(ChoicesTask, run_choices, check_choices)
"""Makes tasks of this kind."""
