"""Copies between host and device that may still be under way.

A copy to the host that does not block puts nonsense where it writes, until the host has waited for it. A copy to the
device that does not block checks at the next wait that nobody has written into its source meanwhile.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


class OverwrittenEarlyError(RuntimeError):
    """Pinned memory was written into while the device may still have been reading it."""


@dataclass(frozen=True)
class Transfer:
    """One copy: the host's memory, and what it should hold at the next wait."""

    host: Tensor
    values: Tensor
    is_to_host: bool
    where: str


class Transfers:
    """All copies that no wait has finished yet, in their order."""

    def __init__(self) -> None:
        self.num_begun = 0
        self.under_way: list[Transfer] = []

    def begin_to_host(self, host: Tensor, values: Tensor, where: str) -> None:
        """Begins a copy to pinned memory."""
        host.copy_(nonsense_like(values))
        self._begin(Transfer(host, values.clone(), True, where))

    def begin_to_device(self, host: Tensor, where: str) -> None:
        """Begins a copy from pinned memory."""
        self._begin(Transfer(host, host.clone(), False, where))

    def _begin(self, transfer: Transfer) -> None:
        self.num_begun += 1
        self.under_way.append(transfer)

    def finish(self, up_to: int | None = None) -> None:
        """Ends the copies that began first, all by default.

        Raises:
            OverwrittenEarlyError: the source of a copy has changed.
        """
        count = len(self.under_way)
        if up_to is not None:
            count = max(0, count - (self.num_begun - up_to))
        done, self.under_way = self.under_way[:count], self.under_way[count:]
        for transfer in done:
            if transfer.is_to_host:
                transfer.host.copy_(transfer.values)
            elif not torch.equal(_raw(transfer.host), _raw(transfer.values)):
                raise OverwrittenEarlyError(f"the source of the copy at {transfer.where} was written into too early")


def nonsense_like(tensor: Tensor) -> Tensor:
    """Returns other values, which no program expects."""
    if tensor.dtype == torch.bool:
        return ~tensor
    if tensor.is_floating_point():
        return torch.full_like(tensor, torch.nan)
    return torch.full_like(tensor, torch.iinfo(tensor.dtype).max - 90)


def _raw(tensor: Tensor) -> Tensor:
    """Returns a tensor's bytes, in which nan equals itself."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
