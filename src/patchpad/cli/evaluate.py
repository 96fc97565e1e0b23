"""`patchpad evaluate`."""

from typing import Annotated

from cyclopts import Parameter

from patchpad.cli.options import Device, Json, MeasuredPaths, OptionalRunPath, TextField, TextFormat, Thresholds
from patchpad.cli.streams import print_json


def evaluate(
    run: OptionalRunPath = None,
    /,
    *,
    data: MeasuredPaths = None,
    format: TextFormat = "auto",
    text_field: TextField = "text",
    scratchpad_threshold: Thresholds | None = None,
    limit_bytes: Annotated[int, Parameter(help="About how many bytes, spread over all documents; 0: all.")] = 1_000_000,
    overlap: Annotated[
        int, Parameter(help="Bytes of context that further windows repeat, uncounted; FLOPs per byte include them.")
    ] = 0,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Measure bits per byte, compute and cache at each threshold; without one, at the stored threshold.

    Without RUN it is the small model that ships with patchpad, without --data an excerpt of a novel that this model has
    not seen.
    """
    from patchpad.cli.measured_text import text_to_measure
    from patchpad.cli.tables import print_measured, print_points
    from patchpad.evaluation import bits_per_byte
    from patchpad.training.checkpoint import load

    model = load(run, device=device)
    windows = bits_per_byte.choose_windows(
        model, text_to_measure(data, format, text_field), limit_bytes=limit_bytes, overlap_bytes=overlap
    )
    points = bits_per_byte.evaluate(model, windows, scratchpad_threshold_nats=scratchpad_threshold, limit_bytes=0)
    if json:
        print_json({"points": [point.to_dict() for point in points]})
    else:
        print_points([point.to_dict() for point in points])
        print_measured(points[0].num_bytes, windows.corpus.num_bytes)
