"""Samples of a run: what its model writes every few steps, in RUN/samples.jsonl and for trackers."""

import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from patchpad.config import Config
from patchpad.files import strict_json, write_atomically
from patchpad.inference.generator import complete
from patchpad.model.language_model import LanguageModel

logger = logging.getLogger(__name__)

SAMPLES = "samples.jsonl"


class Samples:
    """The file of a run's samples.

    Args:
        run: its folder.
    """

    def __init__(self, run: Path) -> None:
        self.path = run / SAMPLES

    def add(self, model: LanguageModel, config: Config, *, step: int, bytes_seen: int) -> str:
        """Lets the model continue `train.sample_prompt`, adds both to the file and returns them.

        The seed is the run's, so samples differ only by what the model has learned. The model stays in eval mode.
        """
        train, prompt = config.train, config.train.sample_prompt or ""
        model.eval()
        completion = complete(model, prompt, max_new_bytes=train.sample_bytes, seed=train.seed, draft="off")
        line = {
            "step": step,
            "bytes_seen": bytes_seen,
            "prompt": prompt,
            "text": completion.text,
            "trunk_calls": completion.trunk_calls,
        }
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(strict_json(line) + "\n")
        except OSError as error:  # a full disk must not end a run that can still be saved later
            logger.warning("cannot write %s: %s", self.path, error)
            with suppress(OSError):
                os.truncate(self.path, size)
        return prompt + completion.text

    def restore(self, step: int) -> None:
        """Removes the samples that were made after a step, and a line that was not written to its end."""
        if self.path.exists():
            kept = [line for line in read_samples(self.path) if line["step"] <= step]
            write_atomically(self.path, "".join(strict_json(line) + "\n" for line in kept))


def read_samples(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a file of samples; what follows a line that was not written to its end is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").removesuffix("\n").split("\n"):
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines
