"""POST /v1/chat/completions: messages written one after another, which the model continues."""

from collections.abc import Iterable
from typing import Any

from patchpad.serving.api_error import ApiError
from patchpad.serving.completions import FINISH_REASONS, check_model, check_stream_options
from patchpad.serving.fields import Prompt, read_text
from patchpad.serving.jobs import Job, Piece, check_limits, random_seed, sampling_of
from patchpad.serving.model_card import CHAT_NOTE, ModelCard
from patchpad.serving.schemas import DEFAULT_MAX_TOKENS, ChatBody, Message
from patchpad.serving.token_text import byte_details, chat_logprobs
from patchpad.text import TextDecoder

ROLES = {"system": "System", "developer": "System", "user": "User", "assistant": "Assistant"}
STOP = b"\n\nUser:"
"""Where an answer ends: the model goes on with the user's next message."""
JINJA = (
    "{% for message in messages %}"
    "{{ {'system': 'System', 'developer': 'System', 'user': 'User', 'assistant': 'Assistant'}[message['role']] }}: "
    "{{ message['content'] }}\n\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant: {% endif %}"
)
"""The same template for programs that apply it themselves."""


def chat_prompt(messages: Iterable[Message]) -> str:
    """Returns messages as one text: each with its role's name and an empty line after it, then `Assistant: `.

    Raises:
        ApiError: another role than those of `ROLES`.
    """
    written = []
    for place, message in enumerate(messages):
        if message.role not in ROLES:
            raise ApiError(
                400,
                f"the role of message {place} is {message.role[:40]!r}; allowed: {', '.join(ROLES)}",
                param=f"messages.{place}.role",
            )
        written.append(f"{ROLES[message.role]}: {message.content}\n\n")
    return "".join(written) + "Assistant: "


def chat_job(body: ChatBody, card: ModelCard) -> Job:
    """Returns what a body asks for.

    Raises:
        ApiError: it is more than the server allows, or says two things.
        GenerationError: a threshold or compute that the model cannot serve.
        InputError: the same.
    """
    check_model(body.model, card)
    check_stream_options(body.stream, body.stream_options is not None)
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "`top_logprobs` is allowed only with `logprobs`: true", param="top_logprobs")
    if None not in (body.max_tokens, body.max_completion_tokens) and body.max_tokens != body.max_completion_tokens:
        raise ApiError(400, "`max_tokens` and `max_completion_tokens` differ; give one", param="max_tokens")
    limit = body.max_completion_tokens if body.max_tokens is None else body.max_tokens
    try:
        prompt = Prompt(read_text(chat_prompt(body.messages)))
    except ValueError as error:
        raise ApiError(400, f"`messages` hold {error}", param="messages") from None
    job = Job(
        prompts=(prompt,),
        num_choices=body.n or 1,
        max_new_bytes=DEFAULT_MAX_TOKENS if limit is None else limit,
        threshold=card.threshold(body.scratchpad_threshold, body.compute),
        sampling=sampling_of(
            temperature=body.temperature, top_p=body.top_p, top_k=body.top_k, logit_bias=body.logit_bias
        ),
        seed=random_seed() if body.seed is None else body.seed,
        stop=tuple(dict.fromkeys((*body.stop, STOP))),
        num_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        details=bool(body.byte_details),
    )
    check_limits(job, card)
    return job


class ChatForm:
    """Turns a job's pieces into choices of a chat; see `CompletionForm`."""

    id_prefix = "chatcmpl"
    whole, chunk = "chat.completion", "chat.completion.chunk"

    def __init__(self, job: Job, card: ModelCard) -> None:
        self._job = job
        self._model = card.model
        self._decoders = [TextDecoder() for _ in range(job.num_rows)]

    def first(self) -> list[dict[str, Any]]:
        """Returns choices that a stream begins with: who speaks."""
        delta = {"role": "assistant", "content": ""}
        return [
            {"index": number, "delta": delta, "logprobs": None, "finish_reason": None}
            for number in range(self._job.num_rows)
        ]

    def part(self, piece: Piece) -> dict[str, Any] | None:
        """Returns the choice of a stream that tells a piece; None where it would tell nothing."""
        choice = self.choice(piece)
        text = choice.pop("message")["content"]
        choice["delta"] = {"content": text} if text else {}
        return choice if text or piece.is_last or piece.reports else None

    def choice(self, piece: Piece) -> dict[str, Any]:
        """Returns a piece as a choice. Its text is whole characters; the last piece completes the text."""
        text = self._decoders[piece.choice].push(piece.data, final=piece.is_last)
        choice: dict[str, Any] = {
            "index": piece.choice,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": None if piece.stop_reason is None else FINISH_REASONS[piece.stop_reason],
        }
        if self._job.num_logprobs is not None:
            choice["logprobs"] = chat_logprobs(self._model, piece.reports)
        if self._job.details:
            choice["bytes"] = byte_details(piece.reports, piece.data)
        if piece.is_last:
            choice["stop_reason"] = piece.stop_reason
        return choice

    def joined(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns the parts of one choice as one."""
        last = choices[-1]
        text = "".join(choice["message"]["content"] for choice in choices)
        joined = {**last, "message": {**last["message"], "content": text}}
        if self._job.num_logprobs is not None:
            content = [entry for choice in choices for entry in choice["logprobs"]["content"]]
            joined["logprobs"] = {"content": content, "refusal": None}
        if self._job.details:
            joined["bytes"] = [entry for choice in choices for entry in choice["bytes"]]
        return joined

    def notes(self) -> dict[str, Any]:
        """Returns further keys of an answer: that the model is not a chat model."""
        return {"note": CHAT_NOTE}
