"""The text of a run, opened once: what is trained on, what is held out, and whether it is still the same."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from patchpad.config import DataConfig, TextConfig
from patchpad.data import Corpus, TextSource
from patchpad.data.file_reading import FileReader
from patchpad.data.items import FileState, TextItems, absolute_paths, divide, without_held_out
from patchpad.errors import DataError

logger = logging.getLogger(__name__)

Text = TypeVar("Text", bound=TextConfig)
LARGEST_READ_WHOLE = 1 << 28
"""Larger texts are told apart by their sizes and by samples of their bytes: see `Corpus.fingerprint`."""


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
        items = TextItems.find(reader)
        states = items.states
        division = divide(data, {role: reader.corpus(found) for role, found in items.by_role.items()})
        assert division.validation is not None
        reader.left_out.report()
        return cls(data=data, training=division.training, validation=division.validation, file_states=states)

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


def _open_mixture(data: DataConfig) -> RunText:
    """Opens the texts of a mixture; what one of them holds out is trained on in none."""
    opened = {name: RunText.open(source.alone) for name, source in data.sources.items()}
    validation = Corpus.join([text.validation for text in opened.values()])
    sources = {
        name: replace(text, training=without_held_out(text.training, validation, text.data))
        for name, text in opened.items()
    }
    return RunText(
        data=data,
        training=Corpus.join([text.training for text in sources.values()]),
        validation=validation,
        file_states={file: state for text in sources.values() for file, state in text.file_states.items()},
        sources=sources,
    )
