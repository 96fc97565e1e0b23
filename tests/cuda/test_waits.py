"""How often the host waits for the device: a GPU that waits for Python has nothing to do."""

import pytest
from cuda_models import never_ending, small_config

from patchpad.inference.generator import Generation

WAITS_PER_BYTE = 1


@pytest.mark.parametrize("compile", [False, True], ids=["plain", "graphs"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_generated_byte_of_a_batch_waits_once(record, temperature, compile):
    model = never_ending(small_config()).to("cuda")
    generation = Generation(model, [b"abc"] * 3, max_new_bytes=20, temperature=temperature, compile=compile)
    generation.engine.advance()
    generation.engine.advance()
    num_advances = 10
    with record.in_phase("bytes"):
        for _ in range(num_advances):
            generation.engine.advance()
    assert record.num_waits("bytes") <= num_advances * WAITS_PER_BYTE, record.describe_waits("bytes")
