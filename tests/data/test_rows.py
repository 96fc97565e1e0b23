"""Rows of a source by number: every window in one of them, found from lengths alone, whatever their number."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchpad.data import cut_windows, rows
from patchpad.data.rows import SourceRows
from patchpad.testing.zeros import zero_corpus


def windows_of(source: SourceRows, numbers) -> list[list[tuple[int, int]]]:
    """Document and ordinal of each window of each row."""
    document, ordinal, sizes = source.windows(np.array(numbers))
    pairs = list(zip(document.tolist(), ordinal.tolist(), strict=True))
    ends = sizes.cumsum().tolist()
    return [pairs[end - size : end] for end, size in zip(ends, sizes.tolist(), strict=True)]


@pytest.fixture(params=[False, True], ids=["", "in_small_blocks"])
def _blocks(request, monkeypatch):
    if request.param:
        sizes = {
            "FULL_BLOCK": 2,
            "OPENED_AT_ONCE": 4,
            "PACKED_BLOCK_ROWS": 2,
            "KEPT_DOCUMENTS": 1,
            "ORDERED_AT_ONCE": 3,
        }
        for name, size in sizes.items():
            monkeypatch.setattr(rows, name, size)


@pytest.mark.usefixtures("_blocks")
@given(
    st.lists(st.tuples(st.integers(1, 70), st.integers(0, 99)), min_size=1, max_size=30), st.integers(1, 20), st.data()
)
def test_every_window_is_in_one_row_and_every_row_once_in_an_epoch(documents, context, data):
    lengths = [length for length, _ in documents]
    prompts = data.draw(st.sampled_from([None, [prompt % length for length, prompt in documents]]))
    source = SourceRows(zero_corpus(lengths, prompts), context, seed=3)
    found = windows_of(source, range(source.num_rows))
    expected = cut_windows(zero_corpus(lengths, prompts), context).bounds
    windows = list(zip(expected.document.tolist(), (expected.begin // context).tolist(), strict=True))
    assert sum(map(Counter, found), Counter()) == Counter(windows)
    positions = dict(zip(windows, expected.num_positions.tolist(), strict=True))
    assert all(1 <= sum(positions[window] for window in row) <= context + 1 for row in found)
    first = data.draw(st.integers(0, 2 * source.num_rows))
    visited = source.visited(0, 3 * source.num_rows)
    for epoch in np.split(visited, 3):
        assert sorted(epoch.tolist()) == list(range(source.num_rows))
    assert source.visited(first, source.num_rows).tolist() == visited[first : first + source.num_rows].tolist()


def test_rows_of_a_terabyte_are_found_from_its_lengths_alone():
    lengths = [2**40, 300, 2**39 + 17]
    source = SourceRows(zero_corpus(lengths), 256, seed=0)
    assert source.num_full == (2**40 // 256 - 1) + 1 + 2**39 // 256
    assert source.num_rows == source.num_full + 2  # a last window of 256 bytes alone, 44 and 17 together
    per_document = np.array([2**32 - 1, 1, 2**31])
    for row in (0, 2**32 - 2, 2**32 - 1, 2**32, source.num_full - 1):
        document = int(np.searchsorted(per_document.cumsum(), row, side="right"))
        assert windows_of(source, [row]) == [[(document, row - int(per_document[:document].sum()))]]
    visited = source.visited(3 * source.num_rows - 2, 1000)
    assert len(np.unique(visited[2:])) == 998
    assert visited.std() > source.num_rows / 4


def test_a_name_and_a_seed_give_an_order_and_a_packing_of_their_own():
    def order_of(**key) -> list:
        source = SourceRows(zero_corpus([9] * 100), 32, **key)
        return windows_of(source, source.visited(0, 10))

    assert order_of(seed=0, name="books") == order_of(seed=0, name="books")
    assert order_of(seed=0, name="books") != order_of(seed=0, name="code")
    assert order_of(seed=0, name="books") != order_of(seed=1, name="books")


def test_short_documents_leave_little_padding_in_many_blocks():
    lengths = np.random.default_rng(0).lognormal(4.5, 1, 20_000).astype(np.int64) + 1
    source = SourceRows(zero_corpus(lengths), 256, seed=0)
    positions = int(lengths.sum()) + len(lengths)
    share = 1 - positions / (257 * source.num_rows)
    full_rows_lack_one = source.num_full / (257 * source.num_rows)
    assert share - full_rows_lack_one < 0.005
