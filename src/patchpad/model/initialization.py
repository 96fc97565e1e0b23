"""Initial weights, drawn from a seed."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from patchpad.model.block import Block
from patchpad.model.patch_pooling import PatchPooling

if TYPE_CHECKING:
    from patchpad.model.byte_lm import ByteLM

LM_HEAD_STD = 0.02


def initialize(model: "ByteLM", seed: int) -> None:
    """Draws all weights in place, the same on every device for a seed.

    Linear layers keep the variance of their input; the outputs of residual branches are scaled down by the depth of
    their stack; LM heads start near zero, so that the first loss is close to ln 257.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter: torch.Tensor, std: float) -> None:
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)

    for module in model.modules():
        if isinstance(module, nn.Linear):
            normal(module.weight, module.in_features**-0.5)
        elif isinstance(module, nn.Embedding):
            normal(module.weight, 1.0)
    parts = [model.local_encoder, model.trunk, model.local_decoder]
    for part in parts if model.entropy_head is None else [*parts, model.entropy_head]:
        blocks = [module for module in part.modules() if isinstance(module, Block)]
        for block in blocks:
            for linear in (block.attention_out, block.ffn_down):
                normal(linear.weight, (linear.in_features * 2 * len(blocks)) ** -0.5)
    normal(model.local_decoder.lm_head.weight, LM_HEAD_STD)
    if model.entropy_head is not None:
        normal(model.entropy_head.lm_head.weight, LM_HEAD_STD)
    if model.local_encoder.ngrams is not None:
        normal(model.local_encoder.ngrams.tables.weight, len(model.local_encoder.ngrams.sizes) ** -0.5)
    normal(model.context_to_bytes.null_context, 1.0)
    if model.routing is not None:
        model.routing.start_as_identity()
    if not isinstance(model.patch_pooling, PatchPooling):
        return
    heads, distances = model.patch_pooling.distance_bias.shape
    slopes = torch.tensor([2.0 ** (1 - 4 * head / max(1, heads)) for head in range(heads)])
    with torch.no_grad():
        model.patch_pooling.distance_bias.copy_(-slopes[:, None] * torch.arange(distances))
