"""Records of a file, such as the lines of JSONL: which of their fields is the document, and what a bad one is."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from patchpad.data.corpus import Corpus, record_names
from patchpad.data.documents import PackedDocuments
from patchpad.errors import DataError
from patchpad.text import encode_text

logger = logging.getLogger(__name__)

PROMPT, COMPLETION = "prompt", "completion"
"""Fields of a record whose prompt is read and whose completion is trained on."""
MOST_REPORTED = 10
"""So many bad records are named one by one; of further ones only the number is."""
PART_BYTES = 1 << 24
"""Records are gathered until they come to so many bytes."""


@dataclass
class LeftOut:
    """Counts what is left out while files are read.

    Args:
        most_bad: bad records; more are an error.
    """

    most_bad: int = 0
    num_bad: int = 0
    """Records of which no document can be made."""
    num_empty: int = 0
    """Documents without a byte to predict."""

    def add_bad(self, where: str, reason: str, hint: str) -> None:
        """Counts a bad record.

        Args:
            where: file and line.
            reason: what is wrong with it, as the end of a sentence.
            hint: what can be done.

        Raises:
            DataError: there are more than are allowed.
        """
        self.num_bad += 1
        if self.num_bad > self.most_bad:
            counted = f"; that makes {self.num_bad} bad records, allowed: {self.most_bad}" if self.most_bad else ""
            raise DataError(
                f"{where} {reason}{counted}",
                hint=f"{hint} Or leave such records out: data.most_bad_records is how many, at most.",
            )
        if self.num_bad <= MOST_REPORTED:
            logger.warning("left out: %s %s", where, reason)

    def report(self) -> None:
        """Logs how much was left out, but for bad records that were named one by one."""
        if self.num_empty:
            logger.warning("%d empty document(s) have nothing to predict and are left out", self.num_empty)
        if self.num_bad > MOST_REPORTED:
            logger.warning("%d bad records were left out", self.num_bad)


class BadRecord(Exception):  # noqa: N818  (counted, and an error only beyond a limit)
    """No document can be made of a record."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.reason, self.hint = reason, hint


def document_of(record: Any, text_field: str) -> tuple[bytes, int]:
    """Returns the bytes of a record's document, and how many of them are a prompt.

    Raises:
        BadRecord: it has neither the text nor a prompt with a completion.
    """
    found = record if isinstance(record, dict) else {}
    text = found.get(text_field)
    if isinstance(text, str | bytes):
        return encode_text(text), 0
    prompt, completion = found.get(PROMPT), found.get(COMPLETION)
    if isinstance(prompt, str | bytes) and isinstance(completion, str | bytes):
        read = encode_text(prompt)
        return read + encode_text(completion), len(read)
    kinds = ", ".join(f"{name} ({type(value).__name__})" for name, value in found.items())
    has = (kinds or "nothing") if isinstance(record, dict) else f"no fields but is {type(record).__name__}"
    raise BadRecord(
        f"has no string field `{text_field}`, nor `{PROMPT}` and `{COMPLETION}`; it has {has}",
        "Rename the field, or name the one to read: --text-field NAME; `train`: --data.text_field NAME.",
    )


def json_document(line: bytes, text_field: str) -> tuple[bytes, int]:
    """Reads a line of JSONL; see `document_of`.

    Raises:
        BadRecord: it is not JSON, or has no text.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"is not JSON: {error}", "Fix the line.") from error
    return document_of(record, text_field)


@dataclass
class Gatherer:
    """Gathers the documents of a file's records, and makes a corpus of every so many bytes of them.

    Args:
        file: names the records.
        left_out: counts those without a byte to predict.
    """

    file: str
    left_out: LeftOut
    _content: bytearray = field(default_factory=bytearray)
    _lengths: list[int] = field(default_factory=list)
    _numbers: list[int] = field(default_factory=list)
    _prompts: list[int] = field(default_factory=list)

    def add(self, number: int, text: bytes, prompt_bytes: int) -> Iterator[Corpus]:
        """Adds the document of record `number`; yields those gathered so far, if they are enough."""
        if len(text) == prompt_bytes:
            self.left_out.num_empty += 1
            return
        self._content += text
        self._lengths.append(len(text))
        self._numbers.append(number)
        self._prompts.append(prompt_bytes)
        if len(self._content) >= PART_BYTES:
            yield from self.rest()

    def rest(self) -> Iterator[Corpus]:
        """Yields what is gathered, if anything is."""
        if not self._lengths:
            return
        lengths, prompts = np.array(self._lengths, dtype=np.int64), np.array(self._prompts, dtype=np.int64)
        content = np.frombuffer(bytes(self._content), dtype=np.uint8)
        yield Corpus(
            PackedDocuments(content, lengths.cumsum() - lengths, lengths),
            record_names(self.file, np.array(self._numbers, dtype=np.int64)),
            prompts if prompts.any() else None,
        )
        self._content, self._lengths, self._numbers, self._prompts = bytearray(), [], [], []
