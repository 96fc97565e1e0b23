"""Files, globs and directories become one list of documents, which a fingerprint tells from others."""

import gzip
import logging

import numpy as np
import pytest

from patchpad.data import Corpus, open_corpus
from patchpad.data.corpus import FINGERPRINT_SAMPLE_BYTES, FINGERPRINT_SAMPLES
from patchpad.data.documents import Documents
from patchpad.errors import DataError


def texts(corpus: Corpus) -> list[bytes]:
    return [document.tobytes() for document in corpus.documents]


def corpus_of(*documents: bytes) -> Corpus:
    arrays = tuple(np.frombuffer(document, dtype=np.uint8) for document in documents)
    return Corpus(arrays, tuple(f"document {number}" for number in range(len(arrays))))


def test_directory_is_read_in_sorted_order_without_hidden_names(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/a.txt", "c.txt.gz", ".hidden.txt", ".git/config", "a/.cache/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        packed = gzip.compress(name.encode()) if name.endswith(".gz") else name.encode()
        (tmp_path / name).write_bytes(packed)
    assert texts(open_corpus(tmp_path)) == [b"a/a.txt", b"a/z.txt", b"b.txt", b"c.txt.gz"]


def test_directory_whose_own_path_has_a_hidden_part_is_read(tmp_path):
    folder = tmp_path / ".texts"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"text")
    assert texts(open_corpus(folder)) == [b"text"]


def test_globs_are_sorted_recursive_and_leave_folders_out(tmp_path):
    for name in ("b.txt", "a.txt", "deep/c.txt", "d.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    assert texts(open_corpus(f"{tmp_path}/*.txt")) == [b"a.txt", b"b.txt"]
    assert texts(open_corpus(f"{tmp_path}/**/*.txt")) == [b"a.txt", b"b.txt", b"deep/c.txt"]
    assert texts(open_corpus(f"{tmp_path}/d*")) == [b"d.md"]


def test_file_whose_name_looks_like_a_glob_is_read(tmp_path):
    (tmp_path / "[a]*.txt").write_bytes(b"text")
    assert texts(open_corpus(tmp_path / "[a]*.txt")) == [b"text"]


def test_paths_keep_their_order_and_a_file_given_twice_is_one_document(tmp_path, monkeypatch):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    paths = ["b.txt", tmp_path, f"{tmp_path}/*.txt", "./b.txt", tmp_path / "a.txt", f"../{tmp_path.name}/a.txt"]
    assert texts(open_corpus(paths)) == [b"b.txt", b"a.txt"]


def test_two_files_of_the_same_text_are_two_documents(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(b"same")
    assert texts(open_corpus(tmp_path)) == [b"same", b"same"]


def test_empty_documents_are_left_out_and_their_number_is_logged(tmp_path, caplog):
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "lines.jsonl").write_text('{"text": ""}\n{"text": "x"}\n')
    with caplog.at_level(logging.WARNING):
        assert texts(open_corpus(tmp_path)) == [b"x"]
    assert "2 empty document(s)" in caplog.text


def test_directory_without_files_is_an_error_and_so_is_no_path_at_all(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").write_bytes(b"text")
    with pytest.raises(DataError, match="holds no readable file"):
        open_corpus(tmp_path)
    with pytest.raises(DataError, match="no text was given"):
        open_corpus([])


def test_packed_file_inside_a_directory_is_not_skipped_silently(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"text")
    (tmp_path / "b.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"b\.zip is packed as \.zip"):
        open_corpus(tmp_path)


def test_fingerprint_tells_apart_texts_orders_and_cuts():
    same = corpus_of(b"abc", b"de").fingerprint()
    assert same == corpus_of(b"abc", b"de").fingerprint()
    others = [corpus_of(b"abd", b"de"), corpus_of(b"de", b"abc"), corpus_of(b"abcde"), corpus_of(b"ab", b"cde")]
    assert same not in [other.fingerprint() for other in others]


def test_fingerprint_of_a_large_text_samples_both_its_ends():
    size = 2 * FINGERPRINT_SAMPLES * FINGERPRINT_SAMPLE_BYTES
    text = np.zeros(size, dtype=np.uint8)
    before = Corpus((text[:99], text[99:]), ("a", "b")).fingerprint()
    for place in (0, 98, size - 1):
        text[place] = 1
        assert Corpus((text[:99], text[99:]), ("a", "b")).fingerprint() != before
        text[place] = 0
    assert Corpus((text[:99], text[99:-1]), ("a", "b")).fingerprint() != before


class UnreadDocuments(Documents):
    """Says of its documents that they are longer than they are: who measures them finds out."""

    lengths = np.array([3, 4], dtype=np.int64)

    def read(self, index, begin, end):
        return np.zeros(1, dtype=np.uint8)


def test_lengths_of_documents_that_know_them_are_found_without_reading_any():
    corpus = Corpus(UnreadDocuments(), ("a", "b"))
    assert corpus.lengths.tolist() == [3, 4]
    assert corpus.num_bytes == 7
    assert corpus_of(b"abc", b"de").lengths.tolist() == [3, 2]


def test_chosen_documents_keep_their_names_and_prompts():
    documents = corpus_of(b"abc", b"de", b"fghi").documents
    chosen = Corpus(documents, ("a", "b", "c"), np.array([1, 0, 2])).select([2, 0])
    assert texts(chosen) == [b"fghi", b"abc"]
    assert chosen.names == ("c", "a")
    assert chosen.prompt_bytes.tolist() == [2, 1]


def test_fingerprint_tells_apart_prompts():
    documents = corpus_of(b"abc", b"de").documents
    prompts = (None, np.array([0, 1]), np.array([1, 0]))
    assert len({Corpus(documents, ("a", "b"), prompt).fingerprint() for prompt in prompts}) == 3
