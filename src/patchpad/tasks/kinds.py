"""The kinds of tasks, and tasks by name."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from patchpad.config.plain_values import build_section, parse_sections, read_yaml
from patchpad.errors import ConfigError, near_matches
from patchpad.model.language_model import LanguageModel
from patchpad.registry import TASK_KINDS, TASKS
from patchpad.tasks.definition import Kind, Task, TaskOptions
from patchpad.tasks.result import TaskResult
from patchpad.tasks.rows import Row
from patchpad.tasks.scoring import Scorer

SUFFIX = ".yaml"
ALLOWED = "the keys of a task"
HINT = "Give the name of a task, or a file as those in patchpad/tasks/definitions/."


def task_names() -> list[str]:
    """Returns the names of the tasks: those that ship with the package, and then those of plug-ins."""
    return TASKS.names()


def kind_of(name: str) -> Kind:
    """Returns a kind of tasks, which is imported now if it is built in."""
    return TASK_KINDS.get(name)


def load_task(task: str | Path, *, folder: Path | None = None, changes: Mapping[str, Any] | None = None) -> Task:
    """Reads a task by its name, or a YAML file by its path.

    Args:
        task: a name such as `hellaswag`, or a path. A `Path` is always a file, and so is a string that ends with .yaml
            or has a slash.
        folder: where relative paths start; the working folder if left out.
        changes: keys of the file that get other values.

    Raises:
        ConfigError: an unknown name, a file that is missing or not YAML, or a key or value that is wrong.
    """
    changed = dict(changes or {})
    is_name = isinstance(task, str) and "/" not in task and not task.endswith((SUFFIX, ".yml"))
    path = Path(task) if folder is None else folder / task
    if is_name and (task in TASKS or (not path.is_file() and TASKS.knows(str(task)))):
        source = f"the task `{task}`"
        values = parse_sections(Path(TASKS.get(str(task))).read_text("utf-8"), source=source, allowed=ALLOWED)
        return build_task({**values, **changed}, str(task), source)
    if is_name and not path.is_file():
        close = near_matches(str(task), task_names())
        end = "" if close.endswith("?") else "."
        hint = f"{close}{end} A task of a plug-in needs --plugin MODULE."
        raise ConfigError(f"{task!r} is neither a task nor a file", hint=hint)
    return build_task({**read_yaml(path, allowed=ALLOWED, hint=HINT), **changed}, path.stem, str(path))


def build_task(values: dict[str, Any], name: str, source: str) -> Task:
    """Builds a task from plain values.

    Args:
        values: its keys.
        name: where the keys have none.
        source: where they come from, named in errors.

    Raises:
        ConfigError: a key or value that is wrong, or keys that do not fit each other.
    """
    kind = values.get("kind")
    if not isinstance(kind, str) or not TASK_KINDS.knows(kind):
        found = "is missing" if kind is None else f"is {kind!r}"
        hint = f"{near_matches(str(kind), TASK_KINDS)} A kind of a plug-in needs --plugin MODULE."
        raise ConfigError(f"{source}: `kind` {found}", hint=hint)
    task = build_section(kind_of(kind).definition, values, source)
    task = replace(task, name=task.name or name)
    task = replace(task, title=task.title or task.name)
    task.check(source)
    return task


def check_task(task: Task, rows: list[Row], options: TaskOptions) -> None:
    """Checks every row and option of a task, so that nothing of a long suite is run before an error is known.

    Args:
        task: of any kind.
        rows: of the task.
        options: shots, limit, noise and the folder of data.

    Raises:
        ConfigError: options that do not fit the task.
        DataError: a row that cannot be asked.
        SandboxError: programs that a model writes cannot be run safely here.
    """
    task.require(options)
    check = kind_of(task.kind).check
    if check is not None:
        check(task, rows, options)


def run_task(task: Task, model: LanguageModel, options: TaskOptions, rows: list[Row] | None = None) -> TaskResult:
    """Runs a task on a model at one threshold.

    Args:
        task: of any kind.
        model: in any mode; restored after.
        options: threshold, shots, limit, noise and the folder of data.
        rows: the examples, where they are read already.

    Raises:
        ConfigError: options that do not fit the task.
        DataError: data that is missing or malformed.
        InputError: a threshold that the model does not take.
    """
    kind = kind_of(task.kind)
    examples = task.rows(options.data, options.limit) if rows is None else rows
    subject = model
    if kind.takes == "scorer":
        subject = Scorer(model, scratchpad_threshold_nats=options.scratchpad_threshold_nats)
    return kind.run(task, examples, subject, options)
