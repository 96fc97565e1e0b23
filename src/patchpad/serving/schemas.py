"""Bodies of requests: what they may hold, checked by pydantic. The only place that imports it."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeVar

from patchpad.errors import near_matches
from patchpad.serving.api_error import ApiError
from patchpad.serving.extra import missing_extra
from patchpad.serving.fields import Prompt, read_bias, read_content, read_prompts, read_stop, read_threshold
from patchpad.serving.json_body import shown

try:
    from pydantic import BaseModel, ConfigDict, FailFast, Field, PlainValidator, ValidationError, model_validator
except ImportError as error:
    raise missing_extra(error) from error

DEFAULT_MAX_TOKENS = 256
MOST_LOGPROBS = 20
LARGEST_SEED = 2**62
MOST_MESSAGES = 1000
OF_ANSWERS = ("annotations", "audio", "function_call", "refusal", "tool_calls")
"""Fields that a message of an answer has and no request needs. They are empty where a client sends an answer back."""


def _is_empty(value: Any) -> bool:
    return value in ([], {}, "")


def _is_zero(value: Any) -> bool:
    return value in (0, 0.0)


def _anything(value: Any) -> bool:
    return True


Neutral = Callable[[Any], bool]
UNSERVED: dict[str, tuple[Neutral, str]] = {
    "user": (_anything, ""),
    "store": (_anything, ""),
    "metadata": (_anything, ""),
    "safety_identifier": (_anything, ""),
    "service_tier": (_anything, ""),
    "prompt_cache_key": (_anything, ""),
    "presence_penalty": (_is_zero, "penalties are not served"),
    "frequency_penalty": (_is_zero, "penalties are not served"),
    "suffix": (_is_empty, "text is written from left to right, so nothing can be put before a suffix"),
    "tools": (_is_empty, "the model calls no tools"),
    "functions": (_is_empty, "the model calls no functions"),
    "tool_choice": (lambda value: value in ("none", "auto"), "the model calls no tools"),
    "function_call": (lambda value: value in ("none", "auto"), "the model calls no functions"),
    "parallel_tool_calls": (lambda value: isinstance(value, bool), "the model calls no tools"),
    "response_format": (lambda value: value == {"type": "text"}, "the model writes text; its form cannot be set"),
    "modalities": (lambda value: value == ["text"], "the model writes only text"),
    "audio": (_is_empty, "the model writes only text"),
    "prediction": (_is_empty, "predicted outputs are not served"),
    "reasoning_effort": (lambda value: value == "none", "the model does not reason apart from its text"),
    "web_search_options": (_is_empty, "the model reads no pages"),
}
"""Fields of OpenAI that are not served: which of their values ask for nothing, and why others are refused."""


def _reader(read: Callable[[Any], Any]) -> PlainValidator:
    return PlainValidator(read)


Threshold = Annotated[float | None, _reader(read_threshold)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class StreamOptions(_Body):
    """What a stream holds beside the text."""

    include_usage: bool = False
    include_obfuscation: bool = False


class _Compute(_Body):
    scratchpad_threshold: Threshold = None
    """Nats."""
    compute: Annotated[float, Field(ge=0)] | None = None
    """Trunk calls per byte, in the place of a threshold."""


class _Sampled(_Compute):
    """What completions and chats have in common."""

    model: Annotated[str, Field(max_length=512)] | None = None
    n: Annotated[int, Field(ge=1, le=4096)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Annotated[tuple[bytes, ...], _reader(read_stop)] = ()
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1, le=257)] | None = None
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] | None = None
    logit_bias: Annotated[tuple[tuple[int, float], ...], _reader(read_bias)] = ()
    byte_details: bool | None = None
    """Tell of each byte whether it ended a patch and fired a scratchpad."""


class CompletionBody(_Sampled):
    """Of POST /v1/completions."""

    prompt: Annotated[tuple[Prompt, ...], _reader(read_prompts)] = (Prompt(b""),)
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    echo: bool | None = None
    best_of: int | None = None


class Message(_Body):
    """One turn of a chat."""

    role: str
    content: Annotated[str, _reader(read_content)]
    name: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_empty_fields(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: one for name, one in value.items() if name not in OF_ANSWERS or one not in (None, [])}


class ChatBody(_Sampled):
    """Of POST /v1/chat/completions."""

    messages: Annotated[list[Message], FailFast(), Field(min_length=1, max_length=MOST_MESSAGES)]
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None


class TokenizeBody(_Body):
    """Of POST /tokenize."""

    prompt: str
    model: str | None = None
    add_special_tokens: bool | None = None


class DetokenizeBody(_Body):
    """Of POST /detokenize."""

    tokens: list[Any]
    model: str | None = None


class ProbeBody(_Compute):
    """Of the playground's questions about the model."""

    prompt: Annotated[tuple[Prompt, ...], _reader(read_prompts)]
    position: int | None = None


B = TypeVar("B", bound=_Body)


def checked(kind: type[B], values: dict[str, Any]) -> B:
    """Returns a body that was checked.

    Raises:
        ApiError: a field that is unknown, not served, or has a value that is not allowed.
    """
    kept = {}
    for name, value in values.items():
        if name in UNSERVED and name not in kind.model_fields:
            is_neutral, reason = UNSERVED[name]
            if value is not None and not is_neutral(value):
                raise ApiError(400, f"`{name}` is {shown(value)}: {reason}", param=name, code="not_served")
        elif name not in kind.model_fields:
            hint = near_matches(name[:60], kind.model_fields)
            raise ApiError(400, f"the field {shown(name)} is unknown. {hint}", param=name[:60], code="unknown_field")
        else:
            kept[name] = value
    try:
        return kind.model_validate(kept)
    except ValidationError as error:
        raise _translated(error) from None


def _translated(error: ValidationError) -> ApiError:
    """Returns the first fault that pydantic found."""
    fault = error.errors(include_url=False, include_context=False)[0]
    place = _joined(fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return ApiError(400, f"`{place}` is missing", param=place)
    if fault["type"] == "extra_forbidden":
        return ApiError(400, f"`{place}` is unknown", param=place, code="unknown_field")
    if fault["type"] != "value_error":
        message = f"{shown(fault['input'])}: {message[:1].lower()}{message[1:]}"
    return ApiError(400, f"`{place}` is {message}", param=place)


def _joined(loc: Iterable[int | str]) -> str:
    return ".".join(str(part) for part in loc)[:200]
