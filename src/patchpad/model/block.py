"""The Transformer block that every part is made of: RMSNorm, rotary positions, SwiGLU."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from patchpad.model.attention import Attend
from patchpad.model.compilation import Compiled
from patchpad.model.precision import PreciseBuffers, plain_defaults, residual_stream
from patchpad.model.weights import DrawsWeights, Linear

NORM_EPSILON = 1e-6
"""Of every norm that says nothing else."""
FEW_NUMBERS = 4096
"""Up to so many numbers a norm of few operations is faster than torch's own, on a CPU."""


class RMSNorm(nn.RMSNorm, DrawsWeights):
    """Root-mean-square normalisation with a learned gain.

    Args:
        dim: width.
        epsilon: added to the mean of the squares before the root.
    """

    def __init__(self, dim: int, epsilon: float = NORM_EPSILON) -> None:
        super().__init__(dim, eps=epsilon)
        self.epsilon = epsilon  # `eps` may be None, as torch declares it

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Sets the gains to 1."""
        self.weight.fill_(1.0)

    def forward(self, x: Float[Tensor, "*where dim"]) -> Float[Tensor, "*where dim"]:
        """Normalises. Gains in a narrower type than the states are widened: torch has no kernel for such a mix."""
        gains = self.weight
        if gains.dtype != x.dtype:
            gains = gains.to(torch.promote_types(gains.dtype, x.dtype))
        elif self._is_small(x):
            return _normed(x, gains, self.epsilon)
        return F.rms_norm(x, self.normalized_shape, gains, self.epsilon)

    def _is_small(self, x: Float[Tensor, "*where dim"]) -> bool:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return False
        return x.is_cpu and x.dtype == torch.float32 and x.numel() <= FEW_NUMBERS


def _normed(
    x: Float[Tensor, "*where dim"], gains: Float[Tensor, " dim"], epsilon: float
) -> Float[Tensor, "*where dim"]:
    """`F.rms_norm` in four operations, of which torch has seven on a CPU: a step spends its time on starting them.

    For many numbers it takes longer: torch has no vectorised loop for operands that are broadcast.
    """
    dim = x.shape[-1]
    root = torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), _constant((dim * epsilon) ** 0.5))
    return torch.addcdiv(_constant(0.0), x, root, value=dim**0.5).mul_(gains)


@cache
def _constant(value: float) -> Float[Tensor, ""]:
    """Returns a number as a tensor: making one anew takes as long as an operation."""
    with plain_defaults():
        return torch.tensor(value)


class Rotary(PreciseBuffers):
    """Angles of rotary positions (Su et al. 2021), which turn the pairs of features (i, i + head_dim / 2)."""

    frequencies: Tensor
    signed_frequencies: Tensor

    def __init__(self, head_dim: int, base: float) -> None:
        super().__init__()
        half = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
        self.register_buffer("frequencies", torch.cat((half, half)), persistent=False)
        self.register_buffer("signed_frequencies", torch.cat((-half, half)), persistent=False)

    def forward(
        self, positions: Int[Tensor, "*where"]
    ) -> tuple[Float[Tensor, "*where 1 head_dim"], Float[Tensor, "*where 1 head_dim"]]:
        """Returns the cosine of each feature's angle and its signed sine, broadcast over heads."""
        angles = positions[..., None, None] * self.signed_frequencies
        return angles.cos(), angles.sin()


def rotate(
    heads: Float[Tensor, "*where head head_dim"], angles: tuple[Tensor, Tensor]
) -> Float[Tensor, "*where head head_dim"]:
    """Turns pairs of features by each position's angles, which `Rotary` gives."""
    cosine, signed_sine = angles
    if cosine.dtype != heads.dtype:
        cosine, signed_sine = cosine.to(heads.dtype), signed_sine.to(heads.dtype)
    return torch.addcmul(heads * cosine, heads.roll(heads.shape[-1] // 2, dims=-1), signed_sine)


class Block(nn.Module):
    """Pre-norm attention and SwiGLU over any leading axes; what is seen is up to `attend`.

    With fewer key-value heads than heads (grouped-query attention, Ainslie et al. 2023), each one serves as many
    consecutive query heads.

    Args:
        dim: width.
        num_heads: heads of the queries.
        ffn_dim: hidden width of SwiGLU.
        num_kv_heads: heads of keys and values; None for `num_heads`.
        depth: blocks of the stack. The outputs of its residual branches start smaller the more of them add up.
        norm_epsilon: of both norms.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        ffn_dim: int,
        num_kv_heads: int | None = None,
        *,
        depth: int = 1,
        norm_epsilon: float = NORM_EPSILON,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads or num_heads
        self.head_dim = dim // num_heads
        self.attention_norm = RMSNorm(dim, norm_epsilon)
        self.query_key_value = Linear(dim, dim + 2 * self.num_kv_heads * self.head_dim)
        self.attention_out = Linear(dim, dim, std=(dim * 2 * depth) ** -0.5)
        self.ffn_norm = RMSNorm(dim, norm_epsilon)
        self.ffn_gate_up = Linear(dim, 2 * ffn_dim)
        self.ffn_down = Linear(ffn_dim, dim, std=(ffn_dim * 2 * depth) ** -0.5)
        self.parts = PLAIN_PARTS

    def forward(
        self, states: Float[Tensor, "*where dim"], angles: tuple[Tensor, Tensor], attend: Attend, layer: int
    ) -> Float[Tensor, "*where dim"]:
        """Applies the block.

        Args:
            states: residual stream.
            angles: from `Rotary`.
            attend: attention back end.
            layer: index of this block in its stack, handed to `attend`.
        """
        query, key, value = self.parts.project(self, states, *angles)
        return self.parts.finish(self, states, attend(layer, query, key, value))

    def project(
        self, states: Float[Tensor, "*where dim"], cosine: Tensor, signed_sine: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries, keys and values, [*where, head, head_dim], the first two turned by their positions."""
        heads = self.query_key_value(self.attention_norm(states)).unflatten(-1, (-1, self.head_dim))
        num_heads, num_kv_heads = self.num_heads, self.num_kv_heads
        turned, value = heads.split_with_sizes((num_heads + num_kv_heads, num_kv_heads), -2)
        query, key = rotate(turned, (cosine, signed_sine)).split_with_sizes((num_heads, num_kv_heads), -2)
        return query, key, value

    def finish(
        self, states: Float[Tensor, "*where dim"], mixed: Float[Tensor, "*where head head_dim"]
    ) -> Float[Tensor, "*where dim"]:
        """Adds what attention has mixed, then the feed-forward part."""
        states = states + self.attention_out(mixed.flatten(-2))
        gate, up = self.ffn_gate_up(self.ffn_norm(states)).chunk(2, dim=-1)
        return states + self.ffn_down(F.silu(gate) * up)


@dataclass(frozen=True)
class BlockParts:
    """What a block does before and after its attention, as functions of the block."""

    project: Callable[..., tuple[Tensor, Tensor, Tensor]]
    finish: Callable[..., Tensor]


PLAIN_PARTS = BlockParts(Block.project, Block.finish)


def compile_blocks(model: nn.Module) -> None:
    """Compiles what the blocks of a model do before and after attention, when they are first called.

    Attention stays as it is: its masks change with every batch. Where nothing can be compiled, one warning is logged
    for each part and the plain blocks go on.
    """
    effect = "training continues without it, a few percent slower"
    for stack in [module for module in model.modules() if isinstance(module, Stack)]:
        parts = BlockParts(*(Compiled(part, effect=effect, dynamic=True) for part in (Block.project, Block.finish)))
        for block in stack.modules():
            if isinstance(block, Block):
                block.parts = parts


def recompute_trunk(model: nn.Module) -> None:
    """Lets training keep only the input of each trunk block, and compute the rest again in the backward pass.

    Also called activation checkpointing: gradients stay what they are, memory falls, and the trunk's forward pass runs
    twice.
    """
    for module in model.get_submodule("trunk").modules():
        if isinstance(module, Stack):
            module.recomputes = True


class Stack(nn.Module):
    """Blocks that share positions and an attention back end."""

    recomputes = False
    """Whether the backward pass computes again what happened inside the blocks; see `recompute_trunk`."""

    def __init__(
        self,
        num_layers: int,
        dim: int,
        num_heads: int,
        ffn_dim: int,
        rotary_base: float,
        num_kv_heads: int | None = None,
        *,
        norm_epsilon: float = NORM_EPSILON,
    ) -> None:
        super().__init__()
        self.rotary = Rotary(dim // num_heads, rotary_base)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, ffn_dim, num_kv_heads, depth=num_layers, norm_epsilon=norm_epsilon)
            for _ in range(num_layers)
        )

    def forward(
        self,
        states: Float[Tensor, "*where dim"],
        positions: Int[Tensor, "*where"],
        attend: Attend,
        additions: Float[Tensor, "*where layer dim"] | None = None,
    ) -> Float[Tensor, "*where dim"]:
        """Applies all blocks; `additions[..., i, :]` is added at the input of block i."""
        states = residual_stream(states)
        if not self.blocks:
            return states
        angles = self.rotary(positions)
        added = None if additions is None else additions.unbind(-2)
        for layer, block in enumerate(self.blocks):
            if added is not None:
                states = states + added[layer]
            if self.recomputes and torch.is_grad_enabled():
                # Nothing in a block is random, so there is no state of a generator to keep.
                states = checkpoint(block, states, angles, attend, layer, use_reentrant=False, preserve_rng_state=False)
            else:
                states = block(states, angles, attend, layer)
        return states
