"""The text that ships with the package: Jane Austen's novels to train on, and an excerpt to be measured."""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from patchpad.config import DataConfig
from patchpad.data.corpus import Corpus

FOLDER = Path(str(resources.files("patchpad"))) / "data" / "bundled"


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """A passage of a novel that the shipped model has not seen: what commands read when no text is given."""

    title: str
    author: str
    year: int
    begin: int
    """First byte of the passage in the held-out document."""
    shown_bytes: int
    """How much of it `inspect` shows."""
    shown_saved: float
    """Share of the shown bits per byte that scratchpads save the shipped model: stored threshold against none."""
    set_saved: float
    """The same over windows of all held-out books."""
    set_bytes: int
    """Bytes of these windows."""
    text: bytes

    @property
    def source(self) -> str:
        """Names the book."""
        return f"{self.title} by {self.author}, {self.year}"

    @property
    def corpus(self) -> Corpus:
        """The passage as one document."""
        return Corpus((np.frombuffer(self.text, dtype=np.uint8),), (self.source,))

    def what_scratchpads_save(self) -> str:
        """Says how typical of held-out books the shown part is."""
        shown, of_set = (f"{100 * share:.1f} %" for share in (self.shown_saved, self.set_saved))
        return (
            f"never trained on; scratchpads save {shown} of its bits, and {of_set} in {self.set_bytes:,} bytes spread "
            "over all held-out books"
        )


def bundled_novels() -> DataConfig:
    """Returns five novels to train on and *Persuasion* held out."""
    return DataConfig(
        paths=(str(FOLDER / "austen_train.jsonl.xz"),), validation_paths=(str(FOLDER / "austen_validation.jsonl.xz"),)
    )


@cache
def bundled_excerpt() -> Excerpt:
    """Reads the excerpt."""
    facts = json.loads((FOLDER / "excerpt.json").read_text(encoding="utf-8"))
    return Excerpt(**facts, text=(FOLDER / "excerpt.txt").read_bytes())
