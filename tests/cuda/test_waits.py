"""How often the host waits for the device: a GPU that waits for Python has nothing to do. See also the kernel table."""

import pytest
from cuda_models import never_ending, small_config

from patchpad.inference.generator import Generation

pytestmark = pytest.mark.unmeasured

WAITS_PER_BYTE = 1


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
