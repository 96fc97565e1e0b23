"""Programs from prompts: do they pass their tests, and how many bits does the reference solution cost?"""

import ast
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from patchpad.config.checks import AtLeastZero, BetweenZeroAndOne, Positive
from patchpad.errors import ConfigError, DataError, InputError
from patchpad.model.language_model import LanguageModel
from patchpad.processors import usable_processors
from patchpad.tasks.bubblewrap import Limits, SandboxKind, require_sandbox
from patchpad.tasks.definition import Kind, PromptedTask, TaskOptions
from patchpad.tasks.generating import Writer, Writing, scoring_details
from patchpad.tasks.pass_at_k import pass_at_k
from patchpad.tasks.result import Metric, TaskResult
from patchpad.tasks.rows import Row
from patchpad.tasks.sandbox import Verdict, check_program
from patchpad.tasks.scoring import Request, Scored, Scorer
from patchpad.tasks.shots import Prompts
from patchpad.tasks.template import as_bytes

COMPLETION = "completion"
"""What the template of the program calls what the model wrote."""


@dataclass(frozen=True, kw_only=True)
class CodeTask(PromptedTask):
    """A task of kind `code`."""

    delimiter: str = ""
    """Between prompt and solution, part of what is scored; nothing of it is generated."""
    solution: str
    """Template of the reference solution, as it follows the prompt."""
    program: str
    """Template of the program that is run; `{completion}` is what the model wrote, or the reference solution."""
    checks: str
    """Template of code that raises an error unless the program is right. It runs apart from the program, after the
    reference program: imports and helpers are that one's, and no completion can change them."""
    defines: str = ""
    """Template of the names, with spaces between, that the program has to define for the checks; empty: those that the
    reference solution defines and the checks use."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion; they are not part of it."""
    max_new_bytes: Positive = 1024
    """Most bytes of a completion."""
    samples: Positive = 1
    """Completions of each prompt."""
    temperature: AtLeastZero = 0.0
    """Of the samples; 0 is greedy."""
    top_p: BetweenZeroAndOne | None = None
    """Keep the likeliest ids up to this probability; null: all."""
    k: tuple[int, ...] = (1,)
    """pass@k is given for each of these that is at most `samples`; the smallest is the main metric."""
    cpu_seconds: Positive = 10
    """Computing time of a program."""
    memory_mib: Positive = 512
    """Address space of a program."""

    def template_keys(self) -> tuple[str, ...]:
        """Returns the keys whose values are templates."""
        return (*super().template_keys(), "solution", "program", "checks", "defines")

    def given_fields(self) -> tuple[str, ...]:
        """Returns names that templates may use and that no row has."""
        return (COMPLETION,)

    def check(self, source: str) -> None:
        """Checks what single keys cannot say; see `Task.check`."""
        super().check(source)
        if COMPLETION not in self.template("program").fields:
            raise ConfigError(f"{source}: `program` has no {{{COMPLETION}}}", hint="Put what the model wrote into it.")
        if not self.k or min(self.k) < 1:
            found = ", ".join(map(str, self.k)) or "empty"
            raise ConfigError(f"{source}: `k` is {found}; allowed: numbers of at least 1", hint="Write k: 1.")

    def require(self, options: TaskOptions) -> None:
        """Checks that samples and k fit each other, and that programs can be run; see `Task.require`."""
        self.sampling(options)
        require_sandbox(options.sandbox)

    def sampling(self, options: TaskOptions) -> tuple[int, float, list[int]]:
        """Returns the number of samples, their temperature, and each k of pass@k.

        Raises:
            ConfigError: no k is as small as the number of samples, or several samples are greedy.
        """
        samples = options.samples or self.samples
        temperature = self.temperature if options.temperature is None else options.temperature
        ks = sorted(k for k in set(self.k) if k <= samples)
        if not ks:
            raise ConfigError(
                f"the task `{self.name}` gives pass@k for k = {', '.join(map(str, self.k))}, and samples is {samples}; "
                "allowed: at least the smallest k",
                hint="Draw more samples.",
            )
        if samples > 1 and temperature == 0:
            raise ConfigError(
                f"the task `{self.name}` has {samples} samples at temperature 0, which are all the same; allowed: one "
                "sample, or a temperature above 0",
                hint="Set `temperature`, for instance to 0.8.",
            )
        return samples, temperature, ks


@dataclass(frozen=True)
class Problem:
    """A row, ready to be tried."""

    row: Row
    prompt: bytes
    solution: str
    checks: str
    reference: str
    names: tuple[str, ...]


def problem_of(task: CodeTask, row: Row, prompts: Prompts, options: TaskOptions) -> Problem:
    """Returns a row with what its programs are checked by.

    Raises:
        DataError: the row's own code cannot be read, or its checks use nothing of the solution.
    """
    context = task.template("context").render(row, options.for_context(row))
    solution, checks = (task.template(key).render(row) for key in ("solution", "checks"))
    reference = program_of(task, row, task.delimiter + solution)
    module = _parsed(reference, row, "the reference program")
    used = {node.id for node in ast.walk(_parsed(checks, row, "the code of the checks")) if isinstance(node, ast.Name)}
    names = task.template("defines").render(row).split() or sorted(_defined(module) & used)
    if not names:
        raise DataError(
            f"{row.place}: the checks use nothing that the reference solution defines",
            hint="Fix the row, or set `defines` in the task's file.",
        )
    return Problem(row, prompts.before(row) + as_bytes(context), solution, checks, reference, tuple(names))


def check_code(task: CodeTask, rows: Sequence[Row], options: TaskOptions) -> None:
    """Checks all that a task needs before anything is written; the errors are those of `run_code`."""
    prompts = _prompts(task, options)
    for row in rows:
        _request(task, problem_of(task, row, prompts, options))


def program_of(task: CodeTask, row: Row, completion: str) -> str:
    """Returns the program that a completion makes."""
    return task.template("program").render(row.with_values(**{COMPLETION: completion}))


def run_code(task: CodeTask, rows: Sequence[Row], model: LanguageModel, options: TaskOptions) -> TaskResult:
    """Completes every prompt, runs the programs, and scores the reference solutions.

    Metrics: `pass_at_K`, the unbiased estimate and its standard error over problems, and `bits_per_byte` of the
    reference solutions given their prompts, which tells models apart whose programs all fail. The compute is that of
    the completions; `details` has that of scoring.

    Args:
        task: says what is asked for.
        rows: at least one.
        model: in any mode; restored after.
        options: threshold, shots, seed, noise of the prompt, `samples` and `temperature` where they differ from the
            task's, and the sandbox.

    Raises:
        ConfigError: a `k` above the number of samples alone, or more shots than there are rows.
        DataError: a row whose own code cannot be read.
        SandboxError: programs cannot be run safely here.
    """
    task.require(options)
    samples, temperature, ks = task.sampling(options)
    prompts = _prompts(task, options)
    problems = [problem_of(task, row, prompts, options) for row in rows]
    scorer = Scorer(model, scratchpad_threshold_nats=options.scratchpad_threshold_nats)
    scores = score_solutions(task, problems, scorer)
    writing = Writing(max_new_bytes=task.max_new_bytes, stop=task.stop, temperature=temperature, top_p=task.top_p)
    writer = Writer(model, options, writing)
    tries: list[tuple[list[str], list[Verdict]]] = []
    for part in writer.complete([(problem.row.id, problem.prompt) for problem in problems], samples):
        texts = [[completion.text for completion in written] for written in part]
        of_part = problems[len(tries) : len(tries) + len(part)]
        tries += zip(texts, check_completions(task, of_part, texts, options.sandbox), strict=True)
        options.progress(len(part))
    examples: list[dict[str, Any]] = []
    endings: Counter[str] = Counter()
    for problem, score, (texts, verdicts) in zip(problems, scores, tries, strict=True):
        endings.update("passed" if verdict.passed else _ENDINGS[verdict.ending] for verdict in verdicts)
        passed = sum(verdict.passed for verdict in verdicts)
        examples.append(
            {
                "id": problem.row.id,
                **{f"pass_at_{k}": pass_at_k(samples, passed, k) for k in ks},
                "bits_per_byte": score.bits_per_byte,
                "bits": score.bits,
                "num_bytes": score.num_bytes,
                "num_passed": passed,
                "completions": [
                    {"text": text, "passed": verdict.passed, "reason": verdict.reason}
                    for text, verdict in zip(texts, verdicts, strict=True)
                ],
            }
        )
    bits, num_bytes = ([example[name] for example in examples] for name in ("bits", "num_bytes"))
    return TaskResult(
        task=options.label or task.name,
        kind=task.kind,
        num_examples=len(examples),
        metrics={
            **{f"pass_at_{k}": Metric.mean_of([example[f"pass_at_{k}"] for example in examples]) for k in ks},
            "bits_per_byte": Metric.ratio_of(bits, num_bytes),
        },
        main_metric=f"pass_at_{ks[0]}",
        compute=writer.compute(),
        num_cut_examples=writer.num_cut_prompts,
        num_cut_bytes=writer.num_cut_bytes,
        examples=examples,
        details={
            "shots": prompts.num_shots,
            "samples": samples,
            "temperature": temperature,
            "sandbox": options.sandbox,
            "programs": dict(sorted(endings.items())),
            "reference_solutions": scoring_details(scorer, scores),
        },
    )


_ENDINGS = {"finished": "wrong", "failed": "wrong", "time": "out of time", "output": "too much output"}


def score_solutions(task: CodeTask, problems: Sequence[Problem], scorer: Scorer) -> list[Scored]:
    """Returns the likelihood of each reference solution after its prompt.

    Raises:
        DataError: an empty solution.
    """
    return scorer.score([_request(task, problem) for problem in problems])


def _request(task: CodeTask, problem: Problem) -> Request:
    try:
        return Request(problem.prompt, as_bytes(task.delimiter + problem.solution))
    except InputError as error:
        raise DataError(f"{problem.row.place}: {error.message}", hint="Fix the row.") from error


def check_completions(
    task: CodeTask,
    problems: Sequence[Problem],
    completions: Sequence[Sequence[str]],
    sandbox: SandboxKind = "bubblewrap",
) -> list[list[Verdict]]:
    """Returns whether each completion's program passes; equal ones of a problem run once.

    As many run at once as there are processors. A program's limit is on its own computing time, so others that run
    beside it do not use it up.

    Args:
        task: of kind `code`.
        problems: of the task.
        completions: several for each problem.
        sandbox: where programs are run.
    """
    programs = [
        [program_of(task, problem.row, completion) for completion in several]
        for problem, several in zip(problems, completions, strict=True)
    ]
    jobs = [(number, program) for number, several in enumerate(programs) for program in dict.fromkeys(several)]
    verdicts = _checked(task, [(problems[number], program) for number, program in jobs], sandbox)
    known = dict(zip(jobs, verdicts, strict=True))
    return [[known[number, program] for program in several] for number, several in enumerate(programs)]


def check_references(task: CodeTask, rows: Sequence[Row], options: TaskOptions) -> list[Verdict]:
    """Returns whether the reference solution of each row passes its checks: it should.

    Args:
        task: of kind `code`.
        rows: its examples.
        options: the folder of data and the sandbox.
    """
    prompts = _prompts(task, options)
    problems = [problem_of(task, row, prompts, options) for row in rows]
    return _checked(task, [(problem, problem.reference) for problem in problems], options.sandbox)


def _checked(task: CodeTask, jobs: Sequence[tuple[Problem, str]], sandbox: SandboxKind) -> list[Verdict]:
    limits = Limits(
        cpu_seconds=task.cpu_seconds, wall_seconds=6.0 * task.cpu_seconds, memory_bytes=task.memory_mib * 2**20
    )

    def checked(job: tuple[Problem, str]) -> Verdict:
        problem, program = job
        return check_program(
            program, problem.checks, names=problem.names, given=problem.reference, limits=limits, sandbox=sandbox
        )

    with ThreadPoolExecutor(len(usable_processors())) as workers:
        return list(workers.map(checked, jobs))


def _prompts(task: CodeTask, options: TaskOptions) -> Prompts:
    def worked(row: Row) -> bytes:
        context = task.template("context").render(row, options.for_context(row))
        return as_bytes(context + task.delimiter + task.template("solution").render(row))

    return Prompts(task, options, worked)


def _parsed(code: str, row: Row, what: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)  # invalid escapes, before Python 3.12
            return ast.parse(code)
    except (SyntaxError, ValueError) as error:
        raise DataError(f"{row.place}: {what} is not Python: {error}", hint="Fix the row or the template.") from error


def _defined(module: ast.Module) -> set[str]:
    """Returns the names that a program defines itself; what it imports the checks import themselves."""
    defined: set[str] = set()
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif not isinstance(node, ast.Import | ast.ImportFrom):
            stored = (one for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store))
            defined |= {one.id for one in stored}
    return defined


KIND = Kind(CodeTask, run_code, check_code, takes="model")
"""Makes tasks of this kind."""
