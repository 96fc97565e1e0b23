"""`extend` equals so many steps: logits, decisions, and every step that comes after, for every model."""

import math
import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import patchpad
from patchpad.config import SEPARATOR
from patchpad.errors import InputError
from patchpad.inference.row_state import RowState
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

TRIGGERS = ["entropy", "never", "always", "random", "stride", "whitespace", "entropy_jump"]
CHECKED = {("fixed", "entropy"), ("hnet", "entropy_jump"), ("tokens", "entropy")}
"""Pairs whose shapes are checked too."""


def marks_of(patchifier: str, trigger: str) -> list[pytest.MarkDecorator]:
    """Every patchifier and every trigger is in the default run, but not every pair."""
    if (patchifier, trigger) in CHECKED:
        return []
    is_common = trigger == "entropy" or patchifier == "spacebyte"
    return [pytest.mark.unchecked] if is_common else [pytest.mark.unchecked, pytest.mark.slow]


COMBINATIONS = [
    pytest.param(patchifier, trigger, {}, id=f"{patchifier}-{trigger}", marks=marks_of(patchifier, trigger))
    for patchifier in PATCHIFIERS
    for trigger in TRIGGERS
]
WITH_OPTIONS = [
    pytest.param("hnet", "entropy", ALL_OPTIONS, id="all options", marks=pytest.mark.unchecked),
    *(
        pytest.param(
            "tokens", trigger, {"source_head": "tied"}, id=f"{trigger}, source head", marks=pytest.mark.unchecked
        )
        for trigger in ("entropy", "ending_entropy")
    ),
    *(
        pytest.param("spacebyte", "entropy", options, id=name, marks=pytest.mark.unchecked)
        for name, options in OPTIONS.items()
    ),
]
seeds = st.integers(0, 9_999)
lengths_of_rows = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 25)), min_size=2, max_size=4)


def steps_of(
    model, state: RowState, texts: Sequence[bytes], threshold
) -> tuple[list[list[torch.Tensor]], list[RowState]]:
    """Steps each row alone; returns the logits after each id, and the state at each row's own end."""
    logits: list[list[torch.Tensor]] = [[] for _ in texts]
    ends = []
    for row, text in enumerate(texts):
        alone = state.select([row])
        one = threshold[row] if isinstance(threshold, list) else threshold
        ids = model.encode_prompt(text) if model.config.kind == "bpe" else list(text)
        for value in ids:
            found, alone = patchpad.step(model, [value], alone, scratchpad_threshold_nats=one)
            logits[row].append(found[0])
        ends.append(alone)
    return logits, ends


def assert_extends_as_it_steps(model, state: RowState, texts: Sequence[bytes], threshold) -> None:
    """Fails unless an extension has the logits of the steps, their counts, and the logits of what follows."""
    expected, ends = steps_of(model, state, texts, threshold)
    logits, state = patchpad.extend(model, texts, state, scratchpad_threshold_nats=threshold)
    assert logits.shape[:2] == (len(texts), max(map(len, expected)))
    assert not logits.is_inference()
    for row, seen in enumerate(expected):
        for place, one in enumerate(seen):
            difference = float((logits[row, place] - one).abs().max())
            assert difference <= tolerance(one), (row, place, difference)
    for name in ("position", "num_patches", "trunk_calls"):
        assert getattr(state, name).tolist() == [int(getattr(end, name)) for end in ends], name
    together = type(state).join(ends)
    for value in b"ab z":
        wanted, together = patchpad.step(model, [value] * len(texts), together, scratchpad_threshold_nats=threshold)
        found, state = patchpad.step(model, [value] * len(texts), state, scratchpad_threshold_nats=threshold)
        assert float((found - wanted).abs().max()) <= tolerance(wanted)
        assert torch.equal(state.ints, together.ints)


def assert_extends_as_the_pass(model, prompts: Sequence[bytes], texts: Sequence[bytes], threshold) -> None:
    """The same beside the full pass, which is quick, and with one that equals steps: see `test_stepping`."""
    rows = [ids_for(model, *parts, b"ab z") for parts in zip(prompts, texts, strict=True)]
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[model.padding_id] * (width - len(row))] for row in rows])
    with torch.no_grad():
        expected = (model(ids) if model.config.kind != "patch" else model(ids, threshold)).logits
    allowed = tolerance(expected[expected.isfinite()])
    dial = {"scratchpad_threshold_nats": threshold}
    _, state = patchpad.prefill(model, prompts, **dial)
    logits, state = patchpad.extend(model, texts, state, **dial)
    at = [len(ids_for(model, prompt)) for prompt in prompts]
    for row, text in enumerate(texts):
        for place in range(len(ids_for(model, text)) - 1):
            assert_close(logits[row, place], expected[row, at[row]], allowed)
            at[row] += 1
    assert state.position.tolist() == [place - 1 for place in at]
    for value in ids_for(model, b"ab z")[1:]:
        logits, state = patchpad.step(model, [value] * len(texts), state, **dial)
        for row, one in enumerate(logits):
            assert_close(one, expected[row, at[row]], allowed)
            at[row] += 1


def assert_close(found: torch.Tensor, expected: torch.Tensor, allowed: float) -> None:
    assert float(torch.where(found == expected, 0, found - expected).abs().max()) <= allowed


def ids_for(model, *texts: bytes) -> list[int]:
    """A document as ids, each of its texts by itself."""
    encode = model.encode_prompt if model.config.kind == "bpe" else list
    return [SEPARATOR, *(value for text in texts for value in encode(text))]


def draw_texts(seed: int, lengths: list[tuple[int, int]]) -> tuple[list[bytes], list[bytes]]:
    """Prompts and what follows them; one row always has nothing to read."""
    lengths = [*lengths, (7, 0), (0, 30)]
    prompts = random_documents(seed, [before for before, _ in lengths])
    return prompts, random_documents(seed + 1, [after for _, after in lengths])


@pytest.mark.parametrize(("patchifier", "trigger", "options"), COMBINATIONS + WITH_OPTIONS)
@given(seed=seeds, lengths=lengths_of_rows)
def test_an_extension_equals_the_pass_for_ragged_rows(patchifier, trigger, options, seed, lengths):
    model = sharp_model(tiny_model_config(patchifier, trigger, **options), seed=seed % 5)
    prompts, texts = draw_texts(seed, lengths)
    everything = batch_of([as_row(one + two + b"ab z") for one, two in zip(prompts, texts, strict=True)])
    thresholds = thresholds_to_try(model, everything)
    for threshold in thresholds if (patchifier, trigger) in CHECKED else thresholds[:1]:
        assert_extends_as_the_pass(model, prompts, texts, threshold)


def assert_goes_back(model, prompts: Sequence[bytes], texts: Sequence[bytes], threshold, source: random.Random) -> None:
    """Fails unless a state after the first bytes of an extension is that of an extension of just these."""
    stepper, dial = stepper_for(model), {"scratchpad_threshold_nats": threshold}
    thresholds = row_thresholds(model, threshold, len(prompts))
    ids = [stepper.encode(text) for text in texts]
    lengths = [source.randrange(len(row) + 1) for row in ids]
    _, before = patchpad.prefill(model, prompts, **dial)
    wanted = before.clone()
    if any(lengths):
        kept = [row[:length] for row, length in zip(ids, lengths, strict=True)]
        wanted = stepper.extend(wanted, kept, thresholds).advance()
    found = stepper.extend(before, ids, thresholds).advance(lengths)
    for value in ids_for(model, b"ab zab z")[1:]:
        assert torch.equal(found.ints, wanted.ints)
        assert torch.allclose(found.floats, wanted.floats, atol=1e-5, rtol=1e-5)
        expected, wanted = patchpad.step(model, [value] * len(texts), wanted, **dial)
        logits, found = patchpad.step(model, [value] * len(texts), found, **dial)
        assert_close(logits, expected, tolerance(expected[expected.isfinite()]))


@pytest.mark.parametrize(("patchifier", "trigger", "options"), COMBINATIONS + WITH_OPTIONS)
@given(seed=seeds, lengths=lengths_of_rows)
def test_an_extension_goes_back_to_any_of_its_bytes(patchifier, trigger, options, seed, lengths):
    model = sharp_model(tiny_model_config(patchifier, trigger, **options), seed=seed % 5)
    prompts, texts = draw_texts(seed, lengths)
    everything = batch_of([as_row(one + two + b"ab zab z") for one, two in zip(prompts, texts, strict=True)])
    thresholds = thresholds_to_try(model, everything)
    for threshold in thresholds if (patchifier, trigger) in CHECKED else thresholds[:1]:
        assert_goes_back(model, prompts, texts, threshold, random.Random(seed))


@pytest.mark.parametrize("kind", BASELINE_KINDS)
@given(seed=seeds, lengths=lengths_of_rows)
def test_an_extension_of_a_baseline_goes_back_to_any_of_its_ids(kind, seed, lengths):
    prompts, texts = draw_texts(seed, lengths)
    assert_goes_back(sharp_baseline(kind, seed=seed % 5), prompts, texts, None, random.Random(seed))


def test_an_extension_says_how_often_it_called_the_trunk():
    model = sharp_model(tiny_model_config("fixed", "never", patch_size=4))
    stepper, threshold = stepper_for(model), torch.tensor([math.inf])
    calls = []
    model.trunk.register_forward_hook(lambda *_: calls.append(1))
    for text, passes in ((b"d", 1), (b"e", 0), (b"efghijklmnop", 1)):
        _, state = patchpad.prefill(model, [b"abc"])
        if text == b"e":
            _, state = patchpad.extend(model, [b"d"], state)
        calls.clear()
        assert stepper.extend(state, [list(text)], threshold).trunk_passes == len(calls) == passes
    with pytest.raises(ValueError, match=r"lengths are \[2\]; allowed: one for each row, at most \[1\]"):
        stepper.extend(state, [[1]], threshold).advance([2])


@pytest.mark.parametrize("kind", BASELINE_KINDS)
@given(seed=seeds, lengths=lengths_of_rows)
def test_an_extension_of_a_baseline_equals_the_pass(kind, seed, lengths):
    prompts, texts = draw_texts(seed, lengths)
    assert_extends_as_the_pass(sharp_baseline(kind, seed=seed % 5), prompts, texts, None)


@pytest.fixture(scope="module", params=["entropy", "hnet", "tokens", *BASELINE_KINDS])
def model_and_threshold(request):
    if request.param in BASELINE_KINDS:
        return sharp_baseline(request.param), None
    model = sharp_model(tiny_model_config(request.param, "entropy"))
    return model, thresholds_to_try(model, batch_of([as_row(text) for text in random_documents(8, [90] * 3)]))[0]


@pytest.mark.unchecked
def test_extensions_follow_each_other_beyond_every_window(model_and_threshold):
    model, threshold = model_and_threshold
    dial = {"scratchpad_threshold_nats": threshold}
    texts = random_documents(8, [200] * 3)
    cuts = [[0, 9, 10, 100, 108, 200], [0, 0, 50, 51, 199, 200], [0, 64, 64, 80, 170, 180]]
    parts = [[text[begin:end] for begin, end in pairwise(places)] for text, places in zip(texts, cuts, strict=True)]
    rows = [ids_for(model, *several) for several in parts]
    ids = torch.tensor([[*row, *[model.padding_id] * (max(map(len, rows)) - len(row))] for row in rows])
    with torch.no_grad():
        expected = (model(ids) if threshold is None else model(ids, threshold)).logits
    allowed = tolerance(expected[expected.isfinite()])
    _, state = patchpad.prefill(model, [several[0] for several in parts], **dial)
    at = [len(ids_for(model, several[0])) for several in parts]
    for turn in range(1, 5):
        logits, state = patchpad.extend(model, [several[turn] for several in parts], state, **dial)
        for row, several in enumerate(parts):
            for place in range(len(ids_for(model, several[turn])) - 1):
                assert_close(logits[row, place], expected[row, at[row]], allowed)
                at[row] += 1
    assert at == list(map(len, rows))


@pytest.mark.unchecked
def test_states_may_be_chosen_joined_and_cloned_before_they_are_extended(model_and_threshold):
    model, threshold = model_and_threshold
    dial = {"scratchpad_threshold_nats": threshold}
    _, state = patchpad.prefill(model, [b"hello wor", b"one two thr"], **dial)
    _, other = patchpad.prefill(model, [b""], **dial)
    _, other = patchpad.step(model, [SEPARATOR], other, **dial)
    joined = type(state).join([state.select([1, 0, 1]), other])
    kept = joined.clone()
    assert_extends_as_it_steps(model, joined, [b"ld", b"", b"ee four five six", b"anew"], threshold)
    assert_extends_as_it_steps(model, kept, [b"", b"ld and more", b"x", b""], threshold)


def test_thresholds_may_differ_by_row():
    model = sharp_model(tiny_model_config("fixed", "entropy"))
    texts = random_documents(2, [40, 40, 40])
    middle = thresholds_to_try(model, batch_of([as_row(text + b"ab z") for text in texts]))[0]
    thresholds = [middle, math.inf, -math.inf]
    _, state = patchpad.prefill(model, [text[:5] for text in texts], scratchpad_threshold_nats=thresholds)
    assert_extends_as_it_steps(model, state, [text[5:] for text in texts], thresholds)


def test_the_trunk_runs_once_for_all_slots_and_keeps_commits_alone():
    model = sharp_model(tiny_model_config("fixed", "always", patch_size=4))
    counts = []
    model.trunk.register_forward_hook(lambda module, inputs, output: counts.append(len(output)))
    _, state = patchpad.prefill(model, [b"abc", b"ab"])
    counts.clear()
    _, state = patchpad.extend(model, [b"d", b"cdefgh"], state)
    assert counts == [7]
    assert state.num_patches.tolist() == [1, 2]
    assert patchpad.extend(model, [b"", b""], state)[0].shape == (2, 0, 257)
    assert counts == [7]


def test_an_extension_that_fails_leaves_the_state_as_it_was(monkeypatch):
    model = sharp_model(tiny_model_config("hnet", "entropy"))
    _, state = patchpad.prefill(model, [b"hello wor", b"one two thr"])
    expected, _ = patchpad.extend(model, [b"ld", b"ee and more"], state.clone())

    def fails(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("patchpad.inference.patch_extension._state_after", fails)
        with pytest.raises(KeyboardInterrupt):
            patchpad.extend(model, [b"other", b"texts that are longer"], state)
    again, _ = patchpad.extend(model, [b"ld", b"ee and more"], state)
    assert torch.equal(again, expected)


@pytest.mark.unchecked
def test_what_cannot_be_read_is_refused():
    model = sharp_model(tiny_model_config("fixed", "entropy"))
    _, state = patchpad.prefill(model, [b"abc", b"d"])
    with pytest.raises(InputError, match="next_bytes has 1 rows; allowed: 2"):
        patchpad.extend(model, [b"a"], state)
    with pytest.raises(InputError, match="the state has no rows"):
        patchpad.extend(model, [], state.select([]))
    for wrong in ([SEPARATOR, 1], [[1], [SEPARATOR]]):
        with pytest.raises(InputError, match=r"a row of next_bytes is of type .*; allowed: str or bytes"):
            patchpad.extend(model, wrong, state)
    with pytest.raises(InputError, match="nan"):
        patchpad.extend(model, [b"a", b"b"], state, scratchpad_threshold_nats=math.nan)
