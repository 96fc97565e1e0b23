"""Documents are cut into windows of at most `context_bytes`, each starting with the separator."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from patchpad.config import IGNORED_TARGET, SEPARATOR
from patchpad.data.corpus import Corpus
from patchpad.data.documents import Documents
from patchpad.errors import ConfigError

GOLDEN_RATIO = (1 + 5**0.5) / 2


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How the documents of a corpus are cut; known from their lengths alone.

    A window in which nothing is predicted, all of it prompt, is left out.
    """

    corpus: Corpus
    context_bytes: int
    """Most bytes per window."""
    overlap_bytes: int = 0
    """Bytes of the window before that each further window repeats as context."""

    def ordinals(self, documents: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ordinals of the first and the last window of each document, each [document]."""
        stride = self.context_bytes - self.overlap_bytes
        last = -(-np.maximum(self.corpus.lengths[documents] - self.context_bytes, 0) // stride)
        if self.corpus.prompt_bytes is None:
            return np.zeros_like(last), last
        unseen = self.corpus.prompt_bytes[documents] + 1 - self.context_bytes
        return np.minimum(-(-np.maximum(unseen, 0) // stride), last), last

    def bounds(self, document: np.ndarray, ordinal: np.ndarray) -> "Bounds":
        """Returns where windows lie that are given by document and ordinal, each [window]."""
        length = self.corpus.lengths[document]
        begin = ordinal * (self.context_bytes - self.overlap_bytes)
        num_bytes = np.minimum(self.context_bytes, length - begin)
        num_ignored = np.where(ordinal > 0, self.overlap_bytes, 0)
        if self.corpus.prompt_bytes is not None:
            in_prompt = np.clip(self.corpus.prompt_bytes[document] - begin, 0, num_bytes)
            num_ignored = np.maximum(num_ignored, in_prompt)
        return Bounds(
            document=document,
            begin=begin,
            num_bytes=num_bytes,
            num_ignored=num_ignored,
            is_last=begin + num_bytes == length,
        )


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Where windows lie in their documents, each [window].

    A window of m bytes is [separator, its bytes but the last] and predicts all m of them; the last window of a document
    has its last byte as an input too and predicts the end.
    """

    document: np.ndarray
    begin: np.ndarray
    num_bytes: np.ndarray
    num_ignored: np.ndarray
    """Bytes at the window's start that are context alone: counted in the window before, or part of a prompt."""
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
        return self.num_bytes - self.num_ignored

    @staticmethod
    def joined(parts: "Sequence[Bounds]") -> "Bounds":
        """Returns the windows of all parts, one part after the other."""
        return Bounds(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])})

    def select(self, indices: np.ndarray) -> "Bounds":
        """Returns the bounds at `indices`."""
        return Bounds(**{name: values[indices] for name, values in vars(self).items()})

    def read(self, index: int, documents: Documents, ids: np.ndarray, targets: np.ndarray) -> None:
        """Reads a window into input ids and targets, each [position].

        Args:
            index: of the window.
            documents: that were cut.
            ids: receives the input.
            targets: receives the targets.
        """
        begin, num_bytes = int(self.begin[index]), int(self.num_bytes[index])
        text = documents.read(int(self.document[index]), begin, begin + num_bytes)
        ids[0] = SEPARATOR
        ids[1:] = text[: len(ids) - 1]
        targets[:num_bytes] = text
        targets[num_bytes:] = SEPARATOR
        targets[: self.num_ignored[index]] = IGNORED_TARGET


@dataclass(frozen=True)
class Windows:
    """Windows of a corpus, in document order; nothing is computed before it is asked for."""

    cutting: Cutting
    numbers: np.ndarray | None = None
    """Which of all windows, ascending, [window]; None for all."""

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.numbers is None else len(self.numbers)

    @property
    def corpus(self) -> Corpus:
        """Documents that are cut."""
        return self.cutting.corpus

    @cached_property
    def _ends(self) -> np.ndarray:
        """Windows of all documents up to and including each, [document]."""
        first, last = self.cutting.ordinals(slice(None))
        return (last - first + 1).cumsum()

    @cached_property
    def bounds(self) -> Bounds:
        """Where the windows lie."""
        numbers = np.arange(len(self)) if self.numbers is None else self.numbers
        document = np.searchsorted(self._ends, numbers, side="right")
        _, last = self.cutting.ordinals(document)
        return self.cutting.bounds(document, last - (self._ends[document] - 1 - numbers))

    @property
    def num_counted_bytes(self) -> int:
        """Bytes that all windows add to bits per byte."""
        if self.numbers is not None:
            return int(self.bounds.num_counted_bytes.sum())
        prompts = self.corpus.prompt_bytes
        return self.corpus.num_bytes - (0 if prompts is None else int(prompts.sum()))

    def select(self, indices: np.ndarray) -> "Windows":
        """Returns the windows at `indices`, ascending."""
        return replace(self, numbers=indices if self.numbers is None else self.numbers[indices])

    def limit(self, num_bytes: int) -> "Windows":
        """Returns windows spread evenly over all documents, about `num_bytes` in all and at least one; 0 means all.

        Which ones has no period, or of documents of one length only beginnings or only ends might be taken.

        Raises:
            ConfigError: `num_bytes` is negative.
        """
        if num_bytes < 0:
            raise ConfigError(f"limit_bytes is {num_bytes}; allowed: 0 for all, or a number of bytes")
        total = self.num_counted_bytes
        if num_bytes == 0 or num_bytes >= total:
            return self
        count = max(1, round(num_bytes * len(self) / total))
        if 2 * count <= len(self):
            return self.select(_spread_evenly(count, len(self)))
        return self.select(np.delete(np.arange(len(self)), _spread_evenly(len(self) - count, len(self))))

    def as_corpus(self) -> Corpus:
        """Returns the bytes of each window as a document, so that others are measured on the same text."""
        bounds = self.bounds
        ranges = zip(bounds.document.tolist(), bounds.begin.tolist(), bounds.num_bytes.tolist(), strict=True)
        texts = [self.corpus.read(document, begin, begin + size) for document, begin, size in ranges]
        return Corpus(tuple(texts), tuple(map(str, range(len(self)))))


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
    return Windows(Cutting(corpus=corpus, context_bytes=context_bytes, overlap_bytes=overlap_bytes))


def _spread_evenly(count: int, total: int) -> np.ndarray:
    """Returns `count` different indices below `total`, at most half of them, ascending and in step with no period.

    Each of `count` equal stretches gives one index. Its place there is the fraction of a multiple of the golden ratio:
    these fill the unit interval evenly, and each lies at most 0.39 before the last one, so no index comes twice.
    """
    stretches = np.arange(count)
    places = (stretches + 0.5) * GOLDEN_RATIO % 1
    return ((stretches + places) * total / max(count, 1)).astype(np.int64)
