"""Byte-level BPE tokens by the `tokenizers` library: lossless on any bytes, invalid UTF-8 included.

Bytes are handed to the library as the 256 characters U+0000 to U+00FF, one each, so nothing is ever unknown, replaced
or normalised. Words are cut by a pattern over those characters, in which a byte of 0x80 and more counts as a letter,
but for the UTF-8 forms of general and CJK punctuation.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from patchpad.config import NUM_BYTE_VALUES, SEPARATOR
from patchpad.errors import CheckpointError
from patchpad.patching.byte_level_bpe import tokenizers_library

SAMPLE_BYTES = 20_000_000
"""Most text that tokens are learned from, in pieces spread evenly over all documents."""
PIECE_BYTES = 65_536
LONGEST_TOKEN = 64
"""Bytes; it bounds the work on text without spaces."""

_SPACE = " \t\n\r\x0b\x0c"
_LETTER = "A-Za-z\x80-\xff"
_PUNCTUATION = "(?:[\xe2\xe3]\x80[\x80-\xbf])"
_WORDS = "|".join(
    (
        f" ?(?:(?!{_PUNCTUATION})[{_LETTER}]){{1,{LONGEST_TOKEN - 1}}}",
        " ?[0-9]{1,3}",
        f" ?(?:{_PUNCTUATION}|[^{_LETTER}0-9{_SPACE}]){{1,20}}",
        f"[{_SPACE}]{{1,{LONGEST_TOKEN}}}(?![^{_SPACE}])",
        f"[{_SPACE}]{{1,{LONGEST_TOKEN}}}",
    )
)


class BpeTokens:
    """Tokens 0..255 are the bytes, 256 is the separator, further ones are learned.

    Args:
        tokenizer: a `tokenizers.Tokenizer` over the characters U+0000 to U+00FF.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        ordered = sorted(vocabulary, key=lambda word: vocabulary[word])
        learned = [word for word in ordered if len(word) > 1]
        words = [*map(chr, range(NUM_BYTE_VALUES)), "", *learned]
        self.bytes_of: list[bytes] = [word.encode("latin-1") for word in words]
        """Bytes of each token; none for the separator."""
        own_id = {word: number for number, word in enumerate(words) if number != SEPARATOR}
        self._own_ids = np.array([own_id[word] for word in ordered])

    def __len__(self) -> int:
        return len(self.bytes_of)

    @staticmethod
    def learn(documents: Sequence[np.ndarray], vocab_size: int) -> "BpeTokens":
        """Learns tokens from documents, each [byte] of uint8; the same text gives the same tokens.

        Args:
            documents: training text; at most SAMPLE_BYTES of it are read.
            vocab_size: most tokens, the bytes and the separator included.

        Raises:
            MissingExtraError: the `tokenizers` library is not installed.
        """
        library = tokenizers_library("a bpe model")
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.Split(library.Regex(_WORDS), behavior="isolated")
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab_size - 1,  # the separator is ours
            initial_alphabet=[chr(value) for value in range(NUM_BYTE_VALUES)],
            special_tokens=[],
            show_progress=False,
        )
        tokenizer.train_from_iterator(_sample(documents), trainer=trainer)
        return BpeTokens(tokenizer)

    @staticmethod
    def from_json(text: str) -> "BpeTokens":
        """Reads the content of `tokenizer.json`.

        Raises:
            CheckpointError: it is not such a file.
            MissingExtraError: the `tokenizers` library is not installed.
        """
        library = tokenizers_library("a bpe model")
        try:
            return BpeTokens(library.Tokenizer.from_str(text))
        except Exception as error:  # the library raises nothing more special
            detail = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"cannot read the tokens of a bpe model: {detail}", hint="Use another checkpoint of the run."
            ) from error

    def to_json(self) -> str:
        """Returns the content of `tokenizer.json`."""
        return self._tokenizer.to_str()

    def encode(self, data: bytes) -> list[int]:
        """Returns the tokens of any bytes."""
        return self.encode_many([data])[0]

    def encode_many(self, texts: Sequence[bytes]) -> list[list[int]]:
        """Returns the tokens of several texts, each by itself; the library spreads them over its threads."""
        encodings = self._tokenizer.encode_batch([data.decode("latin-1") for data in texts], add_special_tokens=False)
        return [self._own_ids[encoding.ids].tolist() if encoding.ids else [] for encoding in encodings]

    def decode(self, tokens: Sequence[int]) -> bytes:
        """Returns the bytes of tokens, exactly those that were encoded."""
        return b"".join(self.bytes_of[token] for token in tokens)


def _sample(documents: Sequence[np.ndarray]) -> Iterator[str]:
    """Yields pieces of the documents, evenly spread where the text is longer than SAMPLE_BYTES."""
    pieces = [
        (number, begin) for number, document in enumerate(documents) for begin in range(0, len(document), PIECE_BYTES)
    ]
    total = sum(len(document) for document in documents)
    count = len(pieces) if total <= SAMPLE_BYTES else max(1, len(pieces) * SAMPLE_BYTES // total)
    for place in range(count):
        number, begin = pieces[place * len(pieces) // count]
        yield documents[number][begin : begin + PIECE_BYTES].tobytes().decode("latin-1")
