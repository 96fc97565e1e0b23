"""What every task's file has: its data, its template, its shots. Torch-free.

Kinds of tasks are dataclasses on top of these; see `patchpad.tasks.kinds`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from patchpad.config.checks import NotNegative
from patchpad.errors import ConfigError, DataError, quoted
from patchpad.tasks.bubblewrap import SandboxKind
from patchpad.tasks.rows import Row, read_rows
from patchpad.tasks.template import Change, Template

if TYPE_CHECKING:
    from patchpad.tasks.result import TaskResult

RowChange = Callable[[str, str], str]
"""Noise of an example: text and the example's id to text."""


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """A change that every text of a row goes through when it is read, so that data can be cleaned without code."""

    pattern: str
    """A regular expression of Python."""
    by: str = ""
    """What stands in its place."""


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """How a task is run: what its file leaves open."""

    data: Path
    """The folder that the task's files lie in."""
    label: str = ""
    """Names the result; empty: the task's own name."""
    scratchpad_threshold_nats: float | None = None
    """None for the stored one."""
    shots: int | None = None
    """Worked examples before each example; None: as the task's file says."""
    limit: int | None = None
    """About how many examples, spread over all; None: all."""
    seed: int = 0
    """Draws shots and samples."""
    normalisation: str | None = None
    """Which of a kind's metrics is the main one; None: as the task's file says."""
    change_context: RowChange | None = None
    """Noise of contexts."""
    change_choices: RowChange | None = None
    """Noise of choices and continuations."""
    samples: int | None = None
    """Completions of each prompt, where they are sampled; None: as the task's file says."""
    temperature: float | None = None
    """Of the samples; None: as the task's file says."""
    sandbox: SandboxKind = "bubblewrap"
    """Where programs that the model writes are run."""
    progress: Callable[[int], None] = lambda num_examples: None
    """Is told how many further examples are done."""

    def for_context(self, row: Row) -> Change | None:
        """Returns the noise of a row's context."""
        return _bound(self.change_context, row)

    def for_choices(self, row: Row) -> Change | None:
        """Returns the noise of a row's choices and continuations."""
        return _bound(self.change_choices, row)


def _bound(change: RowChange | None, row: Row) -> Change | None:
    return None if change is None else lambda text: change(text, row.id)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task: one file of YAML. Subclasses are the kinds."""

    kind: str
    """A name in `patchpad.registry.TASK_KINDS`."""
    name: str = ""
    """Names results; empty: the name of the file."""
    title: str = ""
    """For people; empty: the name."""
    text: str = ""
    """What the task asks, and where it comes from."""
    data: tuple[str, ...]
    """Files of examples, below the folder of data."""
    replacements: tuple[Replacement, ...] = ()
    """Cleaning of the texts of rows, after white space at their ends is gone."""

    def check(self, source: str) -> None:
        """Checks what single keys cannot say, when the file is read.

        Args:
            source: the file, named in errors.

        Raises:
            ConfigError: keys that do not fit each other, or a template or pattern that is wrong.
        """
        self.check_data(source)
        for number, replacement in enumerate(self.replacements):
            try:
                re.compile(replacement.pattern)
                re.sub(replacement.pattern, replacement.by, "")
            except re.error as error:
                key = f"replacements[{number}]"
                raise ConfigError(f"{source}: `{key}` is not a regular expression: {error}", hint="Fix it.") from error

    def check_data(self, source: str) -> None:
        """Checks that there are examples; `check` says how."""
        if not self.data:
            raise ConfigError(f"{source}: `data` is empty; allowed: at least one file", hint="Add one.")
        twice = next((name for name in self.data if self.data.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"{source}: `data` names {twice} twice; allowed: each file once", hint="Leave one out.")

    @property
    def takes_shots(self) -> bool:
        """Whether worked examples can stand before an example."""
        return False

    def require(self, options: TaskOptions) -> None:
        """Checks, before anything is run, that there is what the task needs beside data.

        Args:
            options: that it is to be run with.

        Raises:
            ConfigError: options that do not fit the task.
            SandboxError: programs that a model writes cannot be run safely here.
        """

    def fields(self) -> tuple[str, ...]:
        """Returns the names of the fields that each row must have."""
        return ()

    def files(self, folder: Path) -> list[Path]:
        """Returns every file that the task reads."""
        return [self.file(folder, name) for name in self.data]

    def file(self, folder: Path, name: str) -> Path:
        """Returns a file below the folder of data.

        Raises:
            DataError: it is not there.
        """
        path = folder / name
        if not path.is_file():
            raise DataError(
                f"the task `{self.name}` needs {name}, and {path} is not a file",
                hint=f"Give the folder that holds {quoted(name)} with --data, or change `data` in the task's file.",
            )
        return path

    def rows(self, folder: Path, limit: int | None = None) -> list[Row]:
        """Reads the examples.

        Args:
            folder: of the data.
            limit: about how many, spread evenly over all; None: all.

        Raises:
            DataError: a file that is missing or malformed.
        """
        files = {name: self.read(folder, name) for name in self.data}
        if len({Path(name).name for name in files}) < len(files):  # files of one name in several folders
            for name, rows in files.items():
                for row in rows:
                    row.id = f"{name}:{row.id.rpartition(':')[2]}"
        return spread([row for rows in files.values() for row in rows], limit)

    def read(self, folder: Path, name: str) -> list[Row]:
        """Reads one of the task's files, cleaned; the errors are those of `rows`."""
        rows = list(read_rows(self.file(folder, name), self.fields()))
        return [self._cleaned(row) for row in rows] if self.replacements else rows

    def _cleaned(self, row: Row) -> Row:
        return row.with_values(
            **{
                name: [self._clean(one) if isinstance(one, str) else one for one in value]
                if isinstance(value, list)
                else self._clean(value)
                for name, value in row.items()
                if isinstance(value, str | list)
            }
        )

    def _clean(self, text: str) -> str:
        text = text.strip()
        for replacement in self.replacements:
            text = re.sub(replacement.pattern, replacement.by, text)
        return text


@dataclass(frozen=True, kw_only=True)
class PromptedTask(Task):
    """A task with a context before what is asked for, and worked examples (shots) before that."""

    context: str
    """Template of what stands before the continuation."""
    delimiter: str = " "
    """Between context and continuation, part of the continuation."""
    description: str = ""
    """Template of what stands before everything else."""
    shots: NotNegative = 0
    """Worked examples before each example."""
    shots_data: tuple[str, ...] = ()
    """Files of worked examples; empty: `data`, of which the example itself is never taken."""
    shots_order: Literal["seeded", "first"] = "seeded"
    """Whether shots are drawn from the seed, or are the first rows."""
    shots_match: str = ""
    """A field: shots have the same value in it as the example; empty: any row may be a shot."""
    shot_separator: str = "\n\n"
    """After each shot."""

    def check(self, source: str) -> None:
        """Checks the templates too; see `Task.check`."""
        super().check(source)
        for key in self.template_keys():
            self._parsed(key, f"{source}: `{key}`")

    @property
    def takes_shots(self) -> bool:
        """Whether worked examples can stand before an example."""
        return True

    def template_keys(self) -> tuple[str, ...]:
        """Returns the keys whose values are templates, or several."""
        return ("context", "description")

    def given_fields(self) -> tuple[str, ...]:
        """Returns names that templates may use and that no row has."""
        return ()

    def fields(self) -> tuple[str, ...]:
        """Returns the fields of all templates, and the one that shots must share."""
        templates = [template for several in self.templates.values() for template in several]
        found = [name for template in templates for name in template.fields if name not in self.given_fields()]
        return tuple(dict.fromkeys([*found, *([self.shots_match] if self.shots_match else [])]))

    def files(self, folder: Path) -> list[Path]:
        """Returns every file that the task reads, those of shots among them."""
        names = dict.fromkeys((*self.data, *self.shots_data))
        return [self.file(folder, name) for name in names]

    @cached_property
    def templates(self) -> dict[str, tuple[Template, ...]]:
        """The parsed templates of each key."""
        return {key: self._parsed(key, f"`{key}` of the task `{self.name}`") for key in self.template_keys()}

    def _parsed(self, key: str, source: str) -> tuple[Template, ...]:
        value = getattr(self, key)
        return tuple(Template(text, source) for text in ((value,) if isinstance(value, str) else value))

    def template(self, key: str) -> Template:
        """Returns the template of a key that has one."""
        return self.templates[key][0]


def spread(rows: list[Row], limit: int | None) -> list[Row]:
    """Returns `limit` rows at even distances, the first among them, so that no part of a sorted file is left out."""
    if limit is None or limit >= len(rows):
        return rows
    return [rows[number * len(rows) // limit] for number in range(limit)]


@dataclass(frozen=True)
class Kind:
    """A kind of tasks."""

    definition: type[Task]
    """The keys of its files."""
    run: Callable[..., "TaskResult"]
    """Called with the task, its rows, what `takes` says, and `TaskOptions`."""
    check: Callable[..., None] | None = None
    """Called with the task, its rows and `TaskOptions`, raises what `run` would raise of these; None: nothing can be
    wrong with them."""
    takes: Literal["scorer", "model"] = "scorer"
    """Whether `run` scores continuations, or needs the model itself."""
