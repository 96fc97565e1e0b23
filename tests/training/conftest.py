"""A tiny configuration, a text of unique lines, and ways to train, stop and compare runs."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from patchpad.config import Config, ModelConfig, PatchifierConfig, TrainConfig, TriggerConfig
from patchpad.errors import PatchpadError
from patchpad.training import trainer
from patchpad.training.metrics import CLOCK_KEYS, read_metrics


class Hook:
    """Calls a function after one step of training."""

    def __init__(self, step: int = 0, action: Callable[[], Any] = lambda: None) -> None:
        self.at, self.action, self.steps = step, action, []

    def update(self, step: int, total_steps: int, metrics: dict[str, Any]) -> None:
        self.steps.append(step)
        if step == self.at:
            self.action()


class FullDisk:
    """A file that is opened to append to it, on a disk that has room for four more characters."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "FullDisk":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text[:4])
        raise OSError(28, "No space left on device")


def tiny_config(trigger: str = "entropy", patchifier: str = "fixed", **train: Any) -> Config:
    model = ModelConfig(
        byte_dim=16,
        byte_heads=2,
        window_bytes=4,
        encoder_layers=1,
        entropy_head_layers=1,
        decoder_layers=1,
        pooling_heads=2,
        trunk_dim=32,
        trunk_heads=2,
        trunk_layers=1,
        context_bytes=64,
        patchifier=PatchifierConfig(kind=patchifier, target_patch_size=8),  # pyrefly: ignore
        trigger=TriggerConfig(kind=trigger),  # pyrefly: ignore
    )
    values = {"steps": 10, "batch_rows": 2, "warmup_steps": 3, "log_every": 1, "checkpoint_every": 0, "device": "cpu"}
    return Config(model=model, train=TrainConfig(**{**values, **train}))


def losses(run: Path) -> list[dict[str, Any]]:
    """Lines of metrics without what a clock or the machine decides."""
    lines = read_metrics(run)
    assert all(line["bytes_per_second"] > 0 for line in lines)
    return [{key: value for key, value in line.items() if key not in CLOCK_KEYS} for line in lines]


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    """Lines of uneven length with words, digits and UTF-8, each of them unique."""
    source = random.Random(0)
    words = ["the", "cat", "sat", "on", "mat", "é", "größer", "日本"]
    lines = (f"{n} " + " ".join(source.choices(words, k=source.randrange(1, 12))) for n in range(150))
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def documents(tmp_path_factory) -> Path:
    """A folder of many short documents of very different lengths."""
    source = random.Random(1)
    folder = tmp_path_factory.mktemp("documents")
    for number in range(60):
        (folder / f"{number:02d}.txt").write_text("ab cd"[: source.randrange(1, 6)] * source.randrange(1, 30))
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory, text) -> Path:
    """A finished run with two checkpoints; tests that change it copy it first."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    trainer.train(tiny_config(steps=6, checkpoint_every=3), data=text, out=out, progress=Hook())
    return out


class Tools:
    """What the tests of this folder share."""

    Hook = Hook
    FullDisk = FullDisk
    config = staticmethod(tiny_config)
    losses = staticmethod(losses)
    replace = staticmethod(replace)

    @staticmethod
    def train_until_error(config: Config, hook: Hook, kind: type[BaseException] = PatchpadError, **paths: Any) -> Any:
        """Trains, expects an error, and returns it."""
        with pytest.raises(kind) as caught:
            trainer.train(config, progress=hook, **paths)
        return caught.value


@pytest.fixture(scope="session")
def tools() -> type[Tools]:
    return Tools
