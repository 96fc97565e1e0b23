"""A byte-level BPE tokenizer as Hugging Face writes it (`tokenizer.json`): what it says is checked, its two steps run.

Step one cuts a text into pieces, mostly words; step two makes each piece one token or several. In such a tokenizer
each of the 256 byte values is written as one printable character, so that a piece is a string with one character a
byte.
"""

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from patchpad.config import NUM_BYTE_VALUES
from patchpad.errors import CheckpointError, MissingExtraError, PatchpadError

CACHED_PIECES = 1 << 16
"""Pieces whose tokens are remembered."""
MOST_IDS = 1 << 24
"""Far more than any tokenizer has: a larger id is damaged, and a list that long would not fit into memory."""
KEEPS_TEXT = ("ByteLevel", "Digits", "Punctuation", "Split")
"""Kinds of pre-tokenizers that cut a text and keep every byte of it, with the options that are allowed."""


def _byte_characters() -> tuple[str, ...]:
    """The character that stands for each byte: itself where it is printable, else one of U+0100 and after, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte) if byte in printable else chr(next(others)) for byte in range(NUM_BYTE_VALUES))


BYTE_CHARACTERS = _byte_characters()
BYTE_OF_CHARACTER = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}


def characters_of(data: bytes) -> str:
    """Returns bytes as the tokenizer has them, with one character each."""
    return "".join(BYTE_CHARACTERS[byte] for byte in data)


class ByteLevelBpe:
    """Cuts text and encodes pieces as the tokenizer does, and knows the bytes of each of its tokens.

    Its added tokens, such as `<|endoftext|>`, are never the tokens of a text, whatever the text says.

    Args:
        text: content of a `tokenizer.json`.

    Raises:
        CheckpointError: no such file, or a tokenizer of another kind; the message names the field.
        MissingExtraError: the `tokenizers` library is not installed.
    """

    def __init__(self, text: str) -> None:
        try:
            content = _parsed(text)
            _check(content)
            _check_ids(content)
            added = {token["id"]: token["content"] for token in content.get("added_tokens") or []}
            self.bytes_of: list[bytes | None] = _bytes_of(content["model"], added)
            """Bytes of each token; None for added tokens and for ids that no token has."""
            self.added: dict[str, int] = {name: number for number, name in added.items()}
            """Id of each added token, by its name."""
            vocabulary: dict[str, int] = content["model"]["vocab"]
            first = len(self.bytes_of)
            own = {word: first + byte for byte, word in enumerate(BYTE_CHARACTERS) if word not in vocabulary}
            _check_merges(content["model"], vocabulary | own)
            tokenizer = merging = _built(content, vocabulary | own)
            if content["model"].get("ignore_merges"):
                merging = _built({**content, "model": {**content["model"], "ignore_merges": False}}, vocabulary | own)
        except PatchpadError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _unreadable(repr(error)) from error
        self.byte_ids: tuple[int, ...] = tuple((vocabulary | own)[word] for word in BYTE_CHARACTERS)
        """The token that is exactly each byte; ids from len(bytes_of) on where the vocabulary has none."""
        self._cutter, self._model = tokenizer.pre_tokenizer, tokenizer.model
        self._merges = merging.model
        self.encode = functools.lru_cache(CACHED_PIECES)(self._encode)
        """Returns the tokens of one piece, given with one character a byte."""

    def pieces(self, text: str) -> list[str]:
        """Returns the pieces that a text is cut into, each with one character a byte."""
        return [piece for piece, _ in self._cutter.pre_tokenize_str(text)]

    def merged(self, text: str) -> tuple[int, ...]:
        """Returns the tokens that merges make of a text, given with one character a byte.

        That is `encode`, but for tokenizers with `ignore_merges`: these take a whole piece that is a token as that one.
        """
        return tuple(token.id for token in self._merges.tokenize(text))

    def text_of(self, token: int) -> bytes:
        """Returns the bytes of a token; those of separators and the like are none."""
        first = len(self.bytes_of)
        return bytes([token - first]) if token >= first else self.bytes_of[token] or b""

    def tokens_over(self, tokens: Sequence[int], num_bytes: int) -> int | None:
        """Returns how many of the first tokens cover so many bytes; None where a token goes on beyond them."""
        covered = 0
        for count, token in enumerate(tokens):
            if covered >= num_bytes:
                return count if covered == num_bytes else None
            covered += len(self.text_of(token))
        return len(tokens) if covered == num_bytes else None

    def _encode(self, piece: str) -> tuple[int, ...]:
        return tuple(token.id for token in self._model.tokenize(piece))


def tokenizers_library(what: str) -> Any:
    """Returns the library `tokenizers`; the one place that imports it.

    Args:
        what: what needs it, for the message.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtraError(
            f"{what} needs the library `tokenizers`, which is not installed",
            hint='Install it with: pip install "patchpad[bpe]"',
        ) from error
    return tokenizers


def _parsed(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise _unreadable(error) from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        raise _unreadable("it has no `model` with a `vocab`")
    return content


def _built(content: dict[str, Any], vocabulary: dict[str, int]) -> Any:
    """Returns the library's tokenizer without added tokens, which would be found in texts, and with every byte."""
    model = {**content["model"], "vocab": vocabulary, "unk_token": None}
    plain = {**content, "added_tokens": [], "model": model, "post_processor": None, "truncation": None, "padding": None}
    library = tokenizers_library("a model whose patches are the tokens of another")
    try:
        return library.Tokenizer.from_str(json.dumps(plain))
    except Exception as error:  # the library raises nothing more special
        raise _unreadable(error) from error


def _bytes_of(model: dict[str, Any], added: dict[int, str]) -> list[bytes | None]:
    vocabulary: dict[str, int] = model["vocab"]
    merged = {"".join(pair) for pair in _merges(model)} if added else set()
    found: list[bytes | None] = [None] * (1 + max([*vocabulary.values(), *added]))
    for word, number in vocabulary.items():
        if added.get(number) == word and len(word) > 1 and word not in merged:
            continue
        try:
            found[number] = bytes([BYTE_OF_CHARACTER[character] for character in word])
        except KeyError as error:
            raise _unsupported("model.vocab", word, "tokens in the characters of byte-level BPE") from error
    return found


def _merges(model: dict[str, Any]) -> Iterator[list[str]]:
    """Yields the parts of each merge, which old files write as one string."""
    for merge in model["merges"]:
        yield merge.split(" ") if isinstance(merge, str) else merge


def _check_merges(model: dict[str, Any], vocabulary: dict[str, int]) -> None:
    """Raises an error for merges of or to what is not a token: the library may panic at them."""
    for pair in _merges(model):
        for word in (*pair, "".join(pair)):
            if word not in vocabulary:
                raise _unreadable(f"its merges name {word!r}, which is not one of its tokens")


def _check(content: dict[str, Any]) -> None:
    """Raises an error for a tokenizer that is not byte-level BPE, or that changes or drops text."""
    model = content["model"]
    allowed = {
        "type": ("BPE",),
        "byte_fallback": (False, None),
        "continuing_subword_prefix": ("", None),
        "end_of_word_suffix": ("", None),
        "dropout": (None, 0),
    }
    for name, values in allowed.items():
        if model.get(name) not in values:
            raise _unsupported(f"model.{name}", model.get(name), f"{values[0]!r}, as in byte-level BPE")
    normalizer = content.get("normalizer")
    if normalizer and normalizer.get("normalizers") != []:
        raise _unsupported("normalizer", normalizer.get("type"), "None: every byte of a text must stay as it is")
    cutter = content.get("pre_tokenizer")
    steps = _steps(cutter) if cutter else []
    for step in steps:
        kind = step.get("type")
        if kind not in KEEPS_TEXT:
            raise _unsupported("pre_tokenizer.type", kind, ", ".join(KEEPS_TEXT))
        if step.get("add_prefix_space"):
            raise _unsupported("pre_tokenizer.add_prefix_space", True, "False: a text must stay as it is")
        if step.get("behavior") == "Removed":
            raise _unsupported(f"pre_tokenizer.behavior of {kind}", "Removed", "one that keeps every byte of a text")
    if [step.get("type") for step in steps].count("ByteLevel") != 1:
        raise _unsupported("pre_tokenizer.type", cutter and cutter.get("type"), "ByteLevel, or a Sequence with one")


def _check_ids(content: dict[str, Any]) -> None:
    """Raises an error for ids that cannot be places in a list, or that two tokens of the vocabulary share."""
    vocabulary: dict[str, int] = content["model"]["vocab"]
    if not vocabulary:
        raise _unreadable("its vocabulary is empty")
    names = [*vocabulary.items(), *((token["content"], token["id"]) for token in content.get("added_tokens") or [])]
    for name, number in names:
        if type(number) is not int or not 0 <= number < MOST_IDS:
            raise _unreadable(f"{name!r} has the id {number!r}, which is not from 0 to {MOST_IDS - 1}")
    if len(set(vocabulary.values())) < len(vocabulary):
        raise _unreadable("two tokens of its vocabulary have the same id")


def _steps(cutter: dict[str, Any]) -> list[dict[str, Any]]:
    if cutter.get("type") != "Sequence":
        return [cutter]
    return [step for part in cutter.get("pretokenizers", []) for step in _steps(part)]


def _unsupported(field: str, found: Any, allowed: str) -> CheckpointError:
    return CheckpointError(
        f"the tokenizer has {field} = {found!r}; allowed: {allowed}",
        hint="Take a model with a byte-level BPE tokenizer, such as those of GPT-2, SmolLM2 or Llama 3.",
    )


def _unreadable(reason: Any) -> CheckpointError:
    detail = " ".join(str(reason).split())[:200]
    return CheckpointError(
        f"cannot read the tokenizer: {detail}; allowed: the content of a tokenizer.json",
        hint="Copy or download the model again.",
    )


__all__ = ["BYTE_CHARACTERS", "BYTE_OF_CHARACTER", "ByteLevelBpe", "characters_of", "tokenizers_library"]
