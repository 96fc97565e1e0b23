"""`patchpad quickstart`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from patchpad.cli.options import Device, Json
from patchpad.cli.streams import print_json, print_text, refuse_stdin
from patchpad.errors import quoted


def quickstart(
    *,
    out: Annotated[
        Path | None, Parameter(help="Run directory to make; default: runs/quickstart, or the next free.")
    ] = None,
    minutes: Annotated[float, Parameter(help="Time for everything.")] = 5.0,
    data: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            allow_leading_hyphen=True,
            help="Your own file, glob or directory instead of the bundled text.",
        ),
    ] = None,
    seed: Annotated[int, Parameter(help="Of weights, data order and sample.")] = 0,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Train a small model on real text, measure it along the threshold, write a sample and report.html."""
    from patchpad.cli.tables import print_points
    from patchpad.quickstart import run as job
    from patchpad.training.progress import progress_for_stderr

    refuse_stdin(data)
    with progress_for_stderr() as progress:
        result = job.quickstart(out=out, minutes=minutes, data=data or (), seed=seed, device=device, progress=progress)
    points = [point.to_dict() for point in result.points]
    chosen = result.calibrated
    if json:
        print_json({"run": str(result.run.path), "points": points, "change_percent": result.change_percent})
        return
    print_points(points, calibrated_threshold_nats=chosen.scratchpad_threshold_nats)
    print_text(
        f"\n* the stored threshold. From no scratchpads to it, bits per byte change by {result.change_percent:+.2f} % "
        f"on {chosen.num_bytes:,} held-out bytes.\n"
    )
    print_text(job.PROMPT + result.completion.text)
    print_text(f"\n{result.seconds:.0f} s. Report: {result.report_path}")
    print_text(f"Next: patchpad generate {quoted(result.run.path)} --prompt TEXT --compute 0.4")
