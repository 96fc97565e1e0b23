"""Numbers on their way from the device to the host, so that reading them waits for nothing."""

import math
from collections import deque

import torch
from torch import Tensor

from patchpad.errors import TrainingError


class LateRead:
    """A copy of a small tensor for the host. On CUDA it is begun at once and waited for when it is read."""

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._values = values.detach()
        if values.is_cuda:
            self._values = self._values.to("cpu", non_blocking=True)  # torch takes pinned memory for it
            self._event = torch.cuda.Event()
            self._event.record()

    def tolist(self) -> list[float]:
        """Returns the numbers."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.tolist()


class FiniteChecks:
    """Checks that the losses and the gradient norm of each step are finite.

    Args:
        late: leave those of the newest step unread until the next one has begun: a GPU is then not waited for. Such a
            step must change nothing by itself if its numbers are not finite; see `is_finite`.
        learning_rate: of the configuration, for the message.
    """

    def __init__(self, *, late: bool, learning_rate: float) -> None:
        self.late = late
        self.learning_rate = learning_rate
        self._unread: deque[tuple[int, LateRead]] = deque()

    def note(self, step: int, losses: list[Tensor], gradient_norm: Tensor) -> None:
        """Takes a step's numbers, and checks those that are due.

        Args:
            step: counted from 0.
            losses: of its passes.
            gradient_norm: of all parameters.

        Raises:
            TrainingError: numbers of this step, or of the one before, are not finite.
        """
        self._unread.append((step, LateRead(torch.stack([*losses, gradient_norm]))))
        while len(self._unread) > (1 if self.late else 0):
            self._check_oldest()

    def finish(self) -> None:
        """Checks all that has been noted. Nothing may be saved before.

        Raises:
            TrainingError: they are not finite.
        """
        while self._unread:
            self._check_oldest()

    def _check_oldest(self) -> None:
        step, numbers = self._unread.popleft()
        *losses, norm = numbers.tolist()
        for loss in losses:
            self.require_finite(loss, "loss", step)
        self.require_finite(norm, "gradient", step)

    def require_finite(self, value: float, what: str, step: int) -> None:
        """Raises the error of training that has diverged, unless a number is finite.

        Raises:
            TrainingError: it is not.
        """
        if not math.isfinite(value):
            raise TrainingError(
                f"training has diverged: the {what} is {value} after {step} steps",
                hint=f"Train into a new folder with a train.learning_rate below {self.learning_rate}.",
            )


def is_finite(losses: list[Tensor], gradient_norm: Tensor) -> Tensor:
    """Returns, on the device, whether all losses and the norm are finite: a bool tensor without axes."""
    return torch.stack([*losses, gradient_norm]).isfinite().all()
