"""The baselines' full pass equals prefill and steps, for ragged and packed rows, at any split."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import patchpad
from patchpad.config import PADDING, SEPARATOR
from patchpad.errors import InputError
from patchpad.testing import BASELINE_KINDS, ids_of, random_documents, sharp_baseline, tolerance

every_kind = pytest.mark.parametrize("kind", BASELINE_KINDS)


def rows_of(model, seed: int, lengths: list[int]) -> tuple[list[bytes], list[list[int]]]:
    """Prompts, and rows of ids that begin with them; every second row goes on with another document."""
    prompts = random_documents(seed, lengths)
    rows = []
    for number, prompt in enumerate(prompts):
        more, other = random_documents(seed + 1 + number, [30, 11])
        rows.append(ids_of(model, prompt) + ids_of(model, more)[1:] + (ids_of(model, other) if number % 2 else []))
    return prompts, rows


def full_pass(model, rows: list[list[int]]) -> torch.Tensor:
    width = max(map(len, rows))
    fill = PADDING if model.config.kind != "bpe" else model.padding_id
    with torch.no_grad():
        return model(torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])).logits


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(found, expected, rtol=0, atol=tolerance(expected[expected.isfinite()]))


@every_kind
@given(seed=st.integers(0, 9_999), lengths=st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_one_pass_equals_prefill_and_steps_for_ragged_packed_rows(kind, seed, lengths):
    model = sharp_baseline(kind, seed=seed % 5)
    prompts, rows = rows_of(model, seed, lengths)
    expected = full_pass(model, rows)
    logits, state = patchpad.prefill(model, prompts)
    live = list(range(len(rows)))
    at = [len(ids_of(model, prompt)) for prompt in prompts]
    num_seen = 0
    while True:
        for place, row in enumerate(live):
            assert close(logits[place], expected[row, at[row] - 1]), (row, at[row])
            num_seen += 1
        staying = [place for place, row in enumerate(live) if at[row] < len(rows[row])]
        if not staying:
            break
        state = state.select(staying)
        live = [live[place] for place in staying]
        logits, state = patchpad.step(model, [rows[row][at[row]] for row in live], state)
        for row in live:
            at[row] += 1
    assert num_seen >= len(rows) * 10


@pytest.mark.unchecked
@every_kind
def test_caches_hold_one_entry_per_trunk_call_of_the_document_and_grow_by_blocks(kind):
    model = sharp_baseline(kind)
    document = random_documents(4, [400])[0]
    row = ids_of(model, document)
    expected = full_pass(model, [row])
    _, state = patchpad.prefill(model, [document[:3]])
    begin = len(ids_of(model, document[:3]))
    row = ids_of(model, document[:3]) + ids_of(model, document[3:])[1:]
    expected = full_pass(model, [row])
    for place in range(begin, len(row)):
        logits, state = patchpad.step(model, [row[place]], state)
        assert close(logits[0], expected[0, place])
    entries = len(row) if kind != "megabyte" else 400 // model.patch_size + 1
    assert state.num_patches.tolist() == state.trunk_calls.tolist() == [entries]
    assert 64 < entries <= state.trunk.capacity <= entries + 64
    _, state = patchpad.step(model, [SEPARATOR], state)
    assert state.num_patches.tolist() == [1]
    assert state.trunk_calls.tolist() == [entries + 1]


def test_megabyte_calls_its_global_model_only_where_a_patch_is_complete():
    model = sharp_baseline("megabyte")
    counts = []
    model.trunk.register_forward_hook(lambda module, inputs, output: counts.append(len(output)))
    _, state = patchpad.prefill(model, [b"abc", b"ab", b"", b"abc"])
    counts.clear()
    for value in b"wxyz":
        _, state = patchpad.step(model, [value] * 4, state)
    assert counts == [2, 1, 1]  # rows 0 and 3 at the first step, row 1 at the second, row 2 at the fourth


@every_kind
def test_clones_and_selections_are_independent(kind):
    model = sharp_baseline(kind)
    _, state = patchpad.prefill(model, [b"hello wor", b"one two thr"])
    branch = state.clone()
    first, _ = patchpad.step(model, list(b"la"), state)
    for _ in range(9):
        _, state = patchpad.step(model, list(b"x "), state)
    again, _ = patchpad.step(model, list(b"la"), branch.clone())
    assert torch.equal(first, again)
    swapped, _ = patchpad.step(model, list(b"al"), branch.select([1, 0]))
    assert close(swapped, first.flip(0))


@every_kind
def test_ids_out_of_range_are_refused(kind):
    model = sharp_baseline(kind)
    _, state = patchpad.prefill(model, [b"abc"])
    highest = model.highest_id
    assert highest == (SEPARATOR if kind != "bpe" else len(model.tokens) - 1)
    for wrong in (highest + 1, -1):
        with pytest.raises(InputError, match=f"0 to {highest}"):
            patchpad.step(model, [wrong], state)
    patchpad.step(model, [highest], state)
