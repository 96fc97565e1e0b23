"""The source's head byte by byte, compared with sums over the vocabulary that are written out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from patchpad.config import PADDING, VOCAB_SIZE
from patchpad.model.source_head import (
    LEAST_ENDED_SHARE,
    SourceHead,
    mixed_logits,
    nodes_since_scratchpad,
    open_scratchpads,
)
from patchpad.patching.vocabulary_trie import DEAD, ROOT, VocabularyTrie
from patchpad.testing import as_row, random_documents, sharp_model, tiny_model_config, tolerance
from patchpad.testing.tokens import tiny_source_tokens

TOKENS = tiny_source_tokens()
TRIE = VocabularyTrie(TOKENS.bytes_of)
TEXTS = {text for text in TOKENS.bytes_of if text}
BEGINNINGS = sorted({text[:length] for text in TEXTS for length in range(len(text) + 1)})


def head() -> SourceHead:
    made = SourceHead(tiny_model_config("tokens", "entropy", max_patch_size=24, source_head="tied"))
    made.use_source_tokens(TOKENS, TRIE)
    return made


WEIGHT = torch.randn(TOKENS.num_ids, 24, generator=torch.Generator().manual_seed(0))


def probabilities(output: torch.Tensor) -> dict[int, float]:
    """Of all tokens that are text or end a document."""
    allowed = [number for number, text in enumerate(TOKENS.bytes_of) if text or number in TOKENS.ends]
    weights = (WEIGHT[allowed] @ output).double().softmax(dim=0)
    return dict(zip(allowed, weights.tolist(), strict=True))


@given(seed=st.integers(0, 1000), picks=st.lists(st.integers(0, len(BEGINNINGS) - 1), min_size=1, max_size=12))
def test_masses_are_sums_over_the_tokens_that_begin_with_the_text(seed, picks):
    made = head()
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(300, 24, generator=generator) * 0.3
    slot = torch.randint(300, (len(picks),), generator=generator)
    texts = [BEGINNINGS[pick] for pick in picks]
    node = torch.tensor([TRIE.node_of(text) for text in texts])
    with torch.no_grad():
        going_on, ending = made.ask(outputs, WEIGHT, slot, node)
    for place, text in enumerate(texts):
        expected, exactly = torch.zeros(257, dtype=torch.float64), 0.0
        for token, mass in probabilities(outputs[slot[place]]).items():
            data = TOKENS.bytes_of[token]
            if data is None:
                expected[256] += mass if text == b"" else 0.0
                continue
            if data.startswith(text) and len(data) > len(text):
                expected[data[len(text)]] += mass
            if data == text:
                exactly += mass
        torch.testing.assert_close(going_on[place], expected, rtol=0, atol=1e-6)
        assert float(ending[place]) == pytest.approx(exactly, abs=1e-6)


def test_at_the_root_all_masses_add_up_to_one():
    made = head()
    with torch.no_grad():
        going_on, ending = made.ask(torch.randn(3, 24), WEIGHT, torch.arange(3), torch.full((3,), ROOT))
    torch.testing.assert_close(going_on.sum(dim=1), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-6)
    assert ending.tolist() == [0, 0, 0]


def test_what_goes_on_and_what_ends_is_all_that_begins_so():
    made, text = head(), b" the"
    parent, node = TRIE.node_of(text[:-1]), TRIE.node_of(text)
    output = torch.randn(1, 24)
    with torch.no_grad():
        before, _ = made.ask(output, WEIGHT, torch.tensor([0]), torch.tensor([parent]))
        after, ending = made.ask(output, WEIGHT, torch.tensor([0]), torch.tensor([node]))
    assert float(after.sum() + ending) == pytest.approx(float(before[0, text[-1]]), abs=1e-12)
    assert float(ending) > 0


def test_gradients_reach_outputs_and_weights_as_without_pieces(monkeypatch):
    made = head()
    slot, node = torch.arange(300) % 7, torch.tensor([TRIE.node_of(b" t"), TRIE.node_of(b"")] * 150)
    results = []
    for at_once in (2, 1000):
        monkeypatch.setattr("patchpad.model.source_head.SLOTS_AT_ONCE", at_once)
        outputs = torch.randn(7, 24, generator=torch.Generator().manual_seed(1)).requires_grad_()
        weight = WEIGHT.clone().requires_grad_()
        going_on, ending = made.ask(outputs, weight, slot, node)
        loss = (going_on + 1e-9).log().sum() + ending.sum()
        results.append(torch.autograd.grad(loss, (outputs, weight)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
        assert float(one.abs().max()) > 0.1


def test_the_mixture_is_what_its_docstring_says():
    own, going_on = torch.randn(4, 258), torch.rand(4, 257, dtype=torch.float64)
    ended = going_on.sum(dim=1) * torch.tensor([1.0, 0.3, 0.01, LEAST_ENDED_SHARE], dtype=torch.float64)
    weight = ended * own[:, 257].double().exp()
    expected = going_on + weight[:, None] * own[:, :257].double().softmax(dim=1)
    expected = expected / expected.sum(dim=1, keepdim=True)
    torch.testing.assert_close(mixed_logits(own, going_on, ended).exp(), expected.float())
    nothing = torch.tensor([1.0, 1.0, 1.0, 0.0])  # counts as the least share
    torch.testing.assert_close(mixed_logits(own, going_on, ended * nothing).exp(), expected.float())


def test_without_any_mass_the_local_decoder_speaks_alone():
    own = torch.randn(2, 258)
    logits = mixed_logits(own, torch.zeros(2, 257, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(logits, own[:, :257].log_softmax(dim=1))


def test_no_byte_is_impossible_and_gradients_are_finite_where_masses_are_zero():
    own, going_on = torch.randn(1, 258, requires_grad=True), torch.zeros(1, 257, dtype=torch.float64)
    going_on[0, 65] = 1.0
    going_on.requires_grad_()
    logits = mixed_logits(own, going_on, torch.zeros(1, dtype=torch.float64))
    assert float(logits.detach().min()) > -math.inf
    logits[0, 66].backward()
    for tensor in (own, going_on):
        assert bool(tensor.grad.isfinite().all())


def test_children_of_nodes_are_the_nodes_of_longer_texts():
    for text in BEGINNINGS[:: len(BEGINNINGS) // 40]:
        node = torch.full((256,), TRIE.node_of(text))
        expected = [TRIE.node_of(text + bytes([byte])) for byte in range(256)]
        assert TRIE.child(node, torch.arange(256)).tolist() == expected
    assert TRIE.child(torch.tensor([DEAD]), torch.tensor([32])).tolist() == [DEAD]
    assert VocabularyTrie([None]).child(torch.tensor([ROOT]), torch.tensor([32])).tolist() == [DEAD]


def test_masses_are_not_copied_for_each_byte_or_place_of_padding():
    model = sharp_model(tiny_model_config("tokens", "entropy", source_head="tied"))
    row = as_row(b"the cat")
    padded = torch.tensor([row + [PADDING] * 500])
    with torch.no_grad(), LargestTensor() as seen:
        model(padded, -math.inf)
    assert seen.numel == padded.numel() * (VOCAB_SIZE + 1)  # what the local decoder says, with its gate


def test_padding_behind_a_scratchpad_asks_for_no_bytes_since(monkeypatch):
    distances = []

    def noted(trie, byte_ids, lag):
        distances.append(int(lag.max()))
        return nodes_since_scratchpad(trie, byte_ids, lag)

    monkeypatch.setattr("patchpad.model.source_head.nodes_since_scratchpad", noted)
    model = sharp_model(tiny_model_config("tokens", "entropy", source_head="tied"))
    with torch.no_grad():
        logits = model(torch.tensor([as_row(b"the cat") + [PADDING] * 50]), -math.inf).logits
        alone = model(torch.tensor([as_row(b"the cat")]), -math.inf).logits
    assert float((logits[:, :8] - alone).abs().max()) <= tolerance(alone)
    assert distances[0] == distances[1] < len(b"the cat")


@pytest.mark.parametrize("kind", ["tied", "own"])
def test_a_batch_of_padding_alone_gets_through_as_a_rank_without_text_needs_it(kind):
    model = sharp_model(tiny_model_config("tokens", "entropy", source_head=kind))
    padding = torch.full((2, 5), PADDING)
    logits = model.run(padding, model.decisions_at(torch.tensor(-math.inf))).logits
    assert logits.shape == (2, 5, VOCAB_SIZE)
    logits.sum().backward()
    assert bool(logits.isfinite().all())
    assert bool(model.local_decoder.lm_head.weight.grad.isfinite().all())


class LargestTensor(TorchDispatchMode):
    """Notes how many numbers the largest tensor that comes about has."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for part in tree_leaves(found):
            if isinstance(part, torch.Tensor):
                self.numel = max(self.numel, part.numel())
        return found


@given(seed=st.integers(0, 1000), lengths=st.lists(st.integers(0, 30), min_size=1, max_size=3))
def test_the_open_scratchpad_is_the_newest_one_with_no_commit_since(seed, lengths):
    model = sharp_model(tiny_model_config("tokens", "entropy", source_head="tied"))
    ids = torch.tensor([[*as_row(*random_documents(seed, [*lengths, 20])), *[PADDING] * 3]])
    with torch.no_grad():
        output = model(ids, -math.inf)
    layout = output.layout
    lag, place = open_scratchpads(layout)
    newest = None
    for at in range(ids.shape[1]):
        if layout.commits_at[0, at] > 0:
            newest = None
        if layout.scratchpad_mask[0, at]:
            newest = at
        found = None if ids[0, at] == PADDING else newest
        assert (int(lag[0, at]), int(place[0, at])) == ((-1, 0) if found is None else (at - found, found))
