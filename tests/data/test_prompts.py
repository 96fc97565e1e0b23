"""Prompt files: every line is a prompt, whatever its line ends and bytes."""

import pytest

from patchpad.data.prompts import read_prompts
from patchpad.errors import DataError


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        (b"one\ntwo\n", [b"one", b"two"]),
        (b"one\r\ntwo\r\n", [b"one", b"two"]),
        (b"\xef\xbb\xbfone\n\ntwo", [b"one", b"", b"two"]),
        (b"\xff\xfe\x00\nC:\\texts\\a.txt", [b"\xff\xfe\x00", b"C:\\texts\\a.txt"]),
        (b"\n", [b""]),
    ],
)
def test_each_line_of_text_is_a_prompt(tmp_path, content, prompts):
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    assert read_prompts(file) == prompts


def test_json_lines_are_strings_or_objects(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_bytes('"a\\nb"\r\n\n{"prompt": "é", "id": 3}\n'.encode())
    assert read_prompts(file) == [b"a\nb", "é".encode()]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{", "prompts.jsonl, line 1 is not JSON"),
        (b'"a"\n{"text": "b"}', "prompts.jsonl, line 2 is neither a string nor an object"),
        (b"[1]", "line 1 is neither"),
        (b"\n", "holds no prompt"),
    ],
)
def test_a_line_that_is_no_prompt_is_named(tmp_path, content, expected):
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError, match=expected):
        read_prompts(file)


def test_an_empty_or_missing_file_or_a_directory_is_an_error(tmp_path):
    (tmp_path / "empty.txt").write_bytes(b"")
    with pytest.raises(DataError, match="holds no prompt"):
        read_prompts(tmp_path / "empty.txt")
    with pytest.raises(DataError, match="cannot read prompts"):
        read_prompts(tmp_path / "missing.txt")
    with pytest.raises(DataError, match="it is a directory"):
        read_prompts(tmp_path)
