"""The command line in this process: exit code, stdout and stderr of a call, and a small run to work on."""

import logging
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from patchpad.cli.app import main

YAML = """\
model:
  byte_dim: 16
  byte_heads: 2
  window_bytes: 4
  encoder_layers: 1
  entropy_head_layers: 1
  decoder_layers: 1
  pooling_heads: 2
  trunk_dim: 32
  trunk_heads: 2
  trunk_layers: 1
  context_bytes: 64
  patchifier: {target_patch_size: 8}
train: {steps: 6, batch_rows: 2, warmup_steps: 2, device: cpu}
"""


@dataclass(frozen=True)
class Called:
    """What a call of the command line left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def patchpad(capsysbinary) -> Iterator[Callable[..., Called]]:
    """Runs the command line in this process; what a model writes need not be UTF-8."""

    def call(*arguments: str | Path) -> Called:
        capsysbinary.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsysbinary.readouterr()
        return Called(code, captured.out.decode("utf-8", "replace"), captured.err.decode())

    yield call
    logging.getLogger("patchpad").setLevel(logging.NOTSET)


@pytest.fixture
def fails(patchpad) -> Callable[..., str]:
    """Runs the command line, checks the exit code and that an error is one or two lines, and returns them."""

    def call(code: int, *arguments: str | Path) -> str:
        called = patchpad(*arguments)
        assert called.code == code, called.err
        assert called.out == ""
        lines = called.err.splitlines()
        assert len(lines) in (1, 2), called.err
        assert lines[0].startswith("patchpad: ")
        assert all(line.strip() for line in lines)
        assert "Traceback" not in called.err
        return called.err

    return call


class Command:
    """The command line as a process of its own, its output captured as bytes unless `options` say otherwise."""

    program = (sys.executable, "-m", "patchpad")
    environment = {  # noqa: RUF012
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }

    @classmethod
    def run(cls, *arguments: object, **options: object) -> subprocess.CompletedProcess:
        """Runs it to its end."""
        values = {"capture_output": True, "env": cls.environment, "check": False, **options}
        return subprocess.run([*cls.program, *map(as_argument, arguments)], **values)

    @classmethod
    def start(cls, *arguments: object, **options: object) -> subprocess.Popen:
        """Starts it."""
        values = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": cls.environment, **options}
        return subprocess.Popen([*cls.program, *map(as_argument, arguments)], **values)


def as_argument(value: object) -> str | bytes:
    return value if isinstance(value, bytes) else str(value)


@pytest.fixture
def command() -> type[Command]:
    return Command


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    source = random.Random(0)
    words = ["the", "cat", "sat", "on", "mat", "é", "größer", "日本"]
    lines = (" ".join(source.choices(words, k=source.randrange(1, 12))) for _ in range(120))
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(YAML, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory, config, text) -> Path:
    """A finished run; tests that change it take `run`, a copy."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["train", "--config", str(config), "--data", str(text), "--out", str(out)]) == 0
    return out


@pytest.fixture
def run(tmp_path, finished) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"
