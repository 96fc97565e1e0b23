"""Which ranks are named where a connection broke."""

import json
import os
import subprocess
import sys

import pytest

from patchpad.run_lock import is_gone, process_facts
from patchpad.training import rank_failures


@pytest.fixture
def ended():
    """Facts of a process of this machine that has ended, and of which its parent knows nothing yet."""
    code = "import json; from patchpad.run_lock import process_facts; print(json.dumps(process_facts()), flush=True)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    facts = json.loads(process.stdout.readline())
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is not collected
    yield facts
    process.wait()
    process.stdout.close()


def test_a_process_that_ended_is_told_from_one_that_runs(ended):
    assert is_gone(ended)
    assert not is_gone(process_facts())
    assert not is_gone({**ended, "host": "another"})


def test_ranks_that_are_alive_and_busy_are_not_named(ended):
    error = rank_failures.lost_rank_error(0, [process_facts(), process_facts(), ended, process_facts()])
    assert error.message == "rank 2 of 4 ended without a message while the others were waiting"


def test_ranks_of_other_machines_are_named_where_they_do_not_answer(monkeypatch):
    elsewhere = {**process_facts(), "host": "another"}
    asked = []
    monkeypatch.setattr(rank_failures, "ENDING_SECONDS", 0.0)
    monkeypatch.setattr(rank_failures, "_without_answer", lambda rank, others: asked.append(others) or [3])
    error = rank_failures.lost_rank_error(0, [process_facts(), process_facts(), elsewhere, elsewhere])
    assert asked == [[2, 3]]
    assert "rank 3 of 4" in error.message


def test_a_rank_is_named_whose_process_ends_after_its_connections(ended, monkeypatch):
    seen = iter([False, False, True])
    monkeypatch.setattr(rank_failures, "is_gone", lambda facts: facts is ended and next(seen))
    error = rank_failures.lost_rank_error(0, [process_facts(), ended])
    assert error.message.startswith("rank 1 of 2 ended")
