"""Batches: every window once an epoch, in an order that follows from seed and number alone."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.config import PADDING, SEPARATOR
from patchpad.data import Batch, Corpus, TextSource, TrainingBatches, cut_windows, evaluation_batches, loader
from patchpad.data.loader import PackedRows
from patchpad.data.windows import IGNORED_TARGET

CONTEXT = 16


def corpus_of(lengths, prompts=None) -> Corpus:
    """Documents that all differ."""
    arrays = tuple(((np.arange(length) * 5) + number).astype(np.uint8) for number, length in enumerate(lengths))
    return Corpus(arrays, tuple(map(str, range(len(arrays)))), None if prompts is None else np.array(prompts))


def windows_of(lengths, prompts=None):
    return cut_windows(corpus_of(lengths, prompts), CONTEXT)


def batches_of(lengths, batch_rows, seed=0, width=None, prompts=None) -> TrainingBatches:
    corpus = corpus_of(lengths, prompts)
    return TrainingBatches(corpus, context_bytes=CONTEXT, batch_rows=batch_rows, seed=seed, width=width)


def read(windows, rows: list[list[int]]) -> Batch:
    """A batch whose rows hold windows at these indices, which ascend."""
    ends = np.cumsum([len(row) for row in rows])
    bounds = windows.bounds.select(np.concatenate(rows))
    packed = PackedRows(documents=windows.corpus.documents, bounds=bounds, ends=ends)
    return packed.batch(range(len(rows)), packed.width)


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
    return sum((windows_in(read(windows, [[index]])) for index in range(len(windows))), Counter())


documents = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 99)), min_size=1, max_size=12).map(
    lambda pairs: ([length for length, _ in pairs], [prompt % length for length, prompt in pairs])
)
"""Lengths, and prompts that are shorter."""


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 5))
def test_evaluation_visits_every_window_once_in_document_order(lengths, batch_rows):
    windows = windows_of(lengths)
    batches = list(evaluation_batches(windows, row_positions=17, batch_rows=batch_rows))
    assert sum((windows_in(batch) for batch in batches), Counter()) == all_windows(windows)
    assert sum(batch.num_bytes for batch in batches) == sum(lengths)
    assert sum(batch.num_targets for batch in batches) == sum(lengths) + len(lengths)
    assert all(batch.byte_ids.shape[0] <= batch_rows and batch.byte_ids.shape[1] <= 17 for batch in batches)
    joined = [value for batch in batches for row in rows_of(batch) for value in row]
    in_order = [value for index in range(len(windows)) for value in rows_of(read(windows, [[index]]))[0]]
    assert joined == in_order


def test_evaluation_that_packs_few_windows_at_once_gives_the_same_batches(monkeypatch):
    windows = windows_of([3, 60, 1, 30, 5, 5, 5, 2, 90, 4] * 7)
    at_once = list(evaluation_batches(windows, row_positions=17, batch_rows=2))
    monkeypatch.setattr(loader, "WINDOWS_AT_ONCE", 1)
    for found, expected in zip(evaluation_batches(windows, row_positions=17, batch_rows=2), at_once, strict=True):
        assert torch.equal(found.byte_ids, expected.byte_ids)
        assert torch.equal(found.targets, expected.targets)


def test_padding_stands_at_the_end_of_rows_and_is_never_a_target():
    windows = windows_of([3, 9, 1])
    batch = read(windows, [[0], [1, 2]])
    assert batch.byte_ids[0].tolist() == [SEPARATOR, 0, 5, 10] + [PADDING] * 8
    assert batch.targets[0].tolist() == [0, 5, 10, SEPARATOR] + [IGNORED_TARGET] * 8
    assert batch.byte_ids.shape == (2, 12)
    assert PADDING not in batch.targets


def test_rows_of_a_fixed_width_hold_the_same_and_more_padding():
    narrow, wide = (batches_of([3, 9, 1, 30], 2, width=width) for width in (None, 128))
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
    batch = read(windows, [[0], [1, 2]])
    assert (batch.num_targets, batch.num_bytes, batch.num_bytes_read) == (13 + 3, 13, 13)
    longer = read(windows_of([20]), [[0], [1]])
    assert longer.num_bytes == longer.num_bytes_read + 1, "the last byte of a full window is a target alone"
    moved = batch.to(torch.device("meta"))
    assert (moved.num_targets, moved.num_bytes, moved.num_bytes_read) == (16, 13, 13)


def windows_by_row(batches: TrainingBatches, num_rows: int) -> list[Counter]:
    """The windows of each of the first rows of the run."""
    found: list[Counter] = []
    for index in range(-(-num_rows // batches.batch_rows)):
        batch = batches.batch(index)
        found += [
            windows_in(Batch.of(*row)) for row in zip(batch.byte_ids.split(1), batch.targets.split(1), strict=True)
        ]
    return found[:num_rows]


@given(documents, st.integers(1, 4), st.integers(0, 2**63 - 1))
def test_each_epoch_covers_every_window_exactly_once(documents, batch_rows, seed):
    lengths, prompts = documents
    batches = batches_of(lengths, batch_rows, seed, prompts=prompts)
    per_epoch = batches.rows[0].num_rows
    rows = windows_by_row(batches, 3 * per_epoch)
    for epoch in range(3):
        seen = sum(rows[epoch * per_epoch : (epoch + 1) * per_epoch], Counter())
        assert seen == all_windows(windows_of(lengths, prompts))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 99))
def test_changing_the_number_of_ranks_at_any_step_skips_and_repeats_nothing(ranks_of_steps, seed):
    straight = batches_of(range(1, 30), 7, seed)
    for step, num_ranks in enumerate(ranks_of_steps):
        bounds = np.linspace(0, 7, num_ranks + 1).astype(int).tolist()
        resumed = batches_of(range(1, 30), 7, seed)  # each step is resumed by ranks that know its number alone
        parts = [resumed.batch(step, range(*rows)).byte_ids for rows in itertools.pairwise(bounds)]
        assert torch.equal(torch.cat(parts), straight.batch(step).byte_ids)


def test_batch_follows_from_its_number_alone():
    straight = batches_of(range(1, 60), 3, seed=4)
    in_order = [straight.batch(index) for index in range(60)]
    for index in (59, 0, 31, 30):
        for batch in (batches_of(range(1, 60), 3, seed=4).batch(index), straight.batch(index)):
            assert torch.equal(batch.byte_ids, in_order[index].byte_ids)
            assert torch.equal(batch.targets, in_order[index].targets)


def test_epochs_and_seeds_have_orders_of_their_own():
    batches = batches_of(range(1, 60), 1, seed=4)
    per_epoch = batches.rows[0].num_rows
    epochs = [[rows_of(batches.batch(epoch * per_epoch + n))[0] for n in range(per_epoch)] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]
    other = batches_of([5] * 60, 1, seed=5), batches_of([5] * 60, 1, seed=4)
    packed = [sorted(rows_of(part.batch(number))[0] for number in range(part.rows[0].num_rows)) for part in other]
    assert packed[0] != packed[1], "another seed packs other windows into a row"


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_rows_do_not_depend_on_how_many_make_a_batch(rows):
    expected = [row for index in range(3 * rows) for row in rows_of(batches_of(range(1, 60), 1).batch(index))]
    several = batches_of(range(1, 60), rows)
    assert [row for index in range(3) for row in rows_of(several.batch(index))] == expected


def test_what_a_prompt_says_is_read_and_neither_trained_on_nor_counted():
    batches = batches_of([30, 8, 5], 1, prompts=[20, 3, 4])
    seen = windows_by_row(batches, batches.rows[0].num_rows)
    found = {ids: targets for row in seen for ids, targets in row}
    long, short, shortest = (document.tolist() for document in batches.sources[0].corpus.documents)
    assert (
        found
        == {  # the first 16 bytes of the long one are all prompt
            (SEPARATOR, *long[16:]): (*[IGNORED_TARGET] * 4, *long[20:], SEPARATOR),
            (SEPARATOR, *short): (*[IGNORED_TARGET] * 3, *short[3:], SEPARATOR),
            (SEPARATOR, *shortest): (*[IGNORED_TARGET] * 4, *shortest[4:], SEPARATOR),
        }
    )


def test_sources_of_a_mixture_have_epochs_of_their_own_and_the_rows_that_their_weights_say():
    books, code = corpus_of([40, 7, 9]), Corpus((np.full(100, 200, dtype=np.uint8),), ("code",))
    sources = [TextSource(corpus=books, name="books", weight=1.0), TextSource(corpus=code, name="code", weight=3.0)]
    batches = TrainingBatches(sources, context_bytes=CONTEXT, batch_rows=3, seed=0)
    rows = windows_by_row(batches, 120)
    of_code = [row for row in rows if all(targets[0] == 200 for _, targets in row)]
    of_books = [row for row in rows if row not in of_code]
    assert len(of_books) == pytest.approx(30, abs=2)
    assert len(of_books) + len(of_code) == 120
    for part, corpus, number in ((of_books, books, 0), (of_code, code, 1)):
        per_epoch = batches.rows[number].num_rows
        for begin in range(0, len(part) - per_epoch, per_epoch):
            assert sum(part[begin : begin + per_epoch], Counter()) == all_windows(cut_windows(corpus, CONTEXT))
        assert batches.epochs(40)[sources[number].name] == len(part) / per_epoch
    assert batches.counts(5).num_bytes == batches.batch(5).num_bytes


def test_zero_bytes_are_inputs_and_targets_like_any_other():
    zeros = Corpus((np.zeros(40, dtype=np.uint8),), ("zeros",))
    batches = TrainingBatches(zeros, context_bytes=16, batch_rows=4, seed=0)
    batch = batches.batch(0)
    assert batch.num_bytes == int((batch.targets == 0).sum())
    assert sum(b.num_bytes for b in evaluation_batches(cut_windows(zeros, 16), row_positions=17, batch_rows=4)) == 40
    assert int((batch.byte_ids == 0).sum()) > 0
