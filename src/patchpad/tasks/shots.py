"""Shots: worked examples before an example. All examples have the same ones, so that these are read once."""

import random
from collections.abc import Callable, Sequence

from patchpad.errors import ConfigError, DataError, InputError
from patchpad.tasks.definition import PromptedTask, TaskOptions
from patchpad.tasks.rows import Row
from patchpad.tasks.scoring import Request
from patchpad.tasks.template import as_bytes


class Prompts:
    """Contexts of a task's examples, description and shots included.

    Shots are the same for all examples; where they come from the examples themselves, one that would be its own shot
    gets the next one drawn instead. With `shots_match` each value of that field has its own.

    Args:
        task: says what the prompts are.
        options: number of shots, seed, noise and the folder of data.
        worked: text of a shot without the separator after it.

    Raises:
        ConfigError: there are not enough rows for the shots.
        DataError: a file of shots that is missing or malformed.
    """

    def __init__(self, task: PromptedTask, options: TaskOptions, worked: Callable[[Row], bytes]) -> None:
        self.task, self.options, self.worked = task, options, worked
        self.num_shots = task.shots if options.shots is None else options.shots
        self._pools: dict[str, list[Row]] = {}
        if self.num_shots:
            for name in task.shots_data or task.data:
                for row in task.read(options.data, name):
                    self._pools.setdefault(self._group(row), []).append(row)
            for group, rows in self._pools.items():
                self._pools[group] = self._ordered(rows, group)
        self._shots: dict[str, bytes] = {}

    def before(self, row: Row) -> bytes:
        """Returns what stands before an example's own context: the description, then the shots.

        Raises:
            ConfigError: there are not enough rows for the shots.
        """
        description = as_bytes(self.task.template("description").render(row)) if self.task.description else b""
        return description + b"".join(self._shot(shot) for shot in self.shots_of(row))

    def shots_of(self, row: Row) -> list[Row]:
        """Returns the shots of an example; the errors are those of `before`."""
        if not self.num_shots:
            return []
        pool = self._pools.get(self._group(row), [])
        found = [shot for shot in pool[: self.num_shots + 1] if shot.place != row.place][: self.num_shots]
        if len(found) < self.num_shots:
            of_group = f" with the {self.task.shots_match} {self._group(row)!r}" if self.task.shots_match else ""
            raise ConfigError(
                f"the task `{self.task.name}` is asked for {self.num_shots} shots, but has {len(found)} other "
                f"rows{of_group}; allowed: up to {len(found)}",
                hint="Ask for fewer: --shots, or `shots` in the suite.",
            )
        return found

    def _group(self, row: Row) -> str:
        return str(row[self.task.shots_match]) if self.task.shots_match else ""

    def _ordered(self, rows: Sequence[Row], group: str) -> list[Row]:
        if self.task.shots_order == "first":
            return list(rows)
        draw = random.Random(f"{self.options.seed}/{self.task.name}/{group}")
        return draw.sample(rows, min(len(rows), self.num_shots + 1))

    def _shot(self, row: Row) -> bytes:
        if row.place not in self._shots:
            self._shots[row.place] = self.worked(row) + as_bytes(self.task.shot_separator)
        return self._shots[row.place]


def request_after(before: bytes, context: bytes, continuation: bytes, row: Row) -> Request:
    """Returns the request of a row, whose context follows what stands before all examples alike.

    Raises:
        DataError: the continuation is empty.
    """
    try:
        return Request(before + context, continuation, shared=len(before))
    except InputError as error:
        raise DataError(f"{row.place}: {error.message}", hint="Fix the row or the template.") from error
