"""POST /v1/completions: from a body to a job, and from a job's pieces to OpenAI's answers."""

from typing import Any

from patchpad.serving.api_error import ApiError
from patchpad.serving.fields import Prompt
from patchpad.serving.jobs import Job, Piece, check_limits, random_seed, sampling_of
from patchpad.serving.model_card import ModelCard
from patchpad.serving.schemas import DEFAULT_MAX_TOKENS, CompletionBody
from patchpad.serving.token_text import CompletionLogprobs, byte_details, joined_logprobs
from patchpad.text import TextDecoder

FINISH_REASONS = {"length": "length", "end": "stop", "stop": "stop"}
"""OpenAI's words for why a choice has ended."""


def completion_job(body: CompletionBody, card: ModelCard) -> Job:
    """Returns what a body asks for.

    Raises:
        ApiError: it is more than the server allows, or says two things.
        GenerationError: a threshold or compute that the model cannot serve.
        InputError: the same.
    """
    check_model(body.model, card)
    check_stream_options(body.stream, body.stream_options is not None)
    count = body.n or 1
    if body.best_of is not None and body.best_of != count:
        raise ApiError(
            400, f"`best_of` is {body.best_of}; allowed: the value of `n`, {count}", param="best_of", code="not_served"
        )
    job = Job(
        prompts=body.prompt,
        num_choices=count,
        max_new_bytes=DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens,
        threshold=card.threshold(body.scratchpad_threshold, body.compute),
        sampling=sampling_of(
            temperature=body.temperature, top_p=body.top_p, top_k=body.top_k, logit_bias=body.logit_bias
        ),
        seed=random_seed() if body.seed is None else body.seed,
        stop=body.stop,
        num_logprobs=body.logprobs,
        details=bool(body.byte_details),
        echo=bool(body.echo),
    )
    check_limits(job, card)
    return job


def check_model(name: str | None, card: ModelCard) -> None:
    """Refuses a request for another model.

    Raises:
        ApiError: with the name of the model that is served.
    """
    own = card.settings.model_id
    if name is not None and name != own:
        raise ApiError(
            404, f"the model {name[:100]!r} is not served here; allowed: {own!r}", param="model", code="model_not_found"
        )


def check_stream_options(is_stream: bool | None, has_options: bool) -> None:
    """Refuses options of a stream where there is none.

    Raises:
        ApiError: there are some.
    """
    if has_options and not is_stream:
        raise ApiError(400, "`stream_options` are allowed only with `stream`: true", param="stream_options")


class CompletionForm:
    """Turns a job's pieces into choices of a completion.

    Args:
        job: whose pieces come.
        card: names the model and its ids.
    """

    id_prefix = "cmpl"
    whole, chunk = "text_completion", "text_completion"
    """Kinds of object, of an answer and of a part of a stream."""

    def __init__(self, job: Job, card: ModelCard) -> None:
        self._job = job
        self._decoders = [TextDecoder() for _ in range(job.num_rows)]
        self._logprobs = [CompletionLogprobs(card.token_names) for _ in range(job.num_rows)]

    def first(self) -> list[dict[str, Any]]:
        """Returns choices that a stream begins with."""
        return []

    def part(self, piece: Piece) -> dict[str, Any] | None:
        """Returns the choice of a stream that tells a piece; None where it would tell nothing."""
        choice = self.choice(piece)
        tells = choice["text"] or piece.is_last or piece.reports or choice["logprobs"] is not None
        return choice if tells else None

    def choice(self, piece: Piece) -> dict[str, Any]:
        """Returns a piece as a choice. Its text is whole characters; the last piece completes the text."""
        number = piece.choice
        choice: dict[str, Any] = {
            "index": number,
            "text": self._decoders[number].push(piece.data, final=piece.is_last),
            "logprobs": None,
            "finish_reason": None if piece.stop_reason is None else FINISH_REASONS[piece.stop_reason],
        }
        if self._job.num_logprobs is not None:
            choice["logprobs"] = self._logprobs_of(piece)
        if self._job.details and not piece.is_prompt:
            choice["bytes"] = byte_details(piece.reports, piece.data)
        if piece.is_last:
            choice["stop_reason"] = piece.stop_reason
        return choice

    def _logprobs_of(self, piece: Piece) -> dict[str, Any] | None:
        found = self._logprobs[piece.choice]
        prompt: Prompt = self._job.prompt_of(piece.choice)
        parts = [found.add_separator()] if piece.is_prompt and prompt.has_separator else []
        parts.append(found.add(piece.reports, piece.data))
        return joined_logprobs(parts) if any(part["tokens"] for part in parts) else None

    def joined(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns the parts of one choice as one."""
        last = choices[-1]
        joined = {**last, "text": "".join(choice["text"] for choice in choices)}
        if self._job.num_logprobs is not None:
            parts = [choice["logprobs"] for choice in choices if choice["logprobs"] is not None]
            empty = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
            joined["logprobs"] = joined_logprobs([empty, *parts])
        if self._job.details:
            joined["bytes"] = [entry for choice in choices for entry in choice.get("bytes", ())]
        return joined

    def notes(self) -> dict[str, Any]:
        """Returns further keys of an answer."""
        return {}
