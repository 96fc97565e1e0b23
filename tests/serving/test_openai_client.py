"""OpenAI's own client, and the scripts of the documentation."""

import inspect
import re
from pathlib import Path

import openai
import pytest

import patchpad
from patchpad.cli.serve import serve as command
from patchpad.serving.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def client(served):
    with client_of(served) as found:
        yield found


def client_of(server, max_retries: int = 0) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=max_retries)


def test_completions_of_the_client_are_those_of_the_library(client, tiny):
    answer = client.completions.create(
        model="tiny", prompt=["It was", "größer"], max_tokens=20, seed=3, n=2, logprobs=2, echo=True
    )
    prompts = ["It was", "It was", "größer", "größer"]
    expected = patchpad.complete(tiny, prompts, max_new_bytes=20, seed=3, temperature=1.0)
    assert [choice.text for choice in answer.choices] == [
        prompt + one.text for prompt, one in zip(prompts, expected, strict=True)
    ]
    assert answer.choices[0].finish_reason == "length"
    assert len(answer.choices[0].logprobs.tokens) == 26
    assert answer.usage.completion_tokens == sum(len(one.data) for one in expected)
    assert answer.usage.model_extra["patchpad"]["trunk_calls"] == sum(one.trunk_calls for one in expected)


def test_streams_of_the_client_are_those_of_the_library(client, tiny):
    events = list(
        client.completions.create(
            model="tiny",
            prompt="It was",
            max_tokens=30,
            seed=3,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"scratchpad_threshold": "inf", "byte_details": True},
        )
    )
    expected = patchpad.complete(
        tiny, "It was", max_new_bytes=30, seed=3, temperature=1.0, scratchpad_threshold_nats=float("inf")
    )
    details = [entry for event in events for choice in event.choices for entry in choice.model_extra["bytes"]]
    assert bytes(entry["byte"] for entry in details) == expected.data
    assert "".join(choice.text for event in events for choice in event.choices) == expected.text
    assert events[-1].usage.model_extra["patchpad"]["scratchpads"] == 0


def test_an_answer_can_be_sent_back_as_it_came(client):
    messages = [{"role": "user", "content": "Größe?"}]
    answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=4)
    for sent_back in (answer.choices[0].message, answer.choices[0].message.model_dump()):
        turns = [*messages, sent_back, {"role": "user", "content": "And?"}]
        assert client.chat.completions.create(model="tiny", messages=turns, max_tokens=4).choices


def test_a_model_whose_name_has_a_slash_is_found(serve):
    with serve(model_id="org/tiny") as server, client_of(server) as client:
        assert client.models.retrieve("org/tiny").id == "org/tiny"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("org")


def test_a_request_that_takes_too_long_is_not_sent_again(serve):
    with serve(request_seconds=0.3) as server, client_of(server, max_retries=2) as client:
        with pytest.raises(openai.InternalServerError, match="not done within"):
            client.completions.create(model="tiny", prompt="a", max_tokens=16_000, logit_bias={"256": -100})
        counts = server.ask("GET", "/metrics").body.decode()
    assert 'patchpad_requests_total{route="/v1/completions",status="504"} 1.0' in counts


def test_chats_of_the_client(client, tiny):
    messages = [{"role": "user", "content": "Größe?"}]
    expected = patchpad.complete(
        tiny, "User: Größe?\n\nAssistant: ", max_new_bytes=20, seed=3, temperature=1.0, stop="\n\nUser:"
    )
    whole = client.chat.completions.create(model="tiny", messages=messages, max_tokens=20, seed=3)
    assert whole.choices[0].message.content == expected.text
    parts = client.chat.completions.create(model="tiny", messages=messages, max_tokens=20, seed=3, stream=True)
    assert "".join(choice.delta.content or "" for part in parts for choice in part.choices) == expected.text


def test_models_of_the_client(client):
    (model,) = client.models.list().data
    assert model.id == "tiny"
    assert client.models.retrieve("tiny").model_extra["patchpad"]["kind"] == "patch"


def test_errors_of_the_client_have_their_classes(client, serve):
    with pytest.raises(openai.BadRequestError, match="valid number"):
        client.completions.create(model="tiny", prompt="a", temperature="hot")
    with pytest.raises(openai.NotFoundError, match="allowed: 'tiny'"):
        client.completions.create(model="other", prompt="a")
    options = {"api_key": "x", "max_retries": 0}
    with serve(api_keys=(b"k" * 20,)) as server, openai.OpenAI(base_url=f"{server.url}/v1", **options) as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            stranger.models.list()
        assert "not one of this server's" in str(refused.value)
    with serve(batch_rows=1, max_waiting=1) as server, openai.OpenAI(base_url=f"{server.url}/v1", **options) as hasty:
        with pytest.raises(openai.RateLimitError) as refused:
            hasty.completions.create(model="tiny", prompt="a", n=4)
        assert "places in the queue" in str(refused.value)
    with serve(request_seconds=0.2) as server, openai.OpenAI(base_url=f"{server.url}/v1", **options) as late:
        events = late.completions.create(
            model="tiny", prompt="a", max_tokens=16_000, stream=True, logit_bias={"256": -100}
        )
        with pytest.raises(openai.APIError, match="not done within"):
            list(events)


def test_the_script_of_the_page_runs(serve, capsys):
    (script,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in script.splitlines() if line]
    assert len(lines) <= 5
    model = patchpad.load()
    with serve(model=model, model_id="patchpad-bundled") as server:
        exec(compile(script.replace("http://127.0.0.1:8000", server.url), "docs/serving.md", "exec"), {})
    printed = capsys.readouterr().out
    expected = patchpad.complete(model, "It was a", max_new_bytes=80, temperature=0.7, seed=1)
    assert expected.text in printed
    assert f"'trunk_calls': {expected.trunk_calls}" in printed


def test_the_page_names_every_option_with_its_default():
    parameters = inspect.signature(command).parameters.values()
    options = [one for one in parameters if one.kind is one.KEYWORD_ONLY]
    names = ["--" + one.name.replace("_", "-") for one in options]
    assert [name for name in names if f"{name}`" not in PAGE and f"{name} " not in PAGE] == []
    for one in options:
        if one.name.startswith("max_"):
            (row,) = re.findall(rf"^\| `--{one.name.replace('_', '-')}` \|([^|]*)\|", PAGE, flags=re.MULTILINE)
            assert f"{one.default:,}" in row, one.name
    assert f"{Settings().max_facts:,} log-probabilities" in PAGE
