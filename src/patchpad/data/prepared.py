"""Prepared corpora: shards of bytes, arrays that say where documents lie, and a manifest with checksums.

```
CORPUS/
  manifest.json           what was prepared, and the size and SHA-256 of every file
  shards/GROUP-N.bytes    the bytes of documents, one after the other, in the order in which they were read
  training/               for each document of the part, in arrays of numpy:
    begins.npy              number of its first byte, all shards numbered through [document] int64
    lengths.npy             its bytes [document] int64
    digests.npy             64 bits of its SHA-256 [document] uint64
    prompts.npy             bytes of its prompt, where any document has one [document] int64
  validation/             the same for what is held out
```
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from patchpad.data.corpus import Corpus, record_names
from patchpad.data.documents import FileDocuments
from patchpad.data.folders import BEGINS, MANIFEST, MANIFEST_FORMAT, SHARDS
from patchpad.data.open_files import OpenedFile
from patchpad.errors import DataError, quoted
from patchpad.files import sha256_of

VERSION = 1
LENGTHS, DIGESTS, PROMPTS = "lengths.npy", "digests.npy", "prompts.npy"


def read_manifest(corpus: Path) -> dict[str, Any]:
    """Reads the manifest of a prepared corpus.

    Raises:
        DataError: it is absent, damaged or of another version.
    """
    try:
        manifest = json.loads((corpus / MANIFEST).read_text(encoding="utf-8"))
        found = manifest["format"], manifest["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read {corpus / MANIFEST}: {error}", hint="Name a folder that `patchpad prepare` wrote."
        ) from error
    if found != (MANIFEST_FORMAT, VERSION):
        raise DataError(
            f"{corpus} is {found[0]!r} of version {found[1]}; allowed: {MANIFEST_FORMAT!r} of version {VERSION}",
            hint="Prepare it again: patchpad prepare.",
        )
    return manifest


def open_part(folder: Path) -> Corpus:
    """Opens a part of a prepared corpus: looks at the sizes of its files, and reads none of its text.

    Raises:
        DataError: a file is gone, or has another size than the manifest says.
    """
    manifest = read_manifest(folder.parent)
    shards = [require_size(folder.parent, name, facts) for name, facts in manifest["files"].items() if _is_shard(name)]
    arrays = {}
    for name, facts in manifest["files"].items():
        if name.startswith(f"{folder.name}/"):
            file = require_size(folder.parent, name, facts)
            arrays[Path(name).name] = np.load(file.path, mmap_mode="r", allow_pickle=False)
    documents = FileDocuments(shards, arrays[BEGINS], arrays[LENGTHS], arrays[DIGESTS])
    numbers = range(1, len(documents) + 1)
    return Corpus(documents, record_names(str(folder), numbers), arrays.get(PROMPTS))


def require_size(corpus: Path, name: str, facts: dict[str, Any]) -> OpenedFile:
    """Looks at a file of a prepared corpus.

    Args:
        corpus: its folder.
        name: of the file in it.
        facts: what the manifest says of it.

    Raises:
        DataError: it is gone, or has another size.
    """
    try:
        file = OpenedFile.of(str(corpus / name))
    except OSError as error:
        raise DataError(f"cannot read {corpus / name}: {error.strerror}", hint=_how_to_restore(corpus)) from error
    if file.num_bytes != facts["num_bytes"]:
        raise DataError(
            f"{corpus / name} has {file.num_bytes} bytes; the manifest says {facts['num_bytes']}",
            hint=_how_to_restore(corpus),
        )
    return file


def verify(corpus: Path) -> dict[str, Any]:
    """Reads every byte of a prepared corpus, and compares it with the manifest, which is returned.

    Raises:
        DataError: a file is gone or differs.
    """
    manifest = read_manifest(corpus)
    for name, facts in manifest["files"].items():
        file = require_size(corpus, name, facts)
        if sha256_of(Path(file.path)) != facts["sha256"]:
            raise DataError(
                f"{file.path} has changed: its SHA-256 is not that of the manifest", hint=_how_to_restore(corpus)
            )
    return manifest


def shown_counts(manifest: dict[str, Any]) -> list[str]:
    """Returns lines of text that say what a prepared corpus holds, and what was left out of it."""
    lines = [
        f"{name}: {part['num_documents']:,} documents, {part['num_bytes']:,} bytes"
        for name, part in manifest["parts"].items()
    ]
    left_out = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in manifest["left_out"].items() if count)
    return [*lines, *([f"left out: {left_out}"] if left_out else [])]


def next_command(corpus: Path) -> str:
    """Returns how to train on a prepared corpus."""
    return f"Next: patchpad train --config FILE --data {quoted(corpus)} --out RUN"


def _how_to_restore(corpus: Path) -> str:
    return f"Restore the file, or remove the corpus and prepare it again: rm -r {quoted(corpus)}"


def _is_shard(name: str) -> bool:
    return name.startswith(f"{SHARDS}/")
