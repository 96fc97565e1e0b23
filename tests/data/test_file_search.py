"""Folders are searched to their ends: links are followed, and what cannot be read or is no file is not passed over."""

import glob
import logging
import os
import socket

import pytest

from patchpad.data import open_corpus
from patchpad.data.file_search import find_files
from patchpad.errors import DataError

PATTERNS = [
    *("**", "*", "*/*", "*/*/*", "**/*", "**/**", "**/*.json", "*.json", "a/**", "a/**/b/*", "?/*.json", "a**/*"),
    *("a/*", ".*", ".h/*", "**/.h/**", "a/b/x.json", "[!a]/*", "**/b/**/x.json", "*/b/*", "A/*", "./a/*", "[ab]/**/y"),
    *("a/../*.json", "*/../x.txt", "missing/*", "**/b"),
]
NAMES = ["x.json", "a/x.json", "a/b/x.json", "b/c/b/x.json", ".h/x.json", "a/.h/x.json", "a/.hidden", "x.txt", "a/b/y"]


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def names_in(folder):
    return [path.relative_to(folder).as_posix() for path in find_files([folder]).values()]


def locked(monkeypatch, name, path):
    """Lets a function of `os` refuse a path, as it does to users other than root."""
    original = getattr(os, name)

    def refuse(asked, *more, **options):
        if os.fspath(asked) == str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return original(asked, *more, **options)

    monkeypatch.setattr(os, name, refuse)


def test_files_of_a_folder_come_in_the_order_of_their_parts(tmp_path):
    write(
        tmp_path, "a.txt", "a/b.txt", "a-b/c.txt", "B.txt", "a/b/z.txt", "a/b-c.txt", "z/.git/x", ".hidden/y", "10", "9"
    )
    found = names_in(tmp_path)
    assert found == ["10", "9", "B.txt", "a/b/z.txt", "a/b-c.txt", "a/b.txt", "a-b/c.txt", "a.txt"]
    assert found == sorted(found, key=lambda name: name.split("/"))


def test_linked_folders_are_searched_and_loops_end(tmp_path):
    texts = tmp_path / "texts"
    write(texts, "b.txt", "deep/a.txt")
    write(tmp_path / "elsewhere", "y.txt", "more/z.txt", ".hidden/x.txt")
    (texts / "deep" / "linked").symlink_to(tmp_path / "elsewhere")
    (texts / "loop").symlink_to(texts)
    (texts / "deep" / "up").symlink_to(texts / "deep")
    (tmp_path / "elsewhere" / "back").symlink_to(texts / "deep")
    (texts / ".hidden").symlink_to(tmp_path)
    assert names_in(texts) == ["b.txt", "deep/a.txt", "deep/linked/more/z.txt", "deep/linked/y.txt"]


def test_a_link_to_a_folder_beside_it_changes_no_name_and_no_order(tmp_path):
    write(tmp_path, "b/x.txt", "c/y.txt")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    assert names_in(tmp_path) == ["b/x.txt", "c/y.txt"]


def test_glob_over_linked_folders_ends_and_reads_each_file_once(tmp_path):
    texts = tmp_path / "texts"
    write(texts, "a.txt", "deep/b.txt", "deep/more/c.txt", "deep/d.md")
    for place in ("l1", "l2", "deep/l3", "deep/more/l4"):
        (texts / place).symlink_to(texts)
    for pattern in ("**/*.txt", "**/**/*.txt", "**/**"):
        found = {path.resolve() for path in find_files([f"{texts}/{pattern}"]).values() if path.suffix == ".txt"}
        assert found == {texts / name for name in ("a.txt", "deep/b.txt", "deep/more/c.txt")}, pattern


@pytest.mark.parametrize(
    "pattern", ["proj[1]/*.txt", "proj[1]/**/*.txt", "*/a.txt", "p*[[]1]/a.txt", "proj[1]/[ab].txt"]
)
def test_folder_whose_name_has_brackets_is_taken_as_it_is_written(tmp_path, monkeypatch, pattern):
    write(tmp_path, "proj[1]/a.txt")
    monkeypatch.chdir(tmp_path)
    for path in (pattern, f"{tmp_path}/{pattern}"):
        assert [found.name for found in find_files([path]).values()] == ["a.txt"]
    monkeypatch.chdir("proj[1]")
    assert list(find_files([f"{os.getcwd()}/*.txt"])) == [tmp_path / "proj[1]" / "a.txt"]


def test_brackets_that_are_no_name_are_a_pattern(tmp_path):
    write(tmp_path, "a1/x.txt", "a2/x.txt", "a3/x.txt")
    assert [path.parent.name for path in find_files([f"{tmp_path}/a[12]/*.txt"]).values()] == ["a1", "a2"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_globs_find_what_those_of_python_find(tmp_path, pattern):
    write(tmp_path, *NAMES)
    found = {
        os.path.normpath(path) for path in glob.glob(f"{tmp_path}/{pattern}", recursive=True) if os.path.isfile(path)
    }
    ours = set() if not found else {str(path) for path in find_files([f"{tmp_path}/{pattern}"]).values()}
    assert {os.path.normpath(path) for path in ours} == found


def test_folder_that_a_pattern_cannot_look_into_is_left_out_and_said(tmp_path, monkeypatch, caplog):
    write(tmp_path, "a/x.txt", "b/x.txt")
    locked(monkeypatch, "listdir", tmp_path / "b")
    assert [path.parent.name for path in find_files([f"{tmp_path}/*/*.txt"]).values()] == ["a"]
    assert f"cannot read the folder {tmp_path / 'b'} (Permission denied): it is left out" in caplog.text


def test_two_spellings_in_case_alone_of_one_file_are_one(tmp_path):
    """A hard link stands for a file system that ignores case."""
    write(tmp_path, "a.txt", "b.txt")
    (tmp_path / "A.txt").hardlink_to(tmp_path / "a.txt")
    (tmp_path / "B.txt").write_bytes(b"another file")
    assert names_in(tmp_path) == ["A.txt", "B.txt", "b.txt"]


def test_dangling_links_and_pipes_are_left_out_and_counted_once(tmp_path, caplog):
    write(tmp_path, "a.txt", "b/c.txt")
    (tmp_path / "dangling").symlink_to(tmp_path / "missing")
    (tmp_path / ".hidden").symlink_to(tmp_path / "missing")
    os.mkfifo(tmp_path / "b" / "pipe")
    with caplog.at_level(logging.WARNING):
        assert names_in(tmp_path) == ["a.txt", "b/c.txt"]
    assert [record.getMessage().split(" are ")[0] for record in caplog.records] == [
        "2 dangling link(s), pipes or other entries without text"
    ]
    caplog.clear()
    assert list(find_files([f"{tmp_path}/*"]).values()) == [tmp_path / "a.txt"]
    assert caplog.text.count("1 dangling link(s)") == 1


def test_folder_that_cannot_be_entered_is_an_error_wherever_it_lies(tmp_path, monkeypatch):
    write(tmp_path, "texts/a.txt", "texts/locked/b.txt")
    locked(monkeypatch, "scandir", tmp_path / "texts" / "locked")
    for path in ("texts", "texts/locked"):
        with pytest.raises(DataError) as caught:
            open_corpus(tmp_path / path)
        assert caught.value.message == f"cannot read the folder {tmp_path / 'texts' / 'locked'}: Permission denied"
        assert "leave it out" in caught.value.hint


def test_path_inside_a_locked_folder_is_an_error(tmp_path, monkeypatch):
    write(tmp_path, "a.txt", "b.txt")
    locked(monkeypatch, "stat", tmp_path / "b.txt")
    for path in (tmp_path / "b.txt", tmp_path, f"{tmp_path}/*.txt"):
        with pytest.raises(DataError) as caught:
            open_corpus(path)
        assert caught.value.message == f"cannot read {tmp_path / 'b.txt'}: Permission denied"
        assert "permissions" in caught.value.hint


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a" * 5000, "File name too long"),
        ("", "the path of a text is empty; allowed: a file, glob or directory"),
        ("a\0b", "no file is at"),
        ("a\0b/*", "no file is at"),
        ("\ud800", "no file is at"),
    ],
)
def test_path_that_no_file_can_have_is_an_error(tmp_path, monkeypatch, path, message):
    write(tmp_path, "a.txt")
    monkeypatch.chdir(tmp_path)
    for paths in (path, ["a.txt", path]):
        with pytest.raises(DataError) as caught:
            open_corpus(paths)
        assert message in caught.value.message
        assert caught.value.hint


def test_pipes_and_sockets_given_as_text_are_no_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read, write = os.pipe()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path in (tmp_path / "pipe", tmp_path / "socket", f"/dev/fd/{read}", "/dev/null"):
            with pytest.raises(DataError, match="is not a regular file but a pipe, a socket or a device") as caught:
                open_corpus(path)
            assert str(path) in caught.value.message
            assert caught.value.hint == "Save the text to a file first."
    os.close(read)
    os.close(write)
