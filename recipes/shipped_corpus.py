"""Writes the text that the shipped model is trained on.

Usage: python recipes/shipped_corpus.py OUT --books FILE --code FILE --prose FOLDER --demo FILE...

Each source is cut into pieces of at most 32 KiB at ends of lines, and the first ones of a keyed order are taken. OUT
then holds one file per source, `books.jsonl.xz`, `code.jsonl.xz`, `prose.jsonl.xz`, `demo.jsonl.xz` and
`noise.bin.xz`, and `pieces.json` with their sizes and checksums.
"""

import argparse
import hashlib
import json
import lzma
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from shipped_noise import noise_document
from shipped_prose import prose_documents

PIECE_BYTES = 32_768
SIZES = {"books": 23_000_000, "code": 24_600_000, "prose": 7_000_000, "demo": 3_000_000, "noise": 2_400_000}
"""Bytes of each source: 38 % books, 41 % code, 12 % prose, 5 % demo texts, 4 % noise. Scratchpads fire at
nearly every byte of noise, so more of it would leave few of them to the rest."""
LAST_YEAR = 1930
"""Books published later may not be in the public domain everywhere, and are left out."""
NOISE_SEED = 19


@dataclass(frozen=True)
class Piece:
    """A part of a document."""

    name: str
    """Of the document, with the piece's number."""
    text: str

    @property
    def order(self) -> bytes:
        """Where the piece stands among those of its source."""
        return hashlib.blake2b(self.name.encode(), digest_size=16).digest()


def cut(name: str, text: str) -> Iterator[Piece]:
    """Cuts a document into pieces of about equal size, each up to the end of a line where one is near."""
    data = text.encode()
    count = -(-len(data) // PIECE_BYTES)
    begin = 0
    for number in range(1, count + 1):
        aim = len(data) * number // count
        end = aim if number == count else data.rfind(b"\n", begin + 1, aim) + 1 or aim
        yield Piece(f"{name}#{number}", data[begin:end].decode(errors="ignore"))
        begin = end


def read_jsonl(path: Path) -> Iterator[dict[str, str]]:
    """Yields the documents of a .jsonl.xz file."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def books(path: Path) -> Iterator[tuple[str, str]]:
    """Yields (name, text) of the books that are old enough; Austen's are left to the demo texts."""
    for book in read_jsonl(path):
        year = re.search(r"\d{4}", book["year"])
        if year is not None and int(year[0]) <= LAST_YEAR and book["author"] != "Jane Austen":
            yield f"{book['author']}/{book['title']}", book["text"]


def demo(paths: list[Path]) -> Iterator[tuple[str, str]]:
    """Yields (name, text) of each text file, and of each document of a .jsonl.xz file."""
    for path in paths:
        if path.name.endswith(".jsonl.xz"):
            for number, document in enumerate(read_jsonl(path)):
                yield f"{path.name}/{number}", document["text"]
        else:
            yield path.name, path.read_text(encoding="utf-8")


def chosen(documents: Iterator[tuple[str, str]], size: int) -> Iterator[Piece]:
    """Yields pieces until there are bytes enough; where a source is used up, it begins again."""
    pieces = sorted((piece for name, text in documents for piece in cut(name, text)), key=lambda piece: piece.order)
    taken = 0
    for piece in cycle(pieces):
        if taken >= size:
            return
        yield piece
        taken += len(piece.text.encode())


def noise(size: int) -> bytes:
    """Returns so many bytes of noise or a few more, one document after another."""
    parts: list[bytes] = []
    while sum(map(len, parts)) < size:
        parts.append(noise_document(NOISE_SEED, len(parts)))
    return b"".join(parts)


def main() -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--books", type=Path, required=True)
    parser.add_argument("--code", type=Path, required=True)
    parser.add_argument("--prose", type=Path, required=True)
    parser.add_argument("--demo", type=Path, nargs="+", required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    code = ((document["path"], document["text"]) for document in read_jsonl(given.code))
    sources = {
        "books": books(given.books),
        "code": code,
        "prose": iter(prose_documents(given.prose)),
        "demo": demo(given.demo),
    }
    facts = {}
    for source, documents in sources.items():
        pieces = list(chosen(documents, SIZES[source]))
        lines = [json.dumps({"name": piece.name, "text": piece.text}, ensure_ascii=False) for piece in pieces]
        data = "".join(line + "\n" for line in lines).encode()
        facts[source] = {
            "pieces": len(pieces),
            "bytes": sum(len(piece.text.encode()) for piece in pieces),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        (given.out / f"{source}.jsonl.xz").write_bytes(lzma.compress(data, preset=1))
    data = noise(SIZES["noise"])
    facts["noise"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (given.out / "noise.bin.xz").write_bytes(lzma.compress(data, preset=1))
    report = json.dumps({"sources": facts}, indent=1) + "\n"
    (given.out / "pieces.json").write_text(report, encoding="utf-8")
    sys.stdout.write(report)


if __name__ == "__main__":
    main()
