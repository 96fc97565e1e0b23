"""Keys or values of all layers, a tensor for each: compiled code writes into these in place, but not into a stack."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

Layers = list[Tensor]
"""One tensor per layer, rows first."""


def clone_layers(layers: Layers) -> Layers:
    """Returns independent copies."""
    return [part.clone() for part in layers]


def select_rows(layers: Layers, rows: Int[Tensor, " row"]) -> Layers:
    """Returns copies of the given rows."""
    return [part[rows] for part in layers]


def join_layers(parts: Sequence[Layers]) -> Layers:
    """Returns the rows of all parts, layer by layer."""
    return [torch.cat(same_layer) for same_layer in zip(*parts, strict=True)]
