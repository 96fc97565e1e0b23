"""Text goes in as it is: plain, compressed, JSONL, globs and directories; what cannot be read is named."""

import bz2
import gzip
import json
import logging
import lzma
import resource

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchpad.data import Corpus, open_corpus, split_corpus
from patchpad.data import corpus as corpus_module
from patchpad.data.corpus import FINGERPRINT_SAMPLE_BYTES, FINGERPRINT_SAMPLES
from patchpad.errors import DataError

EVERY_BYTE = bytes(range(256)) + b"\r\n\xc3\x28\xed\xa0\x80\x00\x00"
"""All byte values, CRLF, broken UTF-8 and zeros."""


def texts(corpus: Corpus) -> list[bytes]:
    return [document.tobytes() for document in corpus.documents]


def corpus_of(*documents: bytes) -> Corpus:
    arrays = tuple(np.frombuffer(document, dtype=np.uint8) for document in documents)
    return Corpus(arrays, tuple(f"document {number}" for number in range(len(arrays))))


@pytest.mark.parametrize("is_large", [False, True])
def test_plain_file_is_memory_mapped_where_it_is_large_and_every_byte_is_kept(tmp_path, monkeypatch, is_large):
    monkeypatch.setattr(corpus_module, "SMALLEST_MAPPED", len(EVERY_BYTE) + (not is_large))
    (tmp_path / "raw").write_bytes(EVERY_BYTE)
    corpus = open_corpus(tmp_path / "raw")
    assert isinstance(corpus.documents[0], np.memmap) == is_large
    assert texts(corpus) == [EVERY_BYTE]
    assert corpus.num_bytes == len(EVERY_BYTE)
    assert corpus.names == (str(tmp_path / "raw"),)


def test_more_files_than_a_process_may_open_are_read(tmp_path):
    for number in range(200):
        (tmp_path / f"{number:03d}.txt").write_text(f"text {number}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        corpus = open_corpus(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert texts(corpus) == [b"text %d" % number for number in range(200)]


@pytest.mark.parametrize(("suffix", "module"), [(".gz", gzip), (".bz2", bz2), (".xz", lzma), (".GZ", gzip)])
def test_compressed_file_gives_the_bytes_of_the_plain_one(tmp_path, suffix, module):
    (tmp_path / f"a.txt{suffix}").write_bytes(module.compress(EVERY_BYTE))
    assert texts(open_corpus(tmp_path / f"a.txt{suffix}")) == [EVERY_BYTE]


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".xz", lzma.compress), (".gz", gzip.compress)])
def test_each_line_of_jsonl_is_a_document_named_by_its_line(tmp_path, suffix, pack):
    lines = [{"text": "one\r\n"}, {"id": 3, "text": "größer 🙂"}, {"text": "a\u2028b\x00"}]
    file = tmp_path / f"a.jsonl{suffix}"
    content = "\r\n\n".join(json.dumps(line, ensure_ascii=number == 2) for number, line in enumerate(lines))
    file.write_bytes(pack(content.encode()))
    corpus = open_corpus(file)
    assert texts(corpus) == [line["text"].encode() for line in lines]
    assert corpus.names == (f"{file}:1", f"{file}:3", f"{file}:5")


def test_lone_surrogate_in_json_keeps_its_bytes_and_a_pair_is_one_character(tmp_path):
    (tmp_path / "a.ndjson").write_text(r'{"text": "x\ud800y"}' + "\n" + r'{"text": "\ud83d\ude42"}')
    assert texts(open_corpus(tmp_path / "a.ndjson")) == [b"x\xed\xa0\x80y", "🙂".encode()]


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


@pytest.mark.parametrize(
    ("name", "content", "message", "hint"),
    [
        ("missing.txt", None, "no file is at", "Check the path"),
        ("missing*.txt", None, "no file is at", "need quotes"),
        ("empty.txt", b"", "no text, only 1 empty document(s)", "at least one byte"),
        ("blank.jsonl", b"\n \n", "no text, only 0 empty document(s)", "at least one byte"),
        ("cut.gz", gzip.compress(EVERY_BYTE, mtime=0)[:-30], "cannot read", "complete"),
        ("cut.bz2", bz2.compress(EVERY_BYTE)[:-30], "cannot read", "complete"),
        ("cut.xz", lzma.compress(EVERY_BYTE)[:-30], "cannot read", "complete"),
        ("cut.jsonl.gz", gzip.compress(b'{"text": "abc"}\n' * 9, mtime=0)[:-9], "cannot read", "complete"),
        ("not.gz", b"plain text", "cannot read", "complete"),
        ("not.bz2", b"plain text", "cannot read", "complete"),
        ("not.xz", b"plain text", "cannot read", "complete"),
        ("damaged.gz", gzip.compress(EVERY_BYTE, mtime=0)[:10] + b"\xff" * 40, "cannot read", "complete"),
        ("a.txt.zst", b"x", "packed as .zst", "Unpack it first: zstd -d "),
        ("a.jsonl.zst", b"x", "packed as .zst", "Unpack it first: zstd -d "),
        ("a.zip", b"x", "packed as .zip", "Unpack it first: unzip "),
        ("a.ZIP", b"x", "packed as .zip", "Unpack it first: unzip "),
        ("a.7z", b"x", "packed as .7z", "Unpack it first: 7z x "),
        ("a.tar", b"x", "packed as .tar", "Unpack it first: tar -xf "),
        ("a.tgz", b"x", "packed as .tgz", "Unpack it first: tar -xzf "),
        ("a.txz", b"x", "packed as .txz", "Unpack it first: tar -xJf "),
        ("a.tar.gz", b"x", "is a tar archive", "Unpack it first: tar -xf "),
        ("a.tar.xz", b"x", "is a tar archive", "Unpack it first: tar -xf "),
        ("a.parquet", b"x", "is parquet; allowed: plain text", "JSONL"),
        ("bad.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is not JSON", "Mend or remove the line"),
        ("bytes.jsonl", b'{"text": "\xff"}\n', "line 1 is not JSON", "Mend or remove the line"),
        ("deep.jsonl", b"[" * 100_000, "line 1 is not JSON", "Mend or remove the line"),
        ("field.jsonl", b'{"text": "a"}\n\n{"content": "b", "id": 1}\n', "line 3 has no string field `text`", "Rename"),
        ("number.jsonl", b'{"text": 3}\n', "line 1 has no string field `text`", "Rename"),
        ("list.jsonl", b'["text"]\n', "line 1 has no string field `text`; it has: list", "Rename"),
    ],
)
def test_unreadable_text_is_an_error_that_names_file_and_next_step(tmp_path, name, content, message, hint):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_corpus(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 1


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


def test_single_document_gives_its_last_tenth_cut_at_a_line():
    lines = b"".join(b"line %03d\n" % number for number in range(200))
    training, validation = (texts(part) for part in split_corpus(corpus_of(lines), 0.1))
    assert training + validation == [lines[:1620], lines[1620:]]
    assert validation[0].startswith(b"line 180\n")
    shifted = b"x" * 27 + lines  # the last tenth begins inside a line, which stays whole in the training text
    training, validation = (texts(part) for part in split_corpus(corpus_of(shifted), 0.1))
    assert training[0] + validation[0] == shifted
    assert validation[0].startswith(b"line 180\n")


@pytest.mark.parametrize("end", [b"x", b"\n", b"\n]", b"\n1234"])
def test_single_document_without_a_line_near_its_last_tenth_is_cut_at_a_byte(end):
    text = b"a\n" + b"x" * (98 - len(end)) + end
    training, validation = (texts(part) for part in split_corpus(corpus_of(text), 0.1))
    assert training[0] + validation[0] == text
    assert len(validation[0]) == 10


def test_two_bytes_are_split_and_one_byte_is_an_error():
    assert [texts(part) for part in split_corpus(corpus_of(b"ab"), 0.1)] == [[b"a"], [b"b"]]
    assert [texts(part) for part in split_corpus(corpus_of(b"\n\n"), 0.9)] == [[b"\n"], [b"\n"]]
    with pytest.raises(DataError, match="holds 1 byte, too little to split"):
        split_corpus(corpus_of(b"a"), 0.1)


@given(st.lists(st.integers(1, 2000), min_size=2, max_size=40), st.floats(0.001, 0.999))
def test_several_documents_are_split_whole_and_neither_side_is_empty(lengths, fraction):
    documents = [bytes([number]) * length for number, length in enumerate(lengths)]
    training, validation = split_corpus(corpus_of(*documents), fraction)
    assert training.documents
    assert validation.documents
    assert sorted(texts(training) + texts(validation)) == sorted(documents)
    assert sorted(training.names + validation.names) == sorted(corpus_of(*documents).names)
    again = split_corpus(corpus_of(*documents), fraction)
    assert [texts(part) for part in again] == [texts(training), texts(validation)]


def test_about_the_asked_share_of_many_documents_is_held_out():
    corpus = corpus_of(*(bytes([65 + number % 9]) * (50 + number % 13) for number in range(300)))
    _, validation = split_corpus(corpus, 0.1)
    assert 0.09 * corpus.num_bytes < validation.num_bytes < 0.12 * corpus.num_bytes
    order = [corpus.names.index(name) for name in validation.names]
    assert order == sorted(order)
    assert order != list(range(300 - len(order), 300))


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
