"""Makes a small checkpoint of a finished run: half-precision weights, calibrated as they are, without paths.

Usage: python recipes/pack_bundled_model.py RUN OUT HELD_OUT_TEXT
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from patchpad.config import DataConfig
from patchpad.evaluation.calibrate import calibrate
from patchpad.training.checkpoint import open_checkpoint, save


def main(run: str, out: str, held_out: str) -> None:
    """Packs RUN into OUT and writes the calibration, measured on the held-out text, to stdout."""
    checkpoint = open_checkpoint(run)
    model = checkpoint.model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    model.calibration = calibrate(model, held_out, limit_bytes=0)
    save(model, replace(checkpoint.config, data=DataConfig()), Path(out), dtype=torch.float16)
    sys.stdout.write(model.calibration.to_json() + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
