"""`SourceTokens`: a text byte by byte as the tokens of a subword model, each known as early as its tokenizer allows.

A tokenizer cuts a text into pieces, mostly words, and makes each piece one token or several. That a piece has ended is
known when the next one begins, and then all its tokens are. Before that, its first tokens are known once no byte that
may follow could change them. So at a byte several tokens may become known at once, and they end before that byte. They
are *committed*. The bytes after the last committed token are the *open text*.
"""

import codecs
import functools
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from patchpad.config import LONGEST_CHARACTER, NUM_BYTE_VALUES
from patchpad.errors import CheckpointError, InputError, integer_or_none
from patchpad.patching.byte_level_bpe import ByteLevelBpe, characters_of
from patchpad.patching.certain_tokens import CertainTokens

CACHED_STEPS = 1 << 17
"""Open pieces with a byte whose outcome is remembered. All that is remembered takes 125 MB when it is full."""
LONGEST_OPEN_TEXT = 64
"""Bytes, where nothing else is said."""
PROBES = (*"lest1.' \n", "\u0301", "日")
"""Characters that might come next. A piece is closed once none of them would change where it ends: the "'" of "'l" is
not, since "l" makes the two one piece, "'ll"."""


class OpenPiece(NamedTuple):
    """What has to be known of a text before its next byte: the end of it that may still be cut differently."""

    data: bytes = b""
    """From the first byte that is not in a closed piece."""
    num_committed: int = 0
    """How many of its first bytes committed tokens cover."""

    @property
    def text(self) -> bytes:
        """The open text."""
        return self.data[self.num_committed :]


class SourceTokens:
    """Tokens of a subword model, its source, as they become known byte by byte.

    Ids below len(bytes_of) are the source's own. Id len(bytes_of) + b stands for byte b where the source has no token
    for it. Make one with `from_json` or `of_run`.

    What is committed are the tokens that the tokenizer itself makes of the whole text, except where an open piece grows
    beyond `max_bytes`, and around bytes that are not UTF-8. Tests show it for the patterns of GPT-2 and Llama 3, for
    single digits, for digits by threes from either side, and for contractions that are one piece with their word.

    Args:
        tokenizer: content of the source's `tokenizer.json`.
        begin: token that begins a document.
        ends: tokens that end one.
        max_bytes: longest open piece, and so the longest open text.

    Raises:
        CheckpointError: not a byte-level BPE tokenizer; the message names the field.
        InputError: `begin`, `ends` or `max_bytes` is not allowed.
        MissingExtraError: the `tokenizers` library is not installed.
    """

    def __init__(self, tokenizer: str, begin: int, ends: Sequence[int], max_bytes: int) -> None:
        self._tokenizer = tokenizer
        self._bpe = ByteLevelBpe(tokenizer)
        self._certain = CertainTokens(self._bpe)
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
        """Returns the tokens committed when a byte comes, and the `OpenPiece` after it, whose text is never empty.

        A pure function of an open piece, an empty one or what it has returned itself, and a byte: so it does not matter
        in how many passes a text is read, nor what follows.
        """
        self.open_tokens = functools.lru_cache(CACHED_STEPS)(self._open_tokens)
        """Returns the tokens that the text of an open piece would be if the document ended here."""

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
        """Returns the most bytes of an open piece; of one that would be longer, only the last character stays open."""
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
        """Returns the bytes of tokens; those of separators and the like are none."""
        return b"".join(map(self._bpe.text_of, tokens))

    def _advance(self, piece: OpenPiece, byte: int) -> tuple[tuple[int, ...], OpenPiece]:
        data, known = piece.data + bytes([byte]), piece.num_committed
        try:
            text, used = codecs.utf_8_decode(data, "strict", False)
        except UnicodeDecodeError as error:
            # All but the newest byte is closed: whole characters, then bytes that are not part of one.
            whole = self._tokens(data[: error.start].decode())
            return self._beyond(whole, known) + self._single(data[error.start : -1]), OpenPiece(data[-1:])
        committed: tuple[int, ...] = ()
        is_whole = used == len(data)
        if is_whole and (closed := self._closed(text)):
            committed = self._beyond(itertools.chain(*map(self._bpe.encode, closed)), known)
            num_closed = sum(map(len, closed))
            data, known = data[num_closed:], max(0, known - num_closed)
        if len(data) > self._max_bytes:
            last = len(data) - 1
            while data[last] & 0xC0 == 0x80:  # not the first byte of its character
                last -= 1
            committed += self._beyond(self._tokens(data[:last].decode()), known)
            return committed, OpenPiece(data[last:])
        if used == 0 or (not is_whole and known >= used):
            return committed, OpenPiece(data, known)  # all that is open is a character that is unfinished
        num_whole = len(data) if is_whole else used
        certain = self._certain.beyond(characters_of(data), known, None if is_whole else num_whole)
        if certain and self._stays_whole(data[:num_whole].decode()):
            committed, known = committed + certain, known + len(self.text_of(certain))
        return committed, OpenPiece(data, known)

    def _open_tokens(self, piece: OpenPiece) -> tuple[int, ...]:
        data = piece.data
        try:
            text, used = codecs.utf_8_decode(data, "strict", False)
        except UnicodeDecodeError as error:
            tokens = self._tokens(data[: error.start].decode()) + self._single(data[error.start :])
        else:
            tokens = self._tokens(text, data[used:])
        return self._beyond(tokens, piece.num_committed)

    def _closed(self, text: str) -> list[str]:
        """Returns the pieces of a text that stay as they are, whatever follows."""
        pieces = self._bpe.pieces(text)
        closed = len(pieces) - 1
        for probe in PROBES if closed else ():
            longer = self._bpe.pieces(text + probe)
            same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(pieces[:closed], longer, strict=False))
            closed = sum(1 for _ in same)
        return pieces[:closed]

    def _stays_whole(self, text: str) -> bool:
        """Whether a text that begins a piece stays in one piece, whatever follows."""
        length = len(text.encode())
        return all(len(self._bpe.pieces(text + probe)[0]) >= length for probe in PROBES)

    def _beyond(self, tokens: Iterable[int], num_bytes: int) -> tuple[int, ...]:
        """Returns the tokens that are left of some whose first bytes are committed.

        Tokens that do not begin with those committed come from a rule that cuts a piece because of what follows far
        behind. Then the bytes that are left are encoded by themselves.
        """
        tokens = tuple(tokens)
        count = self._bpe.tokens_over(tokens, num_bytes)
        if count is None:
            return self._bpe.merged(characters_of(self.text_of(tokens)[num_bytes:]))
        return tokens[count:]

    def _tokens(self, text: str, unfinished: bytes = b"") -> tuple[int, ...]:
        """Returns the tokens of a whole text, the beginning of a character behind it as part of its last piece."""
        pieces = self._bpe.pieces(text) if text else []
        if unfinished:
            pieces[-1:] = ["".join(pieces[-1:]) + characters_of(unfinished)]
        return tuple(itertools.chain(*map(self._bpe.encode, pieces)))

    def _single(self, data: bytes) -> tuple[int, ...]:
        return tuple(self._bpe.byte_ids[byte] for byte in data)

    def _checked_id(self, name: str, token: int) -> int:
        number = integer_or_none(token)
        if number is None or not 0 <= number < len(self.bytes_of):
            raise InputError(f"{name} has the token {token!r}; allowed: ids 0 to {len(self.bytes_of) - 1}")
        return number


__all__ = ["OpenPiece", "SourceTokens"]
