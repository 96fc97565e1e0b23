"""Ids as text, for the fields of OpenAI's answers in which tokens are strings."""

from collections.abc import Iterable, Sequence
from typing import Any

from patchpad.inference.reports import ByteReport
from patchpad.model.language_model import LanguageModel
from patchpad.serving.fields import SEPARATOR_NAME
from patchpad.text import TextDecoder


def token_text(data: bytes | None) -> str:
    r"""Returns a token as text: printable ASCII as it is, other bytes as ``\xNN``; None is the separator."""
    if data is None:
        return SEPARATOR_NAME
    if len(data) == 1:
        return chr(data[0]) if 32 <= data[0] < 127 else f"\\x{data[0]:02x}"
    return "".join(map(token_text, (data[place : place + 1] for place in range(len(data)))))


class TokenNames(dict[int, str]):
    """The text of each id of a model, found when it is first asked for.

    Args:
        model: of bytes or of tokens.
    """

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self._model = model

    def __missing__(self, number: int) -> str:
        name = self[number] = token_text(self._model.bytes_of(number))
        return name


class CompletionLogprobs:
    """The object `logprobs` of a completion, built piece by piece.

    Args:
        names: of ids.
    """

    def __init__(self, names: TokenNames) -> None:
        self._names = names
        self._decoder = TextDecoder()
        self._num_characters = 0

    def add_separator(self) -> dict[str, Any]:
        """Returns the entry of a separator that a prompt begins with. Nothing comes before it, so it has no number."""
        return {"tokens": [SEPARATOR_NAME], "token_logprobs": [None], "top_logprobs": [None], "text_offset": [0]}

    def add(self, reports: Iterable[ByteReport], data: bytes) -> dict[str, Any]:
        """Returns the entries of further ids.

        Args:
            reports: of the ids.
            data: the bytes that they stand for, in their order.
        """
        entries: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        place = 0
        for report in reports:
            token = self._names[report.chosen_id]
            entries["tokens"].append(token)
            entries["token_logprobs"].append(report.logprob)
            entries["top_logprobs"].append(self._top(token, report))
            entries["text_offset"].append(self._num_characters)
            piece = data[place : place + report.num_bytes]
            place += report.num_bytes
            self._num_characters += len(self._decoder.push(piece))
        return entries

    def _top(self, token: str, report: ByteReport) -> dict[str, float]:
        names = self._names
        top = {names[number]: logprob for number, logprob in report.top}
        if report.logprob is not None:
            top.setdefault(token, report.logprob)
        return top


def joined_logprobs(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns several entries of one choice as one."""
    joined: dict[str, Any] = {}
    for part in parts:
        for name, values in part.items():
            joined.setdefault(name, []).extend(values)
    return joined


def chat_logprobs(model: LanguageModel, reports: Iterable[ByteReport]) -> dict[str, Any]:
    """Returns the object `logprobs` of a chat's choice."""
    content = []
    for report in reports:
        entry = _chat_token(model, report.chosen_id, report.logprob)
        entry["top_logprobs"] = [_chat_token(model, number, logprob) for number, logprob in report.top]
        content.append(entry)
    return {"content": content, "refusal": None}


def _chat_token(model: LanguageModel, number: int, logprob: float | None) -> dict[str, Any]:
    data = model.bytes_of(number)
    return {"token": token_text(data), "logprob": logprob, "bytes": list(data or b"")}


def byte_details(reports: Iterable[ByteReport], data: bytes) -> list[dict[str, Any]]:
    """Returns the extra list `bytes` of a choice: what the model did at each id.

    Args:
        reports: of the ids.
        data: the bytes that they stand for, in their order.
    """
    found = []
    place = 0
    for report in reports:
        piece = data[place : place + report.num_bytes]
        place += report.num_bytes
        found.append(
            {
                "byte": piece[0] if len(piece) == 1 else None,
                **({} if len(piece) == 1 else {"bytes": list(piece)}),
                "id": report.chosen_id,
                "num_bytes": report.num_bytes,
                "ends_patch": report.ends_patch,
                "has_scratchpad": report.has_scratchpad,
                "entropy_nats": report.entropy_nats,
                "logprob": report.logprob,
            }
        )
    return found
