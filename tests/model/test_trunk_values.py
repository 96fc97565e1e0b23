"""What the trunk may have of its own: feed-forward width, rotary base and the epsilon of its norms."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from patchpad.config import ModelConfig
from patchpad.model.baselines import BpeTransformer
from patchpad.model.block import NORM_EPSILON, Block, RMSNorm, Rotary
from patchpad.model.build import build_model
from patchpad.testing import as_row, random_documents, tiny_model_config
from patchpad.testing.baselines import tiny_baseline_config

OWN = {"trunk_ffn_dim": 40, "trunk_rotary_base": 500.0, "trunk_norm_epsilon": 1e-3}
KINDS = ("patch", "byte", "bpe", "megabyte")
every_kind = pytest.mark.parametrize("kind", KINDS)


def config_of(kind: str, **sizes) -> ModelConfig:
    return tiny_model_config("spacebyte", **sizes) if kind == "patch" else replace(tiny_baseline_config(kind), **sizes)


def logits_of(config: ModelConfig, seed: int = 3) -> torch.Tensor:
    model = build_model(config, seed=seed)
    model.prepare([np.frombuffer(document, dtype=np.uint8) for document in random_documents(77, [300, 50])])
    ids = torch.tensor([as_row(*random_documents(2, [30, 25]))])
    with torch.no_grad():
        return model.run(ids).logits if isinstance(model, BpeTransformer) else model(ids).logits


@every_kind
def test_the_values_that_the_trunk_had_before_change_no_bit_of_weights_and_logits(kind):
    config = config_of(kind)
    width = config.trunk_hidden_dim
    assert width == -(-config.trunk_dim * 8 // 3 // 16) * 16
    said = replace(config, trunk_ffn_dim=width, trunk_rotary_base=config.rotary_base, trunk_norm_epsilon=1e-6)
    weights, others = build_model(config, seed=3).state_dict(), build_model(said, seed=3).state_dict()
    assert list(weights) == list(others)
    assert all(torch.equal(weights[name].nan_to_num(), others[name].nan_to_num()) for name in weights)
    assert torch.equal(logits_of(config), logits_of(said))


@every_kind
def test_the_trunks_own_values_reach_all_of_the_trunk_and_nothing_else(kind):
    config = config_of(kind, **OWN)
    for name, module in build_model(config).named_modules():
        in_trunk = name.startswith("trunk.")
        if isinstance(module, RMSNorm):
            assert module.eps == (1e-3 if in_trunk else NORM_EPSILON), name
        if isinstance(module, Block):
            assert module.ffn_down.in_features == (40 if in_trunk else config.byte_hidden_dim), name
        if isinstance(module, Rotary):
            base = 500.0 if in_trunk else config.rotary_base
            assert module.frequencies[1] == pytest.approx(base ** (-2 / len(module.frequencies))), name


@every_kind
@pytest.mark.parametrize("value", [{"trunk_rotary_base": 500.0}, {"trunk_norm_epsilon": 0.5}], ids=str)
def test_each_value_that_is_not_a_size_changes_the_logits(kind, value):
    assert not torch.equal(logits_of(config_of(kind)), logits_of(config_of(kind, **value)))


def test_a_trunk_without_a_base_of_its_own_follows_the_common_one():
    assert ModelConfig(rotary_base=700.0).trunk_base == 700.0
    assert ModelConfig(rotary_base=700.0, trunk_rotary_base=90.0).trunk_base == 90.0
