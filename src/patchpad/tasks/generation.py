"""Text that a model writes: is it the right answer, and is it valid UTF-8?"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchpad.config.checks import AtLeastZero, Positive
from patchpad.errors import ConfigError, DataError
from patchpad.inference.generator import Completion
from patchpad.model.language_model import LanguageModel
from patchpad.tasks.definition import Kind, PromptedTask, TaskOptions, spread
from patchpad.tasks.generating import Writer, Writing, scoring_details
from patchpad.tasks.result import Metric, TaskResult
from patchpad.tasks.rows import Row
from patchpad.tasks.scoring import Request, Scorer
from patchpad.tasks.shots import Prompts
from patchpad.tasks.template import as_bytes
from patchpad.text import decode_text

PROMPT = "prompt"
"""What templates call a beginning of `prompts`."""
EXACT, VALID, BITS = "exact_match", "valid_utf8", "answer_bits_per_byte"


@dataclass(frozen=True, kw_only=True)
class GenerationTask(PromptedTask):
    """A task of kind `generation`."""

    data: tuple[str, ...] = ()
    """Files of examples, below the folder of data; empty where `prompts` has them."""
    prompts: tuple[str, ...] = ()
    """The examples themselves, each a row with the field `prompt`; they need no data."""
    answer: str = ""
    """Template of the right answer, with which a shot ends too; empty: there is none, and `valid_utf8` is the main
    metric."""
    stop: tuple[str, ...] = ()
    """Strings that end a text; they are not part of it."""
    max_new_bytes: Positive = 64
    """Most bytes to write."""
    ignores_case: bool = False
    """Whether an answer may differ from the right one in capitals."""
    temperature: AtLeastZero = 0.0
    """0 is greedy."""
    samples: Positive = 1
    """Texts for each example; above 1 they need a temperature."""
    chance: float | None = None
    """What guessing gives in `exact_match`; null: nothing."""

    def check_data(self, source: str) -> None:
        """Checks that there are examples; see `Task.check_data`."""
        if bool(self.data) == bool(self.prompts):
            found = "both `data` and `prompts` are given" if self.data else "neither `data` nor `prompts` is given"
            raise ConfigError(f"{source}: {found}; allowed: one of the two", hint="Leave one out, or add one.")

    def check(self, source: str) -> None:
        """Checks how texts are sampled too; see `Task.check`."""
        super().check(source)
        if "" in self.stop:
            raise ConfigError(f"{source}: `stop` has an empty string", hint="Leave it out.")
        if self.samples > 1 and self.temperature == 0:
            raise ConfigError(
                f"{source}: `samples` is {self.samples} at the temperature 0, where all are the same; allowed: 1",
                hint="Set `temperature`.",
            )
        if self.chance is not None and not 0 <= self.chance <= 1:
            raise ConfigError(f"{source}: `chance` is {self.chance}; allowed: null, or 0 to 1")

    @property
    def takes_shots(self) -> bool:
        """Whether worked examples can stand before an example: where there are right answers."""
        return bool(self.answer)

    def template_keys(self) -> tuple[str, ...]:
        """Returns the keys whose values are templates."""
        return (*super().template_keys(), *(["answer"] if self.answer else []))

    def rows(self, folder: Path, limit: int | None = None) -> list[Row]:
        """Reads the examples, each once for every sample; `limit` counts samples. See `Task.rows`."""
        if self.data:
            rows = super().rows(folder)
        else:
            rows = [Row({PROMPT: text}, Path("prompts"), number) for number, text in enumerate(self.prompts, start=1)]
        if self.samples > 1:
            rows = [_sample(row, number) for row in rows for number in range(1, self.samples + 1)]
        return spread(rows, limit)


def _sample(row: Row, number: int) -> Row:
    copy = row.with_values()
    copy.id = f"{row.id}#{number}"
    return copy


def run_generation(task: GenerationTask, rows: Sequence[Row], model: LanguageModel, options: TaskOptions) -> TaskResult:
    """Lets a model write a text for every row, in batches whose rows join and leave.

    `exact_match` is the share of texts that are the right answer, white space around both left out. `valid_utf8` is the
    share that is valid UTF-8; a character that `max_new_bytes` cuts does not count as invalid. What the right answer
    costs after the prompt is `answer_bits_per_byte`, the mean over examples; it tells small models apart that are never
    right. Compute is that of the texts alone; `details` has that of scoring.

    Args:
        task: says what is written.
        rows: at least one.
        model: in any mode.
        options: threshold, shots, seed, noise.

    Raises:
        ConfigError: more shots than there are rows.
        DataError: a row whose answer is empty.
    """
    shown = prompts_of(task, options)
    answers = [answer_of(task, row) for row in rows] if task.answer else []
    writing = Writing(max_new_bytes=task.max_new_bytes, stop=task.stop, temperature=task.temperature)
    writer = Writer(model, options, writing)
    completions: list[Completion] = []
    before = [shown.before(row) for row in rows]
    prompts = [shots + prompt_end(task, row, options) for shots, row in zip(before, rows, strict=True)]
    for part in writer.complete([(row.id, prompt) for row, prompt in zip(rows, prompts, strict=True)]):
        completions += [completion for several in part for completion in several]
        options.progress(len(part))
    requests = [
        Request(prompt, as_bytes(answer), shared=len(shots))
        for prompt, answer, shots in zip(prompts, answers, before, strict=False)  # there may be no answers
    ]
    scorer = Scorer(model, scratchpad_threshold_nats=options.scratchpad_threshold_nats)
    scores = scorer.score(requests)
    examples: list[dict[str, Any]] = []
    for number, (row, completion) in enumerate(zip(rows, completions, strict=True)):
        values: dict[str, Any] = {"id": row.id}
        if answers:
            values[EXACT] = float(is_answer(completion.data, as_bytes(answers[number]), task.ignores_case))
            values[BITS] = scores[number].bits_per_byte
        values[VALID] = float(is_valid_utf8(completion.data, may_be_cut=completion.stop_reason == "length"))
        examples.append({**values, "text": completion.text, "stop_reason": completion.stop_reason})
    names = (EXACT, VALID, BITS) if answers else (VALID,)
    return TaskResult(
        task=options.label or task.name,
        kind=task.kind,
        num_examples=len(rows),
        metrics={
            name: Metric.mean_of([example[name] for example in examples], chance=task.chance if name == EXACT else None)
            for name in names
        },
        main_metric=names[0],
        compute=writer.compute(),
        num_cut_examples=writer.num_cut_prompts,
        num_cut_bytes=writer.num_cut_bytes,
        examples=examples,
        details={
            "shots": shown.num_shots,
            "num_new_bytes": sum(len(completion.data) for completion in completions),
            "num_stopped": sum(completion.stop_reason == "stop" for completion in completions),
            **({"answers": scoring_details(scorer, scores)} if scores else {}),
        },
    )


def check_generation(task: GenerationTask, rows: Sequence[Row], options: TaskOptions) -> None:
    """Checks all that a task needs before anything is written; the errors are those of `run_generation`."""
    shown = prompts_of(task, options)
    for row in rows:
        shown.before(row)
        prompt_end(task, row, options)
        if task.answer:
            answer_of(task, row)


def prompts_of(task: GenerationTask, options: TaskOptions) -> Prompts:
    """Returns what stands before the own prompt of each row; the errors are those of `Prompts`."""
    return Prompts(task, options, lambda row: prompt_end(task, row, options) + as_bytes(answer_of(task, row)))


def prompt_end(task: GenerationTask, row: Row, options: TaskOptions) -> bytes:
    """Returns the own prompt of a row, which follows what `prompts_of` gives."""
    return as_bytes(task.template("context").render(row, options.for_context(row)) + task.delimiter)


def answer_of(task: GenerationTask, row: Row) -> str:
    """Returns the right answer of a row.

    Raises:
        ConfigError: shots are asked for, but the task knows no answers.
        DataError: it is empty.
    """
    if not task.answer:
        raise ConfigError(
            f"the task `{task.name}` has no `answer`, so it has no shots; allowed: 0", hint="Ask for no shots."
        )
    answer = task.template("answer").render(row)
    if not answer.strip():
        raise DataError(f"{row.place} has an empty answer; allowed: text", hint="Fix the row or the template.")
    return answer


def is_answer(data: bytes, answer: bytes, ignores_case: bool) -> bool:
    """Returns whether a text is the right answer; white space around both is left out."""
    if ignores_case:
        return decode_text(data).strip().lower() == decode_text(answer).strip().lower()
    return data.strip() == answer.strip()


def is_valid_utf8(data: bytes, *, may_be_cut: bool = True) -> bool:
    """Returns whether bytes are UTF-8.

    Args:
        data: that begin with the first byte of a character.
        may_be_cut: a character that the end cuts is not an error.
    """
    try:
        codecs.getincrementaldecoder("utf-8")("strict").decode(data, final=not may_be_cut)
    except UnicodeDecodeError:
        return False
    return True


KIND = Kind(GenerationTask, run_generation, check_generation, takes="model")
"""Makes tasks of this kind."""
