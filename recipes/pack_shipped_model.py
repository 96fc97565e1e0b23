"""Makes the shipped model of a run: weights averaged over checkpoints and rounded to half precision, then calibrated.

Usage: python recipes/pack_shipped_model.py OUT CONFIG --weights PATH... --held-out FILE... [--limit-bytes N]

CONFIG is the run's preset. A PATH is a run, a step folder, or a model.safetensors; at a constant
learning rate the mean over the newest checkpoints is better than any of them. The stored threshold is the one at which
as many scratchpads fire on the held-out text as training aimed at; the calibration is measured there too.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

import patchpad
from patchpad.config import DataConfig
from patchpad.evaluation.bits_per_byte import choose_windows
from patchpad.evaluation.calibrate import calibrate, eligible_scores, thresholds_at
from patchpad.model.build import build_model
from patchpad.training.release import save


def state_of(path: Path) -> dict[str, torch.Tensor]:
    """Returns the weights and buffers at a path."""
    return load_file(path) if path.is_file() else patchpad.load(path).state_dict()


def mean_state(paths: list[Path]) -> dict[str, torch.Tensor]:
    """Returns the mean of the floating-point tensors, in double precision until the end, and the last of the others."""
    states = [state_of(path) for path in paths]
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[-1].items()
    }


def main() -> None:
    """Writes OUT and says what it measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("config")
    parser.add_argument("--weights", type=Path, nargs="+", required=True)
    parser.add_argument("--held-out", nargs="+", required=True)
    parser.add_argument("--limit-bytes", type=int, default=500_000)
    given = parser.parse_args()
    config = patchpad.load_config(given.config)
    model = build_model(config.model)
    model.load_state_dict(mean_state(given.weights))
    model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    windows = choose_windows(model, given.held_out, limit_bytes=given.limit_bytes)
    rate = config.train.scratchpads_per_byte
    (threshold,) = thresholds_at(*eligible_scores(model, windows), [rate]).values()
    model.store_threshold(threshold)
    model.calibration = calibrate(model, windows, limit_bytes=0)
    save(model, replace(config, data=DataConfig()), given.out, dtype=torch.float16)
    sys.stdout.write(model.calibration.to_json() + "\n")


if __name__ == "__main__":
    main()
