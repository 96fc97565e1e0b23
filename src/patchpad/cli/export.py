"""`patchpad export`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from patchpad.cli.options import Json, RunPath
from patchpad.cli.streams import print_json, print_text
from patchpad.registry import command_line


def export(
    run: RunPath,
    /,
    *,
    out: Annotated[Path, Parameter(help="Folder to make; must be absent or empty.")],
    json: Json = False,
) -> None:
    """Write a folder that Hugging Face transformers loads offline (the extra `hub`).

    AutoModelForCausalLM.from_pretrained(DIR, trust_remote_code=True) loads it if patchpad is installed. Its README.md
    is a model card. As RUN, bundled means the small model that ships with patchpad.
    """
    from patchpad.hub.exporting import export as export_run

    model = export_run(run, out)
    num_bytes = sum(file.stat().st_size for file in out.iterdir())
    calibrated = model.model.calibration is not None
    if json:
        print_json({"folder": str(out), "bytes": num_bytes, "calibrated": calibrated})
        return
    print_text(f"{out}: {num_bytes:,} bytes")
    if not calibrated and model.model.takes_threshold_in_nats:
        print_text(
            f"It has no calibration, so `compute=` will not work. First: {command_line(['calibrate', str(run)])}"
        )
