import bz2
import gzip
import json
import lzma

import pytest

from patchpad.errors import DataError
from patchpad.tasks.rows import read_rows

ROWS = [{"question": 'é, "why"?', "gold": 0}, {"question": "so", "gold": 1}]
LINES = "\n\n".join(json.dumps(row) for row in ROWS) + "\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES.encode()),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("a.jsonl.xz", lzma.compress(LINES.encode())),
        ("a.ndjson.bz2", bz2.compress(LINES.encode())),
        ("a.json", json.dumps(ROWS).encode()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rows_of_json_are_read_whatever_they_are_packed_in(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    rows = list(read_rows(tmp_path / name, ["question", "gold"]))
    assert rows == ROWS
    numbers = ("entry 1", "entry 2") if name == "a.json" else ("line 1", "line 3")
    assert [row.place for row in rows] == [f"{tmp_path / name}, {number}" for number in numbers]
    assert [row.id for row in rows] == [f"{name}:{number.split()[1]}" for number in numbers]


def test_tab_separated_cells_are_taken_as_they_stand(tmp_path):
    (tmp_path / "a.tsv").write_bytes('\ufeffa\tb\r\n"x\t1 "\r\n\t\r\n'.encode())
    assert list(read_rows(tmp_path / "a.tsv")) == [{"a": '"x', "b": '1 "'}, {"a": "", "b": ""}]


def test_comma_separated_cells_may_be_quoted_over_several_lines(tmp_path):
    (tmp_path / "a.csv").write_text('a,b\n"x,\ny",1\nz,2\n')
    rows = list(read_rows(tmp_path / "a.csv"))
    assert rows == [{"a": "x,\ny", "b": "1"}, {"a": "z", "b": "2"}]
    assert rows[1].id == "a.csv:4"


def test_a_row_with_further_values_stays_at_its_place(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n')
    (row,) = read_rows(tmp_path / "a.jsonl")
    more = row.with_values(choice="x")
    assert (more, more.place, more.id) == ({"a": 1, "choice": "x"}, row.place, row.id)
    assert "choice" not in row


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "a.jsonl, line 2 is not JSON"),
        ("a.jsonl", b'{"a": 1}\n\xff\n', "a.jsonl, line 2 is not JSON"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "a.jsonl, line 2 is of type list; allowed: an object"),
        ("a.jsonl", b'{"a": 1}\n\n{"b": 1}\n', "a.jsonl, line 3 has no field `a`; it has b"),
        ("a.jsonl", b"\n", "a.jsonl has no rows"),
        ("a.json", b'[{"a": 1}, 2]', "a.json, entry 2 is of type int"),
        ("a.json", b'{"a": 1}', "a.json holds dict; allowed: a list of objects"),
        ("a.json", b"[", "a.json is not JSON"),
        ("a.tsv", b"a\tb\n1\n", "a.tsv, line 2 has 1 columns; allowed: 2"),
        ("a.tsv", b"a\ta\n1\t2\n", "a.tsv, line 1 names the field `a` twice"),
        ("a.tsv", b"a\n1\n\xff\n", "a.tsv, line 3 is not UTF-8"),
        ("a.csv", b'a,b\n1,"x"y\n', "a.csv, line 2 is not comma-separated"),
        ("a.txt", b"a", "a.txt is not a kind of file that tasks read; allowed: .jsonl"),
        ("a.jsonl.gz", b"a", "cannot read"),
    ],
)
def test_a_malformed_row_or_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as found:
        list(read_rows(tmp_path / name, ["a"]))
    assert message in str(found.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*none\.jsonl"):
        list(read_rows(tmp_path / "none.jsonl"))
