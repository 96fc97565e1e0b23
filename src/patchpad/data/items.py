"""What a text is made of: the files that are trained on, those that are held out, and those to be divided."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from patchpad.config import TextConfig
from patchpad.data.corpus import Corpus
from patchpad.data.file_reading import FileReader
from patchpad.data.file_search import Found, require_path
from patchpad.data.folders import Part, files_behind, part_of
from patchpad.data.remote import is_url, state_of_url
from patchpad.data.split import first_equals, is_in, split_corpus
from patchpad.errors import DataError

logger = logging.getLogger(__name__)

FileState = tuple[int, int, int]
"""Size in bytes, time of the last change of the content, and of anything about the file, both in nanoseconds."""
Role = Literal["training", "held_out", "undivided"]


@dataclass(frozen=True, kw_only=True)
class TextItems:
    """Files, and folders that are texts as a whole, by what they are for."""

    training: list[Found]
    held_out: list[Found]
    undivided: list[Found]
    """Of these a part is to be held out."""

    @property
    def by_role(self) -> dict[Role, list[Found]]:
        """The items of each role that has any."""
        roles: dict[Role, list[Found]] = {
            "training": self.training,
            "held_out": self.held_out,
            "undivided": self.undivided,
        }
        return {role: items for role, items in roles.items() if items}

    @property
    def states(self) -> dict[str, FileState | None]:
        """The state of each file."""
        return file_states(file for items in self.by_role.values() for item in items for file in files_of(item))

    @classmethod
    def find(cls, reader: FileReader) -> "TextItems":
        """Finds what is held out: what is given for that, or parts of folders that have them.

        Raises:
            DataError: a path that matches nothing, or nothing to train on.
        """
        data = reader.data
        found = {
            resolved: (_part(item, "training") or item, _part(item, "validation"))
            for resolved, item in reader.find(data.paths).items()
        }
        if not data.validation_paths:
            divided = [(training, held_out) for training, held_out in found.values() if held_out is not None]
            return cls(
                training=[training for training, _ in divided],
                held_out=[held_out for _, held_out in divided],
                undivided=[training for training, held_out in found.values() if held_out is None],
            )
        held_out = [_part(item, "validation") or item for item in reader.find(data.validation_paths).values()]
        held_out_identities = {_identity(item) for item in held_out}
        left = [
            training
            for resolved, (training, _) in found.items()
            if held_out_identities.isdisjoint((_identity(resolved), _identity(training)))
        ]
        if not left:
            raise all_held_out(data)
        if len(left) < len(found):
            logger.warning("%d file(s) are held out and therefore not trained on", len(found) - len(left))
        return cls(training=left, held_out=held_out, undivided=[])


@dataclass(frozen=True, kw_only=True)
class Division:
    """A text, divided."""

    training: Corpus
    validation: Corpus | None
    """None: nothing was to be held out."""
    num_duplicates: int = 0
    """Documents that were left out because they equal earlier ones."""
    num_held_out_too: int = 0
    """Documents that were left out of the training text because they equal held-out ones."""


def divide(data: TextConfig, corpora: Mapping[Role, Corpus], *, hold_out: bool = True) -> Division:
    """Divides a text into what is trained on and what is held out.

    Args:
        data: says how.
        corpora: what was read, by role.
        hold_out: whether a part of what is undivided is held out.

    Raises:
        DataError: nothing is left to train on, or a single document is too short to be cut.
    """
    num_read = sum(len(corpus.lengths) for corpus in corpora.values())
    if data.remove_duplicates:
        corpora = {role: _without_duplicates(corpus) for role, corpus in corpora.items()}
    num_duplicates = num_read - sum(len(corpus.lengths) for corpus in corpora.values())
    if num_duplicates:
        logger.warning("%d document(s) equal earlier ones, byte for byte, and are left out", num_duplicates)
    training = [corpora["training"]] if "training" in corpora else []
    validation = [corpora["held_out"]] if "held_out" in corpora else []
    if "undivided" in corpora and hold_out:
        parts = split_corpus(corpora["undivided"], data.validation_fraction)
        training, validation = [*training, parts[0]], [*validation, parts[1]]
    elif "undivided" in corpora:
        training = [*training, corpora["undivided"]]
    division = Division(
        training=Corpus.join(training),
        validation=Corpus.join(validation) if validation else None,
        num_duplicates=num_duplicates,
    )
    if "held_out" not in corpora:
        return division
    left = without_held_out(division.training, corpora["held_out"], data)
    num_held_out_too = len(division.training.lengths) - len(left.lengths)
    return replace(division, training=left, num_held_out_too=num_held_out_too)


def without_held_out(training: Corpus, held_out: Corpus, data: TextConfig) -> Corpus:
    """Leaves documents out that are held out too, byte for byte, under another name or in another file.

    Raises:
        DataError: all are.
    """
    is_equal = is_in(training.documents, held_out.documents)
    if is_equal.all():
        raise all_held_out(data)
    if not is_equal.any():
        return training
    logger.warning(
        "%d document(s) equal held-out ones, byte for byte, and are therefore not trained on", is_equal.sum()
    )
    return training.select(np.flatnonzero(~is_equal))


def all_held_out(data: TextConfig) -> DataError:
    """Returns the error of a text of which nothing is left to train on."""
    return DataError(
        f"all text of {', '.join(data.paths)} is held out, so that none is left to train on",
        hint="Give other files to train on, or leave data.validation_paths out: a part is held out then.",
    )


def absolute_paths(paths: Sequence[str | Path]) -> tuple[str, ...]:
    """Makes paths independent of the working folder.

    Raises:
        DataError: an empty path, which would be the working folder.
    """
    for path in paths:
        require_path(path)
    return tuple(str(path) if is_url(path) else str(Path(path).absolute()) for path in paths)


def files_of(item: Found) -> list[str]:
    """Returns the files of which an item of a text consists."""
    return [str(file) for file in files_behind(item)] if isinstance(item, Path) else [item]


def file_states(paths: Iterable[str]) -> dict[str, FileState | None]:
    """Returns size and times of files; None for one that is gone."""
    states: dict[str, FileState | None] = {}
    for path in paths:
        if is_url(path):
            states[path] = state_of_url(path)
            continue
        try:
            status = os.stat(path)
            states[path] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        except OSError:
            states[path] = None
    return states


def _without_duplicates(corpus: Corpus) -> Corpus:
    is_first = first_equals(corpus.documents) == np.arange(len(corpus.lengths))
    return corpus if is_first.all() else corpus.select(np.flatnonzero(is_first))


def _part(item: Found, part: Part) -> Path | None:
    return part_of(item, part) if isinstance(item, Path) and item.is_dir() else None


def _identity(file: Found) -> tuple[object, ...]:
    """Returns what is equal for two names of one file alone: links, hard links, other case.

    Size and time are there for file systems that give one number to several files.
    """
    try:
        status = os.stat(file)
    except OSError:
        return (file,)
    if not status.st_ino:
        return (file,)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
