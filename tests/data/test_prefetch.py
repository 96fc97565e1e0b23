"""Batches that a thread makes ahead: the same ones, in time, and no thread is left."""

import threading

import numpy as np
import pytest
import torch

from patchpad.data import Corpus, PrefetchedBatches, TrainingBatches
from patchpad.errors import DataError


@pytest.fixture
def batches():
    data = np.arange(2000, dtype=np.int64).astype(np.uint8)
    return TrainingBatches(Corpus((data,), ("text",)), context_bytes=16, batch_rows=2, seed=0)


@pytest.fixture
def threads_end():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


@pytest.mark.usefixtures("threads_end")
@pytest.mark.parametrize("asked", [range(6), [4, 5, 6, 2, 3, 9, 10], [7]])
def test_batches_are_those_of_their_numbers_in_whatever_order(batches, asked):
    ahead = PrefetchedBatches(batches.batch)
    for index in asked:
        assert torch.equal(ahead.batch(index).byte_ids, batches.batch(index).byte_ids)
    ahead.close()


@pytest.mark.usefixtures("threads_end")
def test_the_next_batches_are_made_once_and_before_they_are_asked_for(batches):
    made, is_ready = [], threading.Semaphore(0)

    def make(index):
        made.append((index, threading.current_thread() is threading.main_thread()))
        is_ready.release()
        return batches.batch(index)

    ahead = PrefetchedBatches(make, ahead=2)
    ahead.batch(0)
    for _ in range(3):
        assert is_ready.acquire(timeout=10)
    assert made == [(0, False), (1, False), (2, False)]
    ahead.batch(1)
    assert is_ready.acquire(timeout=10)
    ahead.close()
    assert [index for index, _ in made] == [0, 1, 2, 3]


@pytest.mark.usefixtures("threads_end")
def test_what_stops_the_thread_stops_who_asks(batches):
    def make(index):
        if index == 1:
            raise DataError("the text is gone")
        return batches.batch(index)

    ahead = PrefetchedBatches(make)
    ahead.batch(0)
    with pytest.raises(DataError, match="the text is gone"):
        ahead.batch(1)
    ahead.close()
