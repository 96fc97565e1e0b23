"""The invariants of the baselines: causal, isolated, finite on any bytes, and what their definitions say."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import patchpad
from patchpad.config import IGNORED_TARGET, PADDING, SEPARATOR
from patchpad.data import Corpus, cut_windows, evaluation_batches
from patchpad.data.loader import padding_batch
from patchpad.errors import GenerationError, InputError
from patchpad.model import document_attention
from patchpad.model.build import build_model
from patchpad.model.document_attention import DocumentAttention
from patchpad.testing import (
    BASELINE_KINDS,
    ids_of,
    random_documents,
    sharp_baseline,
    tiny_baseline_config,
    tolerance,
)

every_kind = pytest.mark.parametrize("kind", BASELINE_KINDS)
document_lengths = st.lists(st.integers(0, 40), min_size=1, max_size=3)
seeds = st.integers(0, 10_000)


def packed(model, seed: int, lengths: list[int]) -> torch.Tensor:
    return torch.tensor([ids_of(model, *random_documents(seed, lengths))])


def corpus_of(*documents: bytes) -> Corpus:
    arrays = tuple(np.frombuffer(document, dtype=np.uint8) for document in documents)
    return Corpus(arrays, tuple(map(str, range(len(arrays)))))


@every_kind
@given(seed=seeds, lengths=document_lengths, place=st.floats(0, 1))
def test_changing_an_id_leaves_every_earlier_output_unchanged(kind, seed, lengths, place):
    model = sharp_baseline(kind, seed=seed % 7)
    ids = packed(model, seed, [*lengths, 9])
    others = (ids[0] != SEPARATOR).nonzero().flatten()
    at = int(others[round(place * (len(others) - 1))])
    changed = ids.clone()
    changed[0, at] = (changed[0, at] + 77) % 256
    with torch.no_grad():
        before, after = model(ids).logits[0], model(changed).logits[0]
    allowed = tolerance(before[before.isfinite()])
    assert torch.allclose(before[:at], after[:at], rtol=0, atol=allowed)
    assert not torch.allclose(before[at:], after[at:], rtol=0, atol=allowed)


@every_kind
@given(seed=seeds, place=st.floats(0, 1))
def test_gradient_of_earlier_logits_with_respect_to_an_id_is_exactly_zero(kind, seed, place):
    """Every id of the row differs from all others, so an embedding's row belongs to one position."""
    model = sharp_baseline(kind, seed=seed % 7)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed)).tolist()
    row = [SEPARATOR, *order[:25], SEPARATOR, *order[25:]]
    at = round(place * (len(row) - 1))
    logits = model(torch.tensor([row])).logits[0]
    finite = logits.masked_fill(~logits.isfinite(), 0)
    embeddings = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    gradients = torch.autograd.grad(finite[: at + 1].square().sum(), embeddings)
    later = [value for value in row[at + 1 :] if value != SEPARATOR]
    earlier = [value for value in row[: at + 1] if value != SEPARATOR]
    for gradient in gradients:
        assert torch.equal(gradient[later], torch.zeros_like(gradient[later]))
    if earlier:
        assert max(float(gradient[earlier].abs().max()) for gradient in gradients) > 0


@every_kind
@given(seed=seeds, lengths=document_lengths)
def test_a_document_gives_the_same_outputs_alone_packed_and_in_any_row(kind, seed, lengths):
    model = sharp_baseline(kind, seed=seed % 7)
    documents = random_documents(seed, [*lengths, 17])
    row, other = (torch.tensor(ids_of(model, *some)) for some in (documents, documents[::-1]))
    width = max(len(row), len(other)) + 9
    batch = torch.full((4, width), model.padding_id if kind == "bpe" else PADDING)
    batch[0, : len(other)] = other
    batch[1, 0] = SEPARATOR
    batch[2, : len(row)] = row
    batch[3, :3] = row[0]
    with torch.no_grad():
        together = model(batch).logits
        start = 0
        for document in documents:
            alone = model(torch.tensor([ids_of(model, document)])).logits[0]
            allowed = tolerance(alone[alone.isfinite()])
            assert torch.allclose(alone, together[2, start : start + len(alone)], rtol=0, atol=allowed)
            start += len(alone)


@every_kind
def test_ten_copies_of_a_row_give_ten_identical_outputs(kind):
    model = sharp_baseline(kind)
    ids = packed(model, 11, [31, 9])
    with torch.no_grad():
        logits = model(ids.expand(10, -1)).logits
    assert torch.equal(logits, logits[:1].expand_as(logits))


@every_kind
def test_no_position_by_position_tensor_is_built_for_long_rows(kind):
    largest = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest.append(result.numel())
            return result

    model = sharp_baseline(kind)
    ids = packed(model, 1, [4096])
    with torch.no_grad(), Watch():
        model(ids)
    length = ids.shape[1]
    assert max(largest) <= length * max(model.config.bpe_vocab_size, document_attention.QUERY_BLOCK)
    assert max(largest) < length * length / 4


def naive_attention(layer, query, key, value):
    """Full causal attention of one sequence, [position, head, head_dim]."""
    scores = torch.einsum("qhd,khd->hqk", query, key) * query.shape[-1] ** -0.5
    hidden = torch.ones(len(query), len(query), dtype=torch.bool).triu(1)
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), value)


@pytest.mark.parametrize("block", [1, 7, 256])
@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_the_plain_transformer_is_the_naive_one(monkeypatch, kind, block):
    monkeypatch.setattr(document_attention, "QUERY_BLOCK", block)
    model = sharp_baseline(kind)
    documents = random_documents(5, [40, 0, 33])
    with torch.no_grad():
        logits = model(torch.tensor([ids_of(model, *documents)])).logits[0]
        start = 0
        for document in documents:
            ids = torch.tensor(ids_of(model, document))
            states = model.trunk(model.embedding(ids), torch.arange(len(ids)), naive_attention)
            expected = model.predict(states)
            found = logits[start : start + len(ids)]
            assert torch.allclose(found, expected, rtol=0, atol=tolerance(found[found.isfinite()]))
            start += len(ids)


@pytest.mark.parametrize("block", [3, 256])
def test_megabyte_is_its_definition_patch_by_patch(monkeypatch, block):
    monkeypatch.setattr(document_attention, "QUERY_BLOCK", block)
    model = sharp_baseline("megabyte")
    size = model.patch_size
    documents = random_documents(6, [23, 0, 4, 41])
    with torch.no_grad():
        logits = model(torch.tensor([ids_of(model, *documents)])).logits[0]
        start = 0
        for document in documents:
            expected = []
            for k in range(len(document) // size + 1):
                before = [document[i * size : (i + 1) * size] for i in range(k)]
                inputs = [model.patch_embedding.first]
                inputs += [model.patch_embedding.embedding.weight[list(patch)].flatten() for patch in before]
                outputs = model.trunk(torch.stack(inputs), torch.arange(k + 1), naive_attention)
                slices = [model.slices(part) for part in outputs[k].chunk(size)]
                patch = document[k * size : (k + 1) * size]
                table = model.local_model.embedding.weight
                local = [slices[0] + table[256]]
                local += [slices[j] + table[patch[j - 1]] for j in range(1, min(size, len(patch) + 1))]
                states = model.local_model.transformer(torch.stack(local), torch.arange(len(local)), naive_attention)
                expected.append(model.local_model.lm_head(states))
            expected = torch.cat(expected)
            assert len(expected) == len(document) + 1
            found = logits[start : start + len(expected)]
            assert float((found - expected).abs().max()) <= tolerance(expected)
            start += len(expected)


ODD_TEXTS = {
    "zeros": bytes(200),
    "one letter": b"aaaa" * 50,
    "no spaces": b"".join(random_documents(1, [300])[0].split()),
    "one word": b"word",
    "one byte": b"\x00",
    "all 0xFF": b"\xff" * 70,
    "invalid UTF-8": b"\xc3(\xa0\xa1\xe2\x28\xa1" * 9,
    "every byte": bytes(range(256)),
}


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
@every_kind
def test_odd_texts_have_finite_nats_and_gradients_and_count_whole(kind, text):
    model = sharp_baseline(kind).train()
    num_bytes = 0
    for batch in evaluation_batches(cut_windows(corpus_of(text), 64), row_positions=65, batch_rows=2):
        predicted = model.predict_targets(batch.byte_ids, batch.targets)
        assert bool(predicted.nats.isfinite().all())
        assert torch.equal(
            predicted.nats[~batch.is_byte & (batch.targets != SEPARATOR)].detach(),
            torch.zeros(()).expand(int((~batch.is_byte & (batch.targets != SEPARATOR)).sum())),
        )
        predicted.nats.sum().backward()
        num_bytes += batch.num_bytes
    assert num_bytes == len(text)
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


@every_kind
def test_a_pass_of_padding_alone_has_no_nats_and_no_gradient(kind):
    """A rank without rows runs one, so that all ranks make the same passes."""
    model, batch = sharp_baseline(kind).train(), padding_batch(65)
    predicted = model.predict_targets(batch.byte_ids, batch.targets)
    predicted.nats.sum().backward()
    assert not predicted.nats.any()
    assert not any(bool(p.grad.any()) for p in model.parameters() if p.grad is not None)
    assert not predicted.num_commits
    assert not predicted.num_positions


@pytest.mark.parametrize("kind", ["byte", "megabyte"])
def test_nats_of_targets_are_those_of_the_logits(kind):
    model = sharp_baseline(kind)
    batch = next(
        evaluation_batches(
            cut_windows(corpus_of(*random_documents(4, [50, 90])), 64, 10), row_positions=65, batch_rows=9
        )
    )
    with torch.no_grad():
        found = model.predict_targets(batch.byte_ids, batch.targets).nats
        logits = model(batch.byte_ids).logits.log_softmax(-1)
    counted = batch.targets != IGNORED_TARGET
    expected = -logits.gather(2, batch.targets.clamp_min(0)[..., None])[..., 0]
    assert torch.allclose(found[counted], expected[counted])
    assert not found[~counted].any()


@given(seed=seeds, length=st.integers(1, 150), overlap=st.integers(0, 40))
def test_nats_of_a_token_stand_on_its_last_byte_and_every_byte_belongs_to_one_token(seed, length, overlap):
    model = sharp_baseline("bpe", seed=seed % 5)
    text = random_documents(seed, [length])[0]
    windows = cut_windows(corpus_of(text), 64, overlap)
    for index in range(len(windows)):
        (batch,) = evaluation_batches(windows.select(np.array([index])), row_positions=65, batch_rows=1)
        begin = int(windows.bounds.begin[index])
        data, repeated = (
            text[begin : begin + int(windows.bounds.num_bytes[index])],
            int(windows.bounds.num_ignored[index]),
        )
        first, rest = model.tokens.encode(data[:repeated]), model.tokens.encode(data[repeated:])
        with torch.no_grad():
            logits = model(torch.tensor([[SEPARATOR, *first, *rest]])).logits[0].log_softmax(-1)
            found = model.predict_targets(batch.byte_ids, batch.targets).nats[0]
        expected = torch.zeros_like(found)
        place = repeated
        for number, token in enumerate(rest, len(first)):
            place += len(model.tokens.bytes_of[token])
            expected[place - 1] = -logits[number, token]
        assert place == len(data)
        if windows.bounds.is_last[index]:
            expected[-1] = -logits[-1, SEPARATOR]
        assert torch.allclose(found, expected, atol=1e-4)


@every_kind
def test_a_pass_counts_its_positions_and_pairs(kind):
    model = sharp_baseline(kind)
    documents = random_documents(2, [30, 13])
    (batch,) = evaluation_batches(cut_windows(corpus_of(*documents), 64), row_positions=65, batch_rows=3)
    predicted = model.predict_targets(batch.byte_ids, batch.targets)
    per_document = [
        len(ids_of(model, document)) if kind != "megabyte" else len(document) // model.patch_size + 1
        for document in documents
    ]
    assert predicted.num_commits == sum(per_document)
    assert predicted.trunk_pairs == sum(count * (count + 1) // 2 for count in per_document)
    assert predicted.num_positions == 30 + 13 + 2
    assert (predicted.num_scratchpads, predicted.output, predicted.entropy_head_nats) == (0, None, None)


@every_kind
def test_seeds_decide_the_weights_and_the_first_loss_is_that_of_equal_odds(kind):
    config = tiny_baseline_config(kind, trunk_dim=96, byte_dim=64)
    first, again, other = (build_model(config, seed=seed) for seed in (1, 1, 2))
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        if not name.endswith("norm.weight") and value.numel() > 1:
            assert not torch.equal(value, other.state_dict()[name]), name
    documents = random_documents(3, [200])
    first.prepare([np.frombuffer(documents[0], dtype=np.uint8)])
    logits = first(torch.tensor([ids_of(first, *documents)])).logits
    outcomes = int(logits[0, 0].isfinite().sum())
    nats = -logits[..., :outcomes].log_softmax(-1)
    assert float(nats.detach().mean()) == pytest.approx(math.log(outcomes), rel=0.02)


def test_a_bpe_model_never_predicts_a_token_that_it_did_not_learn():
    model = build_model(tiny_baseline_config("bpe", bpe_vocab_size=2000))
    model.prepare([np.frombuffer(b"the cat and the hat", dtype=np.uint8)])
    used = len(model.tokens)
    assert 257 < used < 300
    assert model.highest_id == used - 1
    logits = model(torch.tensor([ids_of(model, b"the cat")])).logits
    assert bool(logits[..., :used].isfinite().all())
    assert bool((logits[..., used:] == -torch.inf).all())


def test_a_bpe_model_without_tokens_says_so():
    model = build_model(tiny_baseline_config("bpe"))
    with pytest.raises(InputError, match="no tokens yet"):
        patchpad.score(model, b"text")


@pytest.mark.unchecked
@every_kind
def test_every_dial_is_refused_with_the_kind_and_infinities_change_nothing(kind):
    model = sharp_baseline(kind)
    said = f"a `{kind}` model has no scratchpads"
    _, state = patchpad.prefill(model, [b"abc"])
    for call in (
        lambda: patchpad.prefill(model, [b"a"], scratchpad_threshold_nats=1.5),
        lambda: patchpad.step(model, [97], state, scratchpad_threshold_nats=1.5),
        lambda: patchpad.score(model, b"abc", scratchpad_threshold_nats=1.5),
        lambda: patchpad.evaluate(model, corpus_of(b"abc"), scratchpad_threshold_nats=1.5),
        lambda: patchpad.complete(model, ["a"], scratchpad_threshold_nats=1.5),
    ):
        with pytest.raises(InputError, match=said):
            call()
    for call in (
        lambda: patchpad.complete(model, ["a"], compute=0.5),
        lambda: patchpad.calibrate(model, corpus_of(b"abc")),
    ):
        with pytest.raises(GenerationError, match=said):
            call()
    with pytest.raises(InputError, match="nan"):
        patchpad.score(model, b"abc", scratchpad_threshold_nats=math.nan)
    points = patchpad.evaluate(model, corpus_of(b"some text"), scratchpad_threshold_nats=[math.inf, -math.inf])
    assert points[0].bits_per_byte == points[1].bits_per_byte
    assert patchpad.complete(model, ["a"], scratchpad_threshold_nats=math.inf) == patchpad.complete(model, ["a"])


@pytest.mark.parametrize("kind", ["byte", "megabyte"])
def test_ids_that_break_the_contract_are_refused(kind):
    model = sharp_baseline(kind)
    for ids, words in (([[1, 2]], "starts with another id"), ([[256, 258]], "258"), ([[256, 257, 1]], "padding")):
        with pytest.raises(InputError, match=words):
            model(torch.tensor(ids))


def test_blocks_of_attention_begin_at_the_first_document_that_they_touch():
    start = torch.tensor([[0] * 300 + [300] * 400])
    assert DocumentAttention(start).blocks == [(0, 256, 0), (256, 512, 0), (512, 700, 300)]
    other = torch.tensor([[0] * 200 + [200] * 500])
    assert DocumentAttention(torch.cat((start, other))).blocks == [(0, 256, 0), (256, 512, 0), (512, 700, 200)]
