"""What options of the model keep between steps, and when they drop it."""

import math

import pytest
import torch

import patchpad
from patchpad import DecodingState
from patchpad.config import SEPARATOR
from patchpad.testing import ALL_OPTIONS, random_documents, sharp_model, thresholds_to_try, tiny_model_config, tolerance

TEXT = b"abc defg hijklmnopqrstuv, wx"
"""Stepped through at -inf: every byte that ends no patch is a scratchpad."""


def all_options_model(patchifier="spacebyte"):
    return sharp_model(tiny_model_config(patchifier, "entropy", **ALL_OPTIONS))


@pytest.mark.unchecked
def test_prefill_fills_what_steps_would_have_kept():
    model = all_options_model()
    prompts = [b"", b"ab", TEXT, TEXT[:-1], b"hello there w", b"hello ", random_documents(3, [50])[0]]
    ids = torch.tensor([[SEPARATOR, *random_documents(3, [50])[0]]])
    for threshold in thresholds_to_try(model, ids):
        logits, ragged = patchpad.prefill(model, prompts, scratchpad_threshold_nats=threshold)
        for row, prompt in enumerate(prompts):
            found, stepped = patchpad.prefill(model, [b""], scratchpad_threshold_nats=threshold)
            for value in prompt:
                found, stepped = patchpad.step(model, [value], stepped, scratchpad_threshold_nats=threshold)
            assert float((found[0] - logits[row]).abs().max()) <= tolerance(logits)
            assert torch.equal(ragged.recent_ids[row], stepped.recent_ids[0])


def test_committed_keys_do_not_depend_on_scratchpads():
    model = all_options_model()
    states = []
    for threshold in (math.inf, -math.inf):
        _, state = patchpad.prefill(model, [TEXT[:9]], scratchpad_threshold_nats=threshold)
        for value in TEXT[9:]:
            _, state = patchpad.step(model, [value], state, scratchpad_threshold_nats=threshold)
        states.append(state)
    num_patches = int(states[0].num_patches)
    assert num_patches > 3
    first, second = (torch.stack(state.trunk.keys)[:, :, :, :num_patches] for state in states)
    assert float((first - second).abs().max()) <= 1e-5 * max(1.0, float(first.abs().max()))


def test_clones_selections_and_joined_states_carry_what_options_keep():
    model = all_options_model("fixed")

    def begin(text):
        return patchpad.prefill(model, [text], scratchpad_threshold_nats=-math.inf)[1]

    texts = [b"hello wor", b"one two th"]
    joined = DecodingState.join([begin(text) for text in texts])
    assert joined.patch_counts.ends_patch.tolist() == [False, True]
    branch = joined.clone()
    together, _ = patchpad.step(model, list(b"la"), joined, scratchpad_threshold_nats=-math.inf)
    swapped, _ = patchpad.step(model, list(b"al"), branch.clone().select([1, 0]), scratchpad_threshold_nats=-math.inf)
    again, _ = patchpad.step(model, list(b"la"), branch, scratchpad_threshold_nats=-math.inf)
    alone = [
        patchpad.step(model, [value], begin(text), scratchpad_threshold_nats=-math.inf)[0][0]
        for text, value in zip(texts, b"la", strict=True)
    ]
    assert torch.equal(again, together)
    for found in (together, swapped.flip(0)):
        assert float((found - torch.stack(alone)).abs().max()) <= tolerance(together)


def test_caches_have_the_sizes_of_their_options():
    _, state = patchpad.prefill(all_options_model(), [TEXT])
    assert state.trunk.keys[0].shape[1::2] == state.trunk.values[0].shape[1::2] == (2, 4)
    assert [cache.keys[0].shape[1] for cache in (state.encoder, state.entropy_head, state.decoder)] == [3, 8, 5]
    assert state.recent_ids.tolist() == [list(TEXT[:-9:-1])]
    _, plain = patchpad.prefill(sharp_model(tiny_model_config("spacebyte", "entropy", ngram_vocab_size=0)), [TEXT])
    assert plain.recent_ids.tolist() == [[]]
