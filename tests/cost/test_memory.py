"""Memory of training from a configuration: what raises it, what lowers it, and that the large presets fit."""

from dataclasses import replace

import pytest

from patchpad.config import Config, load_config, preset_names
from patchpad.cost import Devices, TrainingMemory, cost, count_parameters, default_rates, training_memory
from patchpad.cost.fitting import fewest_devices, fitted
from patchpad.errors import ConfigError
from patchpad.testing import BASELINE_KINDS, tiny_baseline_config, tiny_model_config

STEP_BYTES = 64 * 8192
"""Bytes of an optimizer step in every large preset, however many passes they are read in."""
LARGE = [name for name in preset_names() if name.startswith(("100m-", "350m-", "1b-", "2b-"))]
GIVEN = {"patches_per_byte": 0.3}
GIB = 2**30


def with_train(config: Config, **values) -> Config:
    return replace(config, train=replace(config.train, **values))


def gpu(gib: float, count: int = 1, **values) -> Devices:
    return Devices(count=count, memory_gib=gib, **values)


@pytest.mark.parametrize("name", LARGE)
def test_every_large_preset_fits_a_gpu_with_the_passes_that_cost_chooses(name):
    config = load_config(name)
    assert training_memory(config).fits()
    assert fitted(config).config == config
    train = config.train
    assert train.batch_rows * train.accumulation_steps * config.model.context_bytes == STEP_BYTES
    largest = with_train(config, batch_rows=train.batch_rows * train.accumulation_steps, accumulation_steps=1)
    assert fitted(largest).config.train.batch_rows >= train.batch_rows


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
    config = with_train(Config(model=model), batch_rows=64, accumulation_steps=1)
    memory = training_memory(config, **GIVEN)
    assert memory.peak_bytes == memory.weights + memory.optimizer + memory.activations  # gradients come as these go
    several = training_memory(with_train(config, accumulation_steps=2), **GIVEN)
    assert several.peak_bytes == memory.peak_bytes + memory.gradients
    assert memory.weights == memory.gradients == memory.optimizer // 2
    more = training_memory(with_train(config, batch_rows=128), **GIVEN)
    assert more.activations == pytest.approx(2 * memory.activations, rel=0.1)
    assert more.weights == memory.weights
    longer = replace(config, model=replace(model, context_bytes=8 * model.context_bytes))
    assert training_memory(longer, **GIVEN).activations > 2 * memory.activations
    checkpointed = training_memory(with_train(config, activation_checkpointing=True), **GIVEN)
    assert checkpointed.activations < memory.activations
    unchanged = {"activations": memory.activations, "peak_bytes": memory.peak_bytes}
    assert replace(checkpointed, **unchanged) == memory


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
    found = [fitted(one_pass, gpu(gib)) for gib in (80.0, 40.0, 24.0)]
    for plan in found:
        assert plan is not None
        assert plan.fits
        assert plan.config.train.batch_rows * plan.config.train.accumulation_steps == step_rows
    assert [plan.config.train.activation_checkpointing for plan in found] == [False, False, True]
    assert found[0].config.train.batch_rows > found[1].config.train.batch_rows
    assert fitted(config, gpu(16.0)) is None
    assert fitted(with_train(config, batch_rows=2**62, accumulation_steps=1)) is not None


def test_few_slots_are_checkpointed_before_passes_become_smaller_still():
    config = load_config("2b-fixed16-never")
    at_least = with_train(config, batch_rows=16)
    found = fitted(at_least, gpu(76.0)).config.train
    assert found == replace(config.train, activation_checkpointing=True)


def test_fsdp_holds_a_shard_of_everything_and_ddp_all_of_it():
    config = with_train(load_config("2b-fixed16-entropy"), batch_rows=8 * 64)
    one = training_memory(with_train(config, batch_rows=8))
    ddp, fsdp, hsdp = (
        training_memory(config, gpu(80, 64, parallel=way, shard_ranks=8 if way == "hsdp" else None))
        for way in ("ddp", "fsdp", "hsdp")
    )
    assert (ddp.weights, ddp.gradients, ddp.optimizer) == (one.weights, one.gradients, one.optimizer)
    assert ddp.activations == one.activations  # the same rows on each
    for sharded, ranks in ((fsdp, 64), (hsdp, 8)):
        for kept, whole in ((sharded.weights, one.weights), (sharded.optimizer, one.optimizer)):
            assert kept == pytest.approx(whole / ranks, rel=1e-6)
        assert sharded.activations < one.activations  # weights are gathered in bf16, and not copied in addition
        assert 0 < sharded.gathered < one.weights
    assert fsdp.peak_bytes < hsdp.peak_bytes < ddp.peak_bytes
    one_pass = with_train(config, accumulation_steps=1)
    assert (
        training_memory(one_pass, gpu(80, 64, parallel="ddp")).peak_bytes == ddp.peak_bytes
    )  # buckets are always there
    assert training_memory(one_pass, gpu(80, 64, parallel="fsdp")).peak_bytes < fsdp.peak_bytes


def test_small_models_are_replicated_and_large_ones_sharded():
    devices = gpu(80, 8)
    ways = {}
    for name in ("100m-fixed16-entropy", "2b-fixed16-entropy"):
        parameters = sum(count_parameters(load_config(name).model).values())
        ways[name] = [devices.way(parameters), gpu(60, 8).way(parameters), gpu(80).way(parameters)]
    assert list(ways.values()) == [["ddp", "ddp", None], ["ddp", "fsdp", None]]


def test_a_device_counts_the_rows_of_its_share():
    config = with_train(load_config("350m-fixed16-entropy"), batch_rows=9)
    assert (
        training_memory(config, gpu(80, 4)).activations == training_memory(with_train(config, batch_rows=3)).activations
    )
    assert (
        training_memory(config, gpu(80, 64)).activations
        == training_memory(with_train(config, batch_rows=1)).activations
    )


def test_several_devices_take_a_steps_rows_in_as_few_passes_as_fit():
    config = load_config("2b-fixed1-never")
    step_rows = config.train.batch_rows * config.train.accumulation_steps
    found = fitted(config, gpu(80, 64))
    assert (found.config.train.batch_rows, found.config.train.accumulation_steps) == (step_rows, 1)
    assert found.way == "ddp"
    smaller = fitted(config, gpu(40, 64, parallel="ddp"))
    assert smaller.way == "fsdp"  # where a whole model on each device is too much
    assert smaller.fits


def test_fewest_devices_are_named_where_a_model_does_not_fit_the_given_ones():
    config = load_config("2b-fixed1-never")
    count = fewest_devices(config, gpu(12.0))
    assert count is not None
    assert fitted(config, gpu(12.0, count)) is not None
    assert fitted(config, gpu(12.0, count // 2)) is None
    assert fewest_devices(load_config("2b-fixed16-entropy"), gpu(40.0)) == 2  # one would do for steps of a single pass
    assert fewest_devices(config, gpu(0.1)) is None


def test_frozen_parts_have_neither_gradients_nor_moments():
    config = load_config("1b-fixed16-entropy")
    counts = count_parameters(config.model)
    all_trained, frozen = training_memory(config), training_memory(with_train(config, frozen=("trunk",)))
    assert frozen.weights == all_trained.weights
    assert frozen.gradients == 4 * (sum(counts.values()) - counts["trunk"])
    assert frozen.optimizer == 2 * frozen.gradients
    assert all_trained.peak_bytes - frozen.peak_bytes == 12 * counts["trunk"]


def test_averaged_weights_are_one_more_copy():
    config = load_config("1b-fixed16-entropy")
    plain, averaged = training_memory(config), training_memory(with_train(config, averaged_decay=0.999))
    assert averaged.peak_bytes - plain.peak_bytes == averaged.optimizer - plain.optimizer == plain.weights


def test_a_cpu_counts_in_fp32():
    config = with_train(load_config("100m-fixed16-entropy"), accumulation_steps=2)
    cpu, cuda = (training_memory(config, Devices(kind=kind)) for kind in ("cpu", "cuda"))
    assert (cpu.weights, cpu.optimizer) == (cuda.weights, cuda.optimizer)
    assert cpu.activations > 1.3 * cuda.activations
    assert not cpu.fits(Devices(kind="cpu"))
    assert cpu.fits(Devices(kind="cpu", memory_gib=80))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "devices is 0"),
        ({"memory_gib": 0.0}, r"device_memory_gib is 0\.0"),
        ({"memory_gib": float("nan")}, "device_memory_gib is nan"),
        ({"parallel": "zero"}, "parallel is 'zero'"),
        ({"count": 8, "parallel": "hsdp"}, "shard_ranks is None for 8 devices"),
        ({"count": 8, "parallel": "hsdp", "shard_ranks": 3}, "shard_ranks is 3 for 8 devices"),
    ],
)
def test_devices_that_cannot_be_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Devices(**values)


def test_checkpointing_adds_the_trunks_forward_pass():
    config = load_config("1b-fixed16-entropy")
    patches, scratchpads = default_rates(config)
    found = cost(config.model, context_bytes=8192, patches_per_byte=patches, scratchpads_per_byte=scratchpads)
    added = found.checkpointed_training_flops_per_byte - found.training_flops_per_byte
    assert added == pytest.approx(found.parts["trunk"].flops_per_byte)


def test_memory_fits_up_to_a_share_of_the_gpu():
    memory = TrainingMemory(weights=0, gradients=0, optimizer=0, activations=0, gathered=0, peak_bytes=72 * GIB)
    assert memory.peak_gib == 72
    assert memory.fits(gpu(80.0))
    assert not memory.fits(gpu(79.9))
