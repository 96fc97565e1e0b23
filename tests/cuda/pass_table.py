"""Counts of a training pass of the large presets that is not compiled, on the pretended device, beside those of `cost`.

    PYTHONPATH=tests/cuda python -m pretended_cuda tests/cuda/pass_table.py

prints the table that docs/speed.md shows. These are counts of a model whose parameters have shapes alone, not times.
"""

import pretended_cuda
import pytest
from test_memory import run_pass

from patchpad.config import load_config
from patchpad.cost import scheduled_cost, training_memory

PRESETS = [f"{size}-{arm}" for size in ("100m", "350m", "1b", "2b") for arm in ("fixed16-entropy", "fixed1-never")]


def line_of(name: str) -> str:
    """Returns the row of a preset."""
    config = load_config(name)
    with pretended_cuda.recording() as record, pytest.MonkeyPatch.context() as patch:
        run_pass(config, record, patch)
    costs = scheduled_cost(config)
    rows, memory = config.train.batch_rows, training_memory(config)
    flops = costs.training_flops_per_byte * rows * config.model.context_bytes
    return (
        f"| {name} | {rows} x {config.model.context_bytes:,} | {record.num_kernels('pass'):,} | "
        f"{record.num_bytes_moved('pass') / 1e9:.0f} | {record.num_flops('pass') / 1e12:.1f} | {flops / 1e12:.1f} | "
        f"{record.peak_bytes / 2**30:.1f} | {memory.peak_gib:.1f} |"
    )


def main() -> None:
    """Prints the table."""
    print("| preset | rows x bytes | kernels | GB moved | TFLOP | by `cost` | peak GiB | by `cost` |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name in PRESETS:
        print(line_of(name), flush=True)


if __name__ == "__main__":
    main()
