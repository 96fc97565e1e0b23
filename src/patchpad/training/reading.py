"""Numbers on their way from the device to the host, so that reading them waits for nothing."""

import torch
from torch import Tensor


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
