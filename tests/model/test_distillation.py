"""What the local decoder learns from the source: its cross-entropy to what the source expects behind ended tokens."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.config import IGNORED_TARGET, PADDING, SEPARATOR, VOCAB_SIZE
from patchpad.testing import as_row, random_documents, sharp_model, tiny_model_config, tolerance

KINDS = ("tied", "own")


def first_bytes(model, output):
    """Probability of each id behind a slot, summed over the vocabulary; the end of a document is the last one."""
    tokens = model.source_tokens
    allowed = [number for number, text in enumerate(tokens.bytes_of) if text or number in tokens.ends]
    found = torch.zeros(VOCAB_SIZE, dtype=torch.float64)
    shares = (model.source_head_weight[allowed] @ output).double().softmax(dim=0)
    for number, share in zip(allowed, shares.tolist(), strict=True):
        found[SEPARATOR if number in tokens.ends else tokens.bytes_of[number][0]] += share
    return found


def run(model, ids, threshold):
    """Returns the output of a pass in training mode, and what the local decoder said."""
    said = []
    hook = model.local_decoder.register_forward_hook(lambda module, inputs, output: said.append(output))
    model.train()
    decisions = model.decisions_at(torch.tensor(threshold))
    output = model.run(ids, decisions, keep_activations=True)
    model.eval()
    hook.remove()
    return output, said[0]


@pytest.mark.parametrize("kind", KINDS)
@given(
    seed=st.integers(0, 1000),
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    threshold=st.sampled_from([math.inf, 3.0, -math.inf]),
)
def test_at_the_last_byte_of_each_open_token_the_decoder_is_compared_with_what_the_source_expects(
    kind, seed, lengths, threshold
):
    model = sharp_model(tiny_model_config("tokens", "entropy", source_head=kind))
    documents = [b"the cat is the hat", *random_documents(seed, lengths)]
    ids = torch.tensor(
        [
            [*as_row(*documents), PADDING, PADDING],
            *[[SEPARATOR] + [PADDING] * (1 + sum(map(len, documents)) + len(documents))],
        ]
    )
    with torch.no_grad():
        output, said = run(model, ids, threshold)
    tokens, outputs = output.facts.tokens, output.activations.slot_outputs
    expected = torch.zeros(ids.shape)
    slot, num_found = 0, 0
    for row in range(len(ids)):
        end = 0  # column of the last byte of the newest commit
        for column in range(ids.shape[1]):
            if ids[row, column] == SEPARATOR:
                end = column
            for _ in range(int(tokens.num_commits[row, column])):
                token = int(tokens.commit_tokens[slot])
                end += len(model.source_tokens.text_of([token]))
                if tokens.open_token[row, end] == token:
                    share = first_bytes(model, outputs[slot])
                    local = said[row, end, :VOCAB_SIZE].double().log_softmax(dim=0)
                    expected[row, end] = -(share * local).sum()
                    num_found += 1
                slot += 1
    assert num_found >= 4  # "the", " cat", and so on
    assert float((output.source_nats - expected).abs().max()) <= tolerance(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_source_learns_nothing_from_it(kind):
    model = sharp_model(tiny_model_config("tokens", "entropy", source_head=kind))
    output, _ = run(model, torch.tensor([as_row(b"the cat is in the hat, and they say so")]), math.inf)
    output.source_nats.sum().backward()
    assert model.local_decoder.lm_head.weight.grad.abs().sum() > 0
    before_decoder = (model.context_to_bytes.projection.weight, model.local_encoder.embedding.weight)
    assert all(weight.grad.abs().sum() > 0 for weight in before_decoder)
    if kind == "own":
        assert model.source_head.own.weight.grad is None


def test_it_is_asked_for_in_training_alone_and_counts_no_ignored_target():
    model = sharp_model(tiny_model_config("tokens", "entropy", source_head="tied"))
    ids = torch.tensor([as_row(b"the cat is in the hat")])
    targets = torch.cat((ids[:, 1:], torch.full((1, 1), IGNORED_TARGET)), dim=1)
    assert model.predict_targets(ids, targets).source_nats is None
    model.train()
    everything = model.predict_targets(ids, targets).source_nats
    assert (everything > 0).sum() > 3
    targets[:, :10] = IGNORED_TARGET
    some = model.predict_targets(ids, targets).source_nats
    assert bool((some[:, :10] == 0).all())
    assert torch.equal(some[:, 10:], everything[:, 10:])
    without = sharp_model(tiny_model_config("tokens", "entropy")).train()
    assert without.predict_targets(ids, targets).source_nats is None
