"""`patchpad evaluate`."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from patchpad.cli.options import (
    Device,
    Json,
    KeptWeights,
    MeasuredPaths,
    OptionalRunPath,
    TextField,
    TextFormat,
    Thresholds,
    split_numbers,
)
from patchpad.cli.streams import print_json
from patchpad.errors import ConfigError

LIMIT_BYTES = 1_000_000


def evaluate(
    run: OptionalRunPath = None,
    /,
    *,
    data: MeasuredPaths = None,
    format: TextFormat | None = None,
    text_field: TextField | None = None,
    scratchpad_threshold: Thresholds | None = None,
    limit_bytes: Annotated[
        int | None, Parameter(help="About how many bytes, spread over all documents. 0: all. Default: 1,000,000.")
    ] = None,
    overlap: Annotated[
        int | None,
        Parameter(help="Bytes that each further window repeats as context. They count in FLOPs per byte only."),
    ] = None,
    suite: Annotated[
        str | None, Parameter(help="Measure tasks instead: the name of a suite (nlu), or a file as in configs/suites/.")
    ] = None,
    task: Annotated[
        list[str] | None,
        Parameter(negative=(), help="Name of a task, or its file. May be repeated, and used with --suite."),
    ] = None,
    limit: Annotated[int | None, Parameter(help="About how many examples of each task, spread over all.")] = None,
    shots: Annotated[
        int | None, Parameter(help="Worked examples (shots) before each example. Default: as each task says.")
    ] = None,
    compute: Annotated[
        list[float] | None,
        Parameter(
            negative=(),
            converter=split_numbers,
            help="For tasks: trunk calls per byte instead of a threshold. The calibration translates them.",
        ),
    ] = None,
    reference: Annotated[
        Path | None, Parameter(help="Results of another model on the same tasks, to show in the plots.")
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="Folder for results of tasks. Results that it already has are not measured again.")
    ] = None,
    unsafe_code: Annotated[
        bool | None,
        Parameter(
            negative=(),
            help="If bubblewrap is missing, run programs that a model writes without a sandbox. They can then read and "
            "delete your files.",
        ),
    ] = None,
    weights: KeptWeights = "fp32",
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Measure bits per byte, compute and cache at each given threshold. Without one, at the stored threshold.

    Without RUN, the small model that ships with patchpad is measured. Without --data, the text is an excerpt of a novel
    that this model has not seen.

    With --suite or --task, tasks are measured, such as multiple choice. --data is then the folder of their files. If it
    is stopped, run it again to continue. Several thresholds plot quality against compute.
    """
    of_text = {"--format": format, "--text-field": text_field, "--limit-bytes": limit_bytes, "--overlap": overlap}
    of_tasks = {"--limit": limit, "--shots": shots, "--compute": compute, "--reference": reference, "--out": out}
    of_tasks["--unsafe-code"] = unsafe_code
    if suite is not None or task:
        from patchpad.cli.evaluate_tasks import evaluate_tasks

        _refuse(of_text, "of texts", "with --suite or --task")
        evaluate_tasks(
            run,
            suite=suite,
            tasks=task or [],
            data=data or [],
            thresholds=scratchpad_threshold or [],
            compute=compute or [],
            limit=limit,
            shots=shots,
            reference=reference,
            out=out,
            unsafe_code=bool(unsafe_code),
            weights=weights,
            device=device,
            json=json,
        )
        return
    _refuse(of_tasks, "of tasks", "without --suite or --task")

    from patchpad.cli.measured_text import text_to_measure
    from patchpad.cli.tables import print_measured, print_points
    from patchpad.evaluation import bits_per_byte
    from patchpad.training.checkpoint import load

    model = load(run, device=device, weights=weights)
    windows = bits_per_byte.choose_windows(
        model,
        text_to_measure(data, format or "auto", "text" if text_field is None else text_field),
        limit_bytes=LIMIT_BYTES if limit_bytes is None else limit_bytes,
        overlap_bytes=overlap or 0,
    )
    points = bits_per_byte.evaluate(model, windows, scratchpad_threshold_nats=scratchpad_threshold, limit_bytes=0)
    if json:
        print_json({"points": [point.to_dict() for point in points]})
    else:
        print_points([point.to_dict() for point in points])
        print_measured(points[0].num_bytes, windows.corpus.num_bytes)


def _refuse(options: dict[str, Any], what: str, when: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigError(
                f"{name} is an option of measurements {what}, and was given {when}", hint=f"Leave out {name}."
            )
