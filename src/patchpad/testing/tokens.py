"""A tiny byte-level BPE tokenizer, as the source of a converted model would have it."""

import functools
import json

from patchpad.patching.byte_level_bpe import BYTE_CHARACTERS, tokenizers_library
from patchpad.patching.source_tokens import SourceTokens

LACKS = (0x00, 0x07, 0x9C, 0xC0, 0xF1, 0xFF)
"""Byte values that are not tokens of the tiny tokenizer; 0x9C stands inside real characters, such as \u201c."""
TEXT = (
    "The cat doesn't sit on the mat; it's in the hat, and they'll say they've seen that.\n\n"
    "def cat(self, name):\n    return self.name == name  # 12345 cats\n"
    "naïve café, 日本語 の 日本, שלום, привет мир, 🙂🙂 …\r\n\tThat is the end of the text; the end.\n"
)


@functools.cache
def tiny_tokenizer_json(vocab_size: int = 350, names: tuple[str, str] = ("<|begin|>", "<|end|>")) -> str:
    """Returns a `tokenizer.json` with GPT-2's pattern: id 0 begins a document, 0 and 1 end one; some bytes lack.

    Args:
        vocab_size: tokens in all, at most; the text that they are learned from allows about 400.
        names: of the tokens 0 and 1.
    """
    library = tokenizers_library("the tiny tokenizer of the tests")
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=list(BYTE_CHARACTERS),
        special_tokens=list(names),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer=trainer)
    content = json.loads(tokenizer.to_str())
    missing = {BYTE_CHARACTERS[byte] for byte in LACKS}
    model = content["model"]
    model["merges"] = [pair for pair in model["merges"] if not missing & {*pair[0], *pair[1]}]
    kept = [word for word in model["vocab"] if not missing & {*word}]
    model["vocab"] = {word: number for number, word in enumerate(kept)}
    return json.dumps(content)


@functools.cache
def tiny_source_tokens(max_bytes: int = 24) -> SourceTokens:
    """Returns the tokens of a tiny source, whose longest open text is often reached."""
    return SourceTokens.from_json(tiny_tokenizer_json(), begin=0, ends=(0, 1), max_bytes=max_bytes)
