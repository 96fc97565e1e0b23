"""/v1/chat/completions: messages as plain text, and a model that says that it is none for chats."""

import jinja2
import pytest

import patchpad

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Größe?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": [{"type": "text", "text": "Of "}, {"type": "text", "text": "what?"}]},
]
PROMPT = "System: Be brief.\n\nUser: Größe?\n\nAssistant: Two.\n\nUser: Of what?\n\nAssistant: "


def own(tiny, **options):
    return patchpad.complete(tiny, PROMPT, stop="\n\nUser:", temperature=1.0, max_new_bytes=20, **options)


def test_messages_are_continued_as_plain_text(served, tiny):
    reply = served.post("/v1/chat/completions", messages=MESSAGES, max_tokens=20, seed=2, model="tiny").json
    choice = reply["choices"][0]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == own(tiny, seed=2).text
    assert reply["usage"]["prompt_tokens"] == len(PROMPT.encode())
    assert "not trained to chat" in reply["note"]


def test_the_template_for_other_programs_writes_the_same(served):
    template = served.ask("GET", "/tokenizer_info").json["chat_template"]
    plain = [{**one, "content": "Of what?" if isinstance(one["content"], list) else one["content"]} for one in MESSAGES]
    rendered = jinja2.Template(template, keep_trailing_newline=True).render(messages=plain, add_generation_prompt=True)
    assert rendered == PROMPT


def test_a_chat_is_streamed(served, tiny):
    reply = served.post("/v1/chat/completions", messages=MESSAGES, max_completion_tokens=20, seed=2, stream=True, n=2)
    events = reply.events
    assert [choice["delta"] for choice in events[0]["choices"]] == [{"role": "assistant", "content": ""}] * 2
    assert "not trained to chat" in events[0]["note"]
    for number in range(2):
        mine = [choice for event in events for choice in event["choices"] if choice["index"] == number]
        assert "".join(choice["delta"].get("content", "") for choice in mine) == own(tiny, seed=2 + number).text
        assert mine[-1]["finish_reason"] == "length"


def test_logprobs_of_a_chat_have_openai_s_form(served):
    asked = {"messages": MESSAGES, "max_tokens": 6, "seed": 2, "byte_details": True}
    reply = served.post("/v1/chat/completions", **asked, logprobs=True, top_logprobs=2).json
    choice = reply["choices"][0]
    content = choice["logprobs"]["content"]
    assert [entry["bytes"] for entry in content] == [[detail["byte"]] for detail in choice["bytes"]]
    assert all(len(entry["top_logprobs"]) == 2 for entry in content)
    assert all(entry["logprob"] <= max(top["logprob"] for top in entry["top_logprobs"]) for entry in content)


def test_an_answer_ends_where_the_user_would_speak(served, tiny):
    biases = {str(value): 0 for value in b"\n\nUser:"}
    reply = served.post("/v1/chat/completions", messages=MESSAGES, max_tokens=6, logit_bias={**biases, "10": 100})
    assert reply.json["choices"][0]["message"]["content"] == "\n" * 6
    assert own(tiny, seed=2).stop_reason in ("length", "end")


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "at least 1 item"),
        ([{"role": "tool", "content": "a"}], "the role of message 0 is 'tool'; allowed: system, developer, user"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "a part that is not text"),
        ([{"role": "user"}], "`messages.0.content` is missing"),
        ([{"role": "user", "content": "a", "tool_calls": [{"id": "b"}]}], "`messages.0.tool_calls` is unknown"),
        ("hello", "should be a valid list"),
        ([{"role": "user", "content": "\ud800"}], "surrogate"),
    ],
)
def test_messages_that_are_none_are_refused(served, messages, says):
    reply = served.post("/v1/chat/completions", messages=messages)
    assert reply.status == 400
    assert says in reply.error["message"]
