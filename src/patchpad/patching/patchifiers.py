"""Patchifiers decide, byte by byte, where patches end.

A patchifier is a rule without state: `natural_ends`, pointwise. The threshold that some compare a score with comes from
outside, see `Decisions`. The maximum patch length turns into further, *forced* ends.
Both are computed for whole rows by `patch_ends` and for one byte by `step_ends`.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchpad.config import PatchifierConfig
from patchpad.patching.documents import ByteFacts, Documents
from patchpad.registry import PATCHIFIERS
from patchpad.shapes import ByteInts, ByteMask

NO_END = -(2**62)
"""Stands for the position of a patch end where there is none; below every document's start."""


def is_spacelike(byte_ids: Tensor) -> Tensor:
    """True for ids that are not an ASCII letter, a digit or a UTF-8 continuation byte (Slagle 2024).

    The separator counts as spacelike.
    """
    b = byte_ids
    return (b < 0x30) | ((b > 0x39) & (b < 0x41)) | ((b > 0x5A) & (b < 0x61)) | ((b > 0x7A) & (b < 0x80)) | (b >= 0xC0)


def bytes_since_end(patch_end_mask: ByteMask, documents: Documents) -> ByteInts:
    """Bytes of the open patch up to and including n, the separator not counted.

    A document may have started before the row's first position: then its `start` is below 0.
    """
    positions = torch.arange(patch_end_mask.shape[1], device=patch_end_mask.device)
    ends = torch.where(patch_end_mask, positions, NO_END).cummax(dim=1).values
    last_end_before = torch.nn.functional.pad(ends, (1, 0), value=NO_END)[:, :-1]
    return positions - torch.maximum(last_end_before, documents.start)


class Patchifier(ABC):
    """Bytes and entropies -> patch ends, each decided from positions <= n of the same document only.

    A plug-in derives from it, or from `ScoringPatchifier`; see `docs/plugins.md`.
    """

    Options: ClassVar[type | None] = None
    """A dataclass of the options that a plug-in's class has in `model.patchifier.options`; None for none."""
    reads_entropy: ClassVar[bool] = False
    """Whether it reads entropies, so that the model needs its entropy head."""
    threshold_in_nats: ClassVar[bool] = False
    """Whether it compares a score in nats with a threshold, which training then moves to the target patch size."""

    def __init__(self, config: PatchifierConfig) -> None:
        self.longest_patch = config.longest_patch
        """Most bytes that a patch can have, the separator not counted."""
        self.options: Any = config.parsed_options()
        """The options of a plug-in's class, as its `Options`; None without."""

    @property
    def forced_after(self) -> int | Int[Tensor, ""]:
        """Bytes after which an open patch is closed by force: at most `longest_patch`."""
        return self.longest_patch

    @abstractmethod
    def natural_ends(self, facts: ByteFacts, threshold: Float[Tensor, ""]) -> Tensor:
        """Returns where the rule itself closes a patch; same shape as the facts, never true off a byte.

        Args:
            facts: what is known at each position.
            threshold: what a score must exceed; ignored by rules without a score.
        """

    def patch_ends(self, facts: ByteFacts, documents: Documents, threshold: Float[Tensor, ""]) -> ByteMask:
        """Returns the patch ends of whole rows, forced ends included."""
        natural = self.natural_ends(facts, threshold)
        open_bytes = bytes_since_end(natural, documents)
        forced = facts.is_byte & (open_bytes % self.forced_after == 0)
        return natural | forced

    def step_ends(self, facts: ByteFacts, open_bytes: Tensor, threshold: Float[Tensor, ""]) -> Tensor:
        """Returns whether the newest byte of each row closes its patch.

        Args:
            facts: facts of the newest byte of each row, each [batch].
            open_bytes: bytes of the open patch including it, [batch].
            threshold: as in `natural_ends`.
        """
        return self.natural_ends(facts, threshold) | (facts.is_byte & (open_bytes >= self.forced_after))


class ScoringPatchifier(Patchifier):
    """A patch ends at every byte whose score exceeds the threshold.

    The score is made of entropies and is in nats, but for `hnet`. Training follows the threshold at which patches have
    their target size on average.
    """

    reads_entropy = True
    threshold_in_nats = True

    @abstractmethod
    def scores(self, facts: ByteFacts) -> Tensor:
        """Returns what the threshold is compared with."""

    def natural_ends(self, facts: ByteFacts, threshold: Float[Tensor, ""]) -> Tensor:
        """Returns where the score exceeds the threshold."""
        return facts.is_byte & (self.scores(facts) > threshold)


class EntropyPatchifier(ScoringPatchifier):
    """A patch ends where the next byte is uncertain, so that it starts the next patch (BLT, Pagnoni et al. 2024).

    Two rules: `global`, entropy[n] > threshold; `jump`, the approximately monotonic one, entropy[n] - entropy[n-1] >
    threshold.
    """

    def __init__(self, config: PatchifierConfig) -> None:
        super().__init__(config)
        self.rule = config.rule

    def scores(self, facts: ByteFacts) -> Tensor:
        """Returns entropies, or their rises, in nats."""
        assert facts.entropy_nats is not None
        assert facts.previous_entropy_nats is not None
        return facts.entropy_nats if self.rule == "global" else facts.entropy_nats - facts.previous_entropy_nats


class HNetPatchifier(ScoringPatchifier):
    """A chunk starts where the router says so; the commit is at that very byte (H-Net, Hwang et al. 2025).

    The threshold is 0.5.
    """

    reads_entropy = False
    threshold_in_nats = False

    def scores(self, facts: ByteFacts) -> Tensor:
        """Returns the router's probabilities."""
        assert facts.boundary_probability is not None
        return facts.boundary_probability


class FixedPatchifier(Patchifier):
    """Patches of a fixed number of bytes, counted from the first byte after the separator."""

    def natural_ends(self, facts: ByteFacts, threshold: Float[Tensor, ""]) -> Tensor:
        """No natural ends: each one comes from the maximum length."""
        return torch.zeros_like(facts.is_byte)


class SpaceBytePatchifier(Patchifier):
    """A patch ends at a spacelike byte that does not follow another one (SpaceByte, Slagle 2024)."""

    def natural_ends(self, facts: ByteFacts, threshold: Float[Tensor, ""]) -> Tensor:
        """Returns spacelike[n] and not spacelike[n-1]."""
        return facts.is_byte & is_spacelike(facts.byte_ids) & ~is_spacelike(facts.previous_byte_ids)


class TokensPatchifier(Patchifier):
    """Patches are the tokens of a subword model, its source, committed as early as its tokenizer allows.

    Which these are follows from the bytes alone and is found on the host, see `TokenFacts`. Several may be committed at
    one byte, and they end before it. A separator commits one: the token that begins a text of the source.
    """

    def natural_ends(self, facts: ByteFacts, threshold: Float[Tensor, ""]) -> Tensor:
        """Returns where tokens are committed."""
        assert facts.tokens is not None
        return facts.tokens.num_commits > 0

    def patch_ends(self, facts: ByteFacts, documents: Documents, threshold: Float[Tensor, ""]) -> ByteMask:
        """Returns where tokens are committed; those of an open text that has grown too long are among them."""
        return self.natural_ends(facts, threshold)

    def step_ends(self, facts: ByteFacts, open_bytes: Tensor, threshold: Float[Tensor, ""]) -> Tensor:
        """Returns the same for the newest byte of each row."""
        return self.natural_ends(facts, threshold)


def build_patchifier(config: PatchifierConfig) -> Patchifier:
    """Returns the patchifier that the configuration names."""
    return PATCHIFIERS.get(config.kind)(config)


__all__ = [
    "EntropyPatchifier",
    "FixedPatchifier",
    "HNetPatchifier",
    "Patchifier",
    "ScoringPatchifier",
    "SpaceBytePatchifier",
    "TokensPatchifier",
    "build_patchifier",
    "bytes_since_end",
    "is_spacelike",
]
