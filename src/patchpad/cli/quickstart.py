"""`patchpad quickstart`."""

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from patchpad.cli.options import Device, Json
from patchpad.cli.streams import print_json, print_text, refuse_stdin
from patchpad.errors import quoted


def quickstart(
    *,
    out: Annotated[
        Path | None, Parameter(help="Run directory to make. Default: runs/quickstart, or the next free name.")
    ] = None,
    minutes: Annotated[float | None, Parameter(help="Time for everything, also on a busy machine. Default: 5.")] = None,
    steps: Annotated[
        int | None,
        Parameter(help="Training steps instead of minutes. Gives the same numbers each time on one machine."),
    ] = None,
    data: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            allow_leading_hyphen=True,
            help="Your own file, glob or directory instead of the bundled text.",
        ),
    ] = None,
    seed: Annotated[int, Parameter(help="Seed of weights, data order and sample.")] = 0,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Train a small model on real text, measure it at several thresholds, write a sample and report.html."""
    began = time.perf_counter()  # loading torch counts too

    from patchpad.cli.tables import print_points
    from patchpad.quickstart.measuring import PROMPT
    from patchpad.quickstart.record import DEFAULT_MINUTES, Request
    from patchpad.quickstart.run import quickstart
    from patchpad.training.progress import progress_for_stderr

    refuse_stdin(data)
    if minutes is None and steps is None:
        minutes = DEFAULT_MINUTES
    request = Request(out=out, minutes=minutes, steps=steps, data=tuple(data or ()), seed=seed, device=device)
    with progress_for_stderr() as progress:
        result = quickstart(request, progress=progress, began=began)
    points = [point.to_dict() for point in result.points]
    chosen = result.stored
    if json:
        print_json({"run": str(result.run.path), "points": points, "change_percent": result.change_percent})
        return
    print_points(points, stored_threshold_nats=chosen.scratchpad_threshold_nats)
    print_text(
        f"\n* the stored threshold. From no scratchpads to it, bits per byte change by {result.change_percent:+.2f} % "
        f"on {chosen.num_bytes:,} held-out bytes.\n"
    )
    print_text(PROMPT + result.completion.text)
    print_text(f"\n{result.seconds:.0f} s. Report: {result.report_path}")
    print_text(f"Next: patchpad generate {quoted(result.run.path)} --prompt TEXT --compute 0.4")
