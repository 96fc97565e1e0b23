"""Suites: a YAML file that lists tasks with options, so that one command measures all of them."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from patchpad.config.checks import AtLeastZero, NotNegative, Positive
from patchpad.config.plain_values import build_section, parse_sections, read_yaml
from patchpad.errors import ConfigError, near_matches
from patchpad.tasks.bubblewrap import SandboxKind
from patchpad.tasks.definition import Task, TaskOptions
from patchpad.tasks.kinds import SUFFIX, load_task
from patchpad.tasks.noise import Noise

ALLOWED = "the keys of a suite"
HINT = "Give the name of a suite, or a file as those in configs/suites/."
NOISY_AFTER_CONTEXT = ("choices", "continuation")
"""Kinds in which noise can reach what is scored after the context too."""
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SUITES = resources.files("patchpad").joinpath("tasks", "suites")


@dataclass(frozen=True, kw_only=True)
class EntryFields:
    """A task of a suite: a name alone, or these keys."""

    task: str
    """Name of a task, or a file, relative to the suite's own."""
    name: str = ""
    """Names the result and its files; empty: the task's name, and the kind of noise."""
    shots: NotNegative | None = None
    """Worked examples before each example; null: as the task's file says."""
    limit: Positive | None = None
    """About how many examples, spread over all; null: all."""
    normalisation: str | None = None
    """Of the main metric, for the kinds that have several; null: as the task's file says."""
    samples: Positive | None = None
    """Completions of each prompt, for kinds that sample; null: as the task's file says."""
    temperature: AtLeastZero | None = None
    """Of the samples; null: as the task's file says."""
    noise: Noise | None = None
    """Noise in the texts."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Keys of the task's file that have other values here, such as the languages that a model was `trained` on."""


@dataclass(frozen=True, kw_only=True)
class SuiteFields:
    """The keys of a suite's file."""

    name: str = ""
    """Names the folder of results; empty: the name of the file."""
    text: str = ""
    """What the suite is for."""
    seed: NotNegative = 0
    """Draws shots, samples and sentences."""
    tasks: tuple[EntryFields, ...]
    """In the order in which they are run."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A task as a suite runs it."""

    label: str
    """Names the result and its files; unique in the suite."""
    task: Task
    fields: EntryFields
    seed: int
    sandbox: SandboxKind = "bubblewrap"
    """Where programs that a model writes are run; no part of what changes a result."""

    def options(self, data: Path) -> TaskOptions:
        """Returns the options of the task, all but threshold and progress."""
        noise = self.fields.noise
        return TaskOptions(
            data=data,
            label=self.label,
            shots=self.fields.shots,
            limit=self.fields.limit,
            seed=self.seed,
            normalisation=self.fields.normalisation,
            samples=self.fields.samples,
            temperature=self.fields.temperature,
            sandbox=self.sandbox,
            change_context=noise.change if noise else None,
            change_choices=noise.change if noise and noise.reaches_choices(self.task.kind) else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns everything about it that changes its result, as plain values."""
        options = {key: value for key, value in asdict(self.fields).items() if key not in ("task", "name", "changes")}
        task = {item.name: getattr(self.task, item.name) for item in fields(self.task)}
        task["replacements"] = [asdict(replacement) for replacement in self.task.replacements]
        return {"task": task, "options": options, "seed": self.seed}


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A checked suite."""

    name: str
    text: str
    entries: tuple[Entry, ...]


def suite_names() -> list[str]:
    """Returns the names of the suites that ship with the package, in alphabetical order."""
    return sorted(entry.name.removesuffix(SUFFIX) for entry in _SUITES.iterdir() if entry.name.endswith(SUFFIX))


def load_suite(suite: str | Path) -> Suite:
    """Reads a suite by its name, or a YAML file by its path.

    Args:
        suite: a name such as `nlu`, or a path. A `Path` is always a file, and so is a string that ends with .yaml or
            has a slash.

    Raises:
        ConfigError: an unknown name, a file that is missing or not YAML, or a key or value that is wrong.
    """
    is_name = isinstance(suite, str) and "/" not in suite and not suite.endswith((SUFFIX, ".yml"))
    if is_name and suite in suite_names():
        text = _SUITES.joinpath(f"{suite}{SUFFIX}").read_text("utf-8")
        source = f"the suite `{suite}`"
        return build_suite(parse_sections(text, source=source, allowed=ALLOWED), str(suite), source, folder=None)
    path = Path(suite)
    if is_name and not path.is_file():
        raise ConfigError(f"{suite!r} is neither a suite nor a file", hint=near_matches(str(suite), suite_names()))
    values = read_yaml(path, allowed=ALLOWED, hint=HINT)
    return build_suite(values, path.stem, str(path), folder=path.parent)


def with_tasks(suite: Suite | None, tasks: Sequence[str]) -> Suite:
    """Returns a suite with further tasks, by name or file as `--task` gives them.

    Args:
        suite: that they are added to; None for a suite of these alone, which has their names.
        tasks: at least one where there is no suite.

    Raises:
        ConfigError: an unknown task, or two of one name.
    """
    if suite is None:
        found = build_suite({"tasks": list(tasks)}, "tasks", "--task", folder=None)
        labels = [entry.label for entry in found.entries]
        return replace(found, name="-".join(labels) if len(labels) <= 3 else f"{labels[0]}-and-{len(labels) - 1}-more")
    entries = list(suite.entries)
    for task in tasks:
        added = load_task(task)
        _check_label(added.name, [entry.label for entry in entries], f"--task {task}")
        seed = suite.entries[0].seed
        entries.append(Entry(label=added.name, task=added, fields=EntryFields(task=task), seed=seed))
    return replace(suite, entries=tuple(entries))


def build_suite(values: dict[str, Any], name: str, source: str, *, folder: Path | None) -> Suite:
    """Builds a suite from plain values.

    Args:
        values: its keys.
        name: where the keys have none.
        source: where they come from, named in errors.
        folder: where relative paths of tasks start; None for the working folder.

    Raises:
        ConfigError: a key or value that is wrong, or two tasks of one name.
    """
    tasks = values.get("tasks")
    if isinstance(tasks, list):  # a name stands for an entry of that task
        values = {**values, "tasks": [{"task": task} if isinstance(task, str) else task for task in tasks]}
    found = build_section(SuiteFields, values, source)
    if not found.tasks:
        raise ConfigError(f"{source}: `tasks` is empty; allowed: at least one", hint="Add one.")
    entries = []
    for number, entry in enumerate(found.tasks):
        where = f"{source}: tasks[{number}]"
        try:
            task = _with_options(load_task(entry.task, folder=folder, changes=entry.changes), entry)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error.message}", hint=error.hint) from error
        label = entry.name or (f"{task.name}-{entry.noise.kind}" if entry.noise else task.name)
        _check_label(label, [other.label for other in entries], where)
        entries.append(Entry(label=label, task=task, fields=entry, seed=found.seed))
    if found.name:
        _check_name(found.name, f"{source}: `name`")
    return Suite(name=found.name or name, text=found.text, entries=tuple(entries))


def _with_options(task: Task, entry: EntryFields) -> Task:
    """Returns the task with the samples and the temperature that an entry asks for.

    Raises:
        ConfigError: an option that the task does not have, or whose value does not fit it.
    """
    lacking = [key for key in ("samples", "temperature", "normalisation") if not hasattr(task, key)]
    lacking += [] if task.takes_shots else ["shots"]
    for key in lacking:
        if getattr(entry, key):
            raise ConfigError(
                f"`{key}` is {getattr(entry, key)}, and the task `{task.name}` of kind `{task.kind}` has none",
                hint=f"Leave out `{key}`.",
            )
    if entry.noise is not None and entry.noise.where == "both" and task.kind not in NOISY_AFTER_CONTEXT:
        raise ConfigError(
            f"noise.where is both, and the task `{task.name}` of kind `{task.kind}` takes noise in contexts only",
            hint="Leave out `where`.",
        )
    sampling = {key: getattr(entry, key) for key in ("samples", "temperature") if getattr(entry, key) is not None}
    if sampling:
        task = replace(task, **sampling)
        task.check(f"the task `{task.name}`")
    return task


def with_changes(
    suite: Suite,
    *,
    limit: int | None = None,
    shots: int | None = None,
    sandbox: SandboxKind = "bubblewrap",
) -> Suite:
    """Returns a suite with what the command line says for all of its tasks.

    Args:
        suite: as its file has it.
        limit: about how many examples of each task, at most; None: as the suite says.
        shots: of each task that has shots; None: as the suite says.
        sandbox: where programs that a model writes are run.

    Raises:
        ConfigError: a number that is not allowed, or shots where no task has any.
    """
    for option, value, least in (("--limit", limit, 1), ("--shots", shots, 0)):
        if value is not None and value < least:
            raise ConfigError(f"{option} is {value}; allowed: an integer of at least {least}", hint="Change it.")

    if shots and not any(entry.task.takes_shots for entry in suite.entries):
        raise ConfigError(f"--shots is {shots}, and no task of these has shots", hint="Leave out --shots.")

    def changed(entry: Entry) -> EntryFields:
        given = entry.fields
        least = given.limit if limit is None else min(limit, given.limit or limit)
        return replace(given, limit=least, shots=shots if shots is not None and entry.task.takes_shots else given.shots)

    entries = (replace(entry, fields=changed(entry), sandbox=sandbox) for entry in suite.entries)
    return replace(suite, entries=tuple(entries))


def _check_name(name: str, where: str) -> None:
    if not LABEL.fullmatch(name):
        allowed = "allowed: letters, digits, dots, dashes and underscores, a letter or digit first"
        raise ConfigError(f"{where}: the name {name!r} cannot name a file; {allowed}", hint="Set `name`.")


def _check_label(label: str, others: Sequence[str], where: str) -> None:
    _check_name(label, where)
    if label.lower() in (other.lower() for other in others):
        raise ConfigError(f"{where}: the name `{label}` is used twice; allowed: each once", hint="Set `name`.")
