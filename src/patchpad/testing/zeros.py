"""Texts of any size that take no memory: who goes through all their bytes does not come to an end."""

from collections.abc import Sequence

import numpy as np

from patchpad.data import Corpus


class ZeroDocuments(Sequence[np.ndarray]):
    """Documents of zeros."""

    def __init__(self, lengths: Sequence[int] | np.ndarray) -> None:
        self.lengths = np.array(lengths, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> np.ndarray:  # pyrefly: ignore[bad-override]
        """Returns a document: one byte in memory, seen again and again."""
        return np.broadcast_to(np.zeros(1, dtype=np.uint8), int(self.lengths[index]))


def zero_corpus(lengths: Sequence[int] | np.ndarray, prompt_bytes: Sequence[int] | None = None) -> Corpus:
    """Returns a corpus of documents of these lengths."""
    prompts = None if prompt_bytes is None else np.array(prompt_bytes)
    return Corpus(ZeroDocuments(lengths), [""] * len(lengths), prompts)
