"""Invariant 2: the one-pass forward equals prefill plus steps, for every patchifier and trigger, batched and packed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import patchpad
from patchpad.config import SEPARATOR
from patchpad.data import Corpus
from patchpad.errors import InputError
from patchpad.registry import PATCHIFIERS
from patchpad.testing import (
    ALL_OPTIONS,
    OPTIONS,
    as_row,
    assert_steps_equal_pass,
    batch_of,
    ragged_packed_rows,
    random_documents,
    sharp_model,
    step_through,
    thresholds_to_try,
    tiny_baseline_config,
    tiny_model_config,
    tolerance,
)

TRIGGERS = ["entropy", "never", "always", "random", "stride", "whitespace", "entropy_jump"]
CHECKED = {("fixed", "entropy"), ("hnet", "random"), ("tokens", "entropy")}
"""Pairs whose shapes are checked too; the others step in a third of the time without."""
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
WITH_SOURCE_HEAD = [
    pytest.param("tokens", trigger, {"source_head": kind}, id=f"tokens-{trigger}, source head {kind}")
    for trigger, kind in (("entropy", "tied"), ("entropy", "own"), ("ending_entropy", "tied"))
]
WITH_ALL_OPTIONS = [pytest.param(kind, "entropy", ALL_OPTIONS, id=f"{kind}-all options") for kind in ("fixed", "hnet")]
WITH_AN_OPTION = [
    pytest.param("spacebyte", "entropy", options, id=name, marks=[] if name == "windows" else pytest.mark.unchecked)
    for name, options in OPTIONS.items()
]
every_combination = pytest.mark.parametrize(
    ("patchifier", "trigger", "options"), PLAIN + WITH_SOURCE_HEAD + WITH_ALL_OPTIONS
)
every_option = pytest.mark.parametrize(("patchifier", "trigger", "options"), WITH_AN_OPTION)
seeds = st.integers(0, 9_999)
document_lengths = st.lists(st.integers(0, 30), min_size=1, max_size=2)


@every_combination
@given(seed=seeds, lengths=document_lengths, data=st.data())
def test_one_pass_equals_prefill_and_steps_for_ragged_packed_rows(patchifier, trigger, options, seed, lengths, data):
    assert_one_pass_equals_steps(patchifier, trigger, options, seed, lengths, data)


@every_option
@given(seed=seeds, lengths=document_lengths, data=st.data())
def test_one_pass_equals_prefill_and_steps_with_each_option(patchifier, trigger, options, seed, lengths, data):
    assert_one_pass_equals_steps(patchifier, trigger, options, seed, lengths, data)


def assert_one_pass_equals_steps(patchifier, trigger, options, seed, lengths, data):
    model = sharp_model(tiny_model_config(patchifier, trigger, **options), seed=seed % 5)
    rows, first = ragged_packed_rows(seed, lengths)
    splits = [data.draw(st.integers(0, length)) for length in first]
    for threshold in thresholds_to_try(model, batch_of(rows)):
        assert_steps_equal_pass(model, rows, splits, threshold)


@pytest.mark.unchecked
@every_combination
def test_the_trunk_cache_holds_one_entry_per_committed_patch(patchifier, trigger, options):
    model = sharp_model(tiny_model_config(patchifier, trigger, **options))
    row = as_row(*random_documents(4, [40]))
    for threshold in thresholds_to_try(model, torch.tensor([row])):
        with torch.no_grad():
            layout = model(torch.tensor([row]), threshold).layout
        _, state = step_through(model, [row], [13], threshold)
        assert state.num_patches.tolist() == [int(layout.num_commits)]
        assert state.trunk_calls.tolist() == [layout.num_slots]
        assert state.trunk.capacity <= int(state.num_patches) + 64


def test_caches_of_any_threshold_are_the_same():
    model = sharp_model(tiny_model_config("spacebyte", "entropy"))
    row = as_row(*random_documents(9, [90]))
    states = [step_through(model, [row], [7], threshold)[1] for threshold in (math.inf, -math.inf)]
    num_patches = int(states[0].num_patches)
    assert num_patches > 3
    first, second = (torch.stack(state.trunk.keys)[:, :, :, :num_patches] for state in states)
    assert float((first - second).abs().max()) <= 1e-5 * max(1.0, float(first.abs().max()))


def test_threshold_may_change_at_every_step_and_differ_by_row():
    model = sharp_model(tiny_model_config("fixed", "entropy"))
    rows = [as_row(document) for document in random_documents(2, [40, 40, 40])]
    middle = thresholds_to_try(model, torch.tensor(rows))[0]
    per_byte = torch.full((3, 41), middle)
    per_byte[0, ::2], per_byte[1], per_byte[2, 20:] = math.inf, -math.inf, math.inf
    with torch.no_grad():
        expected = model(torch.tensor(rows), per_byte).logits
    logits, state = patchpad.prefill(model, [b""] * 3, scratchpad_threshold_nats=per_byte[:, 0])
    for position in range(1, 41):
        ids = [row[position] for row in rows]
        logits, state = patchpad.step(model, ids, state, scratchpad_threshold_nats=per_byte[:, position])
        assert float((logits - expected[:, position]).abs().max()) <= tolerance(expected)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "patchifier", ["fixed", *(pytest.param(kind, marks=pytest.mark.slow) for kind in PATCHIFIERS if kind != "fixed")]
)
def test_parity_at_8192_bytes(patchifier):
    model = sharp_model(tiny_model_config(patchifier, "entropy", patch_size=16, max_patch_size=24))
    row = as_row(*random_documents(1, [8192]))
    ids = torch.tensor([row])
    threshold = thresholds_to_try(model, ids)[0]
    with torch.no_grad():
        output = model(ids, threshold)
    assert 0.05 < float(output.layout.scratchpad_mask.float().mean()) < 0.6
    allowed = tolerance(output.logits)
    for split in (0, 8000):
        stop = 8193 if split else 400
        seen, _ = step_through(model, [row[:stop]], [split], threshold)
        assert max(float((logits - output.logits[0, position]).abs().max()) for _, position, logits in seen) <= allowed


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "text",
    [b"", b"x", bytes(20), b"\xff" * 20, b"\xc3(\xa0\xa1\xe2\x28\xa1", b"a" * 70, bytes(range(256))],
    ids=["empty", "one byte", "zeros", "all 0xFF", "invalid UTF-8", "longer than every window", "every byte"],
)
@pytest.mark.parametrize("patchifier", list(PATCHIFIERS))
def test_odd_texts_step_as_they_pass(patchifier, text):
    model = sharp_model(tiny_model_config(patchifier, "entropy"))
    row = as_row(text)
    threshold = thresholds_to_try(model, torch.tensor([as_row(text + b" some more text")]))[0]
    with torch.no_grad():
        expected = model(torch.tensor([row]), threshold).logits
    for split in {len(text) // 2, len(text), *([0] if len(text) < 100 else [])}:
        seen, _ = step_through(model, [row], [split], threshold)
        assert max(float((logits - expected[0, position]).abs().max()) for _, position, logits in seen) <= tolerance(
            expected
        )


def test_only_rows_that_end_a_patch_or_fire_run_the_trunk():
    model = sharp_model(tiny_model_config("fixed", "never", patch_size=4))
    counts = []
    model.trunk.register_forward_hook(lambda module, inputs, output: counts.append(len(output)))
    _, state = patchpad.prefill(model, [b"abc", b"ab", b"", b"abc"])
    counts.clear()
    for value in b"wxyz":
        _, state = patchpad.step(model, [value] * 4, state)
    assert counts == [
        2,
        1,
        1,
    ]  # rows 0 and 3 at the first step, row 1 at the second, none at the third, row 2 at the fourth


def test_clones_and_selections_are_independent():
    model = sharp_model(tiny_model_config("spacebyte", "entropy"))
    _, state = patchpad.prefill(model, [b"hello wor", b"one two thr"])
    branch = state.clone()
    first, _ = patchpad.step(model, list(b"la"), state)
    for _ in range(9):
        _, state = patchpad.step(model, list(b"x "), state)
    again, _ = patchpad.step(model, list(b"la"), branch.clone())
    assert torch.equal(first, again)
    swapped, _ = patchpad.step(model, list(b"al"), branch.select([1, 0]))
    assert float((swapped - first.flip(0)).abs().max()) <= tolerance(first)


def test_a_separator_begins_a_new_document():
    model = sharp_model(tiny_model_config("spacebyte", "entropy_jump"))
    _, state = patchpad.prefill(model, [b"something before it"])
    logits, state = patchpad.step(model, [SEPARATOR], state)
    fresh, _ = patchpad.prefill(model, [b""])
    assert float((logits - fresh).abs().max()) <= tolerance(fresh)
    assert state.num_patches.tolist() == [0]


def test_wrong_ids_and_thresholds_are_refused_with_the_allowed_values():
    model = sharp_model(tiny_model_config("fixed", "entropy"))
    _, state = patchpad.prefill(model, [b"abc", b"d"])
    for ids, words in (([1], "one id per row"), ([1, 257], "0 to 256"), ([1, -1], "0 to 256")):
        with pytest.raises(InputError, match=words):
            patchpad.step(model, ids, state)
    with pytest.raises(InputError, match="the state has no rows"):
        patchpad.step(model, [], state.select([]))
    with pytest.raises(InputError, match="nan"):
        patchpad.step(model, [1, 2], state, scratchpad_threshold_nats=math.nan)
    with pytest.raises(InputError, match="shape"):
        patchpad.step(model, [1, 2], state, scratchpad_threshold_nats=torch.zeros(3))
    with pytest.raises(InputError, match="no prompt"):
        patchpad.prefill(model, [])
    with pytest.raises(InputError, match="takes no threshold in nats"):
        patchpad.prefill(sharp_model(tiny_model_config("fixed", "stride")), [b"a"], scratchpad_threshold_nats=1.5)


@pytest.mark.unchecked
@pytest.mark.parametrize("ids", [[97.9, 98.2], [True, False], b"ab", ["a", "b"], None])
def test_ids_of_a_step_that_are_no_integers_are_refused(ids):
    model = sharp_model(tiny_model_config("fixed", "entropy"))
    _, state = patchpad.prefill(model, [b"abc", b"d"])
    with pytest.raises(InputError, match=r"next_bytes is .*; allowed: integers, one id per row"):
        patchpad.step(model, ids, state)


@pytest.mark.unchecked
@pytest.mark.parametrize("rows", [[2], [-1], [0.5], torch.tensor([False, True]), [[0]], "a"])
def test_a_selection_that_names_no_places_is_refused(rows):
    _, state = patchpad.prefill(sharp_model(tiny_model_config("fixed", "entropy")), [b"abc", b"d"])
    with pytest.raises(InputError, match=r"rows is .*; allowed: a list of places from 0 to 1"):
        state.select(rows)


@pytest.mark.parametrize("kind", ["patch", "byte", "megabyte"])
def test_logits_may_be_written_into(kind):
    model = sharp_model(tiny_model_config("fixed", "entropy") if kind == "patch" else tiny_baseline_config(kind))
    for one in patchpad.prefill(model, [b"abc"]), patchpad.step(model, [1], patchpad.prefill(model, [b"abc"])[1]):
        one[0][:, SEPARATOR] = -math.inf
        assert not one[0].is_inference()


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_a_document_that_begins_in_a_step_has_its_null_context_in_the_precision_of_a_prefill(monkeypatch):
    for home in ("patch_stepper", "kernels"):
        monkeypatch.setattr(f"patchpad.inference.{home}.autocast", lambda _: torch.autocast("cpu", torch.bfloat16))
    model = sharp_model(tiny_model_config("fixed", "entropy"))
    no_scratchpads = {"scratchpad_threshold_nats": math.inf}
    expected, fresh = patchpad.prefill(model, [b""], **no_scratchpads)
    logits, state = patchpad.step(model, [SEPARATOR], patchpad.prefill(model, [b"some text"])[1], **no_scratchpads)
    assert torch.equal(state.context, fresh.context)
    assert torch.equal(logits, expected)


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda given: torch.tensor(given, dtype=torch.float64)])
def test_thresholds_of_rows_may_be_any_sequence_of_numbers(kind):
    model = sharp_model(tiny_model_config("fixed", "entropy"))
    given = [math.inf, -math.inf]
    rows = batch_of([as_row(b"abcdefg"), as_row(b"hijklmn")])
    expected = model(rows, torch.tensor(given)).layout.scratchpad_mask
    assert expected.sum(dim=1).tolist() == [0, int(expected.sum())] != [0, 0]
    assert torch.equal(model(rows, kind(given)).layout.scratchpad_mask, expected)
    logits, state = patchpad.prefill(model, [b"abc", b"d"], scratchpad_threshold_nats=kind(given))
    reference, other = patchpad.prefill(model, [b"abc", b"d"], scratchpad_threshold_nats=torch.tensor(given))
    assert torch.equal(logits, reference)
    logits, _ = patchpad.step(model, [1, 2], state, scratchpad_threshold_nats=kind(given))
    reference, _ = patchpad.step(model, [1, 2], other, scratchpad_threshold_nats=torch.tensor(given))
    assert torch.equal(logits, reference)


@pytest.mark.unchecked
@pytest.mark.parametrize("number", [np.float32(1.5), np.int64(2), torch.tensor(1.5), 2, 1e300])
def test_a_threshold_may_be_a_number_of_any_kind(number):
    model = sharp_model(tiny_model_config("fixed", "entropy"))
    rows = batch_of([as_row(b"abcdefg")])
    assert torch.equal(model(rows, number).logits, model(rows, float(number)).logits)
    assert patchpad.complete(model, ["abc"], max_new_bytes=3, scratchpad_threshold_nats=number) == patchpad.complete(
        model, ["abc"], max_new_bytes=3, scratchpad_threshold_nats=float(number)
    )
    _, state = patchpad.prefill(model, [b"abc"], scratchpad_threshold_nats=number)
    patchpad.step(model, [1], state, scratchpad_threshold_nats=number)
    corpus = Corpus((np.frombuffer(b"abcdefg", dtype=np.uint8),), ("text",))
    points = [patchpad.evaluate(model, corpus, scratchpad_threshold_nats=one) for one in (number, float(number))]
    assert points[0] == points[1]


@pytest.mark.unchecked
def test_a_threshold_that_is_no_number_is_refused():
    with pytest.raises(InputError, match="scratchpad_threshold_nats is 'much'; allowed: None, a number"):
        patchpad.prefill(sharp_model(tiny_model_config()), [b"a"], scratchpad_threshold_nats="much")


@pytest.mark.unchecked
@pytest.mark.parametrize("wrong", [lambda rows: rows[0], lambda rows: rows.int(), lambda rows: rows[None]])
def test_ids_of_another_shape_or_type_are_refused(wrong):
    model = sharp_model(tiny_model_config("fixed", "entropy", ngram_vocab_size=64))
    rows = batch_of([as_row(b"abcdefg")])
    with pytest.raises(InputError, match=r"allowed: \[batch, byte\] of torch.int64"):
        model(wrong(rows))


@pytest.mark.parametrize("max_patch_size", [7, pytest.param(24, marks=pytest.mark.unchecked)])
def test_prefill_and_steps_keep_the_open_piece_also_where_some_of_it_is_committed(max_patch_size):
    model = sharp_model(tiny_model_config("tokens", "entropy", max_patch_size=max_patch_size))
    (document,) = random_documents(1, [50])
    with torch.no_grad():
        facts = model(torch.tensor([as_row(document)])).facts.tokens
    assert int((facts.piece_bytes > facts.open_bytes).sum()) > 20  # tokens of a word that goes on
    _, stepped = patchpad.prefill(model, [b""])
    for end, value in enumerate(document, 1):
        _, stepped = patchpad.step(model, [value], stepped)
        _, whole = patchpad.prefill(model, [document[:end]])
        found, expected = stepped.patch_counts, whole.patch_counts
        for name in ("open_length", "open_bytes", "piece_length", "piece_bytes", "num_patches", "scratchpad_bytes"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), (end, name)
        assert int(found.piece_bytes) == int(facts.piece_bytes[0, end])


@pytest.mark.parametrize("prompt", [b"", b"two words"])
def test_a_prompt_without_scratchpads_is_read_with_a_source_head(prompt):
    model = sharp_model(tiny_model_config("tokens", "ending_entropy", source_head="tied"))
    _, state = patchpad.prefill(model, [prompt], scratchpad_threshold_nats=math.inf)
    logits, _ = patchpad.step(model, [97], state, scratchpad_threshold_nats=math.inf)
    expected, _ = patchpad.prefill(model, [prompt + b"a"], scratchpad_threshold_nats=math.inf)
    assert torch.allclose(logits, expected, atol=1e-5)
