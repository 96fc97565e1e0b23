"""The layers of a source as the weights of a trunk."""

import torch
from torch import Tensor

from patchpad.conversion.llama import LAST_NORM, layer_tensor
from patchpad.conversion.source import LlamaSource
from patchpad.model.block import Block
from patchpad.model.trunk import Trunk

BLOCK_PARTS = {
    "attention_norm": ("input_layernorm",),
    "query_key_value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention_out": ("self_attn.o_proj",),
    "ffn_norm": ("post_attention_layernorm",),
    "ffn_gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "ffn_down": ("mlp.down_proj",),
}
"""Module of a `Block` -> the source's tensors whose rows it holds, one below the other."""


@torch.no_grad()
def load_trunk(trunk: Trunk, source: LlamaSource) -> None:
    """Writes the source's layers and its last norm into a trunk of the same sizes, one tensor at a time.

    Rotary positions need nothing: both turn the features i and i + head_dim / 2 together.

    Raises:
        ConversionError: a tensor cannot be read, or holds nan or inf.
    """
    for layer, block in enumerate(trunk.stack.blocks):
        assert isinstance(block, Block)
        for part, names in BLOCK_PARTS.items():
            _fill(block.get_submodule(part).get_parameter("weight"), source, [layer_tensor(layer, n) for n in names])
    _fill(trunk.norm.weight, source, [LAST_NORM])


def _fill(weights: Tensor, source: LlamaSource, names: list[str]) -> None:
    row = 0
    for name in names:
        tensor = source.tensor(name)
        weights[row : row + len(tensor)].copy_(tensor)
        row += len(tensor)
    assert row == len(weights)
