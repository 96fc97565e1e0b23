"""The guard of training: a step whose numbers are not finite, or whose gradient explodes, changes nothing."""

import logging
import math
from collections import deque
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchpad.config import TrainConfig
from patchpad.errors import TrainingError
from patchpad.training.reading import LateRead

logger = logging.getLogger(__name__)

NUM_NORMS = 64
"""A gradient norm is compared with the median of so many steps before it, at most; skipped ones are left out."""
LEAST_NORMS = 16
"""Without so many steps before it, it is compared with nothing."""


class StepGuard:
    """Decides which steps change anything, and ends training that has diverged.

    It decides by losses and norm alone, on their device, so that ranks which are given the same numbers decide alike.
    The host looks at the numbers to count, to log and to end training.

    Args:
        config: of training.
        late: leave the numbers of the newest step unread until the next one has begun: a GPU is then not waited for.
        device: of the model.
    """

    def __init__(self, config: TrainConfig, *, late: bool, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.late = late
        self.skips = config.max_skipped_steps > 0
        """Whether a step may be skipped; else the first one that would be is an error."""
        self.norms = torch.full((NUM_NORMS,), math.inf, device=device)
        """Gradient norms of the last steps that were not skipped, newest last."""
        self.num_norms = torch.zeros((), dtype=torch.long, device=device)
        """Steps that these are of; the others are inf."""
        self.num_skipped = 0
        """Steps that were skipped since the run began."""
        self.num_in_a_row = 0
        """Steps that were skipped since the last one that was not."""
        self.skipped_bytes = 0
        """Bytes of skipped steps that nobody has taken account of yet."""
        self._unread: deque[tuple[int, int, LateRead]] = deque()

    def note(
        self, step: int, losses: list[Tensor], gradient_norm: Float[Tensor, ""], num_bytes: int = 0
    ) -> Bool[Tensor, ""]:
        """Takes a step's numbers, and checks those that are due.

        Args:
            step: counted from 0.
            losses: of its passes.
            gradient_norm: of all parameters.
            num_bytes: of the step.

        Returns:
            Whether the step may change anything, on the device.

        Raises:
            TrainingError: this step, or the one before, would be skipped, and more may not be.
        """
        numbers = torch.stack([*losses, gradient_norm])
        is_kept = numbers.isfinite().all()
        ratio = self.config.skip_norm_ratio
        if ratio is not None:
            median = self._median()
            is_kept = is_kept & ((gradient_norm <= ratio * median) | (self.num_norms < LEAST_NORMS))
            self.norms = torch.where(is_kept, torch.cat((self.norms[1:], gradient_norm.detach()[None])), self.norms)
            self.num_norms = (self.num_norms + is_kept).clamp(max=NUM_NORMS)
            numbers = torch.cat((numbers, torch.stack((median, is_kept.to(median.dtype)))))
        self._unread.append((step, num_bytes, LateRead(numbers)))
        while len(self._unread) > (1 if self.late else 0):
            self._check_oldest()
        return is_kept

    def _median(self) -> Float[Tensor, ""]:
        """Returns the median of the norms, the lower one of two; inf without any."""
        middle = ((self.num_norms - 1) // 2).clamp(min=0)
        return self.norms.sort().values.gather(0, middle.view(1)).view(())

    def finish(self) -> None:
        """Checks all that has been noted. Nothing may be saved before.

        Raises:
            TrainingError: a step would be skipped, and more may not be.
        """
        while self._unread:
            self._check_oldest()

    def take_skipped_bytes(self) -> int:
        """Returns the bytes of skipped steps since the last call."""
        taken, self.skipped_bytes = self.skipped_bytes, 0
        return taken

    def _check_oldest(self) -> None:
        step, num_bytes, numbers = self._unread.popleft()
        values = numbers.tolist()
        median, is_kept = math.inf, True
        if self.config.skip_norm_ratio is not None:
            *values, median, is_kept = values
        *losses, norm = values
        wrong = next((f"the loss is {loss}" for loss in losses if not math.isfinite(loss)), None)
        if wrong is None and not math.isfinite(norm):
            wrong = f"the gradient is {norm}"
        if wrong is None and not is_kept:
            wrong = f"the gradient has a norm of {norm:.4g}, {norm / median:.3g} times the median of the steps before"
        if wrong is None:
            self.num_in_a_row = 0
            return
        if self.num_in_a_row == self.config.max_skipped_steps:
            raise self._diverged(wrong, step)
        self.num_in_a_row += 1
        self.num_skipped += 1
        self.skipped_bytes += num_bytes
        logger.warning("step %d is skipped, and changes nothing: %s", step + 1, wrong)

    def require_finite(self, value: float, what: str, step: int) -> None:
        """Raises the error of training that has diverged, unless a number is finite.

        Raises:
            TrainingError: it is not.
        """
        if not math.isfinite(value):
            raise self._diverged(f"the {what} is {value}", step)

    def _diverged(self, wrong: str, step: int) -> TrainingError:
        skipped = f", and {self.num_in_a_row} before this one were skipped" if self.num_in_a_row else ""
        return TrainingError(
            f"training has diverged: {wrong} after {step} steps{skipped}",
            hint=f"Train into a new folder with a train.learning_rate below {self.config.learning_rate}.",
        )

    def state(self) -> dict[str, Any]:
        """Returns what a resumed run needs: this reads the device."""
        return {
            "norms": self.norms[self.norms.isfinite()].tolist(),
            "num_skipped": self.num_skipped,
            "num_in_a_row": self.num_in_a_row,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over `state()` after a trip through JSON."""
        norms = torch.tensor([math.inf] * (NUM_NORMS - len(state["norms"])) + state["norms"])
        self.norms = norms.to(self.norms)
        self.num_norms = torch.full_like(self.num_norms, len(state["norms"]))
        self.num_skipped, self.num_in_a_row = int(state["num_skipped"]), int(state["num_in_a_row"])
