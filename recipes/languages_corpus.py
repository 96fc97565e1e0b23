"""Makes a corpus in many languages out of one text file for each: documents of a few paragraphs, the ends held out.

Usage: python recipes/languages_corpus.py TEXTS OUT

TEXTS is a folder of LANGUAGE.txt, or a tar archive (packed or not) of such files, a paragraph a line. OUT then holds
train.jsonl.xz and validation.jsonl.xz with the fields language and text. A document is as many paragraphs that follow
one another as fit 1,024 bytes: a model that reads windows of 1,024 bytes begins each with a paragraph, as it will when
it is measured on single sentences.
"""

import json
import lzma
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

DOCUMENT_BYTES = 1024
HELD_OUT_SHARE = 0.02
"""Of the bytes of each language, at its end."""


def texts(source: Path) -> Iterator[tuple[str, str]]:
    """Yields language and text of each file."""
    if source.is_dir():
        for path in sorted(source.glob("*.txt")):
            yield path.stem, path.read_text(encoding="utf-8")
        return
    with tarfile.open(source) as archive:
        members = {PurePosixPath(member.name): member for member in archive if member.isfile()}
        for name in sorted(name for name in members if name.suffix == ".txt"):
            content = archive.extractfile(members[name])
            assert content is not None
            yield name.stem, content.read().decode("utf-8")


def documents(text: str) -> Iterator[str]:
    """Yields paragraphs joined up to `DOCUMENT_BYTES`; a longer one is a document of its own."""
    lines: list[str] = []
    size = 0
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        num_bytes = len(line.encode())
        if lines and size + num_bytes > DOCUMENT_BYTES:
            yield "".join(lines)
            lines, size = [], 0
        lines.append(line)
        size += num_bytes
    if lines:
        yield "".join(lines)


def split(found: list[str]) -> tuple[list[str], list[str]]:
    """Returns the documents that are trained on and, of the end, those that are held out: one of two or more."""
    sizes = [len(text.encode()) for text in found]
    left, cut = HELD_OUT_SHARE * sum(sizes), max(1, len(found) - 1)
    while cut > 1 and sum(sizes[cut:]) < left:
        cut -= 1
    return found[:cut], found[cut:]


def main(source: str, out: str) -> None:
    """Writes both files."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    totals = {"train": [0, 0], "validation": [0, 0]}
    with (
        lzma.open(folder / "train.jsonl.xz", "wt", encoding="utf-8") as train,
        lzma.open(folder / "validation.jsonl.xz", "wt", encoding="utf-8") as validation,
    ):
        for language, text in texts(Path(source)):
            for (name, file), part in zip(
                (("train", train), ("validation", validation)), split(list(documents(text))), strict=True
            ):
                for document in part:
                    file.write(json.dumps({"language": language, "text": document}, ensure_ascii=False) + "\n")
                totals[name][0] += len(part)
                totals[name][1] += sum(len(document.encode()) for document in part)
    for name, (count, num_bytes) in totals.items():
        sys.stdout.write(f"{name}: {count:,} documents, {num_bytes:,} bytes\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
