"""Kind `parallel`: the same sentences in many languages, and what a model needs for each of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchpad.config.checks import Positive
from patchpad.errors import ConfigError, DataError, near_matches, quoted
from patchpad.model.language_model import LanguageModel
from patchpad.tasks.definition import Kind, Task, TaskOptions
from patchpad.tasks.language_rows import measure_languages
from patchpad.tasks.parallel_text import files_read, read_parallel
from patchpad.tasks.result import Metric, TaskResult
from patchpad.tasks.rows import Row

MAIN_METRIC = "bits_per_byte"
MEANS = (
    MAIN_METRIC,
    "bits_per_sentence",
    "bits_to_reference",
    "bytes_per_sentence",
    "trunk_calls_per_sentence",
    "trunk_calls_per_byte",
    "scratchpads_per_byte",
)
"""What is averaged over languages, each of which counts once."""
GROUPS = {True: "trained", False: "unseen"}


@dataclass(frozen=True, kw_only=True)
class ParallelTask(Task):
    """A task of kind `parallel`: line-aligned text in many languages, each sentence a document of its own."""

    file_names: tuple[str, ...] = ()
    """Of an archive or a folder: names of the languages' files, `{language}` where the language's name stands."""
    language_field: str = ""
    """Of rows: the field that maps languages to sentences; empty: each field is a language."""
    languages: tuple[str, ...] = ()
    """Those that are measured; empty: all."""
    reference: str
    """The language that the others are compared with, sentence by sentence."""
    sentences: Positive = 200
    """How many, the same ones in every language, drawn from the seed among those that no language lacks."""
    trained: tuple[str, ...] = ()
    """Languages that the model was trained on, as the text names them; they and the others get means of their own."""

    def check(self, source: str) -> None:
        """Checks the keys that only this kind has; see `Task.check`."""
        super().check(source)
        if len(self.data) != 1:
            raise ConfigError(f"{source}: `data` names {len(self.data)} files; allowed: one", hint="Change it.")
        if self.replacements:
            raise ConfigError(
                f"{source}: `replacements` is set; allowed: none, since sentences are read as they are",
                hint="Leave it out.",
            )
        if self.languages and self.reference not in self.languages:
            raise ConfigError(
                f"{source}: `languages` lacks the reference `{self.reference}`", hint="Add it, or change `reference`."
            )

    def file(self, folder: Path, name: str) -> Path:
        """Returns a file, or a folder of files, below the folder of data; see `Task.file`."""
        return folder / name if (folder / name).is_dir() else super().file(folder, name)

    def files(self, folder: Path) -> list[Path]:
        """Returns every file that the task reads; see `Task.files`."""
        return files_read(self.file(folder, self.data[0]), self.file_names)

    def rows(self, folder: Path, limit: int | None = None) -> list[Row]:
        """Reads all sentences; a limit is one of sentences, and is applied when they are drawn.

        Returns:
            For each language a row with `sentences`, as bytes; its id is the language's name.
        """
        path = self.file(folder, self.data[0])
        found = read_parallel(path, file_names=self.file_names, field=self.language_field, languages=self.languages)
        for language in (self.reference, *self.trained):
            if language not in found:
                raise DataError(
                    f"{path} has no language `{language}`, which the task `{self.name}` names",
                    hint=near_matches(language, found),
                )
        rows = []
        for number, (language, sentences) in enumerate(found.items(), start=1):
            row = Row({"language": language, "sentences": sentences}, path, number)
            row.id = language
            rows.append(row)
        return rows


def run_parallel(task: ParallelTask, rows: Sequence[Row], model: LanguageModel, options: TaskOptions) -> TaskResult:
    """Measures every language on the same sentences.

    An example of the result is a language. Metrics are means over languages, each of which counts once; `_trained` and
    `_unseen` behind a metric's name are those of the two groups. Their standard errors are over languages; those over
    sentences stand in `details["languages"]`.

    Args:
        task: says what is compared with what.
        rows: of `ParallelTask.rows`.
        model: in any mode; restored after.
        options: threshold, seed, limit (of sentences).

    Raises:
        ConfigError: noise, which this kind does not take.
        DataError: no line says something in every language.
        TrainingError: the model predicts nan or inf.
    """
    check_parallel(task, rows, options)
    by_language = {row.id: row["sentences"] for row in rows}
    complete = complete_lines(by_language)
    chosen = drawn(complete, task.sentences if options.limit is None else options.limit, options.seed)
    measured = measure_languages(
        model,
        {language: [column[line] for line in chosen] for language, column in by_language.items()},
        reference=task.reference,
        scratchpad_threshold_nats=options.scratchpad_threshold_nats,
        done=lambda _: options.progress(1),
    )
    if task.trained:
        for row in measured.rows:
            row["trained"] = row["language"] in task.trained
    examples = [_example(row) for row in measured.rows]
    names = dict.fromkeys(name for example in examples for name in example if name != "id")
    metrics = {name: Metric.mean_of([example[name] for example in examples if name in example]) for name in names}
    return TaskResult(
        task=options.label or task.name,
        kind=task.kind,
        num_examples=len(examples),
        metrics=metrics,
        main_metric=MAIN_METRIC,
        higher_is_better=False,
        compute=measured.compute,
        num_cut_examples=measured.num_cut_sentences,
        num_cut_bytes=measured.num_cut_bytes,
        examples=examples,
        details={
            "reference": task.reference,
            "lines": [int(line) + 1 for line in chosen],
            "num_lines_not_in_every_language": len(next(iter(by_language.values()))) - len(complete),
            "languages": measured.rows,
        },
    )


def check_parallel(task: ParallelTask, rows: Sequence[Row], options: TaskOptions) -> None:
    """Checks that there is something to measure; the errors are those of `run_parallel`."""
    if options.change_context is not None or options.change_choices is not None:
        raise ConfigError(
            f"the task `{task.name}` of kind `parallel` takes no noise", hint="Leave `noise` out of its suite entry."
        )
    if not len(complete_lines({row.id: row["sentences"] for row in rows})):
        raise DataError(
            f"{rows[0].place.rsplit(',', 1)[0]}: no line says something in every language",
            hint=f"Name fewer of them in `languages` of the task {quoted(task.name)}.",
        )


def complete_lines(by_language: Mapping[str, Sequence[bytes]]) -> np.ndarray:
    """Returns the numbers of the lines, from 0, that say something in every language, ascending."""
    says = [[bool(sentence.strip()) for sentence in column] for column in by_language.values()]
    return np.flatnonzero(np.all(says, axis=0))


def drawn(lines: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Returns `count` of the lines, ascending, or all; a smaller count draws a part of what a larger one draws."""
    return np.sort(np.random.Generator(np.random.Philox(seed)).permutation(lines)[:count])


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a language's values by metric; what it has no value for is left out."""
    values = {name: row[name] for name in MEANS if row[name] is not None and math.isfinite(row[name])}
    own = {}
    if "trained" in row:
        group = GROUPS[row["trained"]]
        own = {f"{name}_{group}": value for name, value in values.items()}
    return {"id": row["language"], **values, **own}


KIND = Kind(ParallelTask, run_parallel, check_parallel, takes="model")
"""Makes tasks of this kind."""
