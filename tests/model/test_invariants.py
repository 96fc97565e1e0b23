"""The method's six invariants, for every patchifier and trigger, on irregular documents, packed and alone."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.config import PADDING, ModelConfig, PatchifierConfig
from patchpad.registry import PATCHIFIERS
from patchpad.testing import (
    ALL_OPTIONS,
    OPTIONS,
    as_row,
    random_documents,
    settle_patches,
    sharp_model,
    thresholds_to_try,
    tiny_model_config,
    tolerance,
)

TRIGGERS = ["entropy", "never", "always", "random", "stride", "whitespace", "entropy_jump"]
CHECKED = {*((patchifier, "entropy") for patchifier in PATCHIFIERS), *(("fixed", trigger) for trigger in TRIGGERS)}
"""Pairs whose shapes are checked too; without, a test takes a third of the time."""
PLAIN = [
    pytest.param(
        patchifier,
        trigger,
        {},
        id=f"{patchifier}-{trigger}",
        marks=[] if (patchifier, trigger) in CHECKED else pytest.mark.unchecked,
    )
    for patchifier in PATCHIFIERS
    for trigger in TRIGGERS
]
WITH_AN_OPTION = [pytest.param("spacebyte", "entropy", options, id=name) for name, options in OPTIONS.items()]
WITH_SOURCE_HEAD = [
    pytest.param("tokens", trigger, {"source_head": kind}, id=f"tokens-{trigger}, source head {kind}")
    for trigger, kind in (("entropy", "tied"), ("entropy", "own"), ("ending_entropy", "tied"))
]
WITH_WINDOW = [
    pytest.param("tokens", "entropy", {"source_head": "tied", "trunk_window_patches": 3}, id="tokens-trunk window")
]
WITH_ALL_OPTIONS = [pytest.param(kind, "entropy", ALL_OPTIONS, id=f"{kind}-all options") for kind in ("fixed", "hnet")]
COMBINATIONS = PLAIN + WITH_SOURCE_HEAD + WITH_WINDOW + WITH_AN_OPTION + WITH_ALL_OPTIONS
every_combination = pytest.mark.parametrize(("patchifier", "trigger", "options"), COMBINATIONS)
document_lengths = st.lists(st.integers(0, 40), min_size=1, max_size=3)
seeds = st.integers(0, 10_000)


def packed(seed: int, lengths: list[int]) -> torch.Tensor:
    return torch.tensor([as_row(*random_documents(seed, lengths))])


@every_combination
@given(seed=seeds, lengths=document_lengths, place=st.floats(0, 1))
def test_changing_a_byte_leaves_every_earlier_output_unchanged(patchifier, trigger, options, seed, lengths, place):
    model = sharp_model(tiny_model_config(patchifier, trigger, **options), seed=seed % 7)
    ids = packed(seed, [*lengths, 5])
    is_byte = (ids[0] < 256).nonzero().flatten()
    changed_at = int(is_byte[round(place * (len(is_byte) - 1))])
    changed = ids.clone()
    changed[0, changed_at] = (changed[0, changed_at] + 77) % 256
    for threshold in thresholds_to_try(model, torch.cat([ids, changed])):
        with torch.no_grad():
            before, after = model(ids, threshold), model(changed, threshold)
        difference = (before.logits - after.logits)[0, :changed_at].abs()
        assert difference.numel() == 0 or float(difference.max()) <= tolerance(before.logits)
        assert torch.equal(before.layout.commits_at[0, :changed_at], after.layout.commits_at[0, :changed_at])
        assert torch.equal(before.layout.scratchpad_mask[0, :changed_at], after.layout.scratchpad_mask[0, :changed_at])


@every_combination
@given(seed=seeds, lengths=document_lengths, place=st.floats(0, 1))
def test_gradient_of_earlier_logits_with_respect_to_a_byte_is_exactly_zero(
    patchifier, trigger, options, seed, lengths, place
):
    model = sharp_model(tiny_model_config(patchifier, trigger, **options), seed=seed % 7)
    ids = packed(seed, [*lengths, 6])
    at = round(place * (ids.shape[1] - 1))
    states = []

    def keep(module, inputs, output):
        output = output.detach().requires_grad_()
        states.append(output)
        return output

    handle = model.local_encoder.embedding.register_forward_hook(keep)
    for threshold in thresholds_to_try(model, ids):
        states.clear()
        logits = model(ids, threshold).logits
        (gradient,) = torch.autograd.grad(logits[0, : at + 1].square().sum(), states[0])
        assert torch.equal(gradient[0, at + 1 :], torch.zeros_like(gradient[0, at + 1 :]))
        assert float(gradient[0, : at + 1].abs().max()) > 0
    handle.remove()


@every_combination
@given(seed=seeds, lengths=document_lengths)
def test_commits_do_not_depend_on_the_threshold(patchifier, trigger, options, seed, lengths):
    model = sharp_model(tiny_model_config(patchifier, trigger, **options), seed=seed % 7)
    ids = packed(seed, [*lengths, 30])
    trunk_states = []
    for threshold in thresholds_to_try(model, ids):
        with torch.no_grad():
            output = model(ids, threshold, keep_activations=True)
        is_commit = output.layout.slot_is_commit
        parts = [output.activations.contexts[1:][is_commit]]
        parts += [part[is_commit] for pair in output.activations.trunk for part in pair]
        trunk_states.append(parts)
    for other in trunk_states[1:]:
        for part, expected in zip(other, trunk_states[0], strict=True):
            assert part.shape == expected.shape
            assert float((part - expected).abs().max()) <= tolerance(expected)


@every_combination
@given(seed=seeds, lengths=document_lengths)
def test_infinite_thresholds_are_the_limits(patchifier, trigger, options, seed, lengths):
    model = sharp_model(tiny_model_config(patchifier, trigger, **options), seed=seed % 7)
    ids = packed(seed, [*lengths, 30])
    settle_patches(model, ids)
    with torch.no_grad():
        never, always = model(ids, math.inf).layout, model(ids, -math.inf).layout
    assert not never.scratchpad_mask.any()
    assert never.num_slots == int(never.commits_at.sum())
    # The trunk runs at every position. Tokens end before the byte that commits them, so it may run there once more.
    assert always.num_slots == int(never.commits_at.sum() + never.may_fire.sum())
    if patchifier != "tokens":
        assert always.num_slots == ids.numel()
    assert torch.equal(always.commits_at, never.commits_at)
    assert int(always.slot_is_commit.sum()) == never.num_slots
    lags = always.patch_lag if patchifier != "tokens" else always.patch_lag[never.may_fire]
    assert int(lags.max()) == 0


def test_plus_infinity_equals_a_model_that_never_fires():
    config = tiny_model_config("fixed", "entropy")
    with_trigger = sharp_model(config)
    without = sharp_model(tiny_model_config("fixed", "never"))
    without.load_state_dict({**without.state_dict(), **shared_weights(with_trigger)})
    ids = packed(3, [40, 13])
    with torch.no_grad():
        torch.testing.assert_close(with_trigger(ids, math.inf).logits, without(ids).logits)


def shared_weights(model):
    return {
        name: value
        for name, value in model.state_dict().items()
        if not name.startswith("entropy_head.") and name != "scratchpad_threshold_nats"
    }


def test_patch_size_one_runs_the_trunk_at_every_byte_and_caches_each():
    model = sharp_model(tiny_model_config("fixed", "never", patch_size=1))
    ids = packed(5, [20, 11])
    layout = model(ids).layout
    assert torch.equal(layout.patch_end_mask, ids < 256)
    assert int(layout.patch_lag.max()) == 0


@every_combination
@given(seed=seeds, lengths=document_lengths)
def test_a_document_gives_the_same_outputs_alone_packed_and_in_any_row(patchifier, trigger, options, seed, lengths):
    model = sharp_model(tiny_model_config(patchifier, trigger, **options), seed=seed % 7)
    documents = random_documents(seed, [*lengths, 17])
    alone = [torch.tensor([as_row(document)]) for document in documents]
    row = torch.tensor(as_row(*documents))
    other = torch.tensor(as_row(*reversed(documents)))
    batch = torch.full((4, len(row) + 9), PADDING)
    batch[0, : len(row)] = other
    batch[1, : len(alone[-1][0])] = alone[-1][0]
    batch[2, : len(row)] = row
    batch[3, 0] = 256
    for threshold in thresholds_to_try(model, row[None]):
        with torch.no_grad():
            together = model(batch, threshold)
            start = 0
            for ids in alone:
                expected = model(ids, threshold)
                end = start + ids.shape[1]
                assert torch.equal(expected.layout.commits_at[0], together.layout.commits_at[2, start:end])
                assert torch.equal(expected.layout.scratchpad_mask[0], together.layout.scratchpad_mask[2, start:end])
                difference = (expected.logits[0] - together.logits[2, start:end]).abs().max()
                assert float(difference) <= tolerance(expected.logits)
                start = end


def test_ten_copies_of_a_row_give_ten_equal_outputs():
    model = sharp_model(tiny_model_config("spacebyte", "entropy"))
    row = packed(11, [31, 9])
    threshold = thresholds_to_try(model, row)[0]
    with torch.no_grad():
        output = model(row.expand(10, -1), threshold)
    for mask in (output.layout.patch_end_mask, output.layout.scratchpad_mask):
        assert torch.equal(mask, mask[:1].expand_as(mask))
    # Not bit by bit: a matrix product may round its rows differently by their place.
    assert float((output.logits - output.logits[:1]).abs().max()) <= tolerance(output.logits)


@every_combination
def test_trunk_attention_computes_slots_times_commits_only(patchifier, trigger, options):
    model = sharp_model(tiny_model_config(patchifier, trigger, **options, patch_size=5, max_patch_size=9))
    ids = packed(2, [300, 200])
    settle_patches(model, ids)
    with torch.no_grad():
        layout = model(ids, -math.inf).layout
    most_commits = layout.room.slots / (2 if patchifier == "tokens" else 3)
    assert layout.rows.commits.shape[1] == layout.room.commits < most_commits
    num_seen = layout.slot_patch_index.clamp_max(options.get("trunk_window_patches", layout.room.commits))
    assert torch.equal(layout.visible_to - layout.visible_from, num_seen)
    visible = layout.rows.visible_to - layout.rows.visible_from
    assert torch.equal(visible.flatten()[layout.rows.place], num_seen)


def test_no_byte_by_byte_tensor_is_built_for_long_rows():
    largest = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest.append(result.numel())
            return result

    model = sharp_model(tiny_model_config("fixed", "entropy", patch_size=16))
    length = 4096
    ids = packed(1, [length])
    threshold = thresholds_to_try(model, ids)[0]
    with torch.no_grad(), Watch():
        output = model(ids, threshold)
    heads = model.config.trunk_heads
    assert 0.02 < output.layout.scratchpad_mask.float().mean() < 0.6
    block_scores = heads * 512 * (length // 16 + 1)
    assert max(largest) <= max(block_scores, (length + 1) * 257)
    assert max(largest) < length * length / 4


def test_a_newest_slot_is_the_last_commit_or_scratchpad_at_or_before_the_byte():
    model = sharp_model(tiny_model_config("spacebyte", "stride"))
    ids = packed(8, [23, 1, 0, 40])
    layout = model(ids).layout
    is_slot = (layout.patch_end_mask | layout.scratchpad_mask)[0].tolist()
    starts = layout.documents.start[0].tolist()
    assert sorted(layout.slot_byte.tolist()) == [n for n, slot in enumerate(is_slot) if slot]
    for n in range(ids.shape[1]):
        candidates = [at for at in layout.slot_byte.tolist() if starts[n] <= at <= n]
        covered = max(candidates, default=starts[n])
        expected = layout.slot_byte.tolist().index(covered) + 1 if candidates else 0
        assert int(layout.newest_slot[0, n]) == expected
        assert int(layout.patch_lag[0, n]) == n - covered


def test_slots_pool_exactly_the_bytes_of_their_open_patch():
    model = sharp_model(tiny_model_config("spacebyte", "always"))
    ids = packed(8, [23, 40])
    layout = model(ids).layout
    ends, starts = layout.patch_end_mask[0].tolist(), layout.documents.start[0].tolist()
    for n, num_bytes in zip(layout.slot_byte.tolist(), layout.slot_num_bytes.tolist(), strict=True):
        begin = n
        while begin > starts[n] and not ends[begin - 1]:
            begin -= 1
        assert num_bytes == n - begin + 1


def test_threshold_may_differ_by_row_and_by_byte():
    model = sharp_model(tiny_model_config("fixed", "entropy"))
    ids = packed(4, [50]).expand(3, -1)
    middle = thresholds_to_try(model, ids)[0]
    with torch.no_grad():
        rows = model(ids, torch.tensor([math.inf, middle, -math.inf]))
        singles = [model(ids[:1], threshold) for threshold in (math.inf, middle, -math.inf)]
        per_byte = torch.full(ids.shape, math.inf)
        per_byte[:, 20:] = -math.inf
        bytes_output = model(ids, per_byte)
    for row, single in enumerate(singles):
        assert torch.equal(rows.layout.scratchpad_mask[row], single.layout.scratchpad_mask[0])
    assert not bytes_output.layout.scratchpad_mask[:, :20].any()
    assert torch.equal(bytes_output.layout.scratchpad_mask[:, 20:], ~bytes_output.layout.patch_end_mask[:, 20:])


@pytest.mark.parametrize("patch_size", [1, 2, 16])
def test_a_long_row_crosses_blocks_of_slots_without_a_difference(patch_size):
    config = tiny_model_config("fixed", "always", patch_size=patch_size)
    model = sharp_model(config)
    long, short = random_documents(3, [1300, 90])
    with torch.no_grad():
        together = model(torch.tensor([as_row(short, long)])).logits[0, 91:]
        alone = model(torch.tensor([as_row(long)])).logits[0]
        prefix = model(torch.tensor([as_row(long[:400])])).logits[0]
    assert float((together - alone).abs().max()) <= tolerance(alone)
    assert float((prefix - alone[:401]).abs().max()) <= tolerance(alone)


def test_window_of_one_byte_and_of_more_than_the_row_work():
    for window in (1, 200):
        config = ModelConfig(
            byte_dim=16, window_bytes=window, trunk_dim=16, trunk_heads=2, trunk_layers=1,
            patchifier=PatchifierConfig(target_patch_size=3),
        )  # fmt: skip
        assert torch.isfinite(sharp_model(config)(packed(2, [0, 33])).logits).all()


def test_a_layer_sees_exactly_its_window():
    config = tiny_model_config("fixed", "never", encoder_layers=1, decoder_layers=1, patch_size=400, window_bytes=6)
    model = sharp_model(config)
    ids = packed(6, [100])
    states = model.local_encoder.embedding(ids).detach().requires_grad_()
    model.local_encoder.embedding.register_forward_hook(lambda module, inputs, output: states)
    logits = model(ids).logits
    (gradient,) = torch.autograd.grad(logits[0, 80].sum(), states)
    reached = gradient[0].abs().sum(-1).nonzero().flatten().tolist()
    # Two layers of 6 bytes each, the byte itself included: 80 - 5 - 5 to 80.
    assert reached == list(range(70, 81))
