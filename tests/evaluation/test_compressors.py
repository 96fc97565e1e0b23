"""Compressors: the yardstick counts bits over all documents joined."""

import bz2
import lzma

import numpy as np

from patchpad.data import Corpus
from patchpad.evaluation.compressors import compressors_bits_per_byte


def test_compressors_give_bits_per_byte_of_the_joined_documents():
    documents = [b"the cat sat on the mat\n" * 40, bytes(range(256))]
    corpus = Corpus(tuple(np.frombuffer(document, dtype=np.uint8) for document in documents), ("a", "b"))
    text = b"".join(documents)
    found = compressors_bits_per_byte(corpus)
    assert found == {
        "xz": 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text),
        "bz2": 8 * len(bz2.compress(text, 9)) / len(text),
    }
    assert 0 < found["xz"] < 8
