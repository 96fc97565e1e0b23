"""What the `hnet` patchifier adds (H-Net; Hwang, Wang, Gu 2025): routing, selection, smoothing, confidence.

A boundary at byte t is a commit: the chunk starts there, and the byte's own state is the slot's input, with no pooling.
The recurrence that smooths runs over a document's commits only. A scratchpad takes its newest byte's state, and its
trunk output is used as it is.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from patchpad.config import ModelConfig
from patchpad.model.precision import PreciseBuffers
from patchpad.model.weights import PreciseLinear
from patchpad.patching.documents import Documents
from patchpad.patching.layout import PatchLayout
from patchpad.shapes import ByteFloats, ByteMask, ByteStates

BOUNDARY_PROBABILITY = 0.5
"""A chunk starts where the router is surer than this."""
LEAST_PROBABILITY = 1e-4
"""Probabilities are kept this far from 0 and 1 in the smoothing."""


class IdentityLinear(PreciseLinear):
    """A linear layer that starts as the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim)

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Sets the weights to the identity."""
        self.weight.copy_(torch.eye(self.in_features))


class Routing(PreciseBuffers):
    """How likely a chunk starts at each byte: p_t = (1 - cos(Wq h_{t-1}, Wk h_t)) / 2."""

    threshold: Tensor
    """A chunk starts where the probability exceeds it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.tensor(BOUNDARY_PROBABILITY), persistent=False)
        self.query = IdentityLinear(config.byte_dim)
        self.key = IdentityLinear(config.byte_dim)

    def probability(
        self, previous_states: Float[Tensor, "*where byte_dim"], states: Float[Tensor, "*where byte_dim"]
    ) -> Float[Tensor, "*where"]:
        """Returns p of each byte in fp32, from its state and that of the byte before."""
        similarity = F.cosine_similarity(self.query(previous_states).float(), self.key(states).float(), dim=-1)
        return ((1 - similarity) / 2).clamp(0, 1)

    def forward(self, byte_states: ByteStates, documents: Documents) -> ByteFloats:
        """Returns p of whole rows; 1 at separators."""
        previous = F.pad(byte_states, (0, 0, 1, 0))[:, :-1]
        return torch.where(documents.offset == 0, 1.0, self.probability(previous, byte_states))


def linear_scan(decay: Float[Tensor, " step"], inputs: Float[Tensor, "step dim"]) -> Float[Tensor, "step dim"]:
    """Returns z with z_j = decay_j z_{j-1} + inputs_j, from z_{-1} = 0, in log2(steps) parallel sweeps.

    A decay of exactly 0 starts another sequence: nothing of the one before gets through.
    """
    decay = decay[:, None]
    shift = 1
    while shift < len(inputs):
        inputs = torch.cat((inputs[:shift], inputs[shift:] + decay[shift:] * inputs[:-shift]))
        decay = torch.cat((decay[:shift], decay[shift:] * decay[:-shift]))
        shift *= 2
    return inputs


def smooth(
    slot_outputs: Float[Tensor, "slot trunk_dim"], layout: PatchLayout, boundary_probability: ByteFloats
) -> Float[Tensor, "slot trunk_dim"]:
    """Smooths commits: z_j = P_j ẑ_j + (1 - P_j) z_{j-1}, where a document's first commit has P = 1 exactly.

    Forced ends keep their p. Scratchpads are left as they are.
    """
    commits = slice(layout.room.commits)
    probability = boundary_probability.flatten()[layout.slot_byte[commits]]
    probability = smoothing_share(probability, layout.slot_patch_index[commits] == 0)
    smoothed = linear_scan(1 - probability, probability[:, None] * slot_outputs[commits].float())
    return torch.cat((smoothed.to(slot_outputs.dtype), slot_outputs[layout.room.commits :]))


def smoothing_share(probability: Float[Tensor, " commit"], is_first: Tensor) -> Float[Tensor, " commit"]:
    """Returns P of each commit."""
    return torch.where(is_first, 1.0, probability.clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY))


def straight_through_confidence(boundary_probability: ByteFloats) -> ByteFloats:
    """Returns exactly 1; its gradient is that of c_t = p_t where a chunk starts, else 1 - p_t."""
    p = boundary_probability
    confidence = torch.where(p > BOUNDARY_PROBABILITY, p, 1 - p)
    return 1 + (confidence - confidence.detach())


def ratio_loss(
    boundary_probability: ByteFloats,
    is_byte: ByteMask,
    target_patch_size: int,
    *,
    num_bytes: Int[Tensor, ""] | None = None,
    boundary_share: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Returns N/(N-1) ((N-1) F G + (1-F)(1-G)), which pulls the share of boundaries towards 1/N.

    F is the share of bytes with p > 0.5 (forced ends not counted), G the mean p; on the line F = G the minimum is 1.

    Args:
        boundary_probability: p of a batch.
        is_byte: where p counts.
        target_patch_size: N.
        num_bytes: bytes that F and G are over, where the batch is a part of these: its part of the loss is returned.
        boundary_share: F of all of these; default: of the batch.
    """
    n = target_patch_size
    batch_bytes = is_byte.sum()
    all_bytes = batch_bytes if num_bytes is None else num_bytes
    divisor = all_bytes.clamp(min=1)
    batch_share, mean = batch_bytes / divisor, torch.where(is_byte, boundary_probability, 0).sum() / divisor
    if n == 1:
        loss = mean * 0 + batch_share
    else:
        share = boundary_share
        if share is None:
            share = ((boundary_probability > BOUNDARY_PROBABILITY) & is_byte).sum() / batch_bytes.clamp(min=1)
        loss = n / (n - 1) * ((n - 1) * share * mean + (1 - share) * (batch_share - mean))
    return torch.where(all_bytes > 0, loss, mean * 0 + 1)
