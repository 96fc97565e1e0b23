r"""Measures models on text that the shipped one was not trained on, beside xz and bz2 on exactly the same windows.

Usage: python recipes/measure_shipped_model.py OUT.json NAME=RUN... \
    --books FILE --code FILE --encyclopedia FILE --ntrex TAR

A window is 2,048 bytes of a document; a model with a shorter context cuts it further. The windows of a set lie evenly
over its documents and are listed by file in OUT. Compressors get the windows of a set joined in the order of that list;
models see each alone. NAME=RUN names a run or a released folder; `bundled` alone is the model inside the package.
"""

import argparse
import gzip
import json
import lzma
import math
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import patchpad
from patchpad.data import Corpus
from patchpad.evaluation import bits_per_byte
from patchpad.evaluation.calibrate import eligible_scores, thresholds_at
from patchpad.evaluation.compressors import compressors_bits_per_byte
from patchpad.files import write_atomically
from patchpad.model.language_model import LanguageModel
from patchpad.version import __version__

WINDOW_BYTES = 2048
NUM_RANDOM, NUM_OF_LANGUAGE = 8, 2
"""Windows of random bytes, and of each language of NTREX-128."""
CURVE_SHARES = (1 / 16, 1 / 8, 1 / 4)
"""Scratchpads per byte at which the curve along the threshold has points, beside none, the stored threshold and all."""


@dataclass(frozen=True)
class Window:
    """A part of a document of a held-out file."""

    document: str
    begin: int
    data: bytes


def spread(documents: list[tuple[str, bytes]], count: int) -> list[Window]:
    """Returns windows at even distances over the documents, which are joined for that; none crosses documents.

    Documents shorter than half a window are left out.
    """
    long = [(name, data) for name, data in documents if len(data) >= WINDOW_BYTES // 2]
    ends = np.cumsum([len(data) for _, data in long])
    windows = []
    for number in range(count):
        place = int((number + 0.5) / count * ends[-1])
        index = int(np.searchsorted(ends, place, side="right"))
        name, data = long[index]
        begin = max(0, min(place - int(ends[index] - len(data)), len(data) - WINDOW_BYTES))
        windows.append(Window(name, begin, data[begin : begin + WINDOW_BYTES]))
    return windows


def read_lines(path: Path) -> Iterator[dict[str, str]]:
    """Yields the documents of a .jsonl.xz or .jsonl.gz file."""
    opener = lzma.open if path.suffix == ".xz" else gzip.open
    with opener(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def named_documents(path: Path) -> list[tuple[str, bytes]]:
    """Returns the documents of a file, named by author and title, or by path, or by title."""
    found = []
    for line in read_lines(path):
        name = line.get("path") or "/".join(filter(None, (line.get("author"), line.get("title"))))
        found.append((name, line["text"].encode()))
    return found


def ntrex(path: Path) -> dict[str, list[Window]]:
    """Returns two windows of each translation, by the file's name."""
    sets = {}
    with tarfile.open(path) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            if member.name.endswith(".txt") and (file := archive.extractfile(member)) is not None:
                data = file.read()
                name = Path(member.name).name
                language = name.removeprefix("newstest2019-").removesuffix(".txt")
                sets[f"ntrex {language}"] = spread([(name, data)], NUM_OF_LANGUAGE)
    return sets


def random_windows() -> list[Window]:
    """Returns windows of uniform bytes from one seed."""
    random = np.random.Generator(np.random.Philox(2048))
    starts = range(0, NUM_RANDOM * WINDOW_BYTES, WINDOW_BYTES)
    return [Window("numpy Philox(2048)", begin, random.bytes(WINDOW_BYTES)) for begin in starts]


def corpus_of(windows: list[Window]) -> Corpus:
    """Returns windows as documents."""
    documents = tuple(np.frombuffer(window.data, dtype=np.uint8) for window in windows)
    return Corpus(documents, tuple(window.document for window in windows))


def measured(model: LanguageModel, windows: list[Window], *, has_curve: bool) -> list[dict[str, float | str]]:
    """Returns the points of a model: at its stored threshold, and along the threshold if asked for."""
    chosen = bits_per_byte.choose_windows(model, corpus_of(windows), limit_bytes=0)
    thresholds = [float(model.scratchpad_threshold_nats)]
    if has_curve:
        thresholds += [math.inf, *thresholds_at(*eligible_scores(model, chosen), CURVE_SHARES).values(), -math.inf]
    points = bits_per_byte.evaluate(model, chosen, scratchpad_threshold_nats=thresholds, limit_bytes=0)
    return [
        {
            "scratchpad_threshold_nats": str(value) if math.isinf(value := point.scratchpad_threshold_nats) else value,
            "bits_per_byte": point.bits_per_byte,
            "trunk_calls_per_byte": point.trunk_calls_per_byte,
        }
        for point in points
    ]


def one_set(name: str, windows: list[Window], models: dict[str, LanguageModel]) -> dict[str, Any]:
    """Measures all models on a set."""
    begins: dict[str, list[int]] = {}
    for window in windows:
        begins.setdefault(window.document, []).append(window.begin)
    is_language = name.startswith("ntrex")
    found = {label: measured(model, windows, has_curve=not is_language) for label, model in models.items()}
    row = {
        "set": name,
        "bytes": sum(len(window.data) for window in windows),
        "compressors": compressors_bits_per_byte(corpus_of(windows)),
        "models": found,
        "windows": begins,
    }
    shown = "  ".join(f"{label} {points[0]['bits_per_byte']:.3f}" for label, points in found.items())
    compressed = "  ".join(f"{label} {value:.3f}" for label, value in row["compressors"].items())
    sys.stderr.write(f"{name:<24} {row['bytes']:>9,} bytes  {compressed}  {shown}\n")
    return row


def main() -> None:
    """Measures every model on every set and writes OUT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--books", type=Path)
    parser.add_argument("--code", type=Path)
    parser.add_argument("--encyclopedia", type=Path)
    parser.add_argument("--ntrex", type=Path)
    parser.add_argument("--windows", type=int, default=60, help="of books, code and encyclopedia each")
    given = parser.parse_args()
    pairs = [name.partition("=") for name in given.models]
    models = {name: patchpad.load(path or None) for name, _, path in pairs}
    sets = {
        name: spread(named_documents(path), given.windows)
        for name in ("books", "code", "encyclopedia")
        if (path := getattr(given, name)) is not None
    }
    sets["random bytes"] = random_windows()
    if given.ntrex is not None:
        sets |= ntrex(given.ntrex)
    report = {
        "window_bytes": WINDOW_BYTES,
        "patchpad": __version__,
        "models": {name: {"parameters": sum(p.numel() for p in model.parameters())} for name, model in models.items()},
        "sets": [one_set(name, windows, models) for name, windows in sets.items()],
    }
    write_atomically(given.out, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
