"""`patchpad release`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from patchpad.cli.options import Json, RunPath
from patchpad.cli.streams import print_json, print_text
from patchpad.registry import command_line


def release(
    run: RunPath,
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder to make; must be absent or empty.")],
    averaged: Annotated[
        bool, Parameter(negative=(), help="Take the averaged weights (train.averaged_decay) of the run's newest step.")
    ] = False,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], Parameter(help="Type of the weights on disk.")
    ] = "float32",
    json: Json = False,
) -> None:
    """Write the model of any step into a new folder, without paths, optimizer and metrics."""
    import torch

    from patchpad.training import release as released

    model = released.release(run, out, averaged=averaged, dtype=getattr(torch, dtype))
    num_bytes = sum(file.stat().st_size for file in out.iterdir())
    if json:
        print_json({"folder": str(out), "bytes": num_bytes, "calibrated": model.calibration is not None})
        return
    print_text(f"{out}: {num_bytes:,} bytes")
    if model.calibration is None and model.takes_threshold_in_nats:
        print_text(f"Next: {command_line(['calibrate', str(out)])} --data PATH")
