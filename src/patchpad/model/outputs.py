"""What a full pass returns: of the patch model in full, of every kind as nats and counts."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from patchpad.config import IGNORED_TARGET
from patchpad.model.visibility import count_trunk_pairs
from patchpad.patching import ByteFacts, PatchLayout
from patchpad.shapes import ByteFloats, ByteIds, ByteStates, Logits, SlotStates


def target_nats(logits: Logits, targets: ByteIds) -> ByteFloats:
    """Returns -ln p of each target in fp32; 0 where the target is ignored."""
    flat = logits.float().flatten(0, 1)
    nats = F.cross_entropy(flat, targets.flatten(), ignore_index=IGNORED_TARGET, reduction="none")
    return nats.view_as(targets)


def squared_log_normalizers(
    logits: Float[Tensor, "batch position outcome"], targets: Int[Tensor, "batch position"]
) -> Float[Tensor, "batch position"]:
    """Returns ln(Z)^2 in fp32, Z being what softmax divides by; 0 where the target is ignored."""
    squares = logits.float().logsumexp(dim=-1).square()
    return torch.where(targets == IGNORED_TARGET, 0.0, squares)


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What a pass over a batch gives: nats of its targets, and what the pass took, all on the model's device."""

    nats: ByteFloats
    """-ln p of each target in fp32, 0 where it is ignored. `bpe` puts a token's nats on its last byte."""
    logits: Float[Tensor, "batch position outcome"]
    """Of the LM head, over bytes and the end of the document, or over tokens with `bpe`."""
    targets: Int[Tensor, "batch position"]
    """What they predict; `IGNORED_TARGET` where nothing is predicted or counted."""
    num_commits: Int[Tensor, ""]
    """Entries that the trunk's cache would hold."""
    trunk_pairs: Int[Tensor, ""]
    """Query-key pairs that one trunk layer sees, each position itself included."""
    num_positions: Int[Tensor, ""]
    """Positions of the local parts; padding left out."""
    num_scratchpads: Int[Tensor, ""]
    pooled_positions: Int[Tensor, ""]
    """Positions that all slots pool."""
    entropy_head_nats: ByteFloats | None = None
    """The same as `nats` by the entropy head; None without one."""
    source_nats: ByteFloats | None = None
    """Cross-entropy of the local decoder to what the source expects behind a token that has ended, see `SourceHead`; 0
    where the target is ignored. In training only; None without a source head."""
    output: "ByteLMOutput | None" = None
    """All that the patch model returned; None for baselines."""

    def counts(self) -> dict[str, int]:
        """Returns what the pass took, by name, as `Tally` and others sum it; one read from the device."""
        names = ("num_commits", "num_scratchpads", "trunk_pairs", "pooled_positions", "num_positions")
        return dict(zip(names, torch.stack([getattr(self, name) for name in names]).tolist(), strict=True))


@dataclass(frozen=True, kw_only=True)
class Activations:
    """What a prefill needs to fill its caches: byte states, contexts, and each layer's keys and values."""

    byte_states: ByteStates
    slot_outputs: SlotStates
    """Trunk outputs, smoothed for `hnet`."""
    contexts: Tensor
    """[1 + slot, addition, byte_dim], see `ContextToBytes`; entry 0 is the null context."""
    encoder: list[tuple[Tensor, Tensor]]
    entropy_head: list[tuple[Tensor, Tensor]]
    trunk: list[tuple[Tensor, Tensor]]
    decoder: list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class ByteLMOutput:
    """Result of a full pass."""

    logits: Logits
    """`logits[:, n]` predict `byte_ids[:, n + 1]`, over 256 bytes and the end of the document."""
    layout: PatchLayout
    facts: ByteFacts
    """What patches and scratchpads were decided from."""
    entropy_logits: Logits | None
    """The head's logits; None without an entropy head."""
    source_nats: ByteFloats | None = None
    """See `Predicted`; here, targets that are ignored have theirs too."""
    activations: Activations | None = None

    @property
    def entropy_nats(self) -> ByteFloats | None:
        """Entropy of the head's prediction of the next id; None without an entropy head."""
        return self.facts.entropy_nats

    @property
    def boundary_probability(self) -> ByteFloats | None:
        """How likely the router starts a chunk at each byte; None unless the patchifier is `hnet`."""
        return self.facts.boundary_probability

    def predicted(self, targets: ByteIds) -> Predicted:
        """Returns the nats of targets, and what the pass took."""
        layout = self.layout
        return Predicted(
            nats=target_nats(self.logits, targets),
            logits=self.logits,
            targets=targets,
            num_commits=layout.num_commits,
            num_scratchpads=layout.num_scratchpads,
            trunk_pairs=count_trunk_pairs(layout),
            pooled_positions=torch.where(layout.slot_is_used, layout.slot_num_bytes, 0).sum(),
            num_positions=(~layout.documents.is_padding).sum(),
            entropy_head_nats=None if self.entropy_logits is None else target_nats(self.entropy_logits, targets),
            source_nats=None
            if self.source_nats is None
            else torch.where(targets == IGNORED_TARGET, 0.0, self.source_nats),
            output=self,
        )
