"""Layouts whose shapes do not follow from what is decided: equal to exact ones, and nothing is read from the device."""

import math

import pytest
import torch
from torch.nn.attention import flex_attention as torch_flex
from torch.utils._python_dispatch import TorchDispatchMode

from patchpad.config import SEPARATOR
from patchpad.model.back_ends import attention_back_end
from patchpad.patching import SlotRoom
from patchpad.registry import PATCHIFIERS
from patchpad.testing import (
    ALL_OPTIONS,
    as_row,
    batch_of,
    random_documents,
    settle_patches,
    sharp_model,
    thresholds_to_try,
    tiny_model_config,
    tolerance,
)

TRIGGERS = ["entropy", "never", "always", "random", "stride", "whitespace", "entropy_jump"]


def is_default(patchifier: str, trigger: str) -> bool:
    """Whether the default run tries a pair: it has every patchifier and every trigger."""
    return trigger == "entropy" or patchifier == "spacebyte"


COMBINATIONS = (
    [
        pytest.param(patchifier, trigger, {}, marks=[] if is_default(patchifier, trigger) else pytest.mark.slow)
        for patchifier in PATCHIFIERS
        for trigger in TRIGGERS
    ]
    + [("tokens", trigger, {"source_head": "own"}) for trigger in ("entropy", "ending_entropy")]
    + [("tokens", "entropy", {"source_head": "own", "trunk_window_patches": 2})]
    + [(patchifier, "entropy", ALL_OPTIONS) for patchifier in ("fixed", "hnet")]
)


@pytest.fixture
def unfused(monkeypatch):
    """Lets FlexAttention run as it is, without the compiler and its warning."""
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)


ENDED = as_row(b"the cat is in the hat, and they say so")
"""The last token that it commits was open as one token, and has ended."""


def ragged_batch() -> torch.Tensor:
    """Packed documents, empty ones, and rows that have nothing but a separator."""
    first, second = random_documents(1, [70, 0, 31]), random_documents(2, [17, 50, 0])
    return batch_of([as_row(*first), [SEPARATOR], as_row(*second), [SEPARATOR, SEPARATOR]])


def room_around(layout, *, spare: int) -> SlotRoom:
    return SlotRoom(commits=layout.room.commits + spare, scratchpads=layout.room.scratchpads + 2 * spare)


def logits_and_gradients(model, ids, threshold, room):
    model.zero_grad()
    with attention_back_end("reference"):
        output = model.run(ids, model.decisions(threshold, batch=len(ids)), room=room)
    weights = torch.linspace(-1, 1, output.logits.numel()).view_as(output.logits)
    loss = (output.logits.softmax(-1) * weights).sum() + output.logits.square().mean()
    loss.backward()
    return output, {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}


@pytest.mark.unchecked
@pytest.mark.parametrize(("patchifier", "trigger", "options"), COMBINATIONS)
def test_logits_and_gradients_are_those_of_the_exact_layout(patchifier, trigger, options):
    # In float64, as sums that cancel in a sharp model leave fp32 little. Angles and weights of pooling stay in fp32.
    model = sharp_model(tiny_model_config(patchifier, trigger, **options)).double()
    ids = ragged_batch()
    settle_patches(model, ids)
    for threshold in (*thresholds_to_try(model, ids)[:1], math.inf, -math.inf):
        exact, expected = logits_and_gradients(model, ids, threshold, None)
        output, found = logits_and_gradients(model, ids, threshold, room_around(exact.layout, spare=7))
        assert not output.layout.overflows
        assert not output.layout.is_exact
        assert (output.layout.num_commits, output.layout.num_scratchpads) == (
            exact.layout.room.commits,
            exact.layout.room.scratchpads,
        )
        assert torch.equal(output.layout.patch_lag, exact.layout.patch_lag)
        assert float((output.logits - exact.logits).detach().abs().max()) <= tolerance(exact.logits.detach())
        assert found.keys() == expected.keys()
        for name, part in expected.items():
            assert float((found[name] - part).abs().max()) <= 1e-5 * (float(part.abs().max()) + 0.01), name


def test_counts_of_a_pass_leave_unused_places_out():
    model = sharp_model(tiny_model_config("spacebyte", "entropy"))
    ids = ragged_batch()
    threshold = thresholds_to_try(model, ids)[0]
    decisions, targets = model.decisions(threshold, batch=len(ids)), ids.clamp_max(SEPARATOR)
    with torch.no_grad(), attention_back_end("reference"):
        exact = model.predict_targets(ids, targets, decisions)
        found = model.predict_targets(ids, targets, decisions, room=room_around(exact.output.layout, spare=9))
    for name in ("num_commits", "num_scratchpads", "trunk_pairs", "pooled_positions", "num_positions"):
        assert getattr(found, name) == getattr(exact, name) > 0, name


@pytest.mark.parametrize("missing", ["commits", "scratchpads"])
@pytest.mark.parametrize(
    ("patchifier", "options"),
    [("spacebyte", {}), ("tokens", {}), ("tokens", {"source_head": "tied"}), ("tokens", {"source_head": "own"})],
)
@pytest.mark.parametrize("back_end", ["flex", "reference"])
def test_a_room_that_is_too_small_says_so_and_breaks_nothing(unfused, patchifier, options, missing, back_end):
    model = sharp_model(tiny_model_config(patchifier, "entropy", **options)).train()
    ids = ragged_batch()
    ids[-1, : len(ENDED)] = torch.tensor(ENDED)
    decisions = model.decisions(-math.inf, batch=len(ids))
    with torch.no_grad():
        exact = model.run(ids, decisions).layout.room
        for places in (getattr(exact, missing) - 1, 1):
            small = SlotRoom(**{**vars(exact), missing: places})
            with attention_back_end(back_end):
                output = model.run(ids, decisions, room=small)
            assert output.layout.overflows
            assert output.logits.isfinite().all()
        assert not model.run(ids, decisions, room=exact).layout.overflows


class NoReads(TorchDispatchMode):
    """Refuses what a CUDA device would have to be waited for."""

    supports_higher_order_operators = True

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__ if isinstance(func, torch._ops.OpOverload) else func.name()
        assert name not in {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique"}, name
        if name in {"index", "index_put", "index_put_", "_index_put_impl_"}:
            assert not any(isinstance(place, torch.Tensor) and place.dtype == torch.bool for place in args[1]), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("patchifier", ["fixed", "spacebyte", "entropy", "hnet"])
def test_a_pass_with_a_room_reads_nothing_from_the_device(unfused, patchifier):
    model = sharp_model(tiny_model_config(patchifier, "entropy"))
    ids = ragged_batch()
    threshold = thresholds_to_try(model, ids)[0]
    decisions = model.decisions(threshold, batch=len(ids))
    with torch.no_grad(), attention_back_end("flex"):
        expected = model.run(ids, decisions)
        room = room_around(expected.layout, spare=5)
        with NoReads():
            found = model.run(ids, decisions, room=room)
    assert float((found.logits - expected.logits).abs().max()) <= tolerance(expected.logits)
