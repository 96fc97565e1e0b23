"""Steps of the library's own trainer on the novels that come with the package, as `patchpad train` makes them."""

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from types import TracebackType

from patchpad.config import Config
from patchpad.cost import Cost, cost
from patchpad.data import Corpus
from patchpad.data.bundled_text import bundled_novels
from patchpad.training.steps import TrainingSteps
from patchpad.training.sums import StepSums
from patchpad.training.text import RunText


class TrainerSteps:
    """Steps of a run, one after the other: loader, passes, clipping, AdamW and the threshold's schedule.

    Random weights have no entropies worth following. The schedule places scratchpads at random in the first step, and
    follows entropies from then on, always at the configured rate. On CUDA a thread makes the batches ahead, until the
    `with` block around the steps ends.

    Args:
        config: of the run; its text is replaced.
        device: "cpu" or "cuda".
        batch_rows: rows of a pass.
        accumulation_steps: passes of a step.
        compile: as `train.compile`.
    """

    def __init__(
        self, config: Config, device: str, *, batch_rows: int, accumulation_steps: int = 1, compile: bool | None = None
    ) -> None:
        train = replace(
            config.train, device=device, batch_rows=batch_rows, accumulation_steps=accumulation_steps, compile=compile
        )
        self.config = replace(config, train=train, data=bundled_novels())
        self.training = TrainingSteps(self.config, novels())
        self.sums = StepSums()
        self.seconds: list[float] = []
        """Of each step on the host's clock; the first one compiles."""
        self._prefetching = ExitStack()

    def __enter__(self) -> "TrainerSteps":
        """Begins to make batches ahead."""
        self._prefetching.enter_context(self.training.prefetching())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the thread that makes them."""
        self._prefetching.close()

    def run(self) -> None:
        """Makes a step. What it leaves on the device is read by `read`."""
        began = time.perf_counter()
        self.training.train_step(self.sums)
        self.training.step += 1
        self.seconds.append(time.perf_counter() - began)

    def read(self) -> StepSums:
        """Returns the sums over all steps so far, which waits for the device."""
        self.training.read(self.sums)
        return self.sums

    def bytes_per_step(self) -> float:
        """Returns the bytes predicted in a step, on average over those so far."""
        return self.sums.num_bytes / len(self.seconds)

    def cost(self) -> Cost:
        """Returns the analytic cost at the patches and scratchpads of the steps so far."""
        model, sums = self.config.model, self.read()
        return cost(
            model,
            context_bytes=model.context_bytes,
            patches_per_byte=sums.num_commits / sums.num_bytes,
            scratchpads_per_byte=sums.num_scratchpads / sums.num_bytes,
        )


@cache
def novels() -> Corpus:
    """Returns the text to train on, read once."""
    return RunText.open(bundled_novels()).training
