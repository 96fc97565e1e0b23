"""Makes a corpus of English books in the public domain, one book a line, split by author.

Usage: python recipes/books_corpus.py CHECKOUT OUT

CHECKOUT is one of https://github.com/mlschmitt/classic-books-markdown. OUT/books_en_train.jsonl.xz,
books_en_val.jsonl.xz and books_en_test.jsonl.xz then hold author, title, year and text, in an order that a hash of
author and title gives, so that the first lines are a random sample.
"""

import hashlib
import json
import lzma
import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

VALIDATION_AUTHORS = (
    *("Wilkie Collins", "Kate Chopin", "Bram Stoker", "Ambrose Bierce", "H. Beam Piper", "John Stuart Mill"),
    "Booth Tarkington",
)
TEST_AUTHORS = (
    *("E.M. Forster", "Anne Bronte", "Charlotte Bronte", "Emily Bronte", "Stephen Crane", "Jack London", "Max Brand"),
    *("William James", "Francis Parkman"),
)
REPLACED = (
    (r"^#+[ \t]*(.*?)[ \t]*#*[ \t]*$", r"\1"),
    (r"!\[[^\]]*\]\([^)]*\)", ""),
    (r"\[([^\]]*)\]\([^)]*\)", r"\1"),
    (r"(?<![A-Za-z0-9])_([^_\n]{1,300}?)_(?![A-Za-z0-9])", r"\1"),
    (r"(?<!\*)\*\*?([^*\n]{1,300}?)\*\*?(?!\*)", r"\1"),
    (r"^\s*([*_-]\s*){3,}$", ""),
    (r"^>\s?", ""),
    (r"<[^>\n]{1,80}>", ""),
    (r"\\([\\`*_{}\[\]()#+.!-])", r"\1"),
)
"""Marks of Markdown, in order: headings, pictures, links, emphasis, rules, quotes, tags, escapes."""


def plain_text(markdown: str) -> str:
    """Returns a book without its header and without the marks of Markdown."""
    text = markdown.replace("\ufeff", "").replace("\u00a0", " ").replace("\u200a", "")
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    header = re.match(r"# Title:.*?\n-{3,}\s*\n", text, flags=re.DOTALL)
    text = text[header.end() :] if header else text
    for pattern, replacement in REPLACED:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r" {2,}", " ", text)
    text = re.sub(r" +\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def books(checkout: Path) -> Iterator[dict[str, str]]:
    """Yields every book once; a second copy of a text is left out."""
    seen = set()
    for path in sorted(checkout.rglob("*.md")):
        if path.name == "README.md":
            continue
        markdown = path.read_text(encoding="utf-8", errors="replace")
        year = re.search(r"^## Year:\s*(.*)$", markdown, flags=re.MULTILINE)
        text = plain_text(markdown)
        middle = re.sub(r"\W+", "", text[2000:6000])
        if middle not in seen:
            seen.add(middle)
            yield {
                "author": path.parent.name,
                "title": path.stem,
                "year": year[1].strip() if year else "",
                "text": text,
            }


def main(checkout: str, out: str) -> None:
    """Writes the three files."""
    found = sorted(
        books(Path(checkout)), key=lambda book: hashlib.md5((book["author"] + book["title"]).encode()).hexdigest()
    )
    parts = {"train": [], "val": [], "test": []}
    for book in found:
        author = book["author"]
        part = "val" if author in VALIDATION_AUTHORS else "test" if author in TEST_AUTHORS else "train"
        parts[part].append(json.dumps(book, ensure_ascii=False) + "\n")
    for part, lines in parts.items():
        (Path(out) / f"books_en_{part}.jsonl.xz").write_bytes(lzma.compress("".join(lines).encode()))
        sys.stdout.write(f"{part}: {len(lines)} books\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
