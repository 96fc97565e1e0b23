"""Norms of gradients: of the whole model, for clipping, and of its parts, for the metrics. All stays on the device."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from patchpad.training.parts import part_of


def tensor_norms(tensors: Sequence[Tensor]) -> Float[Tensor, " tensors"]:
    """Returns the norm of each tensor; an empty sequence gives none.

    The norm of these is that of all tensors together, to the bit what `torch.nn.utils.clip_grad_norm_` returns.
    """
    return torch.stack(torch._foreach_norm(list(tensors))) if tensors else torch.zeros(0)


def part_names(parameter_names: Sequence[str]) -> list[str]:
    """Returns the parts of parameters that stand in the model's order."""
    return [part for part, _ in itertools.groupby(parameter_names, part_of)]


def part_norms(parameter_names: Sequence[str], norms: Float[Tensor, " tensors"]) -> Float[Tensor, " parts"]:
    """Returns the norm of each part's gradients, in the order of `part_names`.

    Args:
        parameter_names: in the model's order, so that those of a part stand together.
        norms: of their gradients.
    """
    sizes = [len(list(group)) for _, group in itertools.groupby(parameter_names, part_of)]
    return tensor_norms(norms.split(sizes))
