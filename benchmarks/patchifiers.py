"""Every patchifier with and without scratchpads, trained on the same bytes: patch size, trunk calls, bits per byte.

Usage: python benchmarks/patchifiers.py TRAIN VALIDATION OUT.jsonl RUNS [STEPS]
Arms that OUT.jsonl has already are skipped, and a stopped arm is resumed.
"""

import json
import platform
import sys
from dataclasses import replace
from pathlib import Path

import torch
from sizes import MEASURED_PARTS

import patchpad
from patchpad.config import Config, DataConfig, ModelConfig, PatchifierConfig, TrainConfig, TriggerConfig
from patchpad.cost import count_parameters

TARGET_PATCH_SIZE = 6
"""About what `spacebyte` gives on English prose, so that all cut alike in number."""
SCRATCHPADS_PER_BYTE = 1 / 8
EVALUATED_BYTES = 200_000
CONFIG = Config(
    model=ModelConfig(window_bytes=8, **{**MEASURED_PARTS, "decoder_layers": 2}, trunk_dim=144),
    train=TrainConfig(
        batch_rows=2,
        learning_rate=4e-3,
        warmup_steps=100,
        validate_every=0,
        checkpoint_every=250,
        keep_checkpoints=1,
        scratchpads_per_byte=SCRATCHPADS_PER_BYTE,
        device="cpu",
    ),
)
ARMS = [
    (patchifier, trigger)
    for patchifier in ("fixed", "spacebyte", "entropy", "hnet")
    for trigger in ("never", "entropy")
]


def arm_config(patchifier: str, trigger: str, steps: int, train: str, validation: str) -> Config:
    """Returns the configuration of one arm."""
    model = replace(
        CONFIG.model,
        patchifier=PatchifierConfig(kind=patchifier, target_patch_size=TARGET_PATCH_SIZE),  # pyrefly: ignore
        trigger=TriggerConfig(kind=trigger),  # pyrefly: ignore
    )
    data = DataConfig(paths=(train,), validation_paths=(validation,))
    return Config(model=model, data=data, train=replace(CONFIG.train, steps=steps))


def main(train: str, validation: str, out: str, runs: str, steps: str = "1500") -> None:
    """Trains and evaluates the arms one after the other."""
    results = Path(out)
    done = [json.loads(line)["arm"] for line in results.read_text().splitlines()] if results.exists() else []
    for patchifier, trigger in ARMS:
        arm = f"{patchifier} + {trigger}"
        if arm in done:
            continue
        config = arm_config(patchifier, trigger, int(steps), train, validation)
        folder = Path(runs) / arm.replace(" + ", "-")
        if (folder / "checkpoints").is_dir() and list((folder / "checkpoints").glob("step-*")):
            run = patchpad.resume(folder)
        else:
            run = patchpad.train(config, out=folder)
        (point,) = patchpad.evaluate(run.model, run.validation, limit_bytes=EVALUATED_BYTES)
        line = {
            "arm": arm,
            **point.to_dict(),
            "mean_patch_size": 1 / point.patches_per_byte,
            "num_params": sum(count_parameters(config.model).values()),
            "bytes_seen": int(steps) * config.train.batch_rows * config.model.context_bytes,
            "config": config.to_dict() | {"data": {}},
            "torch": torch.__version__,
            "hardware": platform.machine(),
            "threads": torch.get_num_threads(),
        }
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
