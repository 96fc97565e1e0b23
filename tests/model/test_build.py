"""A configuration names the kind of the model; baselines refuse what they cannot be."""

from dataclasses import replace

import pytest
import torch

from patchpad.config import Config, ModelConfig, PatchifierConfig, TriggerConfig, load_config
from patchpad.errors import ConfigError
from patchpad.model.baselines import BpeTransformer, ByteTransformer, MegaByte
from patchpad.model.build import build_model
from patchpad.model.byte_lm import ByteLM
from patchpad.testing import BASELINE_KINDS, tiny_baseline_config, tiny_model_config

every_kind = pytest.mark.parametrize("kind", BASELINE_KINDS)


def test_each_kind_has_its_class():
    classes = {"byte": ByteTransformer, "bpe": BpeTransformer, "megabyte": MegaByte}
    assert {kind: type(build_model(tiny_baseline_config(kind))) for kind in BASELINE_KINDS} == classes
    assert type(build_model(tiny_model_config())) is ByteLM


def test_a_file_without_a_kind_means_the_patch_model(tmp_path):
    (tmp_path / "old.yaml").write_text("model: {trunk_dim: 64}\n")
    assert load_config(tmp_path / "old.yaml").model.kind == "patch"


@every_kind
def test_the_resolved_configuration_of_a_baseline_is_read_back(kind):
    config = Config(model=ModelConfig(kind=kind))
    assert config.model.trigger == TriggerConfig(kind="never")
    assert not config.model.reads_entropy
    assert Config.from_dict(config.to_dict()) == config
    assert replace(config.model, trunk_layers=1).trigger == config.model.trigger


@every_kind
def test_a_trigger_or_patchifier_that_a_baseline_lacks_is_refused(kind):
    with pytest.raises(ConfigError, match=rf"trigger.kind is stride with model.kind {kind}, which has no scratchpads"):
        ModelConfig(kind=kind, trigger=TriggerConfig(kind="stride"))
    with pytest.raises(ConfigError, match=rf"patchifier.kind is spacebyte with model.kind {kind}; allowed: fixed"):
        ModelConfig(kind=kind, patchifier=PatchifierConfig(kind="spacebyte"))


@every_kind
def test_an_option_of_the_patch_model_is_refused(kind):
    options = {"trunk_kv_heads": 2, "ngram_vocab_size": 9, "decoder_window_bytes": 4, "context_lags": 3}
    for name, value in options.items():
        with pytest.raises(ConfigError, match=rf"{name} is {value} with model.kind {kind}; allowed: leave it out"):
            ModelConfig(kind=kind, **{name: value})


def test_weights_bring_their_thresholds_with_them():
    config = tiny_model_config("entropy", "entropy")
    model, other = build_model(config), build_model(config)
    model.store_threshold(0.125)
    model.store_patch_threshold(0.25)
    other.load_state_dict(model.state_dict())
    decisions = other.decisions(batch=1)
    assert (float(decisions.scratchpad_threshold), float(decisions.patch_threshold)) == (0.125, 0.25)


def test_stored_thresholds_lie_in_the_buffers_alone():
    model = build_model(tiny_model_config("entropy", "entropy"))
    with torch.no_grad():
        model.scratchpad_threshold_nats.fill_(0.125)
        model.patch_threshold_nats.fill_(0.25)
    decisions = model.decisions(batch=1)
    assert (float(decisions.scratchpad_threshold), float(decisions.patch_threshold)) == (0.125, 0.25)
    assert not hasattr(model.trigger, "threshold")
    assert not hasattr(model.patchifier, "threshold")


@pytest.mark.parametrize("patchifier", ["fixed", "spacebyte", "hnet"])
def test_only_patches_by_entropy_have_a_threshold_that_is_saved(patchifier):
    assert "patch_threshold_nats" not in build_model(tiny_model_config(patchifier, "entropy")).state_dict()
    assert "patch_threshold_nats" in build_model(tiny_model_config("entropy", "entropy")).state_dict()


def test_heads_of_a_pooling_that_a_baseline_lacks_need_not_divide_its_width():
    assert ModelConfig(kind="megabyte", byte_dim=90, byte_heads=9).pooling_heads == 4
    with pytest.raises(ConfigError, match="byte_dim is 90 with pooling_heads 4"):
        ModelConfig(byte_dim=90, byte_heads=9)


def test_megabyte_needs_a_trunk_that_its_patch_divides():
    with pytest.raises(ConfigError, match="trunk_dim is 64 with target_patch_size 6") as caught:
        ModelConfig(kind="megabyte", trunk_dim=64, patchifier=PatchifierConfig(target_patch_size=6))
    assert "multiple of the patch size" in caught.value.message
    ModelConfig(kind="byte", trunk_dim=64, patchifier=PatchifierConfig(target_patch_size=6))


def test_a_vocabulary_has_room_for_the_bytes_and_the_separator():
    with pytest.raises(ConfigError, match="bpe_vocab_size is 256; allowed: an integer of at least 257"):
        ModelConfig(kind="bpe", bpe_vocab_size=256)


def test_an_unknown_kind_is_named_with_the_near_one():
    with pytest.raises(ConfigError, match="'megabytes'") as caught:
        Config.from_dict({"model": {"kind": "megabytes"}})
    assert "megabyte" in caught.value.hint
