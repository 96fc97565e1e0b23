"""Saving while training goes on: copies are made at once, and written in the background."""

import logging
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from patchpad.config import TrainConfig
from patchpad.training.step_folders import StepContent, remove_old_steps, save_step

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

logger = logging.getLogger(__name__)


class StepSaver:
    """Saves a run's steps one after another. The next save, `wait` and the end wait for the one that is under way.

    Args:
        run: the folder of the run.
        config: whether to save in the background, and which steps to keep.
        device: where the tensors are.
        group: of all ranks, with messages on the CPU, for saving alone; None for one process.
    """

    def __init__(
        self, run: Path, config: TrainConfig, device: torch.device, group: "ProcessGroup | None" = None
    ) -> None:
        self.run, self.config, self.group = run, config, group
        self.is_main = True
        self.mark = str(os.getpid())
        if group is not None:
            import torch.distributed as dist

            self.is_main = dist.get_rank(group) == 0
            marks = [self.mark]
            dist.broadcast_object_list(marks, src=dist.get_global_rank(group, 0), group=group)
            self.mark = marks[0]
        self._copies = _HostCopies(device) if config.checkpoint_async else None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="saving") if self._copies else None
        self._under_way: Future[None] | None = None

    @property
    def has_failed(self) -> bool:
        """Whether a save in the background has failed; `wait` raises its error."""
        return self._under_way is not None and self._under_way.done() and self._under_way.exception() is not None

    def save(self, content: StepContent) -> None:
        """Saves a step, and removes old ones. When it returns, the tensors may change.

        Raises:
            CheckpointError: this step, or the one before, could not be written; what was saved earlier is intact.
        """
        self.wait()
        if self._copies is None or self._thread is None:
            self._write(content)
            return
        copied = replace(content, tensors=self._copies.take(content.tensors))
        self._under_way = self._thread.submit(self._write, copied)

    def wait(self) -> None:
        """Waits until all that was saved is on the disk.

        Raises:
            CheckpointError: it could not be written.
        """
        if self._under_way is not None:
            under_way = self._under_way
            under_way.exception()  # an interruption of this line leaves it to be waited for again
            self._under_way = None
            under_way.result()

    def _write(self, content: StepContent) -> None:
        save_step(self.run, content, group=self.group, mark=self.mark)
        if self.is_main:
            remove_old_steps(self.run, keep=self.config.keep_checkpoints, keep_every=self.config.keep_every)

    def __enter__(self) -> "StepSaver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Waits for the save under way; its error is logged where another one is on its way."""
        try:
            self.wait()
        except Exception as failed:
            if error is None:
                raise
            logger.error("%s", failed)
        finally:
            if self._thread is not None:
                self._thread.shutdown(wait=False)
            self._copies = None


class _HostCopies:
    """Copies of tensors in host memory, which is pinned for a GPU and used again for the next step."""

    def __init__(self, device: torch.device) -> None:
        self.is_pinned = device.type == "cuda"
        self.buffers: dict[tuple[str, str], Tensor] = {}

    def take(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
        """Returns copies of tensors, shards as shards; they hold until the next call."""
        copied = {
            folder: {name: self._copy((folder, name), tensor) for name, tensor in named.items()}
            for folder, named in tensors.items()
        }
        if self.is_pinned:
            torch.cuda.synchronize()
        return copied

    def _copy(self, key: tuple[str, str], tensor: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor

        here = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        buffer = self.buffers.get(key)
        if buffer is None:
            buffer = torch.empty(here.shape, dtype=here.dtype, device="cpu", pin_memory=self.is_pinned)
            self.buffers[key] = buffer
        buffer.copy_(here, non_blocking=self.is_pinned)
        # `DTensor.from_local` would move it to the device of the mesh.
        return DTensor(buffer, tensor._spec, requires_grad=False) if isinstance(tensor, DTensor) else buffer
