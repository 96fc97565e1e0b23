"""Prompts that are read in blocks give what one pass gives, for every model, and hold no more than a block."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import patchpad
from patchpad.inference.blocks import read_in_blocks, read_prompts
from patchpad.inference.engine import Engine, Request
from patchpad.inference.sampling import Sampling
from patchpad.inference.steppers import stepper_for
from patchpad.inference.stepping import row_thresholds
from patchpad.registry import PATCHIFIERS
from patchpad.testing import (
    ALL_OPTIONS,
    BASELINE_KINDS,
    OPTIONS,
    as_row,
    batch_of,
    random_documents,
    sharp_baseline,
    sharp_model,
    thresholds_to_try,
    tiny_model_config,
    tolerance,
)

MODELS = {
    **{f"{patchifier}-entropy": (patchifier, "entropy", {}) for patchifier in PATCHIFIERS},
    **{f"{patchifier}-entropy_jump": (patchifier, "entropy_jump", {}) for patchifier in PATCHIFIERS},
    "hnet-stride": ("hnet", "stride", {}),
    "all options": ("hnet", "entropy", ALL_OPTIONS),
    "grouped queries": ("spacebyte", "always", OPTIONS["grouped queries"]),
    "source head": ("tokens", "entropy", {"source_head": "tied"}),
    "ending_entropy": ("tokens", "ending_entropy", {"source_head": "own"}),
    **dict.fromkeys(BASELINE_KINDS),
}
DEFAULT = {"entropy-entropy", "hnet-entropy_jump", "source head", "bpe", "megabyte"}
"""Those that the default run tries."""
every_model = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in DEFAULT else pytest.mark.unchecked) for name in MODELS]
)


def model_of(name: str, seed: int, prompts: list[bytes]):
    """A model, and thresholds for its rows that lie away from what they are compared with."""
    if MODELS[name] is None:
        return sharp_baseline(name, seed=seed % 5), None
    patchifier, trigger, options = MODELS[name]
    model = sharp_model(tiny_model_config(patchifier, trigger, **options), seed=seed % 5)
    return model, thresholds_to_try(model, batch_of([as_row(text + b"ab z") for text in prompts]))[0]


def in_blocks(monkeypatch, positions: int, least: int = 1) -> None:
    monkeypatch.setattr("patchpad.inference.blocks.CPU_BLOCK_POSITIONS", positions)
    monkeypatch.setattr("patchpad.inference.blocks.SMALLEST_BLOCK", least)


@every_model
@given(seed=st.integers(0, 9_999), lengths=st.lists(st.integers(0, 90), min_size=1, max_size=3))
def test_blocks_of_any_size_give_what_one_pass_gives(name, seed, lengths):
    lengths = [*lengths, 70, 0]
    prompts = random_documents(seed, lengths)
    model, dial = model_of(name, seed, prompts)
    threshold = row_thresholds(model, dial, len(prompts))
    stepper = stepper_for(model)
    wanted, whole = stepper.prefill(prompts, threshold)
    with pytest.MonkeyPatch.context() as patched:
        in_blocks(patched, positions=random.Random(seed).randrange(3, 60), least=seed % 3 + 1)
        found, state = read_prompts(stepper, prompts, threshold)
        assert float((found - wanted).abs().nan_to_num().max()) <= tolerance(wanted[wanted.isfinite()])
        for value in b"ab z":
            assert torch.equal(state.ints, whole.ints)
            ids = [value] * len(prompts)
            if model.config.kind == "bpe":
                ids = [model.encode_prompt(bytes([value]))[0]] * len(prompts)
            wanted, whole = patchpad.step(model, ids, whole, scratchpad_threshold_nats=dial)
            found, state = patchpad.step(model, ids, state, scratchpad_threshold_nats=dial)
            assert float((found - wanted).abs().nan_to_num().max()) <= tolerance(wanted[wanted.isfinite()])


@pytest.mark.parametrize("name", ["entropy-entropy", "bpe"])
def test_an_extension_in_blocks_has_the_logits_of_one(name, monkeypatch):
    prompts, texts = random_documents(3, [9, 0, 20]), random_documents(4, [70, 33, 0])
    model, dial = model_of(name, 3, [one + two for one, two in zip(prompts, texts, strict=True)])
    _, state = patchpad.prefill(model, prompts, scratchpad_threshold_nats=dial)
    wanted, _ = patchpad.extend(model, texts, state.clone(), scratchpad_threshold_nats=dial)
    in_blocks(monkeypatch, positions=16)
    found, state = patchpad.extend(model, texts, state, scratchpad_threshold_nats=dial)
    assert found.shape == wanted.shape
    assert not found.is_inference()
    assert float((found - wanted).abs().nan_to_num().max()) <= tolerance(wanted[wanted.isfinite()])


class LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that is made, views left out."""

    num_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        given = {part.untyped_storage().data_ptr() for part in tensors_in((args, kwargs))}
        new = [part for part in tensors_in(made) if part.untyped_storage().data_ptr() not in given]
        self.num_bytes = max([self.num_bytes, *(part.nbytes for part in new)])
        return made


def tensors_in(tree) -> list[torch.Tensor]:
    return [part for part in tree_leaves(tree) if isinstance(part, torch.Tensor)]


@pytest.mark.unchecked
@pytest.mark.parametrize("name", ["fixed-entropy", "hnet-stride", "source head", "byte", "megabyte"])
def test_what_a_block_holds_does_not_grow_with_what_lies_before_it(name, monkeypatch):
    (text,) = random_documents(1, [600])
    model, dial = model_of(name, 1, [text])
    in_blocks(monkeypatch, positions=50)
    monkeypatch.setattr("patchpad.inference.span_attention.MOST_SCORES", 8)
    stepper, threshold = stepper_for(model), row_thresholds(model, dial, 1)
    largest = []
    for length in (200, 600):
        _, state = stepper.prefill([b""], threshold)
        state.trunk = state.trunk.with_room(700)
        with LargestTensor() as seen, torch.inference_mode():
            for _ in read_in_blocks(stepper, state, [list(text[:length])], threshold):
                pass
        largest.append(seen.num_bytes)
    assert largest[0] == largest[1] > 0


@pytest.mark.unchecked
def test_the_trunk_cache_is_widened_once_and_not_for_each_block(monkeypatch):
    (text,) = random_documents(1, [4000])
    model, dial = model_of("fixed-entropy", 1, [text[:400]])
    in_blocks(monkeypatch, positions=100)
    stepper, threshold = stepper_for(model), row_thresholds(model, dial, 1)
    _, state = stepper.prefill([b""], threshold)
    blocks = list(read_in_blocks(stepper, state, [list(text)], threshold))
    capacities = [block.state.trunk.capacity for block in blocks]
    assert len(set(capacities)) <= 3
    assert capacities[-1] < 1.2 * 4000 / 5 + 64


@pytest.mark.unchecked
@pytest.mark.parametrize("name", ["fixed-entropy", "bpe"])
def test_rows_can_be_cancelled_between_the_blocks_of_a_prompt_while_others_go_on(name, monkeypatch):
    (text,) = random_documents(2, [200])
    model, _ = model_of(name, 2, [text])
    in_blocks(monkeypatch, positions=20)
    sampling, engine = Sampling(temperature=0.0), Engine(model, batch_rows=3)

    def request(prompt: bytes) -> Request:
        return Request(prompt=prompt, max_new_bytes=40, threshold=torch.inf, sampling=sampling, seed=0)

    (other,) = engine.submit([request(b"short")])
    engine.advance()
    long, late = engine.submit([request(text), request(text[:50])])
    before = len(other.data)
    for _ in range(3):
        engine.advance()
    assert engine.next_to_join is long
    assert len(other.data) > before or other.stop_reason is not None
    engine.cancel(long)
    while not engine.is_done:
        engine.advance()
    assert (long.data, long.stop_reason) == (b"", None)
    monkeypatch.undo()
    engine = Engine(model)
    (alone,) = engine.submit([request(text[:50])])
    while not engine.is_done:
        engine.advance()
    assert (late.data, late.stop_reason) == (alone.data, alone.stop_reason)
