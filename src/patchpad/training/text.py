"""The text of a run, opened once: what is trained on, what is held out, and whether it is still the same."""

import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from patchpad.config import DataConfig, TextConfig
from patchpad.data import Corpus, TextSource, split_corpus
from patchpad.data.file_reading import FileReader
from patchpad.data.file_search import Found, require_path
from patchpad.data.folders import Part, files_behind, part_of
from patchpad.data.remote import is_url, state_of_url
from patchpad.data.split import first_equals, is_in
from patchpad.errors import DataError

logger = logging.getLogger(__name__)

Text = TypeVar("Text", bound=TextConfig)
LARGEST_READ_WHOLE = 1 << 28
"""Larger texts are told apart by their sizes and by samples of their bytes: see `Corpus.fingerprint`."""
FileState = tuple[int, int, int]
"""Size in bytes, time of the last change of the content, and of anything about the file, both in nanoseconds."""


@dataclass(frozen=True, kw_only=True)
class RunText:
    """Training and held-out documents, with what tells later whether their files have changed."""

    data: DataConfig
    """Where the text came from: absolute paths, so that a run can be resumed from any folder."""
    training: Corpus
    validation: Corpus
    file_states: dict[str, FileState | None]
    """State of each file just before it was read; None for one that was gone."""
    sources: "Mapping[str, RunText]" = field(default_factory=dict)
    """The texts of a mixture, by name. `training` and `validation` are then those of all, one after the other."""

    @classmethod
    def open(cls, data: DataConfig) -> "RunText":
        """Opens a run's text; no held-out file is trained on.

        Raises:
            DataError: text that is missing, unreadable or too little.
        """
        data = with_absolute_paths(data)
        if data.sources:
            return _open_mixture(data)
        reader = FileReader(data)
        items = _find(reader)
        states = file_states(file for item in items.all for file in files_of(item))
        corpora = [_read(reader, items.training)] if items.training else []
        held_out = [_read(reader, items.held_out)] if items.held_out else []
        if items.undivided:
            training, validation = split_corpus(_read(reader, items.undivided), data.validation_fraction)
            corpora, held_out = [*corpora, training], [*held_out, validation]
        corpus, validation = Corpus.join(corpora), Corpus.join(held_out)
        if items.held_out:
            corpus = _without_equals(corpus, validation, data)
        reader.left_out.report()
        return cls(data=data, training=corpus, validation=validation, file_states=states)

    @property
    def mixture(self) -> list[TextSource]:
        """What is trained on, by source."""
        if not self.sources:
            return [TextSource(corpus=self.training)]
        weights = {name: source.weight for name, source in self.data.sources.items()}
        return [
            TextSource(corpus=text.training, name=name, weight=weights[name]) for name, text in self.sources.items()
        ]

    def held_out(self, limit_bytes: int) -> list[tuple[str, Corpus, int]]:
        """Returns the name, the held-out text and a limit of each source; one text has the empty name.

        Args:
            limit_bytes: of all, shared by weight; 0 for no limit.
        """
        if not self.sources:
            return [("", self.validation, limit_bytes)]
        total = sum(source.weight for source in self.mixture)
        shares = [math.ceil(limit_bytes * source.weight / total) for source in self.mixture]
        return [
            (name, text.validation, share) for (name, text), share in zip(self.sources.items(), shares, strict=True)
        ]

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of both parts, by part: of every byte, or of samples of a text above `LARGEST_READ_WHOLE`."""
        parts = {"training": self.training, "validation": self.validation}
        return {name: part.fingerprint(most_read=LARGEST_READ_WHOLE) for name, part in parts.items()}

    @property
    def late_files(self) -> frozenset[str]:
        """The files that are read while the text is used; the others lie in memory."""
        return self.training.files | self.validation.files

    def facts(self) -> dict[str, Any]:
        """Returns what a run stores of its text."""
        return {"fingerprints": self.fingerprints, "files": self.file_states}

    def require_same(self, facts: dict[str, Any]) -> None:
        """Compares the text with the `facts()` that a run stored, after a trip through JSON.

        Where each file has the size and times that it had, nothing is read; else all is, or samples of a large text.

        Raises:
            DataError: the text differs.
        """
        now = {path: state and list(state) for path, state in self.file_states.items()}
        before = facts["files"]
        if now == before and None not in now.values():
            return
        same = self.fingerprints == facts["fingerprints"]
        if same and self.training.num_bytes + self.validation.num_bytes <= LARGEST_READ_WHOLE:
            return
        changed = sorted(path for path in now.keys() | before.keys() if now.get(path) != before.get(path))
        shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
        if same:
            logger.warning("%s: other times, but the same sizes and samples; the rest was not compared", shown)
            return
        raise DataError(
            f"the text has changed since the run began: {shown or ', '.join(self.data.paths)}",
            hint="Restore the text, or train again into a new folder.",
        )


def with_absolute_paths(data: DataConfig) -> DataConfig:
    """Returns a configuration whose paths do not depend on the working folder.

    Raises:
        DataError: an empty path, which would be the working folder.
    """
    sources = {name: _with_absolute_paths(source) for name, source in data.sources.items()}
    return replace(_with_absolute_paths(data), sources=sources)


def _with_absolute_paths(text: Text) -> Text:
    return replace(text, paths=absolute_paths(text.paths), validation_paths=absolute_paths(text.validation_paths))


def absolute_paths(paths: Sequence[str | Path]) -> tuple[str, ...]:
    """Makes paths independent of the working folder.

    Raises:
        DataError: an empty path, which would be the working folder.
    """
    for path in paths:
        require_path(path)
    return tuple(str(path) if is_url(path) else str(Path(path).absolute()) for path in paths)


def _open_mixture(data: DataConfig) -> RunText:
    """Opens the texts of a mixture; what one of them holds out is trained on in none."""
    opened = {name: RunText.open(source.alone) for name, source in data.sources.items()}
    validation = Corpus.join([text.validation for text in opened.values()])
    sources = {
        name: replace(text, training=_without_equals(text.training, validation, text.data))
        for name, text in opened.items()
    }
    return RunText(
        data=data,
        training=Corpus.join([text.training for text in sources.values()]),
        validation=validation,
        file_states={file: state for text in sources.values() for file, state in text.file_states.items()},
        sources=sources,
    )


@dataclass(frozen=True, kw_only=True)
class _Items:
    """What a text is made of."""

    training: list[Found]
    held_out: list[Found]
    undivided: list[Found]
    """Of which a part is to be held out."""

    @property
    def all(self) -> list[Found]:
        return [*self.training, *self.held_out, *self.undivided]


def _find(reader: FileReader) -> _Items:
    """Finds what is trained on, and what is held out: what is given for that, or parts of folders that have them."""
    data = reader.data
    found = {
        resolved: (_part(item, "training") or item, _part(item, "validation"))
        for resolved, item in reader.find(data.paths).items()
    }
    if not data.validation_paths:
        divided = [(training, held_out) for training, held_out in found.values() if held_out is not None]
        undivided = [training for training, held_out in found.values() if held_out is None]
        return _Items(
            training=[training for training, _ in divided],
            held_out=[held_out for _, held_out in divided],
            undivided=undivided,
        )
    held_out = [_part(item, "validation") or item for item in reader.find(data.validation_paths).values()]
    held_out_identities = {_identity(item) for item in held_out}
    left = [
        training
        for resolved, (training, _) in found.items()
        if held_out_identities.isdisjoint((_identity(resolved), _identity(training)))
    ]
    if not left:
        raise _all_held_out(data)
    if len(left) < len(found):
        logger.warning("%d file(s) are held out and therefore not trained on", len(found) - len(left))
    return _Items(training=left, held_out=held_out, undivided=[])


def _part(item: Found, part: Part) -> Path | None:
    return part_of(item, part) if isinstance(item, Path) and item.is_dir() else None


def _read(reader: FileReader, items: list[Found]) -> Corpus:
    corpus = reader.corpus(items)
    return without_duplicates(corpus) if reader.data.remove_duplicates else corpus


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


def _without_equals(training: Corpus, held_out: Corpus, data: TextConfig) -> Corpus:
    """Leaves documents out that are held out too, byte for byte, under another name or in another file."""
    is_equal = is_in(training.documents, held_out.documents)
    if is_equal.all():
        raise _all_held_out(data)
    if not is_equal.any():
        return training
    logger.warning(
        "%d document(s) equal held-out ones, byte for byte, and are therefore not trained on", is_equal.sum()
    )
    return training.select(np.flatnonzero(~is_equal))


def without_duplicates(corpus: Corpus) -> Corpus:
    """Leaves documents out that equal an earlier one, byte for byte, and logs how many."""
    is_first = first_equals(corpus.documents) == np.arange(len(corpus.documents))
    if is_first.all():
        return corpus
    logger.warning("%d document(s) equal earlier ones, byte for byte, and are left out", (~is_first).sum())
    return corpus.select(np.flatnonzero(is_first))


def _all_held_out(data: TextConfig) -> DataError:
    return DataError(
        f"all text of {', '.join(data.paths)} is held out, so that none is left to train on",
        hint="Give other files to train on, or leave data.validation_paths out: a part is held out then.",
    )


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
