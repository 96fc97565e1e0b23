"""A thousand hostile requests: each gets a 4xx with a reason or a closed connection, and leaves nothing behind."""

import collections
import gc
import json
import logging
import time
import tracemalloc

import pytest
from hostile import attacks, outcome

KEY = "a-key-for-the-hostile-test"
SHARE = 32
"""Of the default tests: each kind twice."""
GROWTH_BYTES = 300_000
"""That Python's memory may grow over all requests; one of them that stayed would be more."""
REFUSALS = {*range(400, 432), 501, 505}
"""Statuses that say what was wrong with a request. 501 and 505 are for what no HTTP/1.1 server has to know."""


@pytest.mark.parametrize(
    ("count", "seed"), [(SHARE, 0), pytest.param(1000, 1, marks=pytest.mark.slow)], ids=["share", "thousand"]
)
def test_hostile_requests_are_refused_and_leave_nothing_behind(serve, caplog, count, seed):
    caplog.set_level(logging.INFO)
    with serve(api_keys=(KEY.encode(),), arrival_seconds=0.5) as server:
        address = ("127.0.0.1", server.port)
        for attack in attacks(16, KEY, seed=99):  # so that what is loaded once is loaded
            outcome(attack, address, 30)
        before = memory_of(server)
        statuses = collections.defaultdict(collections.Counter)
        for attack in attacks(count, KEY, seed):
            found = outcome(attack, address, 30)
            statuses[attack.kind][found.status] += 1
            assert found.status is None or found.status in REFUSALS, (attack.kind, attack.pieces[0][:300], found)
            if found.status is not None:
                said = json.loads(found.body)["error"]
                assert said["message"]
                assert "Traceback" not in said["message"]
        assert server.complete("It was", max_tokens=1).status == 401
        reply = server.post("/v1/completions", {"Authorization": f"Bearer {KEY}"}, prompt="It was", max_tokens=2)
        assert reply.status == 200
        assert memory_of(server) - before < GROWTH_BYTES
        counts = server.scheduler.counts()
        assert (counts.rows_running, counts.rows_waiting, counts.rows_failed) == (0, 0, 0)
    assert len(statuses) == 16
    answered = sum(seen.total() - seen[None] for seen in statuses.values())
    assert answered > 0.75 * count  # most are told why
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]


def memory_of(server) -> int:
    """Bytes that Python holds when no connection is open."""
    deadline = time.monotonic() + 60
    while server.server.server_state.connections and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not server.server.server_state.connections
    assert not server.server.server_state.tasks
    gc.collect()
    if not tracemalloc.is_tracing():
        tracemalloc.start()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.fixture(autouse=True)
def _memory_is_traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()
