"""Memory of training from a configuration: what raises it, what lowers it, and that the large presets fit."""

from dataclasses import replace

import pytest

from patchpad.config import Config, load_config, preset_names
from patchpad.cost import TrainingMemory, cost, default_rates, fitted, training_memory
from patchpad.errors import ConfigError
from patchpad.testing import BASELINE_KINDS, tiny_baseline_config, tiny_model_config

STEP_BYTES = 64 * 8192
"""Bytes of an optimizer step in every large preset, however many passes they are read in."""
LARGE = [name for name in preset_names() if name.startswith(("100m-", "350m-", "1b-", "2b-"))]
GIVEN = {"patches_per_byte": 0.3}


def with_train(config: Config, **values) -> Config:
    return replace(config, train=replace(config.train, **values))


@pytest.mark.parametrize("name", LARGE)
def test_every_large_preset_fits_a_gpu_with_the_passes_that_cost_chooses(name):
    config = load_config(name)
    assert training_memory(config).fits()
    assert fitted(config) == config
    train = config.train
    assert train.batch_rows * train.accumulation_steps * config.model.context_bytes == STEP_BYTES
    largest = with_train(config, batch_rows=train.batch_rows * train.accumulation_steps, accumulation_steps=1)
    assert fitted(largest).train.batch_rows >= train.batch_rows


def test_the_byte_models_did_not_fit_with_the_rows_of_the_other_arms():
    for name in ("350m-fixed1-never", "1b-fixed1-never", "2b-fixed1-never"):
        rows = load_config(name.replace("fixed1-never", "fixed16-never")).train.batch_rows
        assert not training_memory(with_train(load_config(name), batch_rows=rows)).fits()


KINDS = {
    **{kind: tiny_model_config(kind, "entropy") for kind in ("fixed", "spacebyte", "entropy", "hnet")},
    **{kind: tiny_baseline_config(kind) for kind in BASELINE_KINDS},
}


@pytest.mark.parametrize("model", KINDS.values(), ids=KINDS)
def test_memory_rises_with_rows_and_context_and_falls_with_checkpointing(model):
    model = replace(model, trunk_layers=8)
    config = with_train(Config(model=model), batch_rows=64)
    memory = training_memory(config, **GIVEN)
    assert memory.peak_bytes == sum((memory.weights, memory.gradients, memory.optimizer, memory.activations))
    assert memory.weights == memory.gradients == memory.optimizer // 2
    more = training_memory(with_train(config, batch_rows=128), **GIVEN)
    assert more.activations == pytest.approx(2 * memory.activations, rel=0.1)
    assert more.weights == memory.weights
    longer = replace(config, model=replace(model, context_bytes=8 * model.context_bytes))
    assert training_memory(longer, **GIVEN).activations > 2 * memory.activations
    checkpointed = training_memory(with_train(config, activation_checkpointing=True), **GIVEN)
    assert checkpointed.activations < memory.activations
    assert replace(checkpointed, activations=memory.activations) == memory


def test_more_slots_take_more_and_their_rates_may_be_given():
    config = load_config("1b-fixed16-entropy")
    patches, scratchpads = default_rates(config)
    given = training_memory(config, patches_per_byte=patches, scratchpads_per_byte=scratchpads)
    assert given == training_memory(config)
    assert training_memory(config, scratchpads_per_byte=0.0).activations < 0.6 * given.activations
    assert training_memory(with_train(config, threshold_spread=0.5)).activations > given.activations
    with pytest.raises(ConfigError, match=r"scratchpads_per_byte is 2\.0"):
        training_memory(config, scratchpads_per_byte=2.0)
    with pytest.raises(ConfigError, match="tokens per byte"):
        training_memory(Config(model=tiny_baseline_config("bpe")))


def test_passes_become_smaller_then_checkpointed_then_nothing_fits():
    config = load_config("1b-fixed1-never")
    step_rows = config.train.batch_rows * config.train.accumulation_steps
    one_pass = with_train(config, batch_rows=step_rows, accumulation_steps=1)
    found = {gib: fitted(one_pass, gib) for gib in (80.0, 40.0, 24.0)}
    for gib, chosen in found.items():
        assert chosen is not None
        assert training_memory(chosen).fits(gib)
        assert chosen.train.batch_rows * chosen.train.accumulation_steps == step_rows
    assert [chosen.train.activation_checkpointing for chosen in found.values()] == [False, False, True]
    assert found[80.0].train.batch_rows > found[40.0].train.batch_rows
    assert fitted(config, 16.0) is None
    assert fitted(with_train(config, batch_rows=2**62, accumulation_steps=1)) is not None


def test_few_slots_are_checkpointed_before_passes_become_smaller_still():
    config = load_config("2b-fixed16-never")
    at_least = with_train(config, batch_rows=16)
    assert fitted(at_least, 76.0).train == replace(config.train, activation_checkpointing=True)


def test_checkpointing_adds_the_trunks_forward_pass():
    config = load_config("1b-fixed16-entropy")
    patches, scratchpads = default_rates(config)
    found = cost(config.model, context_bytes=8192, patches_per_byte=patches, scratchpads_per_byte=scratchpads)
    added = found.checkpointed_training_flops_per_byte - found.training_flops_per_byte
    assert added == pytest.approx(found.parts["trunk"].flops_per_byte)


def test_memory_fits_up_to_a_share_of_the_gpu():
    memory = TrainingMemory(weights=9 * 2**30, gradients=9 * 2**30, optimizer=18 * 2**30, activations=36 * 2**30)
    assert memory.peak_gib == 72
    assert memory.fits(80.0)
    assert not memory.fits(79.9)
