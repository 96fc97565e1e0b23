"""Text: reading files into documents, splitting, cutting into windows, and batches."""

from patchpad.data.corpus import Corpus
from patchpad.data.file_reading import open_corpus
from patchpad.data.loader import Batch, BatchCounts, TrainingBatches, evaluation_batches
from patchpad.data.mixture import TextSource
from patchpad.data.prefetch import PrefetchedBatches
from patchpad.data.split import split_corpus
from patchpad.data.windows import Windows, cut_windows

__all__ = [
    "Batch",
    "BatchCounts",
    "Corpus",
    "PrefetchedBatches",
    "TextSource",
    "TrainingBatches",
    "Windows",
    "cut_windows",
    "evaluation_batches",
    "open_corpus",
    "split_corpus",
]
