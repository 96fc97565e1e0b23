"""The load on a server: its client reads streams, its check finds what differs, and the script runs end to end."""

import json
import sys

import pytest
import serving_load
from measuring import ROOT
from serving_check import check, explain, unexplained
from serving_client import Asked, Received, percentile, read_answer

import patchpad
from patchpad.testing import sharp_model, tiny_model_config

ASKED = Asked(prompt=b"It was", max_new_bytes=12, temperature=0.8, seed=3)


def chunk(value) -> bytes:
    data = value if isinstance(value, bytes) else b"data: " + json.dumps(value).encode() + b"\n\n"
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def test_a_stream_is_read_with_the_time_of_each_event():
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    first, second = ({"choices": [{"text": text}], "usage": None} for text in ("ab", "é"))
    usage = chunk({"choices": [], "usage": {"completion_tokens": 4}})
    end = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    cut = chunk(second)
    pieces = [(1.0, head + chunk(first) + cut[:9]), (2.0, cut[9:]), (3.0, usage + end)]
    answer = read_answer(Received(ASKED, 0.5, pieces, is_whole=True))
    assert (answer.text, answer.event_times, answer.event_bytes) == ("abé", (1.0, 2.0), (2, 2))
    assert answer.usage == {"completion_tokens": 4}
    with pytest.raises(SystemExit, match="has no end"):
        read_answer(Received(ASKED, 0.5, [(1.0, head + chunk(first) + b"0\r\n\r\n")], is_whole=True))


def test_a_stream_with_a_lost_mixed_or_repeated_byte_is_found():
    model = sharp_model(tiny_model_config())
    text = patchpad.complete(model, b"It was", max_new_bytes=12, temperature=0.8, seed=3).text
    assert check(model, ASKED, text).is_equal
    found = [check(model, ASKED, wrong) for wrong in (text[:4] + text[5:], text[::-1], text[:3] + text[2:], text + "a")]
    assert not any(one.is_equal for one in found)
    assert unexplained(found) == 4


def test_a_score_near_the_threshold_explains_a_difference():
    model = sharp_model(tiny_model_config())
    assert explain(model, ASKED, b"ab") == ""
    score = float(model.trigger_scores(model(patchpad_ids(b"It wasab")))[0, 3])
    model.store_threshold(score + 5e-5)
    assert "nats from the threshold" in explain(model, ASKED, b"ab")


def patchpad_ids(data: bytes):
    import torch

    return torch.tensor([[patchpad.SEPARATOR, *data]])


def test_percentiles_are_values_that_were_seen():
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(range(100), 0.99) == 99
    assert percentile([1], 1.0) == 1


@pytest.mark.slow
def test_the_script_runs_end_to_end(monkeypatch, tmp_path):
    path = ROOT / "benchmarks" / "serving_load.py"
    words = ["--streams", "3", "--seconds", "2", "--repeats", "1", "--check", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [str(path), *words])
    serving_load.main()
    (raw,) = tmp_path.glob("*.json")
    part, summary = json.loads(raw.read_text())["rows"]
    assert part["bytes_per_second"] > 0
    assert part["engine_bytes_per_second"] > 0
    assert part["health_questions"] > 0
    assert summary["checked"] == 2
    assert summary["unexplained"] == 0
    assert len(summary["memory_bytes"]) == 2
