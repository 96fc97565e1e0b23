"""A copy of a layer's weights in the order in which oneDNN reads them, for products of few rows on a CPU.

A product of a few rows takes as long as its weights are read from memory. torch's own product reads them slowly, and
for several rows often twice. Over weights in oneDNN's order, six rows take no longer than one.
"""

import platform

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

LEAST_WEIGHTS = 2**17
"""Weights of a layer below which a product of few rows gains nothing."""
MANY_WEIGHTS = 2**19
"""Weights of a layer from which on they are read from memory, not from a cache of the processor."""
BLOCK_ROWS = 6
"""Rows that oneDNN computes at once. More are padded to a multiple, as it prepares for each number of rows anew."""
MOST_ROWS = 8 * BLOCK_ROWS
"""Rows of a product beyond which little would be gained."""
ROWS_OF_MANY_WEIGHTS = 4
"""Rows to which one or two are padded, because oneDNN then reads many weights faster."""
PROBES = 8
"""Weights that are compared at each product, to notice what was written past torch's own count of writes."""
HAS_PRODUCT = (
    platform.machine().lower() in ("x86_64", "amd64")  # nothing was measured elsewhere
    and torch.backends.mkldnn.is_available()
    and all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))
)


def has_few_rows(input: Tensor, least: int = 1) -> bool:
    """Whether a layer's input has at least so many rows, and few enough for a packed copy to gain."""
    return least * input.shape[-1] <= input.numel() <= MOST_ROWS * input.shape[-1]


def can_multiply(input: Tensor, num_weights: int) -> bool:
    """Whether a layer's input has few rows, in fp32 on a CPU, and nothing needs its gradient.

    A single row gains only where weights come from memory.

    Args:
        input: of the layer.
        num_weights: of the layer.
    """
    return (
        not torch.is_grad_enabled()
        and input.is_cpu
        and input.dtype == torch.float32
        and has_few_rows(input, least=1 if num_weights >= MANY_WEIGHTS else 2)
        and type(input) is Tensor
        and not torch.is_autocast_enabled("cpu")
    )


def can_pack(weight: Tensor) -> bool:
    """Whether a copy of a layer's weights would serve."""
    return (
        HAS_PRODUCT
        and type(weight) is nn.Parameter
        and weight.is_contiguous()
        and weight.is_cpu
        and weight.dtype == torch.float32
        and not weight.is_inference()  # torch does not count what is written to such
        and bool(torch.backends.mkldnn.enabled)
    )


class PackedCopy:
    """Weights of a layer in oneDNN's order.

    Args:
        weight: one that `can_pack` allows, [output, input].
    """

    @torch.no_grad()
    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.version = weight._version
        self.place = weight.data_ptr()
        self.probes = weight.detach().flatten()[:: max(1, weight.numel() // PROBES - 1)].numpy()
        self.probed = self.probes.tobytes()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS_OF_MANY_WEIGHTS)
        self.has_many = weight.numel() >= MANY_WEIGHTS

    def is_of(self, weight: Tensor) -> bool:
        """Whether the weights are still those that were copied."""
        return (
            weight is self.weight
            and weight._version == self.version
            and weight.data_ptr() == self.place
            and self.probes.tobytes() == self.probed
        )

    def product(self, input: Float[Tensor, "*where input"]) -> Float[Tensor, "*where output"]:
        """Multiplies rows with the weights."""
        rows = input.numel() // input.shape[-1]
        padded = self._padded(rows)
        if padded == rows:
            return torch.ops.mkldnn._linear_pointwise(input, self.packed, None, "none", [], "")
        flat = F.pad(input.reshape(rows, -1), (0, 0, 0, padded - rows))
        found = torch.ops.mkldnn._linear_pointwise(flat, self.packed, None, "none", [], "")[:rows]
        return found if input.dim() == 2 else found.view(*input.shape[:-1], -1)

    def _padded(self, rows: int) -> int:
        if rows > BLOCK_ROWS:
            return -(-rows // BLOCK_ROWS) * BLOCK_ROWS
        return ROWS_OF_MANY_WEIGHTS if rows < 3 and self.has_many else rows


__all__ = ["LEAST_WEIGHTS", "PackedCopy", "can_multiply", "can_pack", "has_few_rows"]
