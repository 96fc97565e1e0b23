"""Files are read as they are: plain, packed, JSONL; what cannot be read to its end is named."""

import bz2
import gzip
import json
import logging
import lzma
import os
import random
from pathlib import Path

import pytest

from patchpad.data import Corpus, documents, file_reading, open_corpus, open_files, records, unpacking
from patchpad.data.file_reading import read_bytes
from patchpad.data.unpacking import PACKED_CHUNK_BYTES
from patchpad.errors import DataError

EVERY_BYTE = bytes(range(256)) + b"\r\n\xc3\x28\xed\xa0\x80\x00\x00"
"""All byte values, CRLF, broken UTF-8 and zeros."""
PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def texts(corpus: Corpus) -> list[bytes]:
    return [document.tobytes() for document in corpus.documents]


@pytest.fixture
def file_limit():
    """Sets how many files this process may open, until the test ends."""
    resource = pytest.importorskip("resource", reason="Windows has no limit of open files")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("is_large", [False, True])
def test_plain_file_is_read_late_where_it_is_large_and_every_byte_is_kept(tmp_path, monkeypatch, is_large):
    monkeypatch.setattr(file_reading, "SMALLEST_READ_LATE", len(EVERY_BYTE) + (not is_large))
    (tmp_path / "raw").write_bytes(EVERY_BYTE)
    corpus = open_corpus(tmp_path / "raw")
    assert corpus.files == ({str(tmp_path / "raw")} if is_large else set())
    assert texts(corpus) == [EVERY_BYTE]
    assert corpus.read(0, 3, 7).tobytes() == EVERY_BYTE[3:7]
    assert corpus.num_bytes == len(EVERY_BYTE)
    assert corpus.names == (str(tmp_path / "raw"),)


def test_more_files_than_a_process_may_open_are_read(tmp_path, file_limit):
    for number in range(200):
        (tmp_path / f"{number:03d}.txt").write_text(f"text {number}")
    file_limit(100)
    assert texts(open_corpus(tmp_path)) == [b"text %d" % number for number in range(200)]


def test_more_large_files_than_a_process_may_open_are_read_late(tmp_path, monkeypatch, file_limit):
    monkeypatch.setattr(file_reading, "SMALLEST_READ_LATE", 1)
    expected = [b"text %d" % number for number in range(200)]
    for number, text in enumerate(expected):
        (tmp_path / f"{number:03d}.txt").write_bytes(text)
    file_limit(100)
    corpora = [open_corpus(tmp_path) for _ in range(3)]
    assert len(corpora[0].files) == 200
    assert [texts(corpus) for corpus in corpora] == [expected] * 3


def test_file_that_shrinks_or_is_replaced_while_it_is_read_is_an_error_that_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(file_reading, "SMALLEST_READ_LATE", 1)
    for name in ("shrinks", "replaced", "gone"):
        (tmp_path / name).write_bytes(EVERY_BYTE)
    corpus = open_corpus(tmp_path)
    place = {Path(name).name: index for index, name in enumerate(corpus.names)}
    os.truncate(tmp_path / "shrinks", 40)
    assert corpus.read(place["shrinks"], 30, 40).tobytes() == EVERY_BYTE[30:40]
    with pytest.raises(DataError, match=r"shrinks has shrunk while it is read: it ends at byte 40, and had 265"):
        corpus.read(place["shrinks"], 30, 41)
    open_files._open.cache_clear()
    (tmp_path / "new").write_bytes(EVERY_BYTE)
    os.replace(tmp_path / "new", tmp_path / "replaced")
    with pytest.raises(DataError, match="replaced was replaced by another file"):
        corpus.read(place["replaced"], 0, 1)
    (tmp_path / "gone").unlink()
    with pytest.raises(DataError, match=r"cannot read .*gone: No such file"):
        corpus.read(place["gone"], 0, 1)
    monkeypatch.setattr(documents, "SMALLEST_MAPPED", 1)
    with pytest.raises(DataError, match=r"cannot read .*shrinks"):
        corpus.documents[place["shrinks"]]


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
        ("a.parquet", b"x", "cannot read", "complete"),
        ("a.arrow", b"x", "cannot read", "complete"),
        ("bad.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is not JSON", "Fix the line"),
        ("bytes.jsonl", b'{"text": "\xff"}\n', "line 1 is not JSON", "Fix the line"),
        ("deep.jsonl", b"[" * 100_000, "line 1 is not JSON", "Fix the line"),
        (
            "field.jsonl",
            b'{"text": "a"}\n\n{"content": "b", "id": 1}\n',
            "line 3 has no string field `text`, nor `prompt` and",
            "Rename",
        ),
        ("number.jsonl", b'{"text": 3}\n', "line 1 has no string field `text`", "Rename"),
        ("list.jsonl", b'["text"]\n', "it has no fields but is list", "Rename"),
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


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1 << 16])
@pytest.mark.parametrize("suffix", PACKERS)
def test_all_streams_of_a_packed_file_are_read_wherever_they_end(tmp_path, monkeypatch, suffix, chunk_bytes):
    monkeypatch.setattr(unpacking, "PACKED_CHUNK_BYTES", chunk_bytes)
    source = random.Random(0)
    pieces = [b"", *(source.randbytes(size) for size in range(20)), b"", b"a" * 10_000, EVERY_BYTE, b""]
    padding = b"\0" * 8 if suffix != ".bz2" else b""
    (tmp_path / f"a{suffix}").write_bytes(b"".join(PACKERS[suffix](piece) + padding for piece in pieces))
    assert read_bytes(tmp_path / f"a{suffix}") == b"".join(pieces)


@pytest.mark.parametrize("suffix", PACKERS)
def test_damage_at_the_start_of_a_second_stream_is_an_error(tmp_path, suffix):
    first, second = (PACKERS[suffix](b'{"text": "a"}\n' * 20) for _ in range(2))
    for place in range(3):
        damaged = bytearray(first + second)
        damaged[len(first) + place] ^= 1
        for name in (f"a{suffix}", f"a.jsonl{suffix}"):
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(DataError, match="cannot read"):
                open_corpus(tmp_path / name)


@pytest.mark.parametrize(
    ("suffix", "end", "is_allowed"),
    [
        (".gz", b"\0" * 5, True),
        (".gz", b"\0" * PACKED_CHUNK_BYTES, True),
        (".xz", b"\0" * 4, True),
        (".xz", b"\0" * PACKED_CHUNK_BYTES, True),
        (".xz", b"\0" * 3, False),
        (".xz", b"\0" * (PACKED_CHUNK_BYTES + 1), False),
        (".bz2", b"\0" * 4, False),
        *((suffix, b"text", False) for suffix in PACKERS),
        *((suffix, PACKERS[suffix](b"cut")[:2], False) for suffix in PACKERS),
    ],
)
def test_what_follows_the_last_stream_is_padding_or_an_error(tmp_path, suffix, end, is_allowed):
    file, text = tmp_path / f"a{suffix}", PACKERS[suffix](EVERY_BYTE)
    for content in (text + end, text + end + PACKERS[suffix](b"")):
        file.write_bytes(content)
        if is_allowed:
            assert read_bytes(file) == EVERY_BYTE
        else:
            with pytest.raises(DataError, match="cannot read"):
                read_bytes(file)


@pytest.mark.parametrize("suffix", PACKERS)
def test_packed_file_without_a_byte_is_cut(tmp_path, suffix):
    for name in (f"a{suffix}", f"a.jsonl{suffix}"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(DataError, match="it ends before the end of its packed data"):
            open_corpus(tmp_path / name)


def test_lines_of_a_packed_file_are_those_of_the_plain_one(tmp_path):
    """Lines that are longer than the chunks that are read, and lines that end where a stream does."""
    lines = [json.dumps({"text": "x" * size}) for size in (5, 3 * PACKED_CHUNK_BYTES, 1, PACKED_CHUNK_BYTES)]
    for suffix, pack in PACKERS.items():
        file = tmp_path / f"a.jsonl{suffix}"
        file.write_bytes(b"".join(pack(f"{line}\n".encode()) for line in lines))
        assert [len(text) for text in texts(open_corpus(file))] == [5, 3 * PACKED_CHUNK_BYTES, 1, PACKED_CHUNK_BYTES]


def test_prompt_and_completion_are_one_document_of_which_the_completion_counts(tmp_path):
    lines = [
        {"prompt": "Grüße? ", "completion": "Yes."},
        {"text": "plain"},
        {"prompt": "nothing follows", "completion": ""},
        {"prompt": "", "completion": "alone"},
        {"text": "wins", "prompt": "a", "completion": "b"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    corpus = open_corpus(tmp_path)
    assert texts(corpus) == ["Grüße? Yes.".encode(), b"plain", b"alone", b"wins"]
    assert corpus.prompt_bytes.tolist() == [9, 0, 0, 0]
    (tmp_path / "a.jsonl").write_text(json.dumps(lines[0]))
    assert open_corpus(tmp_path, text_field="completion").prompt_bytes is None


def test_records_are_read_by_the_field_that_is_named_and_in_parts_as_in_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "PART_BYTES", 20)
    expected = [f"text {number}" for number in range(30)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"content": text}) for text in expected))
    corpus = open_corpus(tmp_path, text_field="content")
    assert [text.decode() for text in texts(corpus)] == expected
    assert corpus.names[29] == f"{tmp_path / 'a.jsonl'}:30"


def test_bad_records_up_to_the_limit_are_left_out_and_named_and_one_more_is_an_error(tmp_path, caplog):
    lines = [b'{"text": "a"}', b'{"text": "b', b'{"text": 3}', b'{"text": "c"}', b'{"text": "\xff"}']
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    with caplog.at_level(logging.WARNING):
        assert texts(open_corpus(tmp_path, most_bad_records=3)) == [b"a", b"c"]
    named = [message.partition(" line ")[2][:1] for message in caplog.messages]
    assert named == ["2", "3", "5"]
    with pytest.raises(
        DataError, match=r"a\.jsonl\.gz, line 5 is not JSON.*that makes 3 bad records, allowed: 2"
    ) as caught:
        open_corpus(tmp_path, most_bad_records=2)
    assert "data.most_bad_records" in caught.value.hint


def test_raw_bytes_of_any_file_are_one_document(tmp_path):
    contents = {"a.jsonl": b'{"text": "a"}\n', "b.gz": gzip.compress(b"x"), "c.zip": b"PK", "d.parquet": EVERY_BYTE}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert texts(open_corpus(tmp_path, format="raw")) == list(contents.values())
