"""From folders of results to the columns of a comparison; results that are not of the same examples are refused."""

from collections.abc import Sequence
from pathlib import Path

from patchpad.tasks.compare import Column
from patchpad.tasks.compare_texts import threshold_text
from patchpad.tasks.folder import Evaluation, read_evaluation, require_same_tasks

CHECKSUM_DIGITS = 12


def read_columns(paths: Sequence[str | Path]) -> list[Column]:
    """Reads results and returns a column for each threshold of each.

    Args:
        paths: folders that `patchpad evaluate --suite` wrote, or the `result.json` in them; at least one.

    Raises:
        ConfigError: two results of a task that are not of the same data with the same options; what differs is named.
        DataError: a path without results.
    """
    evaluations = [read_evaluation(path) for path in paths]
    names = _names(evaluations)
    for number, other in enumerate(evaluations[1:], start=1):
        require_same_tasks(evaluations[0].suite, other.suite, (names[0], names[number]))
    return [column for number, one in enumerate(evaluations) for column in _columns(one, number, names[number])]


def _names(evaluations: Sequence[Evaluation]) -> list[str]:
    """Returns the name of each run; of runs of one name, and of results of one run, their folders."""
    runs = [one.suite["run"] or one.path.name for one in evaluations]
    return [run if runs.count(run) == 1 else str(one.path) for run, one in zip(runs, evaluations, strict=True)]


def _columns(evaluation: Evaluation, number: int, name: str) -> list[Column]:
    thresholds = list(dict.fromkeys(result.compute.scratchpad_threshold_nats for result in evaluation.results))
    return [
        Column(
            label=name if len(thresholds) == 1 else f"{name} at {threshold_text(threshold)}",
            run=number,
            run_label=name,
            results={
                result.task: result
                for result in evaluation.results
                if result.compute.scratchpad_threshold_nats == threshold
            },
            facts=_facts(evaluation, threshold),
        )
        for threshold in thresholds
    ]


def _facts(evaluation: Evaluation, threshold: float) -> dict[str, str]:
    model, origin = evaluation.suite["model"], evaluation.suite["provenance"]
    facts = {
        "suite": evaluation.suite["suite"],
        "scratchpad_threshold_nats": threshold_text(threshold),
        "kind": model["config"]["kind"],
        "num_params": f"{model['num_params']:,}",
        "weights_sha256": model["weights_sha256"][:CHECKSUM_DIGITS],
        "commit": origin["commit"],
        "patchpad": origin["package_version"],
        "torch": origin["torch_version"],
        "hardware": origin["hardware"],
        "date": origin["date"],
    }
    return {name: str(value) for name, value in facts.items() if value}
