"""Bodies that are not allowed: a 4xx that says what was wrong and what is allowed, in OpenAI's form."""

import json
import math

import pytest
import torch

import patchpad
from patchpad.calibration_table import ROW_KEYS, Calibration
from patchpad.testing import sharp_baseline, sharp_model, tiny_model_config


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[1]", "the body is a list; allowed: a JSON object"),
        (b'"text"', "the body is a string"),
        (b"5", "the body is a number"),
        (b"null", "the body is null"),
        (b"true", "the body is true or false"),
        (b'{"prompt": NaN}', "holds NaN"),
        (b'{"temperature": Infinity}', "holds Infinity"),
        (b'{"temperature": 1e999}', "too large for 64 bits"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "a number of 5000 digits"),
        (b'{"prompt": "a", "prompt": "b"}', "the key 'prompt' twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 20_000, "nested too deeply"),
        (b'{"prompt": "\xff\xfe"}', "is not UTF-8"),
    ],
)
def test_what_is_not_json_is_refused(served, body, says):
    reply = served.ask("POST", "/v1/completions", body)
    assert reply.status == 400
    assert says in reply.error["message"]
    assert set(reply.error) == {"message", "type", "param", "code"}
    assert reply.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"max_toke": 3}, "max_toke", "Did you mean `max_tokens`?"),
        ({"max_tokens": "3"}, "max_tokens", "'3': input should be a valid integer"),
        ({"max_tokens": 3.5}, "max_tokens", "3.5: input should be a valid integer"),
        ({"max_tokens": True}, "max_tokens", "valid integer"),
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
        ({"max_tokens": 10**30}, "max_tokens", "allowed: 0 to 16384"),
        ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
        ({"temperature": "hot"}, "temperature", "valid number"),
        ({"temperature": 10**400}, "temperature", ""),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"top_k": 0}, "top_k", "greater than or equal to 1"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 65}, "n", "asks for 65 choices (1 prompts, n = 65); allowed: 64 together"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"seed": 2**70}, "seed", "less than or equal to"),
        ({"logprobs": 21}, "logprobs", "less than or equal to 20"),
        ({"prompt": "a" * 9000, "echo": True, "logprobs": 20, "max_tokens": 0}, "logprobs", "may hold 189000 log-prob"),
        ({"n": 10, "byte_details": True, "max_tokens": 16_000}, "byte_details", "may hold 160000 log-prob"),
        ({"stream": "yes"}, "stream", "valid boolean"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only with `stream`"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage", "is unknown"),
        ({"stop": ["a"] * 17}, "stop", "up to 16"),
        ({"stop": [""]}, "stop", "text of 1 to 256 bytes"),
        ({"stop": [5]}, "stop", "text of 1 to 256 bytes"),
        ({"stop": "\ud800"}, "stop", "surrogate"),
        ({"logit_bias": {"257": 1}}, "logit_bias", "bytes from 0 to 255, and 256"),
        ({"logit_bias": {"-1": 1}}, "logit_bias", "bytes from 0 to 255"),
        ({"logit_bias": {"65": 101}}, "logit_bias", "a number from -100 to 100"),
        ({"logit_bias": {"65": "x"}}, "logit_bias", "a number from -100 to 100"),
        ({"logit_bias": [65]}, "logit_bias", "an object of ids and biases"),
        ({"prompt": None}, "prompt", "a string, a list of strings"),
        ({"prompt": []}, "prompt", "one prompt or more"),
        ({"prompt": [256, 256]}, "prompt", "256 at place 1; allowed: ids from 0 to 255"),
        ({"prompt": [97, 300]}, "prompt", "300 at place 1"),
        ({"prompt": [97, -1]}, "prompt", "-1 at place 1"),
        ({"prompt": [97, "a"]}, "prompt", "'a' at place 1"),
        ({"prompt": [True]}, "prompt", "True at place 0"),
        ({"prompt": ["a", 5]}, "prompt", "a list of several kinds"),
        ({"prompt": [[[1]]]}, "prompt", "a list of 1 at place 0"),
        ({"prompt": {"a": 1}}, "prompt", "an object of 1"),
        ({"prompt": ["a"] * 5000}, "prompt", "a list of 5000 prompts; allowed: 4096"),
        ({"prompt": "\ud800"}, "prompt", "surrogate"),
        ({"prompt": "a" * 20_000}, "prompt", "20000 bytes; allowed: 16384"),
        ({"scratchpad_threshold": "none"}, "scratchpad_threshold", '"inf" (no scratchpads)'),
        ({"scratchpad_threshold": True}, "scratchpad_threshold", "a number of nats"),
        ({"compute": -0.5}, "compute", "greater than or equal to 0"),
        ({"best_of": 3}, "best_of", "allowed: the value of `n`, 1"),
        ({"presence_penalty": 0.5}, "presence_penalty", "penalties are not served"),
        ({"suffix": "end"}, "suffix", "nothing can be put before a suffix"),
        ({"model": "gpt"}, "model", "allowed: 'tiny'"),
    ],
)
def test_a_field_that_is_not_allowed_is_named(served, fields, param, says):
    reply = served.post("/v1/completions", **{"prompt": "a", **fields})
    assert reply.status in (400, 404), reply
    assert reply.error["param"] == param or not says
    assert says in reply.error["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "me", "store": False, "metadata": {"a": "b"}},
        {"presence_penalty": 0, "frequency_penalty": 0.0, "best_of": 1, "suffix": None, "tools": []},
        {"logit_bias": None, "stop": None, "seed": None, "temperature": None, "n": None, "stream": None, "model": None},
        {"response_format": {"type": "text"}, "logit_bias": {}, "stop": []},
    ],
)
def test_fields_that_ask_for_nothing_are_let_through(served, fields):
    assert served.complete("a", max_tokens=1, **fields).status == 200


@pytest.mark.parametrize(
    "field", ["scratchpad_threshold", "compute", "temperature", "top_p", "top_k", "seed", "n", "max_tokens", "logprobs"]
)
def test_numbers_of_hundreds_of_digits_are_refused(served, field):
    for value in (10**390, -(10**390)):
        reply = served.complete("a", **{field: value})
        assert reply.status == 400
        assert reply.error["param"] == field


def test_a_body_that_is_too_long_is_refused(serve):
    with serve(max_body_bytes=2000) as server:
        assert server.complete("a" * 1900, max_tokens=1).status == 200
        reply = server.complete("a" * 2000, max_tokens=1)
        assert reply.status == 413
        assert "longer than 2000 bytes" in reply.error["message"]
        with server.connect() as connection:  # without a length
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n" + b"3e8\r\n" + b"a" * 1000 + b"\r\n" + b"3e8\r\n" + b"a" * 1000
                + b"\r\n" + b"1\r\na\r\n"
            )  # fmt: skip
            assert b" 413 " in connection.recv(1000)


def test_a_body_of_another_kind_is_refused(served):
    body = json.dumps({"prompt": "a"}).encode()
    assert served.ask("POST", "/v1/completions", body, {"Content-Type": "text/plain"}).status == 415
    assert served.ask("POST", "/v1/completions", body, {"Content-Encoding": "gzip"}).status == 415
    kind = {"Content-Type": "application/json; charset=utf-8"}
    assert served.ask("POST", "/v1/completions", b'{"prompt": "a", "max_tokens": 1}', kind).status == 200


@pytest.mark.parametrize("path", ["/v1/completion", "/v1/completions/", "/v1", "//health", "/health/../v1/models"])
def test_paths_that_lead_nowhere_are_told_so(served, path):
    reply = served.ask("GET", path)
    assert reply.status == 404
    assert reply.error["code"] == "not_found"
    assert "location" not in reply.headers


def test_methods_that_are_not_allowed_are_told_which_are(served):
    reply = served.ask("GET", "/v1/completions")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert served.ask("DELETE", "/v1/models").status == 405
    assert served.ask("HEAD", "/health").status == 200


def test_a_queue_that_is_full_says_when_to_come_again(serve):
    with serve(batch_rows=1, max_waiting=2) as server:
        reply = server.complete("a", n=4, max_tokens=4)
        assert reply.status == 429
        assert reply.error["code"] == "queue_full"
        assert int(reply.headers["retry-after"]) >= 1
        assert server.complete("a", n=3, max_tokens=4).status == 200


def test_compute_is_translated_by_the_calibration(serve, tiny, calibrated):
    with serve(model=calibrated) as server:
        reply = server.complete("It was", max_tokens=16, seed=1, compute=0.5)
        expected = patchpad.complete(calibrated, "It was", max_new_bytes=16, seed=1, compute=0.5, temperature=1.0)
        assert reply.json["choices"][0]["text"] == expected.text
        assert reply.json["usage"]["patchpad"]["trunk_calls"] == expected.trunk_calls
        below = server.complete("It was", compute=0.01)
        assert below.status == 400
        assert "compute is 0.01; allowed: 0.2 (patches alone) to 1" in below.error["message"]
        both = server.complete("It was", compute=0.5, scratchpad_threshold=1)
        assert both.status == 400
        assert "both compute and scratchpad_threshold" in both.error["message"]
        card = server.ask("GET", "/v1/models").json["data"][0]["patchpad"]
        rows = card["calibration"]
        assert card["most_compute"] == 1
        assert [row["scratchpad_threshold_nats"] for row in rows] == ["inf", 1.0, "-inf"]


def test_compute_goes_above_one_for_a_model_whose_calibration_does(serve):
    model = sharp_model(tiny_model_config("tokens", context_bytes=96))
    rows = [(math.inf, 0.4), (1.0, 0.9), (-math.inf, 1.4)]
    values = [dict(zip(ROW_KEYS, (nats, most - 0.4, 0.4, most, 2.0, 1000.0), strict=True)) for nats, most in rows]
    model.calibration = Calibration(rows=tuple(values), text_sha256="0", commits_tokens=True)
    with serve(model=model) as server:
        reply = server.complete("It was", max_tokens=6, seed=1, compute=1.4)
        expected = patchpad.complete(model, "It was", max_new_bytes=6, seed=1, compute=1.4, temperature=1.0)
        assert reply.json["usage"]["patchpad"]["scratchpads"] == len("It was") + 5  # nothing reads the last byte
        assert reply.json["usage"]["patchpad"]["trunk_calls"] == expected.trunk_calls
        above = server.complete("It was", compute=1.5)
        assert above.status == 400
        assert "compute is 1.5; allowed: 0.4 (patches alone) to 1.4" in above.error["message"]


def test_compute_without_a_calibration_is_refused(served):
    reply = served.complete("It was", compute=0.5)
    assert reply.status == 400
    assert "no calibration" in reply.error["message"]


def test_defaults_of_the_server_are_used_and_can_be_changed(serve, tiny):
    with serve(scratchpad_threshold_nats=-math.inf) as server:
        usage = server.complete("It was", max_tokens=10, seed=1).json["usage"]["patchpad"]
        expected = patchpad.complete(
            tiny, "It was", max_new_bytes=10, seed=1, temperature=1.0, scratchpad_threshold_nats=-math.inf
        )
        assert usage["trunk_calls"] == expected.trunk_calls
        other = server.complete("It was", max_tokens=10, seed=1, scratchpad_threshold="inf").json["usage"]["patchpad"]
        assert other["scratchpads"] == 0


def test_baselines_are_served_and_take_no_dial(serve):
    with serve(model=sharp_baseline("byte")) as server:
        reply = server.complete("It was", max_tokens=8, seed=1, logprobs=1, echo=True)
        assert reply.status == 200
        assert reply.json["usage"]["patchpad"]["scratchpads"] == 0
        assert server.complete("It was", scratchpad_threshold=1.5).status == 400
        assert server.complete("It was", compute=0.5).status == 400


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("asked", [{"max_tokens": 4}, {"max_tokens": 0, "echo": True, "logprobs": 1}])
def test_a_model_that_predicts_no_numbers_is_the_servers_fault(serve, stream, asked):
    model = sharp_model(tiny_model_config(context_bytes=96))
    with torch.no_grad():
        model.local_decoder.lm_head.weight.fill_(math.nan)
    with serve(model=model) as server:
        reply = server.complete("It was", stream=stream, **asked)
        assert server.ask("GET", "/health").status == 200
    if stream:
        (event,) = [json.loads(line[6:]) for line in reply.body.split(b"\n\n") if line]
        error = event["error"]
    else:
        assert reply.status == 500
        error = reply.error
    assert error["type"] == "server_error"
    assert "nan or inf" in error["message"]
