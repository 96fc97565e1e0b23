"""What each option of the model does; the six invariants hold for them in test_invariants.py and test_stepping.py."""

import math

import pytest
import torch

from patchpad.config import SEPARATOR
from patchpad.model.attention import SlotAttention
from patchpad.model.byte_lm import ByteLM
from patchpad.model.ngrams import BASE, recent_ids, rolling_hashes
from patchpad.model.patch_pooling import ByteProjection, PatchPooling
from patchpad.model.visibility import count_trunk_pairs
from patchpad.patching import Documents
from patchpad.testing import (
    ALL_OPTIONS,
    as_row,
    random_documents,
    sharp_model,
    thresholds_to_try,
    tiny_model_config,
)
from patchpad.testing.stepping import assert_steps_equal_pass, ragged_packed_rows


def packed(seed: int, lengths: list[int]) -> torch.Tensor:
    return torch.tensor([as_row(*random_documents(seed, lengths))])


def rule(layout) -> torch.Tensor:
    """The trunk's visibility, slot by slot, as the method states it."""
    n = layout.room.slots
    start = (layout.slot_byte - layout.documents.offset.flatten()[layout.slot_byte]).tolist()
    k, is_commit = layout.slot_patch_index.tolist(), layout.slot_is_commit.tolist()
    visible = torch.zeros(n, n, dtype=torch.bool)
    for r in range(n):
        for c in range(n):
            sees_commit = is_commit[c] and k[c] < k[r]
            visible[r, c] = start[r] == start[c] and (c == r or sees_commit)
    return visible


def layout_of(threshold: float, patchifier: str = "spacebyte"):
    model = sharp_model(tiny_model_config(patchifier, "entropy"))
    ids = torch.cat([packed(3, [40, 0, 31]), packed(4, [20, 30, 21])])
    chosen = thresholds_to_try(model, ids)[0] if math.isnan(threshold) else threshold
    with torch.no_grad():
        return model(ids, chosen).layout


@pytest.mark.parametrize("threshold", [math.nan, -math.inf, math.inf])
@pytest.mark.parametrize("kv_heads", [1, 3, 6])
def test_trunk_attention_is_the_rule_with_shared_key_heads(threshold, kv_heads):
    layout = layout_of(threshold)
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(layout.room.slots, 6, 4, generator=generator)
    key, value = torch.randn(2, layout.room.slots, kv_heads, 4, generator=generator)
    found = SlotAttention(layout)(0, query, key, value)
    keys, values = (torch.stack([part[:, h // (6 // kv_heads)] for h in range(6)], dim=1) for part in (key, value))
    scores = torch.einsum("rhd,chd->hrc", query, keys) / 2
    weights = scores.masked_fill(~rule(layout), -torch.inf).softmax(dim=-1)
    torch.testing.assert_close(found, torch.einsum("hrc,chd->rhd", weights, values), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threshold", [math.nan, -math.inf, math.inf])
def test_counted_pairs_are_those_of_the_rule(threshold):
    layout = layout_of(threshold)
    assert count_trunk_pairs(layout) == int(rule(layout).sum())


def test_layout_without_slots_has_no_pairs():
    model = sharp_model(tiny_model_config("fixed", "entropy"))
    layout = model(torch.tensor([[SEPARATOR]]), math.inf).layout
    assert layout.num_slots == count_trunk_pairs(layout) == 0


def test_options_have_gradients_even_without_a_scratchpad():
    model = ByteLM(tiny_model_config("fixed", "entropy", **ALL_OPTIONS))
    model(packed(2, [30]), math.inf).logits.sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if not name.startswith("entropy_head."))


def test_hashes_are_those_of_the_polynomial_over_a_documents_last_ids_and_zeros():
    ids = packed(7, [12, 3, 0, 9])
    documents = Documents.locate(ids)
    hashes = rolling_hashes(recent_ids(ids, documents.offset, 8)).unbind(-1)
    row, starts = ids[0].tolist(), documents.start[0].tolist()
    assert len(hashes) == 8
    for n in range(len(row)):
        for size in range(1, 9):
            last = [row[n - i] if n - i >= starts[n] else 0 for i in range(size)]
            polynomial = sum(value * BASE**power for power, value in enumerate(last)) % 2**64
            signed = polynomial - 2**64 if polynomial >= 2**63 else polynomial
            assert int(hashes[size - 1][0, n]) == (signed ^ (signed >> 32)) % 2**63


@pytest.mark.parametrize("vocab_size", [64, 100])
def test_hashes_spread_evenly_over_the_entries_of_a_table(vocab_size):
    recent = torch.randint(97, 123, (20_000, 4), generator=torch.Generator().manual_seed(0))
    for size in (3, 4):
        counts = torch.bincount(rolling_hashes(recent)[:, size - 1] % vocab_size, minlength=vocab_size)
        expected = 20_000 / vocab_size
        assert float((counts - expected).abs().max()) < 5.5 * math.sqrt(expected)


def test_each_ngram_size_reads_a_table_of_its_own_and_the_sum_starts_with_variance_one():
    config = tiny_model_config("fixed", "entropy", ngram_vocab_size=500, ngram_sizes=(2, 5, 3))
    ngrams = ByteLM(config).local_encoder.ngrams
    recent = torch.randint(0, 256, (400, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert float(ngrams(recent).var()) == pytest.approx(1, abs=0.1)
        hashes = rolling_hashes(recent).unbind(-1)
        tables = ngrams.tables.weight.view(3, 500, 16)
        expected = sum(tables[number][hashes[size - 1] % 500] for number, size in enumerate((2, 5, 3)))
        torch.testing.assert_close(ngrams(recent), expected)


def test_each_part_sees_exactly_its_own_window():
    config = tiny_model_config(
        "fixed", "entropy", encoder_layers=1, decoder_layers=1, patch_size=400, window_bytes=30,
        encoder_window_bytes=3, entropy_head_window_bytes=8, decoder_window_bytes=5,
    )  # fmt: skip
    model = sharp_model(config)
    ids = packed(6, [100])
    states = model.local_encoder.embedding(ids).detach().requires_grad_()
    model.local_encoder.embedding.register_forward_hook(lambda module, inputs, output: states)
    output = model(ids, math.inf)
    # A window of w bytes reaches w - 1 bytes back, through the encoder and then through the part on top of it.
    for logits, first in ((output.logits, 80 - 2 - 4), (output.entropy_logits, 80 - 2 - 7)):
        (gradient,) = torch.autograd.grad(logits[0, 80].sum(), states, retain_graph=True)
        assert gradient[0].abs().sum(-1).nonzero().flatten().tolist() == list(range(first, 81))


def test_windows_given_for_each_part_equal_one_window_for_all():
    one = sharp_model(tiny_model_config("spacebyte", "entropy", window_bytes=6))
    each = {f"{part}_window_bytes": 6 for part in ("encoder", "entropy_head", "decoder")}
    other = sharp_model(tiny_model_config("spacebyte", "entropy", window_bytes=99, **each))
    ids = packed(5, [60, 20])
    with torch.no_grad():
        assert torch.equal(one(ids).logits, other(ids).logits)


def test_as_many_key_heads_as_heads_is_plain_attention():
    one = sharp_model(tiny_model_config("spacebyte", "entropy"))
    other = sharp_model(tiny_model_config("spacebyte", "entropy", trunk_kv_heads=3))
    ids = packed(5, [60, 20])
    with torch.no_grad():
        assert torch.equal(one(ids).logits, other(ids).logits)


@pytest.mark.unchecked
@pytest.mark.parametrize("trigger", ["never", "always", "entropy"])
def test_patches_of_one_byte_project_its_state_in_one_pass_as_in_steps(trigger):
    model = sharp_model(tiny_model_config("fixed", trigger, patch_size=1))
    assert isinstance(model.patch_pooling, ByteProjection)
    rows, first = ragged_packed_rows(5, [30, 0, 12])
    for threshold in (None, math.inf, -math.inf):
        assert_steps_equal_pass(model, rows, [length // 2 for length in first], threshold)


def test_first_patch_of_one_byte_is_its_byte_alone():
    model = sharp_model(tiny_model_config("fixed", "never", patch_size=1))
    states = torch.randn(1, 3, 16, generator=torch.Generator().manual_seed(1))
    layout = model(torch.tensor([as_row(b"ab")])).layout
    assert layout.slot_num_bytes.tolist() == [2, 1], "the separator lies in the first patch"
    expected = model.patch_pooling.out(model.patch_pooling.norm(states[0, 1:]))
    assert torch.equal(model.patch_pooling(states, layout), expected)


@pytest.mark.parametrize("patchifier", ["fixed", "spacebyte"])
def test_longer_patches_are_pooled(patchifier):
    assert isinstance(sharp_model(tiny_model_config(patchifier, "never", patch_size=2)).patch_pooling, PatchPooling)
