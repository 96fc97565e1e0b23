"""Folders that are a text as a whole: saved by `datasets`, or prepared by `patchpad prepare`."""

import json
import os
from pathlib import Path
from typing import Literal

from patchpad.errors import DataError

DATASET, SPLITS = "state.json", "dataset_dict.json"
"""Files by which a folder of `datasets.save_to_disk` is recognised: of one dataset, and of several splits."""
MANIFEST, MANIFEST_FORMAT = "manifest.json", "patchpad corpus"
"""File by which a prepared corpus is recognised, and what it says of its format."""
TRAINING, VALIDATION = "training", "validation"
"""Folders of the parts of a prepared corpus."""
BEGINS = "begins.npy"
"""File that every part of a prepared corpus has."""
WORK = "unfinished"
"""Folder of what a prepared corpus is made from; gone when it is whole."""
UNFINISHED = f"{WORK}/plan.json"
SHARDS = "shards"
"""Folder of a prepared corpus with the bytes of all its parts."""
Part = Literal["training", "validation"]
SPLIT_NAMES: dict[Part, tuple[str, ...]] = {"training": ("train",), "validation": ("validation", "test")}
"""Splits of a saved dataset that are taken for a part; the first that is there."""


def is_whole(folder: Path) -> bool:
    """Whether a folder is a text as a whole, which is not looked into for files."""
    markers = (DATASET, SPLITS, UNFINISHED)
    return any((folder / name).is_file() for name in markers) or is_prepared(folder)


def is_prepared(folder: Path) -> bool:
    """Whether a folder is a prepared corpus, parts and all."""
    if (folder / TRAINING / BEGINS).is_file():
        return True
    try:
        with open(folder / MANIFEST, encoding="utf-8") as file:
            start = file.read(100)
    except (OSError, ValueError):
        return False
    return MANIFEST_FORMAT in start


def is_prepared_part(folder: Path) -> bool:
    """Whether a folder is a part of a prepared corpus."""
    return folder.name in (TRAINING, VALIDATION) and is_prepared(folder.parent)


def whole_above(path: Path) -> Path | None:
    """Returns the outermost folder at or above a path that is a text as a whole; None where none is."""
    return next((folder for folder in (path.parent.parent, path.parent, path) if is_whole(folder)), None)


def part_of(folder: Path, part: Part) -> Path | None:
    """Returns the folder of a part of a text that is a folder; None where it has no such part.

    Raises:
        DataError: its splits have other names, or it is a corpus that is not whole.
    """
    if (folder / UNFINISHED).is_file():
        raise DataError(
            f"{folder} is not whole: its preparation was stopped",
            hint="Give the same command again, `patchpad prepare`: it continues where it stopped.",
        )
    if is_prepared(folder):
        return folder / part if (folder / part).is_dir() else None
    if not (folder / SPLITS).is_file():
        return folder if part == TRAINING else None
    try:
        splits = json.loads((folder / SPLITS).read_text(encoding="utf-8"))["splits"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read the dataset {folder}: {SPLITS}: {error}", hint="Save it again with save_to_disk."
        ) from error
    found = next((folder / name for name in SPLIT_NAMES[part] if name in splits), None)
    if found is None and part == TRAINING:
        raise DataError(
            f"the dataset {folder} has no split `train`; it has: {', '.join(splits)}",
            hint=f"Name a split: {os.fspath(folder / splits[0]) if splits else folder}",
        )
    return found


def measured_part(item: Path) -> Path:
    """Returns what is measured of a text that is a folder: what it holds out, and all of others."""
    if not item.is_dir():
        return item
    return part_of(item, "validation") or part_of(item, "training") or item


def dataset_files(folder: Path) -> list[Path]:
    """Returns the Arrow files of a folder that `datasets` has saved.

    Raises:
        DataError: its list of files cannot be read, or names a file that is gone.
    """
    try:
        state = json.loads((folder / DATASET).read_text(encoding="utf-8"))
        files = [folder / item["filename"] for item in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read the dataset {folder}: {DATASET}: {error}", hint="Save it again with save_to_disk."
        ) from error
    for file in files:
        if not file.is_file():
            raise DataError(f"the dataset {folder} has lost {file.name}", hint="Save it again with save_to_disk.")
    return files


def files_behind(item: Path) -> list[Path]:
    """Returns the files of which a text consists: itself, or what lies in its folder."""
    if not item.is_dir():
        return [item]
    folders = [item, item.parent / SHARDS] if is_prepared_part(item) else [item]
    return sorted(path for folder in folders for path in folder.iterdir() if path.is_file())
