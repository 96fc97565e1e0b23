import math

import pytest
from toy_tasks import StandIn, options_of, rows_of, uniform

from patchpad.errors import DataError
from patchpad.tasks import continuation as continuation_module
from patchpad.tasks.continuation import run_continuation
from patchpad.tasks.kinds import build_task
from patchpad.tasks.scoring import Request

ROWS = [{"context": "The cat sat on the", "continuation": "mat"}, {"context": "I see", "continuation": "größer"}]


def task():
    keys = {"kind": "continuation", "data": "a.jsonl", "context": "{context}", "continuation": "{continuation}"}
    return build_task(keys, "last_word", "a.yaml")


def test_the_last_word_is_scored_with_the_space_before_it_and_bits_are_over_all_bytes():
    scorer = StandIn(lambda request: uniform(request) / (2 if request.continuation == b" mat" else 1), is_greedy=True)
    result = run_continuation(task(), rows_of(ROWS), scorer, options_of(label="words"))
    assert scorer.requests == [Request(b"The cat sat on the", b" mat"), Request(b"I see", " größer".encode())]
    assert result.task == "words"
    assert result.metrics["accuracy"].value == 1.0
    assert result.metrics["bits_per_byte"].value == pytest.approx((4 * 4 + 9 * 8) / 13)
    assert [one["bits_per_byte"] for one in result.examples] == pytest.approx([4.0, 8.0])
    assert result.details["bits_per_continuation"] == pytest.approx((4 * 4 + 9 * 8) / 2)


def test_parts_give_what_the_whole_gives(monkeypatch):
    def run():
        return run_continuation(task(), rows_of(ROWS * 5), StandIn(uniform), options_of())

    whole = run()
    monkeypatch.setattr(continuation_module, "REQUESTS_AT_ONCE", 3)
    assert run() == whole
    assert whole.metrics["accuracy"].value == 0.0
    assert whole.metrics["bits_per_byte"].value == pytest.approx(8.0)
    assert math.isclose(whole.metrics["bits_per_byte"].standard_error, 0, abs_tol=1e-9)


def test_a_row_without_a_continuation_is_named():
    values = {"kind": "continuation", "data": "a.jsonl", "context": "{a}", "continuation": "{b}", "delimiter": ""}
    empty = build_task(values, "last_word", "a.yaml")
    with pytest.raises(DataError, match=r"toy\.jsonl, line 1: the continuation is empty"):
        run_continuation(empty, rows_of([{"a": "x", "b": ""}]), StandIn(uniform), options_of())
