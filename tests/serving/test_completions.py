"""/v1/completions: what it answers is what the library gives."""

import base64
import math

import pytest
import torch

import patchpad
from patchpad.config import SEPARATOR
from patchpad.serving.token_text import token_text

LOGPROB_TOLERANCE = 1e-4
THRESHOLD = -math.inf


def exact_bytes(reply, choice: int = 0) -> bytes:
    """The bytes of a choice that was asked for with `byte_details`."""
    return bytes(entry["byte"] for entry in reply.json["choices"][choice]["bytes"] if entry["byte"] is not None)


def own(tiny, prompt, **options):
    return patchpad.complete(tiny, prompt, **{"temperature": 1.0, "max_new_bytes": 24, **options})


def test_a_completion_is_what_the_library_generates(served, tiny):
    reply = served.complete("It was", max_tokens=24, seed=5)
    expected = own(tiny, "It was", seed=5)
    choice = reply.json["choices"][0]
    assert choice["text"] == expected.text
    assert choice["finish_reason"] == {"length": "length", "end": "stop"}[expected.stop_reason]
    assert choice["stop_reason"] == expected.stop_reason
    usage = reply.json["usage"]
    assert usage["prompt_tokens"] == 6
    assert usage["completion_tokens"] == len(expected.data)
    assert usage["total_tokens"] == 6 + len(expected.data)
    assert usage["patchpad"]["trunk_calls"] == expected.trunk_calls
    assert usage["patchpad"]["trunk_cache_entries"] == expected.trunk_cache_entries
    assert usage["patchpad"]["scratchpads"] == expected.trunk_calls - expected.trunk_cache_entries
    assert usage["patchpad"]["stop_reason"] == expected.stop_reason
    assert usage["patchpad"]["seconds"] > 0


def test_trunk_cache_bytes_are_those_of_the_caches_of_a_state(served, tiny):
    reply = served.complete("It was a long day", max_tokens=8, seed=1)
    usage = reply.json["usage"]["patchpad"]
    _, state = patchpad.prefill(tiny, [b"It was"])
    per_place = sum(part[0, :, 0].numel() * part.element_size() for part in (*state.trunk.keys, *state.trunk.values))
    assert usage["trunk_cache_bytes"] == usage["trunk_cache_entries"] * per_place > 0


@pytest.mark.parametrize(
    ("asked", "threshold"),
    [({}, None), ({"scratchpad_threshold": "inf"}, math.inf), ({"scratchpad_threshold": "-inf"}, -math.inf),
     ({"scratchpad_threshold": 3}, 3.0)],
)  # fmt: skip
def test_the_threshold_of_a_request_is_used(served, tiny, asked, threshold):
    reply = served.complete("It was", max_tokens=16, seed=5, **asked)
    expected = own(tiny, "It was", seed=5, max_new_bytes=16, scratchpad_threshold_nats=threshold)
    assert reply.json["choices"][0]["text"] == expected.text
    assert reply.json["usage"]["patchpad"]["trunk_calls"] == expected.trunk_calls


def test_each_choice_draws_from_its_own_seed(served, tiny):
    reply = served.complete(["It was", "größer", "It was"], n=2, max_tokens=12, seed=7)
    prompts = ["It was", "It was", "größer", "größer", "It was", "It was"]
    expected = own(tiny, prompts, seed=7, max_new_bytes=12)
    assert [choice["index"] for choice in reply.json["choices"]] == list(range(6))
    assert [choice["text"] for choice in reply.json["choices"]] == [one.text for one in expected]
    assert reply.json["usage"]["prompt_tokens"] == 6 + 8 + 6
    assert reply.json["usage"]["patchpad"]["trunk_calls"] == sum(one.trunk_calls for one in expected)


def test_without_a_seed_answers_differ(served):
    answers = {served.complete("It was", max_tokens=12).json["choices"][0]["text"] for _ in range(4)}
    assert len(answers) > 1


def test_ids_text_and_a_separator_in_front_mean_the_same_prompt(served):
    ids = list("größer".encode())
    asked = ["größer", ids, [ids], [SEPARATOR, *ids], ["größer"]]
    answers = [served.complete(prompt, max_tokens=12, temperature=0).json for prompt in asked]
    assert len({answer["choices"][0]["text"] for answer in answers}) == 1
    assert [answer["usage"]["prompt_tokens"] for answer in answers] == [8, 8, 8, 9, 8]


def test_bytes_that_are_not_text_come_back_exactly(served, tiny):
    prompt = bytes(range(240, 256))
    reply = served.complete(list(prompt), max_tokens=40, seed=3, byte_details=True)
    expected = own(tiny, prompt, seed=3, max_new_bytes=40)
    assert exact_bytes(reply) == expected.data
    assert reply.json["choices"][0]["text"] == expected.text


def test_a_stop_string_ends_a_choice_and_is_left_out(served, tiny):
    data = own(tiny, "It was", seed=5).data
    stop = data[10:11].decode("latin-1")
    if not stop.isascii():
        stop = next(chr(value) for value in data[4:] if value < 128)
    reply = served.complete("It was", max_tokens=24, seed=5, stop=[stop, "never in it"])
    choice = reply.json["choices"][0]
    expected = own(tiny, "It was", seed=5, stop=[stop, "never in it"])
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == (expected.text, "stop", "stop")


def test_a_bias_forces_and_forbids_bytes(served):
    forced = served.complete("It was", max_tokens=5, seed=1, logit_bias={"65": 100})
    assert forced.json["choices"][0]["text"] == "AAAAA"
    greedy = served.complete("It was", max_tokens=5, temperature=0, logit_bias={"66": 100})
    assert greedy.json["choices"][0]["text"] == "BBBBB"
    ended = served.complete("It was", max_tokens=5, seed=1, logit_bias={str(SEPARATOR): 100})
    assert ended.json["choices"][0]["text"] == ""
    assert ended.json["choices"][0]["stop_reason"] == "end"


def test_top_k_and_top_p_are_those_of_the_library(served, tiny):
    for options in ({"top_k": 2}, {"top_p": 0.4}, {"temperature": 3.0}):
        reply = served.complete("It was", max_tokens=16, seed=2, **options)
        assert reply.json["choices"][0]["text"] == own(tiny, "It was", seed=2, max_new_bytes=16, **options).text


def test_details_tell_patches_scratchpads_and_entropies_of_each_byte(served, tiny):
    reply = served.complete("It was", max_tokens=16, seed=5, byte_details=True, logprobs=0)
    details = reply.json["choices"][0]["bytes"]
    data = exact_bytes(reply)
    ids = torch.tensor([[SEPARATOR, *b"It was", *data]])
    with torch.no_grad():
        output = tiny(ids)
    first = 1 + len(b"It was")
    logprobs = output.logits[0].float().log_softmax(-1)
    for place, entry in enumerate(details[:-1]):
        at = first + place
        assert entry["id"] == entry["byte"] == data[place]
        assert entry["ends_patch"] == bool(output.layout.patch_end_mask[0, at])
        assert entry["has_scratchpad"] == bool(output.layout.scratchpad_mask[0, at])
        assert entry["entropy_nats"] == pytest.approx(float(output.entropy_nats[0, at]), abs=LOGPROB_TOLERANCE)
        assert entry["logprob"] == pytest.approx(float(logprobs[at - 1, data[place]]), abs=LOGPROB_TOLERANCE)
    assert any(entry["has_scratchpad"] for entry in details)
    assert any(entry["ends_patch"] for entry in details)


def test_logprobs_of_generated_bytes_have_openai_s_form(served, tiny):
    reply = served.complete("It was", max_tokens=16, seed=5, logprobs=3, byte_details=True)
    choice = reply.json["choices"][0]
    found = choice["logprobs"]
    data = exact_bytes(reply)
    assert found["tokens"] == [token_text(bytes([value])) for value in data]
    assert found["token_logprobs"] == [entry["logprob"] for entry in choice["bytes"]]
    for token, logprob, top in zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True):
        assert top[token] == logprob
        assert len(top) in (3, 4)
        assert max(top.values()) >= logprob
    ends = [len(data[: place + 1].decode("utf-8", "ignore")) for place in range(len(data))]
    assert found["text_offset"][0] == 0
    assert found["text_offset"] == sorted(found["text_offset"])
    assert found["text_offset"][-1] <= len(choice["text"])
    assert ends[-1] <= len(choice["text"])


@pytest.mark.parametrize("max_tokens", [0, 1, 3])
@pytest.mark.parametrize("with_separator", [False, True])
def test_echo_with_logprobs_scores_the_prompt(served, tiny, max_tokens, with_separator):
    prompt = "größer than x".encode()
    ids = [*([SEPARATOR] if with_separator else []), *prompt]
    reply = served.complete(
        ids, max_tokens=max_tokens, echo=True, logprobs=2, temperature=0, scratchpad_threshold="-inf"
    )
    choice = reply.json["choices"][0]
    nats = patchpad.score(tiny, prompt, scratchpad_threshold_nats=THRESHOLD)
    found = choice["logprobs"]
    begin = int(with_separator)
    if with_separator:
        assert (found["tokens"][0], found["token_logprobs"][0]) == ("<|separator|>", None)
    scored = found["token_logprobs"][begin : begin + len(prompt)]
    assert scored == pytest.approx((-nats).tolist(), abs=LOGPROB_TOLERANCE)
    expected = own(tiny, prompt, temperature=0, max_new_bytes=max_tokens, scratchpad_threshold_nats=THRESHOLD)
    assert choice["text"] == "größer than x" + expected.text
    chosen = len(expected.data) + (expected.stop_reason == "end" and max_tokens > 0)
    assert len(found["tokens"]) == begin + len(prompt) + chosen
    assert reply.json["usage"]["completion_tokens"] == len(expected.data)
    assert reply.json["usage"]["patchpad"]["trunk_calls"] > 0


def test_one_more_byte_after_a_scored_prompt_is_the_one_that_would_be_drawn(served, tiny):
    reply = served.complete(["It was", "x"], n=3, max_tokens=1, echo=True, logprobs=0, seed=11)
    expected = own(tiny, ["It was"] * 3 + ["x"] * 3, seed=11, max_new_bytes=1)
    texts = [choice["text"] for choice in reply.json["choices"]]
    assert texts == [prompt + one.text for prompt, one in zip(["It was"] * 3 + ["x"] * 3, expected, strict=True)]


def test_echo_without_logprobs_repeats_the_prompt(served, tiny):
    reply = served.complete("größer", max_tokens=6, echo=True, seed=4)
    assert reply.json["choices"][0]["text"] == "größer" + own(tiny, "größer", seed=4, max_new_bytes=6).text
    nothing = served.complete("größer", max_tokens=0, echo=True)
    assert nothing.json["choices"][0]["text"] == "größer"


def test_scores_of_many_prompts_come_in_several_passes_and_stay_in_order(served, tiny, monkeypatch):
    monkeypatch.setattr("patchpad.serving.scoring.PASS_POSITIONS", 20)
    prompts = ["It was", "größer", "a", "one two three four", "b"]
    before = served.scheduler.counts().calls
    reply = served.complete(prompts, max_tokens=1, echo=True, logprobs=1, temperature=0)
    assert served.scheduler.counts().calls - before > 1
    for prompt, choice in zip(prompts, reply.json["choices"], strict=True):
        data = prompt.encode()
        scored = choice["logprobs"]["token_logprobs"][: len(data)]
        assert scored == pytest.approx((-patchpad.score(tiny, data)).tolist(), abs=LOGPROB_TOLERANCE)


def test_tokenize_and_detokenize_are_the_bytes(served):
    for text in ("größer 日本", "", "<|separator|>!", "\x00\x7f"):
        tokens = served.post("/tokenize", prompt=text).json
        assert tokens["tokens"] == list(text.encode())
        assert tokens["count"] == len(text.encode())
        back = served.post("/detokenize", tokens=tokens["tokens"]).json
        assert back["prompt"] == text
        assert base64.b64decode(back["bytes_base64"]) == text.encode()
    assert served.post("/tokenize", prompt="a", add_special_tokens=True).json["tokens"] == [SEPARATOR, 97]
    assert served.post("/tokenize", prompt="<|separator|>").json["tokens"] == [SEPARATOR]
    exact = served.post("/detokenize", tokens=[255, 254]).json
    assert base64.b64decode(exact["bytes_base64"]) == b"\xff\xfe"


def test_the_model_says_what_it_is(served, tiny):
    (model,) = served.ask("GET", "/v1/models").json["data"]
    assert model["id"] == "tiny"
    facts = model["patchpad"]
    assert facts["kind"] == "patch"
    assert facts["target_patch_size"] == 5
    assert facts["calibration"] is None
    assert facts["scratchpad_threshold_nats"] == pytest.approx(float(tiny.scratchpad_threshold_nats))
    assert facts["num_parameters"] == sum(one.numel() for one in tiny.parameters())
    assert facts["is_chat_model"] is False
    assert "not trained to chat" in facts["note"]
    assert served.ask("GET", "/v1/models/tiny").json == model
    assert served.ask("GET", "/v1/models/other").status == 404
