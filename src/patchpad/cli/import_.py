"""`patchpad import`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from patchpad.cli.options import Json
from patchpad.cli.streams import print_json, print_text
from patchpad.registry import command_line


def import_(
    folder: Annotated[
        Path,
        Parameter(name="DIR", help="A folder that `patchpad export`, or `save_pretrained` of such a model, wrote."),
    ],
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder to make; must be absent or empty.")],
    json: Json = False,
) -> None:
    """Turn an exported folder into a run, also after it was trained with transformers.

    Files are checked, and nothing is unpickled. The run is a model for inference. Training can start from it with
    --init-from.
    """
    from patchpad.hub.importing import import_folder

    imported = import_folder(folder, out)
    model, num_bytes = imported.model, sum(file.stat().st_size for file in out.iterdir())
    calibrated = model.calibration is not None
    if json:
        print_json({"folder": str(out), "bytes": num_bytes, "calibrated": calibrated})
        return
    print_text(f"{out}: {num_bytes:,} bytes")
    if imported.has_stale_calibration:
        print_text("The weights were trained since the calibration was measured, so it was left out.")
    if not calibrated and model.takes_threshold_in_nats:
        print_text(f"Next: {command_line(['calibrate', str(out)])} --data PATH")
