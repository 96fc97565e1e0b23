"""Initial weights: every module that has parameters draws its own, from one generator, in the order of the modules."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LM_HEAD_STD = 0.02
"""LM heads start near zero, so that the first loss is close to ln 257."""

FEW_ROWS = range(2, 6)
"""Rows of a product that oneDNN computes in about the time of one row."""
LEAST_WEIGHTS = 2**19
"""Weights of a layer from which on they are read from memory, not from a cache of the processor."""
HAS_FEW_ROWS_PRODUCT = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


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

    def reset_parameters(self) -> None:
        """Does nothing: weights are drawn by `draw_weights`, not from torch's global generator."""

    def forward(self, input: Tensor) -> Tensor:
        """Applies the layer."""
        if self._reads_weights_once(input):
            return torch.ops.mkldnn._linear_pointwise(input, self.weight, None, "none", [], "")
        return super().forward(input)

    def _reads_weights_once(self, input: Tensor) -> bool:
        """Whether this is a product of few rows on a CPU, which torch's default takes up to twice as long for.

        A trunk call for 2 or 3 slots then costs little more than one for a single slot: reading the weights.
        """
        return (
            not torch.compiler.is_compiling()
            and not torch.is_grad_enabled()
            and HAS_FEW_ROWS_PRODUCT
            and input.dim() == 2
            and len(input) in FEW_ROWS
            and self.weight.numel() >= LEAST_WEIGHTS
            and type(input) is Tensor
            and type(self.weight) is nn.Parameter
            and input.device.type == self.weight.device.type == "cpu"
            and input.dtype == self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
        )

    def draw(self, generator: torch.Generator) -> None:
        """Draws the weights."""
        draw_normal(self.weight, self.std, generator)


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
