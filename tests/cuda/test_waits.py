"""How often the host waits for the device: a GPU that waits for Python has nothing to do."""

import pytest
from cuda_models import CASES, PhasePerStep, never_ending, run_config, small_config

from patchpad.inference.generator import Generation
from patchpad.testing import tiny_baseline_config
from patchpad.training.trainer import train

pytestmark = pytest.mark.unmeasured

WAITS_PER_TRAINING_STEP = 4
WAITS_PER_BYTE = 1
STEPS = 4


CONFIGS = {
    **{"-".join(case): run_config(small_config(*case), steps=STEPS) for case in CASES},
    "spread": run_config(small_config(), steps=STEPS, threshold_spread=0.25),
    "two passes": run_config(small_config(), steps=STEPS, accumulation_steps=2),
    "byte": run_config(tiny_baseline_config("byte", context_bytes=256), steps=STEPS),
    "megabyte": run_config(tiny_baseline_config("megabyte", context_bytes=256), steps=STEPS),
}
"""Of `bpe` models, whose tokens are found on the host, a step waits more often."""


@pytest.mark.parametrize("name", CONFIGS)
def test_a_training_step_waits_seldom(tmp_path, record, name):
    train(CONFIGS[name], out=tmp_path / "run", progress=PhasePerStep(record))
    for step in range(2, STEPS):  # the last one ends the run: it validates and saves
        assert record.num_kernels(f"step {step}") > 100
        assert record.num_waits(f"step {step}") <= WAITS_PER_TRAINING_STEP, record.describe_waits(f"step {step}")


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
