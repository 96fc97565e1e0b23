"""Memory of a long generation: resident size and tensors of the state as bytes are generated.

Usage: python benchmarks/generation_memory.py OUT.json [NUM_BYTES]
"""

import gc
import json
import platform
import sys
import time
from pathlib import Path

import torch

import patchpad
from patchpad.testing import state_bytes


def resident_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main(out: str, num_bytes: int = 100_000) -> None:
    """Generates with the shipped model and notes memory every 10,000 bytes."""
    torch.set_num_threads(1)
    model = patchpad.load()
    with torch.no_grad():
        head = model.local_decoder.lm_head.weight
        head[patchpad.SEPARATOR] = head[0]  # ends as rarely as it writes byte 0, which its text never had
    generation = patchpad.Generation(model, ["It was"], max_new_bytes=num_bytes, seed=0)
    rows, began = [], time.perf_counter()
    for count, _ in enumerate(generation):
        state = generation.engine.batch.state
        if count % 10_000 == 1_000 and state is not None:
            gc.collect()
            trunk, others = state_bytes(state)
            rows.append(
                {
                    "num_bytes": count,
                    "resident_mib": round(resident_mib(), 1),
                    "trunk_cache_entries": int(state.num_patches),
                    "trunk_cache_bytes": trunk,
                    "other_state_bytes": others,
                    "seconds": round(time.perf_counter() - began, 1),
                }
            )
            print(json.dumps(rows[-1]), file=sys.stderr)
    content = {"rows": rows, "torch": torch.__version__, "hardware": platform.machine(), "threads": 1}
    content |= {"num_generated": len(generation.rows[0].data), "stop_reason": generation.rows[0].stop_reason}
    Path(out).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
