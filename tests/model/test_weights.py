"""Initial weights: every parameter is drawn by its own module, from the seed alone."""

import math

import pytest
import torch

from patchpad.config import ModelConfig, PatchifierConfig
from patchpad.model.baselines.baseline import CausalTransformer
from patchpad.model.block import RMSNorm, Stack
from patchpad.model.build import build_model
from patchpad.model.weights import LM_HEAD_STD, draw_weights
from patchpad.testing import ALL_OPTIONS, tiny_model_config

CONFIGS = {
    **{kind: tiny_model_config(kind, "entropy") for kind in ("fixed", "spacebyte", "entropy", "hnet")},
    "one byte per patch": tiny_model_config("fixed", "never", patch_size=1),
    "options": tiny_model_config("fixed", "entropy", **ALL_OPTIONS),
    "byte": ModelConfig(kind="byte", trunk_dim=24, trunk_heads=3),
    "bpe": ModelConfig(kind="bpe", trunk_dim=24, trunk_heads=3, bpe_vocab_size=300),
    "megabyte": ModelConfig(
        kind="megabyte", byte_dim=16, trunk_dim=24, trunk_heads=3, patchifier=PatchifierConfig(target_patch_size=4)
    ),
}


def std_of(parameter: torch.Tensor) -> float:
    return float(parameter.detach().square().mean().sqrt())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_is_drawn_from_the_seed_alone(name):
    model, other = build_model(CONFIGS[name], seed=3), build_model(CONFIGS[name], seed=4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    torch.manual_seed(99)
    draw_weights(model, 3)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    for key, value in other.named_parameters():
        has_draws = key.endswith("distance_bias") or bool((value == value.flatten()[0]).all()) or "routing" in key
        assert has_draws or not torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_leaves_the_global_generator_alone(name):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_model(CONFIGS[name])
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("kind", ["patch", "byte", "bpe", "megabyte"])
def test_one_rule_holds_for_the_patch_model_and_the_baselines(kind):
    sizes = {"trunk_dim": 192, "trunk_heads": 4, "trunk_layers": 3}
    model = build_model(ModelConfig(kind=kind, **sizes))
    stacks = [module for module in model.modules() if isinstance(module, Stack)]
    for stack in stacks:
        depth = len(stack.blocks)
        for block in stack.blocks:
            for linear in (block.query_key_value, block.ffn_gate_up):
                assert std_of(linear.weight) == pytest.approx(linear.in_features**-0.5, rel=0.05)
            for linear in (block.attention_out, block.ffn_down):
                expected = (linear.in_features * 2 * depth) ** -0.5
                assert std_of(linear.weight) == pytest.approx(expected, rel=0.05)
    assert {len(stack.blocks) for stack in stacks} >= {3}
    heads = [module for name, module in model.named_modules() if name.endswith("lm_head")]
    assert heads
    for head in heads:
        assert std_of(head.weight) == pytest.approx(LM_HEAD_STD, rel=0.05)
    assert all(bool((module.weight == 1).all()) for module in model.modules() if isinstance(module, RMSNorm))


def test_outputs_of_residual_branches_are_scaled_by_the_depth_of_their_own_stack():
    config = tiny_model_config("fixed", "never", encoder_layers=1, trunk_layers=8, trunk_dim=96)
    trunk = build_model(config).trunk.stack.blocks[0]
    alone = CausalTransformer(1, 96, 3, 256, 10000.0).stack.blocks[0]
    assert trunk.attention_out.std * math.sqrt(8) == pytest.approx(alone.attention_out.std)
