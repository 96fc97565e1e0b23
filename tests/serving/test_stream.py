"""Streams: the same bytes as whole answers, in whole characters, with usage where it was asked for."""

import pytest

import patchpad

LOGPROB_TOLERANCE = 1e-4


def texts(events, number: int = 0) -> str:
    return "".join(choice["text"] for event in events for choice in event["choices"] if choice["index"] == number)


def test_a_stream_says_what_a_whole_answer_says(served):
    asked = {"max_tokens": 40, "seed": 5, "logprobs": 2, "byte_details": True}
    whole = served.complete("It was", **asked).json["choices"][0]
    reply = served.complete("It was", stream=True, **asked)
    assert reply.headers["content-type"].startswith("text/event-stream")
    choices = [event["choices"][0] for event in reply.events]
    assert "".join(choice["text"] for choice in choices) == whole["text"]
    details = [entry for choice in choices for entry in choice["bytes"]]
    for found, expected in zip(details, whole["bytes"], strict=True):
        assert found == pytest.approx(expected, abs=LOGPROB_TOLERANCE)
    for key, values in whole["logprobs"].items():
        found = [one for choice in choices if choice["logprobs"] for one in choice["logprobs"][key]]
        for one, expected in zip(found, values, strict=True):
            assert one == (expected if isinstance(expected, str) else pytest.approx(expected, abs=LOGPROB_TOLERANCE))
    assert [choice["finish_reason"] for choice in choices][:-1] == [None] * (len(choices) - 1)
    assert choices[-1]["finish_reason"] == whole["finish_reason"]
    assert len({event["id"] for event in reply.events}) == 1


def test_pieces_are_whole_characters(serve, tiny):
    prompt = "größer 日本 " * 3
    with serve() as server:
        server.scheduler.event_seconds = 0.0
        bias = {str(value): 100 for value in (0xE6, 0x97, 0xA5)}
        reply = server.complete(prompt, max_tokens=30, seed=1, stream=True, logit_bias=bias)
    expected = patchpad.complete(tiny, prompt, max_new_bytes=30, seed=1, temperature=1.0)
    assert expected  # the bias changes what is drawn; what counts is that no piece splits a character
    pieces = [event["choices"][0]["text"] for event in reply.events]
    data = "".join(pieces).encode()
    assert len(pieces) > 1
    assert "".join(pieces) == data.decode()


def test_choices_of_a_stream_are_not_mixed(served, tiny):
    reply = served.complete(["It was", "größer"], n=2, max_tokens=20, seed=3, stream=True)
    expected = patchpad.complete(
        tiny, ["It was", "It was", "größer", "größer"], max_new_bytes=20, seed=3, temperature=1.0
    )
    assert [texts(reply.events, number) for number in range(4)] == [one.text for one in expected]


def test_usage_comes_last_and_only_where_it_was_asked_for(served):
    asked = {"max_tokens": 8, "seed": 3, "stream": True}
    events = served.complete("It was", **asked, stream_options={"include_usage": True}).events
    assert [event["usage"] for event in events[:-1]] == [None] * (len(events) - 1)
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 8
    assert events[-1]["usage"]["patchpad"]["trunk_calls"] > 0
    assert all("usage" not in event for event in served.complete("It was", **asked).events)


def test_echo_of_a_stream_comes_first(served, tiny):
    events = served.complete("größer", max_tokens=6, seed=3, stream=True, echo=True, logprobs=1).events
    first = events[0]["choices"][0]
    assert first["text"] == "größer"
    assert len(first["logprobs"]["tokens"]) == 8
    expected = patchpad.complete(tiny, "größer", max_new_bytes=6, seed=3, temperature=1.0)
    assert texts(events) == "größer" + expected.text


def test_errors_before_the_first_event_have_a_status(served):
    reply = served.complete("It was", stream=True, max_tokens=10**6)
    assert reply.status == 400
    assert "`max_tokens` is 1000000" in reply.error["message"]


def test_a_stream_that_takes_too_long_ends_with_an_error(serve):
    with serve(request_seconds=0.3) as server:
        reply = server.complete("It was", max_tokens=16_000, stream=True, logit_bias={"256": -100})
        whole = server.complete("It was", max_tokens=16_000, logit_bias={"256": -100})
    assert reply.status == 200
    assert b'"code":"timeout"' in reply.body.rsplit(b"data: ", 1)[1]
    assert b"[DONE]" not in reply.body
    assert whole.status == 504
    assert whole.error["code"] == "timeout"
