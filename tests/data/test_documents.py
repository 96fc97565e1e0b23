"""Every kind of documents gives the same bytes, whole or in part, and knows lengths and digests without reading."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchpad.data import Corpus, documents
from patchpad.data.documents import (
    Documents,
    DocumentView,
    FileDocuments,
    JoinedDocuments,
    MemoryDocuments,
    PackedDocuments,
)
from patchpad.data.open_files import OpenedFile
from patchpad.errors import DataError

TEXTS = [b"one", b"zwei und mehr", b"3", b"the fourth", b"one"]


def begins_and_lengths(texts):
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    return lengths.cumsum() - lengths, lengths


def in_memory():
    return MemoryDocuments([np.frombuffer(text, dtype=np.uint8) for text in TEXTS])


def packed():
    return PackedDocuments(np.frombuffer(b"".join(TEXTS), dtype=np.uint8), *begins_and_lengths(TEXTS))


def in_files(folder):
    """Three files, of which one is empty and one begins with bytes of no document."""
    pieces = [b"".join(TEXTS[:2]), b"", b"head" + b"".join(TEXTS[2:])]
    for number, piece in enumerate(pieces):
        (folder / str(number)).write_bytes(piece)
    begins, lengths = begins_and_lengths(TEXTS)
    begins[2:] += 4
    return FileDocuments([OpenedFile.of(str(folder / str(number))) for number in range(3)], begins, lengths)


def joined(folder):
    nothing = MemoryDocuments(())
    first, second = DocumentView(packed(), np.array([0, 1])), DocumentView(in_files(folder), np.array([2, 3, 4]))
    return JoinedDocuments([first, nothing, second])


def cut_out():
    return DocumentView(
        PackedDocuments(np.frombuffer(b"".join(b"<" + text + b">" for text in TEXTS), dtype=np.uint8), *padded()),
        np.arange(len(TEXTS)),
        begins=np.ones(len(TEXTS), dtype=np.int64),
        lengths=begins_and_lengths(TEXTS)[1],
    )


def padded():
    return begins_and_lengths([b"<" + text + b">" for text in TEXTS])


@pytest.mark.parametrize("is_mapped", [False, True])
@pytest.mark.parametrize("kind", ["memory", "packed", "files", "joined", "view"])
def test_every_kind_of_documents_gives_the_same_bytes(tmp_path, monkeypatch, kind, is_mapped):
    monkeypatch.setattr(documents, "SMALLEST_MAPPED", 1 if is_mapped else 1 << 20)
    found: Documents = {
        "memory": in_memory,
        "packed": packed,
        "files": lambda: in_files(tmp_path),
        "joined": lambda: joined(tmp_path),
        "view": cut_out,
    }[kind]()
    assert found.lengths.tolist() == [len(text) for text in TEXTS]
    assert [document.tobytes() for document in found] == TEXTS
    assert [document.tobytes() for document in found[1:4:2]] == TEXTS[1:4:2]
    assert (found[-1].tobytes(), found[np.int64(3)].tobytes()) == (b"one", b"the fourth")
    for index, text in enumerate(TEXTS):
        assert found.read(index, 1, 4).tobytes() == text[1:4]
        assert found.read(index, 2, 99).tobytes() == text[2:]
        assert found.digest(index) == int.from_bytes(hashlib.sha256(text).digest()[:8], "little")
    for index in (len(TEXTS), -len(TEXTS) - 1):
        with pytest.raises(IndexError):
            found[index]


def test_digests_that_are_known_follow_the_documents_that_are_chosen(tmp_path):
    found = packed()
    known = np.arange(5, dtype=np.uint64)
    (tmp_path / "file").write_bytes(b"".join(TEXTS))
    with_digests = FileDocuments([OpenedFile.of(str(tmp_path / "file"))], found.begins, found.lengths, known)
    chosen = DocumentView(with_digests, np.array([3, 1]))
    assert chosen.digests.tolist() == [3, 1]
    assert chosen.digest(1) == 1
    assert DocumentView(chosen, np.array([1])).digests.tolist() == [1]
    assert JoinedDocuments([chosen, with_digests]).digests.tolist() == [3, 1, 0, 1, 2, 3, 4]
    assert JoinedDocuments([chosen, found]).digests is None
    assert JoinedDocuments([chosen, found]).digest(0) == 3
    assert DocumentView(with_digests, np.array([0]), lengths=np.array([1])).digests is None, "it is another document"


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=4))
def test_joined_corpora_keep_names_and_prompts(sizes):
    corpora = []
    for number, part in enumerate(sizes):
        arrays = [np.full(size + 1, number, dtype=np.uint8) for size in part]
        prompts = np.array(part, dtype=np.int64) if number % 2 else None
        corpora.append(Corpus(arrays, [f"{number}:{index}" for index in range(len(part))], prompts))
    whole = Corpus.join(corpora)
    assert list(whole.names) == [name for corpus in corpora for name in corpus.names]
    assert whole.lengths.tolist() == [size + 1 for part in sizes for size in part]
    expected = [size if number % 2 else 0 for number, part in enumerate(sizes) for size in part]
    assert (whole.prompt_bytes is None) == (len(sizes) == 1)
    assert whole.prompt_bytes is None or whole.prompt_bytes.tolist() == expected


def test_document_that_begins_outside_of_its_files_is_an_error(tmp_path):
    found = in_files(tmp_path)
    found.begins[1] = 1 << 56
    with pytest.raises(DataError, match="document 1 begins at byte 72057594037927936 of 34"):
        found.read(1, 0, 1)
