"""`SourceTokens`: a text byte by byte as the tokens of a subword model, each known as early as its tokenizer allows.

A tokenizer cuts a text into pieces, mostly words, and makes each piece one token or several. That a piece has ended is
known when the next one begins: so at a byte several tokens may become known at once, and they end before that byte.
They are *committed*. The bytes after the last committed token are the *open text*.
"""

import codecs
import functools
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

from patchpad.config import LONGEST_CHARACTER, NUM_BYTE_VALUES
from patchpad.errors import CheckpointError, InputError, integer_or_none
from patchpad.patching.byte_level_bpe import BYTE_CHARACTERS, ByteLevelBpe

CACHED_STEPS = 1 << 17
"""Pairs of an open text and a byte whose outcome is remembered. All that is remembered takes 125 MB when it is full."""
LONGEST_OPEN_TEXT = 64
"""Bytes, where nothing else is said."""
PROBES = (*"lest1.' \n", "\u0301", "日")
"""Characters that might come next. A piece is closed once none of them would change where it ends: the "'" of "'l" is
not, since "l" makes the two one piece, "'ll"."""


class SourceTokens:
    """Tokens of a subword model, its source, as they become known byte by byte.

    Ids below len(bytes_of) are the source's own. Id len(bytes_of) + b stands for byte b where the source has no token
    for it. Make one with `from_json` or `of_run`.

    What is committed are the tokens that the tokenizer itself makes of the whole text, but where an open text grows
    beyond `max_bytes`, and around bytes that are not UTF-8. Tests show it for the patterns of GPT-2 and Llama 3, for
    single digits, for digits by threes from either side, and for contractions that are one piece with their word.

    Args:
        tokenizer: content of the source's `tokenizer.json`.
        begin: token that begins a document.
        ends: tokens that end one.
        max_bytes: longest open text.

    Raises:
        CheckpointError: not a byte-level BPE tokenizer; the message names the field.
        InputError: `begin`, `ends` or `max_bytes` is not allowed.
        MissingExtraError: the `tokenizers` library is not installed.
    """

    def __init__(self, tokenizer: str, begin: int, ends: Sequence[int], max_bytes: int) -> None:
        self._tokenizer = tokenizer
        self._bpe = ByteLevelBpe(tokenizer)
        self.bytes_of: list[bytes | None] = self._bpe.bytes_of
        """Bytes of each of the source's tokens; None for those that are not text, such as its separators."""
        self.begin: int = self._checked_id("begin", begin)
        """The token that begins a document."""
        self.ends: tuple[int, ...] = tuple(self._checked_id("ends", token) for token in ends)
        """Tokens that end a document."""
        if (integer_or_none(max_bytes) or 0) < LONGEST_CHARACTER:
            raise InputError(
                f"max_bytes is {max_bytes!r}; allowed: {LONGEST_CHARACTER} or more, the bytes of the longest character"
            )
        self._max_bytes = max_bytes
        self.advance = functools.lru_cache(CACHED_STEPS)(self._advance)
        """Returns the tokens committed when a byte comes, and the open text after it, which is never empty.

        A pure function of an open text, b"" or one that it has returned itself, and a byte: so it does not matter in
        how many passes a text is read, nor what follows.
        """
        self.draft = functools.lru_cache(CACHED_STEPS)(self._draft)
        """Returns the tokens that the open text would be if the document ended here."""

    @staticmethod
    def from_json(text: str, *, begin: int, ends: Sequence[int], max_bytes: int = LONGEST_OPEN_TEXT) -> "SourceTokens":
        """Reads the content of a `tokenizer.json` of Hugging Face; arguments and errors are those of the class."""
        return SourceTokens(text, begin, ends, max_bytes)

    @staticmethod
    def of_run(text: str) -> "SourceTokens":
        """Reads what `to_json` wrote.

        Raises:
            CheckpointError: it is not that.
            MissingExtraError: the `tokenizers` library is not installed.
        """
        try:
            content: dict[str, Any] = json.loads(text)
            tokenizer, begin, ends, longest = (content[key] for key in ("tokenizer", "begin", "ends", "max_bytes"))
            return SourceTokens(json.dumps(tokenizer, ensure_ascii=False), begin, ends, longest)
        except (ValueError, TypeError, KeyError) as error:
            detail = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"cannot read the tokens of the source: {detail}", hint="Use another checkpoint of the run."
            ) from error

    def to_json(self) -> str:
        """Returns what a run keeps: the tokenizer, the tokens that begin and end a document, and the longest text."""
        content = {"begin": self.begin, "ends": list(self.ends), "max_bytes": self._max_bytes}
        return json.dumps({**content, "tokenizer": json.loads(self._tokenizer)}, ensure_ascii=False) + "\n"

    def __deepcopy__(self, memo: dict[int, Any]) -> "SourceTokens":
        return self  # nothing in it changes

    def __reduce__(self) -> tuple[Any, ...]:
        return SourceTokens.of_run, (self.to_json(),)

    @property
    def num_ids(self) -> int:
        """How many ids there are: the source's, and one for each byte value."""
        return len(self.bytes_of) + NUM_BYTE_VALUES

    def longest(self) -> int:
        """Returns the most bytes of open text; of a text that would be longer, only the last character stays open."""
        return self._max_bytes

    def limited_to(self, max_bytes: int) -> "SourceTokens":
        """Returns the same tokens with another longest open text.

        Raises:
            InputError: `max_bytes` is not allowed.
        """
        if max_bytes == self._max_bytes:
            return self
        return SourceTokens(self._tokenizer, self.begin, self.ends, max_bytes)

    def text_of(self, tokens: Iterable[int]) -> bytes:
        """Returns the bytes of tokens; those of separators and alike are none."""
        first = len(self.bytes_of)
        return b"".join(bytes([token - first]) if token >= first else self.bytes_of[token] or b"" for token in tokens)

    def _advance(self, open_text: bytes, byte: int) -> tuple[tuple[int, ...], bytes]:
        data = open_text + bytes([byte])
        try:
            text, used = codecs.utf_8_decode(data, "strict", False)
        except UnicodeDecodeError as error:
            # All but the newest byte is closed: whole characters, then bytes that are none.
            return self._tokens(data[: error.start].decode()) + self._single(data[error.start : -1]), data[-1:]
        committed: tuple[int, ...] = ()
        if used == len(data):
            closed = self._closed(text)
            committed, data = tuple(itertools.chain(*map(self._bpe.encode, closed))), data[sum(map(len, closed)) :]
        if len(data) > self._max_bytes:
            last = len(data) - 1
            while data[last] & 0xC0 == 0x80:  # not the first byte of its character
                last -= 1
            committed, data = committed + self._tokens(data[:last].decode()), data[last:]
        return committed, data

    def _draft(self, open_text: bytes) -> tuple[int, ...]:
        try:
            text, used = codecs.utf_8_decode(open_text, "strict", False)
        except UnicodeDecodeError as error:
            return self._tokens(open_text[: error.start].decode()) + self._single(open_text[error.start :])
        return self._tokens(text, open_text[used:])

    def _closed(self, text: str) -> list[str]:
        """Returns the pieces of a text that stay as they are, whatever follows."""
        pieces = self._bpe.pieces(text)
        closed = len(pieces) - 1
        for probe in PROBES if closed else ():
            longer = self._bpe.pieces(text + probe)
            same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(pieces[:closed], longer, strict=False))
            closed = sum(1 for _ in same)
        return pieces[:closed]

    def _tokens(self, text: str, unfinished: bytes = b"") -> tuple[int, ...]:
        """Returns the tokens of a whole text, the beginning of a character behind it as part of its last piece."""
        pieces = self._bpe.pieces(text) if text else []
        if unfinished:
            pieces[-1:] = ["".join(pieces[-1:]) + "".join(BYTE_CHARACTERS[byte] for byte in unfinished)]
        return tuple(itertools.chain(*map(self._bpe.encode, pieces)))

    def _single(self, data: bytes) -> tuple[int, ...]:
        return tuple(self._bpe.byte_ids[byte] for byte in data)

    def _checked_id(self, name: str, token: int) -> int:
        number = integer_or_none(token)
        if number is None or not 0 <= number < len(self.bytes_of):
            raise InputError(f"{name} has the token {token!r}; allowed: ids 0 to {len(self.bytes_of) - 1}")
        return number


__all__ = ["SourceTokens"]
