"""A copy of a model for steps on CUDA, whose linear layers are in the type that CUDA computes in."""

import copy

import torch
from torch import Tensor, nn

from patchpad.model.byte_lm import ByteLM
from patchpad.model.weights import PreciseLinear


class HalfPrecisionCopy:
    """A model whose linear layers are in bf16; autocast would convert them at every step, to the same values.

    All other weights, and the thresholds, are those of the original itself. Linear layers that compute in fp32 stay as
    they are.

    Args:
        model: the original, to which nothing refers afterwards.
    """

    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(self, model: ByteLM) -> None:
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        self.model = copy.deepcopy(model, shared)
        self._names: list[str] = []
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Linear) and not isinstance(module, PreciseLinear):
                self._names.append(name + ".weight")
                module.weight = nn.Parameter(module.weight.to(torch.bfloat16), requires_grad=False)
        self._places = self._shared_places(model)

    def shares_tensors_with(self, model: ByteLM) -> bool:
        """Whether what both have in common still lies where it lay when the copy was made."""
        return self._places == self._shared_places(model)

    @torch.inference_mode(False)
    @torch.no_grad()
    def refresh(self, model: ByteLM) -> None:
        """Converts the original's linear layers anew, in place."""
        kept: list[Tensor] = [self.model.get_parameter(name) for name in self._names]
        torch._foreach_copy_(kept, [model.get_parameter(name) for name in self._names])

    def _shared_places(self, model: ByteLM) -> list[int]:
        own = set(self._names)
        named = (*model.named_parameters(), *model.named_buffers())
        return [tensor.data_ptr() for name, tensor in named if name not in own]


__all__ = ["HalfPrecisionCopy"]
