"""How large a share of a batch should need the trunk before it is called: trunk calls and speed by share.

Usage: python benchmarks/trunk_group.py OUT.jsonl
Random weights and the random trigger, so that exactly 1/4 trunk call per byte and row is due: only costs are measured.
"""

import json
import platform
import sys
import time
from pathlib import Path

import torch
from sizes import MEASURED_PARTS

from patchpad.config import ModelConfig, TriggerConfig
from patchpad.cost import count_parameters
from patchpad.inference.engine import Engine, Request
from patchpad.inference.sampling import Sampling
from patchpad.model.byte_lm import ByteLM

MODELS = {
    "small": ModelConfig(**MEASURED_PARTS, trigger=TriggerConfig(kind="random")),
    "trunk of 100M": ModelConfig(
        byte_heads=4,
        trunk_dim=1024,
        trunk_heads=8,
        trunk_layers=8,
        **{**MEASURED_PARTS, "byte_dim": 256},
        trigger=TriggerConfig(kind="random"),
    ),
}
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
NEW_BYTES = 48
REPEATS = 3


def measure(model: ByteLM, rows: int, share: float) -> dict[str, float]:
    """Generates NEW_BYTES in each row; the prefill is not timed."""
    engine = Engine(model, batch_rows=rows, trunk_group_share=share)
    engine.submit(
        [
            Request(
                prompt=b"x" * (20 + 7 * row),  # ragged, so that the random trigger fires at different steps
                max_new_bytes=NEW_BYTES,
                threshold=float(model.scratchpad_threshold_nats),
                sampling=Sampling(temperature=1.0),
                seed=row,
            )
            for row in range(rows)
        ]
    )
    engine.advance()
    began, rounds = time.process_time(), 0
    while not engine.is_done:
        engine.advance()
        rounds += 1
    seconds = time.process_time() - began
    return {
        "trunk_batches": engine.batch.num_trunk_batches,
        "rounds": rounds,
        "bytes_per_cpu_second": rows * NEW_BYTES / seconds,
    }


def main(out: str) -> None:
    """Measures every share of every batch in turn, REPEATS times over."""
    torch.set_num_threads(1)
    lines = []
    for name, config in MODELS.items():
        model = ByteLM(config).eval()
        for repeat in range(REPEATS):
            for rows in (8, 32):
                for share in SHARES:
                    lines.append(
                        {
                            "model": name,
                            "num_params": sum(count_parameters(config).values()),
                            "repeat": repeat,
                            "batch_rows": rows,
                            "trunk_group_share": share,
                            **measure(model, rows, share),
                            "torch": torch.__version__,
                            "hardware": platform.machine(),
                            "threads": 1,
                        }
                    )
                    print(json.dumps(lines[-1]), file=sys.stderr)
    Path(out).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
