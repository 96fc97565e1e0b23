"""What `cross_compile.py` estimated without a GPU, for the reports of a measurement with one."""

import json
from collections.abc import Sequence
from functools import cache

from measuring import RESULTS
from rows import Row, chosen

ESTIMATES = "sm90-estimates"


@cache
def estimates() -> Sequence[Row]:
    """Returns the rows of the newest result file of `cross_compile.py`; none where there is no such file."""
    files = sorted(RESULTS.glob(f"{ESTIMATES}_*.json"))
    return json.loads(files[-1].read_text(encoding="utf-8"))["rows"] if files else []


def estimated_pass(preset: str, rows: int) -> tuple[float, float] | None:
    """Returns seconds and MFU of a compiled training pass with scratchpads; None where that was not estimated."""
    found = chosen(estimates(), part="training", graph="both", preset=preset, rows=rows)
    return (_seconds(found[-1]), found[-1]["mfu"]) if found else None


def estimated_generation(row: Row) -> float | None:
    """Returns the seconds that the runs of a row of `presets_gpu.py` should take in all; None where unknown.

    Every byte is read and the next one predicted, and each call of the trunk, for however many rows, comes once.
    """
    phases = {
        found["phase"]: _seconds(found)
        for found in chosen(estimates(), part="decoding", preset=row["preset"], rows=row["rows"])
    }
    if not {"read", "predict", "refresh"} <= phases.keys():
        return None
    steps = sum(row["bytes"]) / row["rows"]
    return steps * (phases["read"] + phases["predict"]) + sum(row["trunk_batches"]) * phases["refresh"]


def _seconds(row: Row) -> float:
    return sum(row["estimated_seconds"].values())
