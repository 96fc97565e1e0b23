"""Initial weights: every module that has parameters draws its own, from one generator, in the order of the modules."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from patchpad.model.packed_copy import LEAST_WEIGHTS, PackedCopy, can_multiply, can_pack, has_few_rows

LM_HEAD_STD = 0.02
"""LM heads start near zero, so that the first loss is close to ln 257."""


class DrawsWeights(ABC):
    """A module with parameters of its own, those of its submodules not counted."""

    @abstractmethod
    def draw(self, generator: torch.Generator) -> None:
        """Draws the initial values of these parameters in place."""


def draw_weights(model: nn.Module, seed: int) -> None:
    """Draws all initial weights in place, the same on every device for a seed."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, DrawsWeights):
            module.draw(generator)


@torch.no_grad()
def draw_normal(parameter: Tensor, std: float, generator: torch.Generator) -> None:
    """Draws a parameter from a normal distribution around 0, on the CPU and in fp32 whatever its device and type."""
    numbers = torch.randn(parameter.shape, generator=generator, device="cpu", dtype=torch.float32)
    parameter.copy_(numbers * std)


class Linear(nn.Linear, DrawsWeights):
    """A linear layer without bias.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        std: standard deviation of the initial weights; default: that which keeps the variance of the input.
    """

    def __init__(self, in_features: int, out_features: int, *, std: float | None = None) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.std = in_features**-0.5 if std is None else std
        self._num_weights = in_features * out_features
        self.is_packed_when_compiled = False
        self._packed: PackedCopy | None = None

    def reset_parameters(self) -> None:
        """Does nothing: weights are drawn by `draw_weights`, not from torch's global generator."""

    def forward(self, input: Tensor) -> Tensor:
        """Applies the layer."""
        if torch.compiler.is_compiling():
            if self.is_packed_when_compiled and input.dtype == torch.float32 and not torch.is_grad_enabled():
                return torch.ops.patchpad.packed_linear(input, self.weight)
        elif self._num_weights >= LEAST_WEIGHTS and can_multiply(input, self._num_weights):
            packed = self.packed_copy()
            if packed is not None:
                return packed.product(input)
        return super().forward(input)

    def packed_copy(self) -> PackedCopy | None:
        """Returns a copy of the weights for few rows, made when it is first asked for; None where there is none."""
        weight = self.weight
        if self._packed is None or not self._packed.is_of(weight):
            self._packed = PackedCopy(weight) if can_pack(weight) else None
        return self._packed

    def pack_when_compiled(self) -> None:
        """Has functions that are compiled from now on use the packed copy, if the layer is large."""
        self.is_packed_when_compiled = self._num_weights >= LEAST_WEIGHTS and can_pack(self.weight)
        if self.is_packed_when_compiled:
            _PACKED_LAYERS[self.weight.data_ptr()] = self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "Linear":
        self._packed, self.is_packed_when_compiled = None, False
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles make a packed copy of their own."""
        return self.__dict__ | {"_packed": None}

    def draw(self, generator: torch.Generator) -> None:
        """Draws the weights."""
        draw_normal(self.weight, self.std, generator)


_PACKED_LAYERS: "WeakValueDictionary[int, Linear]" = WeakValueDictionary()
"""Layers whose packed copies compiled code uses, by the place of their weights in memory."""
_LIBRARY = torch.library.Library("patchpad", "FRAGMENT")
_LIBRARY.define("packed_linear(Tensor input, Tensor weight) -> Tensor")


@torch.library.impl(_LIBRARY, "packed_linear", "CPU")
def _packed_linear(input: Tensor, weight: Tensor) -> Tensor:
    """Multiplies with a layer's packed copy. Weights that were moved since are multiplied as torch does it."""
    layer = _PACKED_LAYERS.get(weight.data_ptr()) if has_few_rows(input) else None
    packed = None if layer is None else layer.packed_copy()
    return F.linear(input, weight) if packed is None else packed.product(input)


@torch.library.register_fake("patchpad::packed_linear", lib=_LIBRARY)
def _fake_packed_linear(input: Tensor, weight: Tensor) -> Tensor:
    return input.new_empty((*input.shape[:-1], weight.shape[0]))


class PreciseLinear(Linear):
    """A linear layer that computes in fp32 also under autocast: for logits and for what is decided from."""

    def forward(self, input: Tensor) -> Tensor:
        """Applies the layer."""
        if not torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(input.float(), self.weight.float())


class Embedding(nn.Embedding, DrawsWeights):
    """A table of vectors, whose entries start with the standard deviation `std`."""

    def __init__(self, num_entries: int, dim: int, *, std: float = 1.0) -> None:
        self.std = std
        super().__init__(num_entries, dim)

    def reset_parameters(self) -> None:
        """Does nothing: weights are drawn by `draw_weights`, not from torch's global generator."""

    def draw(self, generator: torch.Generator) -> None:
        """Draws the entries."""
        draw_normal(self.weight, self.std, generator)


__all__ = ["LM_HEAD_STD", "DrawsWeights", "Embedding", "Linear", "PreciseLinear", "draw_normal", "draw_weights"]
