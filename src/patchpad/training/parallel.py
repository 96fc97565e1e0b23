"""The ranks of a run: the processes that share its batches. One process goes through the same interface.

What a step sums over its batch is summed over the ranks, so that all of them see what one process would have seen, and
decide alike; see `TrainingSteps.train_step`.
"""

import datetime
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from patchpad.errors import OtherRankError, TrainingInterrupted
from patchpad.launcher import ALONE, Place
from patchpad.model.language_model import LanguageModel
from patchpad.run_lock import process_facts
from patchpad.training.gradient_norms import tensor_norms
from patchpad.training.rank_failures import Failure, first_failure, is_lost_connection, known_failure, lost_rank_error

RunPass = Callable[..., Any]
"""Runs a pass of training: takes a model, then its batch and more, and returns a result; see `training_pass`."""
TIMEOUT = datetime.timedelta(minutes=30)
"""How long ranks wait for one that is alive, such as the main one while it looks for text."""


class Parallel:
    """The only process of a run. It has everything, and waits for no other process."""

    is_sharded = False
    """Whether each rank holds a part of each weight, so that every pass of the model takes all ranks."""

    def __init__(self, device: torch.device, place: Place = ALONE) -> None:
        self.device = device
        self.rank = place.rank
        self.num_ranks = place.num_ranks

    @functools.cached_property
    def process_group_for_saving(self) -> dist.ProcessGroup | None:
        """Torch's group for saving, with messages on the CPU, which a thread may use meanwhile; None for one process.

        All ranks ask for it at the same time.
        """
        return None

    @property
    def is_main(self) -> bool:
        """Whether this rank logs, shows progress and writes the files of the whole run."""
        return self.rank == 0

    def prepare(self, model: nn.Module, run_pass: RunPass) -> RunPass:
        """Prepares a model for its ranks, once its blocks are recomputed and compiled as they are to be.

        Args:
            model: changed in place where weights are sharded.
            run_pass: takes the model, then the rest of its arguments.

        Returns:
            What runs a pass now, with the same arguments; gradients of its backward pass are sums over all ranks.
        """
        return run_pass

    def adding_up(self, *, is_last: bool) -> AbstractContextManager[object]:
        """Returns the context of one of the passes, forward and backward, whose gradients add up to those of a step."""
        return nullcontext()

    def rows(self, num_rows: int) -> range:
        """Returns this rank's share of a batch's rows: neighbours, and possibly none; sizes differ by one at most."""
        return range(self.rank * num_rows // self.num_ranks, (self.rank + 1) * num_rows // self.num_ranks)

    def tensor_norms(self, gradients: Sequence[Tensor]) -> Float[Tensor, " tensors"]:
        """Returns the norm of each gradient, of which a rank may hold a part."""
        return tensor_norms(gradients)

    def sum(self, tensor: Tensor) -> Tensor:
        """Returns the sum of a tensor over all ranks, to the bit the same on each."""
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """Returns the tensors of all ranks, which have one shape, joined along the first axis in rank order."""
        return tensor

    def any(self, flag: bool) -> bool:
        """Returns whether a flag is true on a rank."""
        return self.any_of(flag)[0]

    def any_of(self, *flags: bool) -> list[bool]:
        """Returns of each flag whether it is true on a rank."""
        return list(flags)

    def exchange(self, value: Any) -> list[Any]:
        """Returns the values of all ranks, in rank order: numbers, texts, None, and lists and dicts of these."""
        return [value]

    def barrier(self) -> None:
        """Waits until all ranks are here."""

    def together(self) -> AbstractContextManager[object]:
        """Returns the context of what ranks do each for themselves: an error on one of them ends all.

        Raises:
            OtherRankError: another rank has failed, and says why.
        """
        return nullcontext()

    def reporting(self) -> AbstractContextManager[object]:
        """Returns the context of what ranks do with each other: the one that fails first raises its error.

        Raises:
            OtherRankError: another rank has failed, and says why.
            LostRankError: another rank has ended without a word.
        """
        return nullcontext()

    def whole_model(self, model: LanguageModel) -> LanguageModel | None:
        """Returns a model that the main rank can run without the others, to generate; None on others."""
        return model if self.is_main else None

    def end_evaluation(self, model: nn.Module) -> None:
        """Leaves a model's parameters as training has them, after passes without gradients."""


class Ranks(Parallel):
    """One of several ranks. All of them call each method in the same order, `rows` and `is_main` excepted."""

    def __init__(self, device: torch.device, place: Place) -> None:
        super().__init__(device, place)
        self._processes = self.exchange(process_facts())
        """What tells each rank's process apart."""

    @functools.cached_property
    def process_group_for_saving(self) -> dist.ProcessGroup | None:
        """Torch's group for saving, with messages on the CPU, which a thread may use meanwhile."""
        group = dist.new_group(backend="gloo", timeout=TIMEOUT)
        assert isinstance(group, dist.ProcessGroup)
        return group

    def sum(self, tensor: Tensor) -> Tensor:
        """Returns the sum of a tensor over all ranks, to the bit the same on each."""
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def gather(self, tensor: Tensor) -> Tensor:
        """Returns the tensors of all ranks, which have one shape, joined along the first axis in rank order."""
        parts = [torch.empty_like(tensor) for _ in range(self.num_ranks)]
        dist.all_gather(parts, tensor.detach().contiguous())
        return torch.cat(parts)

    def any_of(self, *flags: bool) -> list[bool]:
        """Returns of each flag whether it is true on a rank."""
        found = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in found.tolist()]

    def exchange(self, value: Any) -> list[Any]:
        """Returns the values of all ranks, in rank order: numbers, texts, None, and lists and dicts of these."""
        values: list[Any] = [None] * self.num_ranks
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Waits until all ranks are here."""
        self.any(False)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Ends all ranks if one of them fails inside; the lowest one that does raises its error."""
        found: Exception | None = None
        try:
            yield
        except OtherRankError:
            raise
        except Exception as error:
            found = error
        failures = self.exchange(found and Failure.of(found, self.rank).to_dict())
        lowest = next((failure for failure in failures if failure is not None), None)
        if lowest is not None:
            self._raise(found, Failure(**lowest))

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Lets the rank that fails first raise its error, and all others an `OtherRankError`."""
        try:
            yield
        except OtherRankError:
            raise
        except TrainingInterrupted as error:  # which all of them raise
            self._raise(error, Failure.of(error, rank=0))
        except Exception as error:
            found = error
            if is_lost_connection(error) and known_failure() is None:
                found = lost_rank_error(self.rank, self._processes)
                found.__cause__ = error
            self._raise(found, first_failure(Failure.of(found, self.rank)))

    def _raise(self, error: Exception | None, first: Failure) -> None:
        if first.rank == self.rank:
            assert error is not None
            raise error
        raise first.as_error() from error
