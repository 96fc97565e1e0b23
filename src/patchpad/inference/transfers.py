"""Numbers of the host on their way to the device, none of which makes the host wait."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from patchpad.device import moved

MOST_KEPT = 64
"""Lists that `SentLists` keeps on the device."""


def on_device(
    values: Sequence[int | float] | Sequence[Sequence[int]], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Returns numbers as a tensor on a device; the host does not wait for the copy where the device is CUDA."""
    return moved(torch.tensor(values, dtype=dtype, device="cpu"), device)


class SentLists:
    """Lists on the device, by what is in them: one that comes again is not sent again.

    The rows of a batch that can go on, and their thresholds, are often those of the step before.
    """

    def __init__(self) -> None:
        self._sent: OrderedDict[tuple[torch.device, torch.dtype, tuple[int | float, ...]], Tensor] = OrderedDict()

    def __call__(self, values: Sequence[int | float], device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
        """Returns the list as a read-only tensor."""
        key = (device, dtype, tuple(values))
        found = self._sent.pop(key, None)
        if found is None:
            found = on_device(values, device, dtype)
        self._sent[key] = found  # the newest last
        while len(self._sent) > MOST_KEPT:
            self._sent.popitem(last=False)
        return found


__all__ = ["SentLists", "on_device"]
