"""How often the host waits for the device: a GPU that waits for Python has nothing to do. See also the kernel table."""

import pytest
from cuda_models import TEXT, never_ending, small_config

from patchpad.data import cut_windows, evaluation_batches, open_corpus
from patchpad.evaluation import bits_per_byte
from patchpad.evaluation.bits_per_byte import evaluate
from patchpad.inference.generator import Generation

pytestmark = pytest.mark.unmeasured

WAITS_PER_BYTE = 1
WAITS_PER_EVALUATED_BATCH = 4
WAITS_OF_AN_EVALUATION = 4
"""For its threshold, which is checked and moved."""


@pytest.mark.parametrize("compile", [False, True], ids=["plain", "graphs"])
def test_a_sampled_byte_of_a_batch_waits_once(record, compile):
    model = never_ending(small_config()).to("cuda")
    generation = Generation(model, [b"abc"] * 3, max_new_bytes=20, temperature=0.8, compile=compile)
    generation.engine.advance()
    generation.engine.advance()
    num_advances = 10
    with record.in_phase("bytes"):
        for _ in range(num_advances):
            generation.engine.advance()
    assert record.num_waits("bytes") <= num_advances * WAITS_PER_BYTE, record.describe_waits("bytes")


def test_an_evaluated_batch_waits_for_slots_a_check_and_two_sums(record, monkeypatch):
    monkeypatch.setattr(bits_per_byte, "ROW_BATCH_BYTES", 600)  # two rows
    model = never_ending(small_config()).to("cuda")
    windows = cut_windows(open_corpus(TEXT), model.config.context_bytes).limit(4000)
    rows = list(evaluation_batches(windows, row_positions=model.config.context_bytes + 1, batch_rows=2))
    with record.in_phase("evaluation"):
        evaluate(model, windows, scratchpad_threshold_nats=2.0, limit_bytes=0)
    assert len(rows) > 3
    waits = record.num_waits("evaluation") - WAITS_OF_AN_EVALUATION
    assert waits <= len(rows) * WAITS_PER_EVALUATED_BATCH, record.describe_waits("evaluation")
