"""Batches: every window once an epoch, in an order that follows from seed and number alone."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.config import PADDING, SEPARATOR
from patchpad.data import Batch, Corpus, TrainingBatches, cut_windows, evaluation_batches
from patchpad.data.loader import make_batch, pack_rows
from patchpad.data.windows import IGNORED_TARGET


def windows_of(lengths, context=16):
    """Windows of documents that all differ."""
    arrays = tuple(((np.arange(length) * 5) + number).astype(np.uint8) for number, length in enumerate(lengths))
    return cut_windows(Corpus(arrays, tuple(map(str, range(len(arrays))))), context)


def rows_of(batch: Batch) -> list[tuple[int, ...]]:
    """Rows of inputs without their padding."""
    return [tuple(row[row != PADDING].tolist()) for row in batch.byte_ids]


def windows_in(batch: Batch) -> Counter:
    """Each window of a batch: its inputs and its targets."""
    found: Counter = Counter()
    for ids, targets in zip(batch.byte_ids.tolist(), batch.targets.tolist(), strict=True):
        starts = [place for place, value in enumerate(ids) if value == SEPARATOR]
        ends = [*starts[1:], ids.index(PADDING) if PADDING in ids else len(ids)]
        for start, end in zip(starts, ends, strict=True):
            found[tuple(ids[start:end]), tuple(targets[start:end])] += 1
    return found


def all_windows(windows) -> Counter:
    pairs = (windows.ids_and_targets(index) for index in range(len(windows)))
    return Counter((tuple(ids.tolist()), tuple(targets.tolist())) for ids, targets in pairs)


@given(st.lists(st.integers(1, 17), min_size=1, max_size=40), st.integers(0, 99))
def test_packing_places_every_window_once_and_keeps_rows_within_their_limit(sizes, seed):
    sizes = np.array(sizes)
    order = np.random.default_rng(seed).permutation(len(sizes))
    rows = pack_rows(sizes, order, 17)
    assert np.concatenate(rows).tolist() == order.tolist()
    for number, row in enumerate(rows):
        assert 1 <= sizes[row].sum() <= 17
        if number + 1 < len(rows):  # greedy: what follows would not have fitted
            assert sizes[row].sum() + sizes[rows[number + 1][0]] > 17


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 5))
def test_evaluation_visits_every_window_once_in_document_order(lengths, batch_rows):
    windows = windows_of(lengths)
    batches = list(evaluation_batches(windows, row_positions=17, batch_rows=batch_rows))
    assert sum((windows_in(batch) for batch in batches), Counter()) == all_windows(windows)
    assert sum(batch.num_bytes for batch in batches) == sum(lengths)
    assert sum(batch.num_targets for batch in batches) == sum(lengths) + len(lengths)
    assert all(batch.byte_ids.shape[0] <= batch_rows and batch.byte_ids.shape[1] <= 17 for batch in batches)
    joined = [value for batch in batches for row in rows_of(batch) for value in row]
    in_order = [value for index in range(len(windows)) for value in windows.ids_and_targets(index)[0].tolist()]
    assert joined == in_order


def test_padding_stands_at_the_end_of_rows_and_is_never_a_target():
    windows = windows_of([3, 9, 1])
    batch = make_batch(windows, [np.array([0]), np.array([1, 2])])
    assert batch.byte_ids[0].tolist() == [SEPARATOR, 0, 5, 10] + [PADDING] * 8
    assert batch.targets[0].tolist() == [0, 5, 10, SEPARATOR] + [IGNORED_TARGET] * 8
    assert batch.byte_ids.shape == (2, 12)
    assert PADDING not in batch.targets


def test_rows_of_a_fixed_width_hold_the_same_and_more_padding():
    windows = windows_of([3, 9, 1, 30])
    options = {"row_positions": 17, "batch_rows": 2, "seed": 0}
    narrow, wide = (TrainingBatches(windows, **options, width=width) for width in (None, 128))
    for index in range(5):
        expected, found = narrow.batch(index), wide.batch(index)
        assert found.byte_ids.shape == found.targets.shape == (2, 128)
        assert rows_of(found) == rows_of(expected)
        width = expected.byte_ids.shape[1]
        assert (found.byte_ids[:, width:] == PADDING).all()
        assert (found.targets[:, width:] == IGNORED_TARGET).all()
        assert (found.num_targets, found.num_bytes) == (expected.num_targets, expected.num_bytes)


def test_counts_of_a_batch_are_known_without_its_tensors():
    windows = windows_of([3, 9, 1])
    batch = make_batch(windows, [np.array([0]), np.array([1, 2])])
    assert (batch.num_targets, batch.num_bytes, batch.num_bytes_read) == (13 + 3, 13, 13)
    longer = make_batch(windows_of([20]), [np.array([0]), np.array([1])])
    assert longer.num_bytes == longer.num_bytes_read + 1, "the last byte of a full window is a target alone"
    moved = batch.to(torch.device("meta"))
    assert (moved.num_targets, moved.num_bytes, moved.num_bytes_read) == (16, 13, 13)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 4), st.integers(0, 2**63 - 1))
def test_each_epoch_covers_every_window_exactly_once(lengths, batch_rows, seed):
    windows = windows_of(lengths)
    batches = TrainingBatches(windows, row_positions=17, batch_rows=batch_rows, seed=seed)
    per_epoch = len(batches.rows)
    rows = [row for index in range(3 * per_epoch) for row in batches.batch(index).byte_ids.split(1)]
    targets = [row for index in range(3 * per_epoch) for row in batches.batch(index).targets.split(1)]
    for epoch in range(3):
        chosen = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        seen = sum((windows_in(Batch.of(rows[number], targets[number])) for number in chosen), Counter())
        assert seen == all_windows(windows)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=12),
    st.integers(1, 6),
    st.lists(st.integers(0, 6), max_size=4),
    st.sampled_from([None, 128]),
)
def test_ranks_share_the_rows_of_a_batch_at_one_width_and_know_its_counts(lengths, batch_rows, cuts, width):
    batches = TrainingBatches(windows_of(lengths), row_positions=17, batch_rows=batch_rows, seed=0, width=width)
    bounds = [0, *sorted(min(cut, batch_rows) for cut in cuts), batch_rows]
    for index in range(3):
        whole, counts = batches.batch(index), batches.counts(index)
        parts = [batches.batch(index, range(a, b)) for a, b in itertools.pairwise(bounds)]
        assert torch.equal(torch.cat([part.byte_ids for part in parts]), whole.byte_ids)
        assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)
        assert counts.num_targets == whole.num_targets == sum(part.num_targets for part in parts)
        assert counts.num_bytes == whole.num_bytes == sum(part.num_bytes for part in parts)
        assert counts.num_bytes_read == whole.num_bytes_read == sum(part.num_bytes_read for part in parts)
        assert counts.num_positions == whole.byte_ids.numel()


def test_batch_follows_from_its_number_alone():
    windows = windows_of(range(1, 60))
    straight = TrainingBatches(windows, row_positions=17, batch_rows=3, seed=4)
    in_order = [straight.batch(index) for index in range(60)]
    for index in (59, 0, 31, 30):
        fresh = TrainingBatches(windows, row_positions=17, batch_rows=3, seed=4).batch(index)
        again = straight.batch(index)
        for batch in (fresh, again):
            assert torch.equal(batch.byte_ids, in_order[index].byte_ids)
            assert torch.equal(batch.targets, in_order[index].targets)


def test_epochs_and_seeds_have_orders_of_their_own():
    windows = windows_of(range(1, 60))
    batches = TrainingBatches(windows, row_positions=17, batch_rows=1, seed=4)
    per_epoch = len(batches.rows)
    epochs = [[rows_of(batches.batch(epoch * per_epoch + n))[0] for n in range(per_epoch)] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]
    other = TrainingBatches(windows, row_positions=17, batch_rows=1, seed=5)
    others = [rows_of(other.batch(number))[0] for number in range(len(other.rows))]
    assert sorted(others) != sorted(epochs[0]), "another seed packs other windows into a row"


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_rows_do_not_depend_on_how_many_make_a_batch(rows):
    windows = windows_of(range(1, 60))
    one = TrainingBatches(windows, row_positions=17, batch_rows=1, seed=0)
    several = TrainingBatches(windows, row_positions=17, batch_rows=rows, seed=0)
    expected = [row for index in range(3 * rows) for row in rows_of(one.batch(index))]
    assert [row for index in range(3) for row in rows_of(several.batch(index))] == expected


def test_zero_bytes_are_inputs_and_targets_like_any_other():
    zeros = Corpus((np.zeros(40, dtype=np.uint8),), ("zeros",))
    batches = TrainingBatches(cut_windows(zeros, 16), row_positions=17, batch_rows=4, seed=0)
    batch = batches.batch(0)
    assert batch.num_bytes == int((batch.targets == 0).sum())
    assert sum(b.num_bytes for b in evaluation_batches(cut_windows(zeros, 16), row_positions=17, batch_rows=4)) == 40
    assert int((batch.byte_ids == 0).sum()) > 0
