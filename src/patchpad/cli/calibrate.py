"""`patchpad calibrate`."""

from typing import Annotated

from cyclopts import Parameter

from patchpad.cli.options import Device, Json, MeasuredPaths, RunPath, TextField, TextFormat
from patchpad.cli.streams import print_json, print_text


def calibrate(
    run: RunPath,
    /,
    *,
    data: MeasuredPaths = None,
    format: TextFormat = "auto",
    text_field: TextField = "text",
    limit_bytes: Annotated[
        int, Parameter(help="About how many bytes to measure, spread over all documents. 0: all.")
    ] = 200_000,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Measure the calibration table on held-out text and store it with the model; then --compute works.

    The table is right for text like the one that it was measured on. Without --data that is an excerpt of a novel.
    """
    from patchpad.cli.measured_text import text_to_measure
    from patchpad.cli.tables import print_calibration
    from patchpad.device import select_device
    from patchpad.evaluation import calibrate as calibration
    from patchpad.run_lock import run_lock, run_of
    from patchpad.training.checkpoint import open_checkpoint, require_run
    from patchpad.training.release import store_calibration

    require_run(run)
    with run_lock(run_of(run), "patchpad calibrate"):
        checkpoint = open_checkpoint(run)
        model = checkpoint.model().to(select_device(device))
        table = calibration.calibrate(model, text_to_measure(data, format, text_field), limit_bytes=limit_bytes)
        store_calibration(checkpoint.path, table)
    if json:
        print_json(table.to_dict())
    else:
        print_calibration(table.rows)
        print_text(f"Stored in {checkpoint.path}. Least compute: {table.least_compute:.4f} trunk calls per byte.")
