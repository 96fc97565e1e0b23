"""Ranks that hold all weights each: torch's `DistributedDataParallel`."""

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from patchpad.training.parallel import Ranks, RunPass


class ReplicatedRanks(Ranks):
    """Ranks that hold all weights each, and sum their gradients while they are found."""

    def prepare(self, model: nn.Module, run_pass: RunPass) -> RunPass:
        """Wraps the pass."""
        known = inspect.signature(nn.parallel.DistributedDataParallel).parameters
        # Buffers are thresholds, which all ranks move alike.
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # in torch 2.11
        options: dict[str, Any] = {buffers: False}
        replicated = nn.parallel.DistributedDataParallel(
            PassModule(model, run_pass),
            **options,
            # Gradients then travel in the same groups in all steps, so that a resumed run is the same to the last bit.
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
        )
        replicated.register_comm_hook(None, sum_gradients)
        self.replicated = replicated

        def run(model: nn.Module, *arguments: Any) -> Any:
            return replicated(*arguments)

        return run

    def adding_up(self, *, is_last: bool) -> AbstractContextManager[object]:
        """Returns the context of a pass: gradients stay with their rank until the last one sums them."""
        return nullcontext() if is_last else self.replicated.no_sync()


class PassModule(nn.Module):
    """A pass as the forward pass of a module, as torch's wrapper wants it."""

    def __init__(self, model: nn.Module, run_pass: RunPass) -> None:
        super().__init__()
        self.model = model
        self.run_pass = run_pass
        self.unused = nn.Parameter(torch.zeros(()))
        """Without it, torch would advise each rank against looking for parameters that are not used."""

    def forward(self, *arguments: Any) -> Any:
        """Runs the pass."""
        return self.run_pass(self.model, *arguments)


def sum_gradients(state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Sums some gradients over all ranks. Torch's wrapper by itself would take the mean."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])
