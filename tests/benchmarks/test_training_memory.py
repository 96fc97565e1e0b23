"""`patchpad cost` against the tensors that training on a CPU has at once."""

import pytest
from training_memory import Case, counted_peak, report, tensor_peak

CLOSE = 0.15
"""Share by which the figures may differ."""
QUICK = [
    Case(preset="tiny-fixed16-entropy", batch_rows=8, accumulation_steps=2),
    Case(preset="tiny-hnet-entropy", batch_rows=4),
    Case(preset="tiny-byte", batch_rows=8, recomputes=True),
    Case(preset="tiny-megabyte4", batch_rows=8),
]
LARGER = [
    Case(preset="tiny-spacebyte-entropy", batch_rows=16),
    Case(preset="tiny-entropy-entropy", batch_rows=16, accumulation_steps=2),
    Case(preset="small-cpu-fixed1-never", batch_rows=2),
    Case(preset="small-cpu-fixed16-entropy", batch_rows=8),
    Case(preset="small-cpu-fixed16-entropy", batch_rows=8, accumulation_steps=2, recomputes=True),
]
CASES = [*QUICK, *(pytest.param(case, marks=pytest.mark.slow) for case in LARGER)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_training_on_a_cpu_takes_the_memory_that_cost_says(case):
    most, steps = tensor_peak(case)
    assert counted_peak(case, steps) == pytest.approx(most, rel=CLOSE)


def test_the_report_compares_cost_with_both_peaks():
    row = {
        "preset": "tiny-byte",
        "batch_rows": 8,
        "accumulation_steps": 2,
        "activation_checkpointing": False,
        "counted_bytes": 110_000_000,
        "tensor_bytes": 100_000_000,
        "resident_bytes": 125_000_000,
    }
    assert "| tiny-byte | 8 x 2 | 110 | 100 | 1.100 | 125 | 0.880 |" in report([row])
