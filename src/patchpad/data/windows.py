"""Documents are cut into windows of at most `context_bytes`, each starting with the separator."""

from dataclasses import dataclass

import numpy as np

from patchpad.config import IGNORED_TARGET, SEPARATOR
from patchpad.data.corpus import Corpus
from patchpad.errors import ConfigError

GOLDEN_RATIO = (1 + 5**0.5) / 2


@dataclass(frozen=True)
class Windows:
    """Windows of a corpus, in document order.

    A window of m bytes is [separator, its bytes but the last] and predicts all m of them; the last window of a document
    has its last byte as an input too and predicts the end.
    """

    corpus: Corpus
    document: np.ndarray
    begin: np.ndarray
    num_bytes: np.ndarray
    num_repeated: np.ndarray
    """Bytes at the window's start that the window before has counted already (overlap)."""
    is_last: np.ndarray

    def __len__(self) -> int:
        return len(self.document)

    @property
    def num_positions(self) -> np.ndarray:
        """Positions that each window takes in a row."""
        return self.num_bytes + self.is_last

    @property
    def num_counted_bytes(self) -> np.ndarray:
        """Bytes that each window adds to bits per byte."""
        return self.num_bytes - self.num_repeated

    def select(self, indices: np.ndarray) -> "Windows":
        """Returns the windows at `indices`."""
        fields = (self.document, self.begin, self.num_bytes, self.num_repeated, self.is_last)
        return Windows(self.corpus, *(values[indices] for values in fields))

    def limit(self, num_bytes: int) -> "Windows":
        """Returns windows spread evenly over all documents, about `num_bytes` in all and at least one; 0 means all.

        Which ones has no period, or of documents of one length only beginnings or only ends might be taken.

        Raises:
            ConfigError: `num_bytes` is negative.
        """
        if num_bytes < 0:
            raise ConfigError(f"limit_bytes is {num_bytes}; allowed: 0 for all, or a number of bytes")
        total = int(self.num_counted_bytes.sum())
        if num_bytes == 0 or num_bytes >= total:
            return self
        count = max(1, round(num_bytes * len(self) / total))
        if 2 * count <= len(self):
            return self.select(_spread_evenly(count, len(self)))
        return self.select(np.delete(np.arange(len(self)), _spread_evenly(len(self) - count, len(self))))

    def as_corpus(self) -> Corpus:
        """Returns the bytes of each window as a document, so that others are measured on the same text."""
        ranges = zip(self.document.tolist(), self.begin.tolist(), self.num_bytes.tolist(), strict=True)
        texts = [self.corpus.documents[document][begin : begin + size] for document, begin, size in ranges]
        return Corpus(tuple(texts), tuple(map(str, range(len(self)))))

    def ids_and_targets(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns input ids and targets of a window, each [position] of int64."""
        begin, num_bytes = int(self.begin[index]), int(self.num_bytes[index])
        text = self.corpus.documents[self.document[index]][begin : begin + num_bytes].astype(np.int64)
        end = np.array([SEPARATOR])
        joined = np.concatenate((end, text, end))
        size = int(self.num_positions[index])
        targets = joined[1 : size + 1].copy()
        targets[: self.num_repeated[index]] = IGNORED_TARGET
        return joined[:size], targets


def cut_windows(corpus: Corpus, context_bytes: int, overlap_bytes: int = 0) -> Windows:
    """Cuts every document into windows.

    Args:
        corpus: documents.
        context_bytes: most bytes per window.
        overlap_bytes: bytes of the window before that each further window repeats as context.

    Raises:
        ConfigError: an overlap that leaves no new byte in a window.
    """
    if not 0 <= overlap_bytes < context_bytes:
        raise ConfigError(
            f"overlap is {overlap_bytes} with windows of {context_bytes} bytes; allowed: 0 to below the window"
        )
    lengths = corpus.lengths
    stride = context_bytes - overlap_bytes
    counts = 1 + -(-np.maximum(lengths - context_bytes, 0) // stride)
    document = np.repeat(np.arange(len(lengths)), counts)
    ordinal = np.arange(len(document)) - np.repeat(counts.cumsum() - counts, counts)
    begin = ordinal * stride
    num_bytes = np.minimum(context_bytes, lengths[document] - begin)
    return Windows(
        corpus,
        document=document,
        begin=begin,
        num_bytes=num_bytes,
        num_repeated=np.where(ordinal > 0, overlap_bytes, 0),
        is_last=begin + num_bytes == lengths[document],
    )


def _spread_evenly(count: int, total: int) -> np.ndarray:
    """Returns `count` different indices below `total`, at most half of them, ascending and in step with no period.

    Each of `count` equal stretches gives one index. Its place there is the fraction of a multiple of the golden ratio:
    these fill the unit interval evenly, and each lies at most 0.39 before the last one, so no index comes twice.
    """
    stretches = np.arange(count)
    places = (stretches + 0.5) * GOLDEN_RATIO % 1
    return ((stretches + places) * total / max(count, 1)).astype(np.int64)
