"""Steps of the library's own trainer on the novels that come with the package, as `patchpad train` makes them."""

import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import gettempdir

from patchpad.config import Config
from patchpad.cost import Cost, cost
from patchpad.data.bundled_text import bundled_novels
from patchpad.training.text import RunText
from patchpad.training.trainer import StepSums, Trainer


class TrainerSteps:
    """A trainer that makes one step after the other: loader, passes, clipping, AdamW and the threshold's schedule.

    Random weights have no entropies worth following. The schedule places scratchpads at random in the first step, and
    follows entropies from then on, always at the configured rate.

    Args:
        config: of the run; its text, validation and checkpoints are replaced.
        device: "cpu" or "cuda".
        batch_rows: rows of a pass.
        accumulation_steps: passes of a step.
        compile: as `train.compile`.
    """

    def __init__(
        self, config: Config, device: str, *, batch_rows: int, accumulation_steps: int = 1, compile: bool | None = None
    ) -> None:
        train = replace(
            config.train,
            device=device,
            batch_rows=batch_rows,
            accumulation_steps=accumulation_steps,
            compile=compile,
            validate_every=0,
            checkpoint_every=0,
        )
        config = replace(config, train=train, data=bundled_novels())
        self.trainer = Trainer(config, Path(gettempdir()) / "never-written", novels())
        self.sums = StepSums()
        self.seconds: list[float] = []
        """Of each step on the host's clock; the first one compiles."""

    def run(self) -> None:
        """Makes a step."""
        began = time.perf_counter()
        self.trainer.train_step(self.sums)
        self.trainer.step += 1
        self.seconds.append(time.perf_counter() - began)

    @property
    def bytes_per_step(self) -> float:
        """Bytes predicted in a step, on average over those so far."""
        return self.sums.num_bytes / len(self.seconds)

    @property
    def bits_per_byte(self) -> float:
        """Of the steps so far."""
        return self.sums.bits_per_byte(self.sums.nats)

    def cost(self) -> Cost:
        """Returns the analytic cost at the patches and scratchpads of the steps so far."""
        model = self.trainer.config.model
        return cost(
            model,
            context_bytes=model.context_bytes,
            patches_per_byte=self.sums.num_commits / self.sums.num_bytes,
            scratchpads_per_byte=self.sums.num_scratchpads / self.sums.num_bytes,
        )


@cache
def novels() -> RunText:
    """Returns the text, read once."""
    return RunText.open(bundled_novels())
