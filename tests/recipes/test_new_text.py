"""The new text is made of notes on releases after a date alone, from archives that are what they were."""

import dataclasses
import hashlib
import io
import tarfile

import new_text
import pytest

from patchpad.errors import DataError

NEWS = """\
News
====

.. towncrier release notes start

Tool 3.0 (2026-05-11)
=====================

- :class:`~tool.Rope` has a ``knot`` and reads `the guide <https://x.example/y>`_. (:gh:`12`, :gh:`13`)

Tool 2.9 (2025-07-01)
---------------------

- Fixed :func:`pull() <tool.pull>`.

Tool 2.8 (2025-06-30)
---------------------

- Old.
"""
HEADING = r"Tool [\d.]+ \((\d{4}-\d\d-\d\d)\)"


@pytest.fixture
def packed(tmp_path):
    """Writes an archive of files and returns its entry and its path."""

    def make(files, heading=HEADING, files_with_notes=r"NEWS\.rst"):
        path = tmp_path / "tool-3.0.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name, text in files.items():
                info = tarfile.TarInfo(f"tool-3.0/{name}")
                info.size = len(text.encode())
                archive.addfile(info, io.BytesIO(text.encode()))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return new_text.Archive("tool", "3.0", digest, "MIT", files_with_notes, heading), path

    return make


def test_only_notes_after_the_date_are_taken_without_marks(packed):
    archive, path = packed({"NEWS.rst": NEWS, "other/NEWS.rst": NEWS})
    assert list(new_text.new_notes(archive, path)) == [
        "Tool 3.0 (2026-05-11)\n\n- tool.Rope has a knot and reads the guide.\n",
        "Tool 2.9 (2025-07-01)\n\n- Fixed pull().\n",
    ]


def test_a_file_for_each_release_has_the_date_in_its_text(packed):
    old, new = "Tool 1\n======\n\n*May 3, 2025*\n\nOld.\n", "Tool 2\n======\n\n*March 3, 2026*\n\nNew.\n"
    files = {"docs/1.txt": old, "docs/2.txt": new, "docs/3.txt": "Tool 3\n\n*Under development*\n"}
    archive, path = packed(files, heading="", files_with_notes=r"docs/\d\.txt")
    assert list(new_text.new_notes(archive, path)) == ["Tool 2\n\n*March 3, 2026*\n\nNew.\n"]


def test_an_altered_archive_and_one_whose_setup_would_run_are_refused(packed):
    archive, path = packed({"NEWS.rst": NEWS, "setup.py": ""})
    assert new_text.fetch(archive, path.parent) == path
    with pytest.raises(DataError, match="SHA-256"):
        new_text.fetch(dataclasses.replace(archive, sha256="0" * 64), path.parent)
    with pytest.raises(DataError, match=r"setup\.py"):
        list(new_text.new_notes(archive, path))


def test_another_text_than_the_pinned_one_is_refused_and_not_written(packed, monkeypatch):
    archive, path = packed({"NEWS.rst": NEWS})
    monkeypatch.setattr(new_text, "ARCHIVES", (archive,))
    out = path.parent / "out.txt"
    with pytest.raises(DataError, match="the text has the SHA-256"):
        new_text.main(out, path.parent)
    assert not out.exists()
    text = "".join(new_text.new_notes(archive, path))
    data = "\n".join(new_text.new_notes(archive, path)).encode()
    monkeypatch.setattr(new_text, "TEXT_SHA256", hashlib.sha256(data).hexdigest())
    new_text.main(out, path.parent)
    assert out.read_bytes() == data
    assert len(data) > len(text)
