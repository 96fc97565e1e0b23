"""The last line of a function of held-out code: a task that small models can do in part."""

import ast
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchpad.config.checks import Positive
from patchpad.errors import DataError
from patchpad.model.language_model import LanguageModel
from patchpad.tasks.definition import Kind, Task, TaskOptions, spread
from patchpad.tasks.generating import Writer, Writing, scoring_details
from patchpad.tasks.result import Metric, TaskResult
from patchpad.tasks.rows import Row, read_rows
from patchpad.tasks.scoring import Request, Scorer
from patchpad.tasks.template import as_bytes

PYTHON = ".py"
LINE, PROMPT = "line", "prompt"


@dataclass(frozen=True, kw_only=True)
class CompletionTask(Task):
    """A task of kind `completion`.

    `data` holds Python code: rows with a text, .py files, or folders, of which all .py files below are taken.
    """

    code: str = "text"
    """The field of a row that holds a file of code."""
    num_functions: Positive = 200
    """How many functions are drawn, each from another file; fewer where there are not so many."""
    draw_seed: int = 0
    """Draws files and functions. It is the task's own, so that results of different runs are of the same functions."""
    min_lines: Positive = 3
    """Lines of a function, its first one included."""
    min_line_bytes: Positive = 8
    """Of the last line, without its indentation."""
    max_line_bytes: Positive = 100
    """Likewise. Nothing longer is generated."""
    prompt_bytes: Positive = 768
    """Most bytes of whole lines of the file before the last line, the function's own among them."""

    def files(self, folder: Path) -> list[Path]:
        """Returns every file that the task reads."""
        return [path for name in self.data for path, _ in self._sources(folder, name)]

    def rows(self, folder: Path, limit: int | None = None) -> list[Row]:
        """Draws functions: rows with `prompt`, which ends with the indentation, and `line`, the rest of the last line.

        Args:
            folder: of the data.
            limit: about how many; None: `num_functions`.

        Raises:
            DataError: a file that is missing or malformed, or no function at all.
        """
        files = list({row.place: row for name in self.data for row in self.read(folder, name)}.values())
        order = list(range(len(files)))
        random.Random(f"{self.draw_seed}/files").shuffle(order)
        drawn: dict[int, Row] = {}
        for number in order:
            if len(drawn) == self.num_functions:
                break
            row = self._drawn_from(files[number])
            if row is not None:
                drawn[number] = row
        if not drawn:
            raise DataError(
                f"the task `{self.name}` finds no function in {', '.join(self.data)} of at least {self.min_lines} "
                f"lines with a last line of {self.min_line_bytes} to {self.max_line_bytes} bytes",
                hint="Give files of Python code.",
            )
        return spread([drawn[number] for number in sorted(drawn)], limit)

    def read(self, folder: Path, name: str) -> list[Row]:
        """Reads files of code: rows with the field `code`."""
        rows: list[Row] = []
        for path, id_ in self._sources(folder, name):
            if path.suffix != PYTHON:
                rows += read_rows(path, [self.code])
                continue
            row = Row({self.code: path.read_bytes().decode("utf-8", "replace")}, path, 1)
            row.id = id_
            rows.append(row)
        return rows

    def _sources(self, folder: Path, name: str) -> list[tuple[Path, str]]:
        """Returns files, each with what names it in results."""
        path = folder / name
        if not path.is_dir():
            return [(self.file(folder, name), name)]
        found = sorted(path.rglob(f"*{PYTHON}"))
        return [(one, one.relative_to(folder).as_posix()) for one in found if one.is_file()]

    def _drawn_from(self, file: Row) -> Row | None:
        """Returns one of a file's functions; None without one that fits, or where the file is no Python."""
        text = file[self.code]
        if not isinstance(text, str):
            raise DataError(f"{file.place}: `{self.code}` is {type(text).__name__}; allowed: text", hint="Fix the row.")
        lines = text.replace("\r\n", "\n").split("\n")
        ends = [end for end in last_lines("\n".join(lines), self.min_lines) if self._fits(lines[end].strip())]
        if not ends:
            return None
        end = random.Random(f"{self.draw_seed}/{file.id}").choice(ends)
        line = lines[end].strip()
        begin, num_bytes = end, 0
        while begin > 0:
            num_bytes += len(as_bytes(lines[begin - 1])) + 1
            if num_bytes > self.prompt_bytes:
                break
            begin -= 1
        indentation = lines[end][: len(lines[end]) - len(lines[end].lstrip())]
        prompt = "".join(f"{one}\n" for one in lines[begin:end]) + indentation
        drawn = file.with_values(**{PROMPT: prompt, LINE: line})
        del drawn[self.code]  # nothing else of the file is used
        return drawn

    def _fits(self, line: str) -> bool:
        return self.min_line_bytes <= len(as_bytes(line)) <= self.max_line_bytes


def last_lines(code: str, min_lines: int) -> list[int]:
    """Returns the lines, from 0, that are the last of a function and hold one whole statement.

    Args:
        code: of a file, with line feeds at the ends of lines; no line is returned if it is not Python.
        min_lines: of the function, its first line included.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return sorted(set(_last_lines(tree, min_lines)))


def _last_lines(tree: ast.Module, min_lines: int) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            last: ast.stmt = node.body[-1]
            while (inner := _last_inside(last)) is not None:
                last = inner
            end = node.end_lineno or 0
            if last.lineno == last.end_lineno == end and end - node.lineno + 1 >= min_lines:
                yield end - 1


def _last_inside(statement: ast.stmt) -> ast.stmt | None:
    """Returns the statement that ends a compound one."""
    for name in ("finalbody", "orelse", "handlers", "cases", "body"):
        inside = getattr(statement, name, None)
        if inside:
            last = inside[-1]
            return last.body[-1] if isinstance(last, ast.ExceptHandler | ast.match_case) else last
    return None


def run_completion(task: CompletionTask, rows: Sequence[Row], model: LanguageModel, options: TaskOptions) -> TaskResult:
    """Completes every line greedily, and scores the lines that stand there.

    `exact_match` is the share of lines that are the same, white space at their ends apart; `edit_similarity` is
    1 - edits / length of the longer line, in characters; `bits_per_byte` is that of the lines given their prompts.

    Args:
        task: says what is asked for.
        rows: of `CompletionTask.rows`, at least one.
        model: in any mode; restored after.
        options: threshold and noise of the prompt.
    """
    prompts = [as_bytes(_changed(row, options)) for row in rows]
    writing = Writing(max_new_bytes=task.max_line_bytes + 1, stop=("\n",))
    writer = Writer(model, options, writing)
    written: list[str] = []
    for part in writer.complete([(row.id, prompt) for row, prompt in zip(rows, prompts, strict=True)]):
        written += [completions[0].text for completions in part]
        options.progress(len(part))
    scorer = Scorer(model, scratchpad_threshold_nats=options.scratchpad_threshold_nats)
    requests = [Request(prompt, as_bytes(f"{row[LINE]}\n")) for row, prompt in zip(rows, prompts, strict=True)]
    examples: list[dict[str, Any]] = []
    scores = scorer.score(requests)
    for row, text, score in zip(rows, written, scores, strict=True):
        examples.append(
            {
                "id": row.id,
                "exact_match": float(text.strip() == row[LINE]),
                "edit_similarity": edit_similarity(text.strip(), row[LINE]),
                "bits_per_byte": score.bits_per_byte,
                "bits": score.bits,
                "num_bytes": score.num_bytes,
                "line": row[LINE],
                "completion": text,
            }
        )
    bits, num_bytes = ([example[name] for example in examples] for name in ("bits", "num_bytes"))
    return TaskResult(
        task=options.label or task.name,
        kind=task.kind,
        num_examples=len(examples),
        metrics={
            "exact_match": Metric.mean_of([example["exact_match"] for example in examples]),
            "edit_similarity": Metric.mean_of([example["edit_similarity"] for example in examples]),
            "bits_per_byte": Metric.ratio_of(bits, num_bytes),
        },
        main_metric="exact_match",
        compute=writer.compute(),
        num_cut_examples=writer.num_cut_prompts,
        num_cut_bytes=writer.num_cut_bytes,
        examples=examples,
        details={"lines": scoring_details(scorer, scores)},
    )


def _changed(row: Row, options: TaskOptions) -> str:
    change = options.for_context(row)
    return change(row[PROMPT]) if change else row[PROMPT]


def edit_similarity(left: str, right: str) -> float:
    """Returns 1 - edits / length of the longer text; 1 for two empty ones."""
    longest = max(len(left), len(right))
    return 1 - edit_distance(left, right) / longest if longest else 1.0


def edit_distance(left: str, right: str) -> int:
    """Returns the fewest insertions, deletions and replacements of a character that turn one text into the other."""
    across = np.array([ord(character) for character in right], dtype=np.int64)
    places = np.arange(len(right) + 1)
    row = places.copy()  # distances from the beginning of `left` that was read to each beginning of `right`
    for number, character in enumerate(left, start=1):
        replaced = row[:-1] + (across != ord(character))
        without_insertion = np.concatenate(([number], np.minimum(replaced, row[1:] + 1)))
        row = np.minimum.accumulate(without_insertion - places) + places
    return int(row[-1])


KIND = Kind(CompletionTask, run_completion, takes="model")
"""Makes tasks of this kind."""
