"""With a window, the trunk forgets: steps, blocks and drafts equal the pass, while the cache drops what nobody sees."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import patchpad
from patchpad.config import ModelConfig
from patchpad.errors import ConfigError
from patchpad.inference.blocks import read_prompts
from patchpad.inference.patch_state import DecodingState
from patchpad.inference.steppers import stepper_for
from patchpad.inference.stepping import row_thresholds
from patchpad.testing import (
    assert_steps_equal_pass,
    batch_of,
    ragged_packed_rows,
    random_documents,
    sharp_model,
    thresholds_to_try,
    tiny_model_config,
    tolerance,
)

MODELS = {
    "fixed": ("fixed", "entropy", {"patch_size": 2}),
    "hnet": ("hnet", "entropy", {"trunk_heads": 6, "trunk_kv_heads": 2}),
    "entropy": ("entropy", "entropy_jump", {}),
    "tokens": ("tokens", "entropy", {}),
    "source head": ("tokens", "ending_entropy", {"source_head": "tied"}),
}
every_model = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "hnet" else pytest.mark.unchecked) for name in MODELS]
)


@pytest.fixture
def drops_soon(monkeypatch):
    """Leaves so few places that entries are dropped every few commits."""
    monkeypatch.setattr("patchpad.inference.patch_state.SPARE_PLACES", 2)
    monkeypatch.setattr("patchpad.inference.cache.GROWTH", 1)


def model_of(name: str, window: int, seed: int = 0):
    patchifier, trigger, sizes = MODELS[name]
    return sharp_model(tiny_model_config(patchifier, trigger, trunk_window_patches=window, **sizes), seed=seed % 5)


@every_model
@pytest.mark.parametrize("window", [1, 3])
def test_steps_equal_the_pass_while_entries_are_dropped(name, window, drops_soon):
    rows, lengths = ragged_packed_rows(5, [60, 0, 25])
    model = model_of(name, window)
    threshold = thresholds_to_try(model, batch_of(rows))[0]
    assert_steps_equal_pass(model, rows, [length // 3 for length in lengths], threshold)


@every_model
@pytest.mark.parametrize("window", [1, 3])
def test_blocks_and_the_steps_after_them_equal_the_pass(name, window, drops_soon, monkeypatch):
    monkeypatch.setattr("patchpad.inference.blocks.CPU_BLOCK_POSITIONS", 20)
    monkeypatch.setattr("patchpad.inference.blocks.SMALLEST_BLOCK", 5)
    rows = [[256, *text] for text in random_documents(3, [110, 3, 64])]
    model = model_of(name, window)
    threshold = thresholds_to_try(model, batch_of(rows))[0]
    assert_steps_equal_pass(model, rows, [80, 3, 64], threshold)


@every_model
def test_an_extension_goes_back_to_any_of_its_bytes(name, drops_soon):
    model = model_of(name, 2)
    prompts, texts = random_documents(1, [30, 0]), random_documents(2, [40, 25])
    everything = batch_of([[256, *one, *two] for one, two in zip(prompts, texts, strict=True)])
    dial = thresholds_to_try(model, everything)[0]
    threshold, stepper = row_thresholds(model, dial, 2), stepper_for(model)
    _, state = stepper.prefill(prompts, threshold)
    kept = [list(texts[0][:9]), list(texts[1][:13])]
    wanted = stepper.extend(state.clone(), kept, threshold).advance()
    found = stepper.extend(state, [list(text) for text in texts], threshold).advance([9, 13])
    for value in b"ab zab z":
        expected, wanted = patchpad.step(model, [value] * 2, wanted, scratchpad_threshold_nats=dial)
        logits, found = patchpad.step(model, [value] * 2, found, scratchpad_threshold_nats=dial)
        assert_close(logits, expected)


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert float((found - expected).abs().nan_to_num().max()) <= tolerance(expected[expected.isfinite()])


@pytest.mark.unchecked
@pytest.mark.parametrize("draft", ["off", 4, 16])
def test_rows_that_join_leave_and_draft_generate_what_they_generate_alone(draft, drops_soon):
    model = model_of("fixed", 3)
    prompts = random_documents(4, [50, 0, 11, 30, 7])
    options = {"max_new_bytes": 40, "temperature": 1.0, "scratchpad_threshold_nats": 1.0}
    alone = [patchpad.complete(model, prompt, seed=seed, draft="off", **options) for seed, prompt in enumerate(prompts)]
    together = patchpad.complete(model, prompts, seed=0, batch_rows=3, draft=draft, **options)
    assert [one.data for one in together] == [one.data for one in alone]
    assert [one.trunk_cache_entries for one in together] == [one.trunk_cache_entries for one in alone]


@pytest.mark.unchecked
@given(window=st.integers(1, 90), lengths=st.lists(st.integers(0, 700), min_size=1, max_size=3))
def test_the_cache_stays_as_small_as_the_window(window, lengths):
    model = sharp_model(tiny_model_config("fixed", "never", patch_size=1, trunk_window_patches=window))
    prompts = random_documents(2, lengths)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("patchpad.inference.blocks.CPU_BLOCK_POSITIONS", 100)
        _, state = read_prompts(stepper_for(model), prompts, torch.full((len(lengths),), math.inf))
    assert isinstance(state, DecodingState)
    assert state.trunk.capacity <= window + 100 + 64 + 64
    for _ in range(200):
        _, state = patchpad.step(model, [97] * len(lengths), state)
    assert state.trunk.capacity <= window + 64 + 64
    assert state.num_patches.tolist() == [length + 200 for length in lengths]
    assert int(state.num_places.max()) <= window + 64 + 64


@pytest.mark.unchecked
def test_bytes_that_lie_behind_every_window_change_nothing():
    model = model_of("fixed", 2)
    (text,) = random_documents(1, [80])
    changed = bytes([text[0] ^ 1, text[1] ^ 1]) + text[2:]
    with torch.no_grad():
        one, other = (model(torch.tensor([[256, *ids]]), -math.inf).logits[0] for ids in (text, changed))
    # Two layers that see two commits each, and local layers of a few bytes: what is 40 bytes back is out of sight.
    assert float((one[45:] - other[45:]).abs().max()) == 0
    assert float((one[:5] - other[:5]).abs().max()) > 0


@pytest.mark.parametrize("kind", ["byte", "bpe", "megabyte"])
def test_baselines_have_no_window_of_the_trunk(kind):
    with pytest.raises(ConfigError, match=f"trunk_window_patches is 3 with model.kind {kind}"):
        ModelConfig(kind=kind, trunk_window_patches=3)


def test_configurations_without_the_key_have_no_window():
    assert patchpad.load().config.trunk_window_patches is None
