"""Files are whole or absent, and JSON is strict."""

import errno
import hashlib
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchpad.files import json_float, sha256_of, strict_json, write_atomically


def test_written_text_is_utf8_and_bytes_are_kept(tmp_path):
    write_atomically(tmp_path / "text", "größer\r\n")
    write_atomically(tmp_path / "bytes", b"\x00\xff\r\n")
    assert (tmp_path / "text").read_bytes() == "größer\r\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff\r\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bytes", "text"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_full_disk_leaves_the_file_that_was_there_and_nothing_beside_it(tmp_path, monkeypatch, failing):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    write_atomically(tmp_path / "file", "before")
    monkeypatch.setattr(os, failing, full)
    with pytest.raises(IsADirectoryError):
        write_atomically(Path(""), "x")
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", "after")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "before"


def test_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "file", "text")
    with pytest.raises(IsADirectoryError):
        write_atomically(Path(""), "text")


@given(st.floats(allow_nan=False))
def test_every_number_survives_strict_json_to_the_last_bit(value):
    written = strict_json({"value": [value]})
    assert "Infinity" not in written
    read = json_float(json.loads(written, parse_constant=pytest.fail)["value"][0])
    assert math.copysign(1, read) == math.copysign(1, value)
    assert read == value


def test_infinities_are_strings_at_any_depth_and_nan_is_refused():
    value = {"a": math.inf, "b": [-math.inf, (1.5, math.inf)], "c": {"d": -math.inf}, "e": True, "f": None}
    assert json.loads(strict_json(value)) == {
        "a": "inf",
        "b": ["-inf", [1.5, "inf"]],
        "c": {"d": "-inf"},
        "e": True,
        "f": None,
    }
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict_json({"a": [math.nan]})


def test_lone_surrogates_are_escaped_and_all_other_text_is_kept(tmp_path):
    value = {"größer\udcff": ["日本 🙂", "a\udc80\ud800\\udcff"]}
    written = strict_json(value)
    assert written == '{"größer\\udcff": ["日本 🙂", "a\\udc80\\ud800\\\\udcff"]}'
    write_atomically(tmp_path / "file", written)
    assert json.loads((tmp_path / "file").read_text(encoding="utf-8")) == value


def test_checksum_is_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()
