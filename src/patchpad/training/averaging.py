"""Averaged weights: an exponential moving average of the parameters over the optimizer's steps."""

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AveragedWeights:
    """The moving average of a model's parameters, in their type, sharded and placed as they are.

    The decay of step n (from 0) is at most (1 + n) / (10 + n), so that the initial weights are soon forgotten.

    Args:
        model: prepared for training, since the averages follow its shards.
        decay: share of the average that a step leaves.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in model.named_parameters()
        }
        """Parameter name -> its average."""
        self._parameters = list(model.parameters())

    @torch.no_grad()
    def update(self, step: int, *, is_kept: Bool[Tensor, ""] | None = None) -> None:
        """Moves the averages towards the weights that a step has left.

        Args:
            step: number of the step, from 0.
            is_kept: whether the step counts, on the device: where it is false, nothing moves; None for true.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = [_local(average) for average in self.tensors.values()]
        weights = [_local(parameter.detach()) for parameter in self._parameters]
        if is_kept is not None:
            weights = [torch.where(is_kept, *pair) for pair in zip(weights, averages, strict=True)]
        get_ema_multi_avg_fn(decay)(averages, weights, step)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # pyrefly: ignore
