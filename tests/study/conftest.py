"""A study that trains in a second, and its results."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from patchpad.study.definition import Study, load_study
from patchpad.study.progress import LogStudyProgress
from patchpad.study.run import run_study

STUDY = """\
name: small
text: Does a small study run?
bytes_seen: 1600
seeds: [0, 1]
data:
  words: {paths: [WORDS], references: [plain]}
base:
  model:
    byte_dim: 16
    window_bytes: 4
    entropy_head_layers: 1
    pooling_heads: 2
    trunk_dim: 32
    trunk_heads: 2
    trunk_layers: 1
    context_bytes: 64
    patchifier: {target_patch_size: 8}
  train: {batch_rows: 2, warmup_steps: 2, log_every: 3, checkpoint_every: 4, device: cpu}
evaluation: {bytes: 400, scratchpads_per_byte: [0.1, 0.3]}
arms:
  - {name: plain, model: {trigger: {kind: never}}}
  - {name: entropy}
  - {name: random, tier: 2, exploratory: true, seeds: [0], model: {trigger: {kind: random}}}
  - {name: byte, tier: 2, exploratory: true, seeds: [0], model: {kind: byte}}
"""


@pytest.fixture(scope="session")
def words(tmp_path_factory) -> Path:
    source = random.Random(0)
    lines = (" ".join(source.choices(["the", "cat", "sat", "é", "12", "on,"], k=6)) for _ in range(400))
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def write_study(words) -> Callable[..., Study]:
    """Writes the study with some texts replaced, and loads it."""

    def write(folder: Path, *changes: tuple[str, str]) -> Study:
        text = STUDY.replace("WORDS", str(words))
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = folder / "study.yaml"
        path.write_text(text, encoding="utf-8")
        return load_study(path)

    return write


@pytest.fixture(scope="session")
def finished(tmp_path_factory, write_study) -> Path:
    """The folder of the finished study; not to be changed."""
    torch.set_num_threads(1)  # as in every test; fixtures of the session are made before that is set
    folder = tmp_path_factory.mktemp("study")
    study = write_study(folder)
    run_study(study, out=folder / "out", progress=LogStudyProgress(study.runs))
    return folder / "out"
