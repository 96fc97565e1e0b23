"""`patchpad evaluate --suite`: the part of the command that measures tasks."""

from collections.abc import Sequence
from pathlib import Path

from patchpad.cli.streams import print_json, print_text
from patchpad.cli.tables import print_task_results
from patchpad.errors import ConfigError
from patchpad.inference.generator import threshold_from_dials
from patchpad.model.int8 import Weights
from patchpad.model.language_model import LanguageModel
from patchpad.tasks.folder import RESULT, SUITE, read_json
from patchpad.tasks.progress import suite_progress_for_stderr
from patchpad.tasks.running import run_suite
from patchpad.tasks.suite import Suite, load_suite, with_changes, with_tasks
from patchpad.training.checkpoint import BUNDLED, load


def evaluate_tasks(
    run: Path | None,
    *,
    suite: str | None,
    tasks: Sequence[str],
    data: Sequence[str],
    thresholds: Sequence[float],
    compute: Sequence[float],
    limit: int | None,
    shots: int | None,
    reference: Path | None,
    out: Path | None,
    unsafe_code: bool,
    weights: Weights,
    device: str,
    json: bool,
) -> None:
    """Runs a suite, and prints its results; the arguments are those of the command."""
    chosen = load_suite(suite) if suite is not None else None
    sandbox = "limited-process" if unsafe_code else "bubblewrap"
    asked = with_changes(with_tasks(chosen, tasks), limit=limit, shots=shots, sandbox=sandbox)
    if len(data) != 1 or data[0] == "-":
        found = "was not given" if not data else f"is {' '.join(data)}"
        raise ConfigError(
            f"--data {found}; allowed for tasks: the one folder that holds their files",
            hint="docs/evaluation.md says where to get the files of each task.",
        )
    if thresholds and compute:
        raise ConfigError("both --scratchpad-threshold and --compute were given", hint="Leave one out.")
    folder = out or default_folder(run, asked, limit, shots, weights)
    command = ["evaluate", *([str(run)] if run else []), *(["--suite", suite] if suite else [])]
    for option, values in (("--task", tasks), ("--data", data), ("--compute", compute)):
        command += [word for value in values for word in (option, str(value))]
    command += [f"--scratchpad-threshold={threshold}" for threshold in thresholds]
    for option, value in (("--limit", limit), ("--shots", shots), ("--reference", reference), ("--out", folder)):
        command += [] if value is None else [option, str(value)]
    command += ["--unsafe-code"] if unsafe_code else []
    command += ["--weights", weights] if weights != "fp32" else []
    command += ["--device", device] if device != "cpu" else []
    model = load(run, device=device, weights=weights)
    evaluation = run_suite(
        model,
        asked,
        data=data[0],
        out=folder,
        scratchpad_threshold_nats=thresholds or _thresholds_of(model, compute),
        run=run_name(run),
        command=command,
        reference=reference,
        progress=suite_progress_for_stderr,
    )
    if json:
        print_json(read_json(folder / RESULT))
    else:
        print_task_results([result.to_dict(with_examples=False) for result in evaluation.results])
        print_text(f"\nResults: {folder} ({SUITE}, {RESULT}, and one file with every example for each row)")


def _thresholds_of(model: LanguageModel, compute: Sequence[float]) -> list[float]:
    found = [threshold_from_dials(model, None, value) for value in compute]
    return [float(threshold) for threshold in found if threshold is not None]


def run_name(run: Path | None) -> str:
    """Returns what results call a run: the name of its folder, with the step where one was given."""
    if run is None:
        return BUNDLED
    place = run.absolute()
    return f"{place.parent.parent.name}-{place.name}" if place.parent.name == "checkpoints" else place.name


def default_folder(
    run: Path | None, suite: Suite, limit: int | None, shots: int | None, weights: Weights = "fp32"
) -> Path:
    """Returns the folder of results where none is given; another one for other options."""
    parts = [run_name(run), suite.name]
    parts += [f"{name}{value}" for name, value in (("limit", limit), ("shots", shots)) if value is not None]
    parts += [weights] if weights != "fp32" else []
    return Path("evaluations") / "-".join(parts)
