"""Bits per byte of general-purpose compressors: the yardstick beside every model."""

import bz2
import lzma

from patchpad.data import Corpus


def compressors_bits_per_byte(corpus: Corpus) -> dict[str, float]:
    """Returns bits per byte of xz (preset 9e) and bz2 (level 9) on the corpus, its documents joined."""
    text = b"".join(document.tobytes() for document in corpus.documents)
    return {
        "xz": 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text),
        "bz2": 8 * len(bz2.compress(text, 9)) / len(text),
    }
