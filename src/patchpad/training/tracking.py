"""Trackers: libraries that show the metrics and samples of a run beside `metrics.jsonl`, on pages of their own.

Their libraries are those of the extra `track`. Each is imported in one place, when a run names it.
"""

import importlib
import io
import json
import logging
import math
import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from patchpad.config import Config
from patchpad.errors import MissingExtraError
from patchpad.files import strict_json, write_atomically
from patchpad.pages.svg import escape_text
from patchpad.registry import TRACKERS
from patchpad.training.progress import wants_lines

logger = logging.getLogger(__name__)

PROJECT = "patchpad"
TRACKERS_FILE = "trackers.json"
"""Holds the name by which a run is known to services, so that a resumed run is the same one there."""


@runtime_checkable
class Tracker(Protocol):
    """Receives what a run tells of itself. Whatever it raises ends the tracker, and never the run."""

    def start(self, config: Config, run: Path, step: int) -> None:
        """Begins.

        Args:
            config: of the run.
            run: its folder.
            step: of the line that comes first: after a resume, what was told of it and of later ones is outdated.
        """
        ...

    def log(self, line: dict[str, Any], step: int) -> None:
        """Takes a line of metrics without `step`; its numbers are finite."""
        ...

    def text(self, name: str, text: str, step: int) -> None:
        """Takes a text, such as a sample."""
        ...

    def close(self) -> None:
        """Delivers what it still holds."""
        ...


class Trackers:
    """The trackers of a run. They start with the first line; one that fails says so once and is left out from then on.

    Args:
        trackers: name -> tracker.
        run: folder of the run.
    """

    def __init__(self, trackers: dict[str, Tracker], run: Path) -> None:
        self.run = run
        self.waiting, self.started = trackers, dict[str, Tracker]()

    @staticmethod
    def of(names: Sequence[str], run: Path) -> "Trackers":
        """Returns the trackers that a configuration names.

        Raises:
            MissingExtraError: the library of one is not installed.
        """
        require_trackers(names)
        return Trackers({name: TRACKERS.get(name)() for name in names}, run)

    def log(self, line: dict[str, Any], config: Config) -> None:
        """Tells all of them a line of metrics."""
        step = line["step"]
        numbers = {key: value for key, value in line.items() if key != "step" and _is_number(value)}
        self._start(config, step)
        self._tell(self.started, lambda tracker: tracker.log(numbers, step))

    def text(self, name: str, text: str, step: int, config: Config) -> None:
        """Tells all of them a text."""
        self._start(config, step)
        self._tell(self.started, lambda tracker: tracker.text(name, text, step))

    def close(self) -> None:
        """Ends all that have started."""
        self._tell(self.started, lambda tracker: tracker.close())
        self.started = {}

    def _start(self, config: Config, step: int) -> None:
        waiting, self.waiting = self.waiting, {}
        self._tell(waiting, lambda tracker: tracker.start(config, self.run, step))
        self.started |= waiting

    def _tell(self, trackers: dict[str, Tracker], what: Callable[[Tracker], None]) -> None:
        for name, tracker in list(trackers.items()):
            try:
                with redirect_stdout(sys.stderr if wants_lines() else io.StringIO()):  # stdout is for results
                    what(tracker)
            except Exception as error:  # services, networks and full disks fail in ways of their own
                del trackers[name]
                detail = " ".join(str(error).split())[:300]
                logger.warning(
                    "%s failed (%s: %s): it is told nothing more of this run; metrics.jsonl has every line",
                    *(name, type(error).__name__, detail),
                )


def require_trackers(names: Sequence[str], plugins: Mapping[str, str] | None = None) -> None:
    """Requires trackers and their libraries, before a run begins.

    Args:
        names: of the trackers.
        plugins: that registered some of them, by name, when the configuration was saved.

    Raises:
        MissingExtraError: the library of one is not installed.
        MissingPluginError: the plug-in of one is not loaded.
    """
    for name in names:
        TRACKERS.require(name, "train.trackers", (plugins or {}).get(name))
        library = getattr(TRACKERS.get(name), "library", None)
        if callable(library):  # a plug-in has imported its own
            library()


class TensorBoardTracker:
    """Writes event files to RUN/tensorboard, which `tensorboard --logdir` shows."""

    @staticmethod
    def library() -> Any:
        """Returns torch's writer of event files, for which `tensorboard` has to be installed."""
        return _library("tensorboard", "torch.utils.tensorboard")

    def start(self, config: Config, run: Path, step: int) -> None:
        """Opens a file of events; those of earlier files from `step` on are hidden."""
        self.writer = self.library().SummaryWriter(str(run / "tensorboard"), purge_step=step, flush_secs=10)
        self.text("config", strict_json(config.to_dict(), indent=1), step)

    def log(self, line: dict[str, Any], step: int) -> None:
        """Writes scalars."""
        for key, value in line.items():
            self.writer.add_scalar(key, value, step)

    def text(self, name: str, text: str, step: int) -> None:
        """Writes a text as Markdown shows code: unchanged."""
        self.writer.add_text(name, _as_code(text), step)

    def close(self) -> None:
        """Writes what is left."""
        self.writer.close()


class WandbTracker:
    """Logs to Weights & Biases, in the mode of WANDB_MODE: `offline` writes to RUN/wandb alone."""

    @staticmethod
    def library() -> Any:
        """Returns `wandb`."""
        return _library("wandb")

    def start(self, config: Config, run: Path, step: int) -> None:
        """Starts a run there, or continues it."""
        wandb = self.library()
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.absolute().name,
            id=service_id(run),
            resume="allow",
            dir=str(run),
            config=config.to_dict(),
            settings=wandb.Settings(console="off", silent=not wants_lines()),  # `console` would rewrite our bar
        )

    def log(self, line: dict[str, Any], step: int) -> None:
        """Logs numbers."""
        self.run.log(line, step=step)

    def text(self, name: str, text: str, step: int) -> None:
        """Logs a text as a page."""
        self.run.log({name: self.library().Html(f"<pre>{escape_text(text)}</pre>")}, step=step)

    def close(self) -> None:
        """Waits until all is delivered, or written in offline mode."""
        self.run.finish()


class TrackioTracker:
    """Logs to trackio, whose data stay on this machine unless TRACKIO_SPACE_ID is set; `trackio show` shows them."""

    @staticmethod
    def library() -> Any:
        """Returns `trackio`."""
        return _library("trackio")

    def start(self, config: Config, run: Path, step: int) -> None:
        """Starts a run there, or continues it."""
        self.run = self.library().init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=f"{run.absolute().name}-{service_id(run)}",
            resume="allow",
            config=config.to_dict(),
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, line: dict[str, Any], step: int) -> None:
        """Logs numbers."""
        self.run.log(line, step=step)

    def text(self, name: str, text: str, step: int) -> None:
        """Logs a text as Markdown."""
        self.run.log({name: self.library().Markdown(_as_code(text))}, step=step)

    def close(self) -> None:
        """Waits until all is written."""
        self.library().finish()  # the run's own `finish` would be called again, and print, when Python ends


def service_id(run: Path) -> str:
    """Returns the name of a run for services, which is drawn when it is first asked for."""
    path = run / TRACKERS_FILE
    if not path.exists():
        write_atomically(path, strict_json({"id": secrets.token_hex(4)}))
    return json.loads(path.read_text(encoding="utf-8"))["id"]


def _library(name: str, module: str | None = None) -> Any:
    try:
        return importlib.import_module(module or name)
    except ImportError as error:
        raise MissingExtraError(
            f"train.trackers names {name}, whose library is not installed",
            hint=f'Install it with: pip install "patchpad[track]", or pip install {name}; or leave it out.',
        ) from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _as_code(text: str) -> str:
    return "    " + text.replace("\n", "\n    ")
