"""Trunk blocks that are computed again in the backward pass give the same gradients and keep far less."""

import math

import pytest
import torch
from torch.nn.attention import flex_attention as torch_flex

from patchpad.model import back_ends, flex_attention
from patchpad.model.back_ends import attention_back_end, slot_attention
from patchpad.model.block import Block, recompute_trunk
from patchpad.model.commits_first import CommitsFirst
from patchpad.testing import (
    BASELINE_KINDS,
    batch_of,
    ids_of,
    ragged_packed_rows,
    random_documents,
    sharp_baseline,
    sharp_model,
    tiny_model_config,
    tolerance,
)


@pytest.fixture
def unfused(monkeypatch):
    """Lets FlexAttention run as it is: without the compiler and its warning, and with gradients."""
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)


def model_and_ids(kind: str):
    if kind in BASELINE_KINDS:
        model = sharp_baseline(kind)
        return model, torch.tensor([ids_of(model, *random_documents(1, [90, 30]))])
    options = {"source_head": "own"} if kind == "tokens" else {}
    config = tiny_model_config(kind, "entropy", trunk_heads=6, trunk_kv_heads=2, **options)
    return sharp_model(config), batch_of(ragged_packed_rows(1, [90, 30])[0])


class Kept:
    """Counts the numbers that a backward pass needs of what runs inside."""

    def __init__(self) -> None:
        self.numbers = 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.keep, lambda tensor: tensor)

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        self.numbers += tensor.numel()
        return tensor


def kept_and_gradients(model, ids):
    """Returns how many numbers the trunk keeps for its backward pass, and all gradients."""
    kept = Kept()
    handles = (
        model.trunk.register_forward_pre_hook(lambda *_: kept.hooks.__enter__()),
        model.trunk.register_forward_hook(lambda *_: kept.hooks.__exit__()),
    )
    model.zero_grad()
    output = model(ids)
    for handle in handles:
        handle.remove()
    logits = output.logits.masked_fill(~output.logits.isfinite(), 0)
    logits.log_softmax(-1).square().mean().backward()
    return kept.numbers, {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}


@pytest.mark.parametrize("back_end", ["auto", "flex"])
@pytest.mark.parametrize("kind", ["spacebyte", "hnet", "tokens", *BASELINE_KINDS])
def test_gradients_are_the_same_and_less_is_kept(unfused, kind, back_end):
    model, ids = model_and_ids(kind)
    with attention_back_end(back_end):
        kept, expected = kept_and_gradients(model, ids)
        recompute_trunk(model)
        kept_now, found = kept_and_gradients(model, ids)
    assert found.keys() == expected.keys()
    for name, part in expected.items():
        assert torch.equal(found[name], part), name
    assert kept_now < kept / 3


def test_only_trunk_blocks_are_computed_twice_and_nothing_without_gradients(monkeypatch):
    model, ids = model_and_ids("spacebyte")
    recompute_trunk(model)
    calls = []
    plain = Block.forward
    monkeypatch.setattr(Block, "forward", lambda self, *rest: calls.append(self) or plain(self, *rest))
    trunk = list(model.trunk.stack.blocks)
    with torch.no_grad():
        model(ids)
    assert len(calls) == len(set(calls))
    model(ids).logits.sum().backward()
    assert all(calls.count(block) == 2 + (block in trunk) for block in set(calls))


def test_keys_that_commits_leave_for_scratchpads_are_not_replaced_by_those_of_the_backward_pass(monkeypatch):
    model, ids = model_and_ids("tokens")
    recompute_trunk(model)
    noted = []
    run = CommitsFirst.run

    def noting(*arguments):
        noted.append(run(*arguments))
        return noted[-1]

    monkeypatch.setattr(CommitsFirst, "run", noting)
    output = model(ids, -math.inf)
    (first,) = noted
    before = dict(first.layers)
    output.logits.sum().backward()
    assert len(before) == model.config.trunk_layers
    assert all(first.layers[layer] is parts for layer, parts in before.items())


def test_flex_attention_can_be_proved_inside_a_block_that_is_computed_again(unfused, monkeypatch):
    monkeypatch.setattr(back_ends, "_takes_flex", lambda device: not flex_attention.has_given_up())
    monkeypatch.setattr(flex_attention, "_has_given_up", False)
    model, ids = model_and_ids("spacebyte")
    expected = kept_and_gradients(model, ids)[1]
    recompute_trunk(model)
    monkeypatch.setattr(flex_attention, "_proved", set())
    found = kept_and_gradients(model, ids)[1]
    assert flex_attention._proved
    assert not flex_attention.has_given_up()
    assert all(torch.equal(found[name], part) for name, part in expected.items())


@pytest.mark.compile
@pytest.mark.filterwarnings("default")  # what PyTorch's compiler warns about is not this package's to fix
def test_one_compiled_graph_of_the_trunk_gives_the_same_gradients_and_keeps_less(unfused):
    model, ids = model_and_ids("spacebyte")
    recompute_trunk(model)
    with attention_back_end("flex"):
        layout = model(ids).layout
        sees = slot_attention(layout)
    assert sees.block_mask is not None
    slot_inputs = torch.randn(len(layout.slot_byte), model.config.trunk_dim, generator=torch.Generator().manual_seed(0))

    def pass_through(trunk):
        model.zero_grad()
        kept = Kept()
        with kept.hooks:
            outputs = trunk(slot_inputs, layout.slot_patch_index)
        outputs[:, ::3].log_softmax(-1).square().sum().backward()
        return kept.numbers, {name: part.grad.clone() for name, part in model.trunk.named_parameters()}

    def run(inputs, patch_index):
        return model.trunk(inputs, patch_index, sees)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    kept, found = pass_through(compiled)
    model.trunk.stack.recomputes = False
    most, expected = pass_through(run)
    for name, part in expected.items():
        assert float((found[name] - part).abs().max()) <= tolerance(part), name
    assert kept < most / 3
