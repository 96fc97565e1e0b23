"""What every kind of model offers to training, evaluation and generation: the patch model and its baselines."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from patchpad.calibration_table import Calibration
from patchpad.config import IGNORED_TARGET, NUM_INPUT_IDS, PADDING, SEPARATOR, ModelConfig
from patchpad.errors import InputError
from patchpad.patching import Patchifier, Threshold, ThresholdLike, Trigger, build_trigger
from patchpad.shapes import ByteFloats, ByteIds, Logits

if TYPE_CHECKING:
    import numpy as np

    from patchpad.model.byte_lm import ByteLMOutput


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What a pass over a batch gives: nats of its targets, and what the pass took."""

    nats: ByteFloats
    """-ln p of each target in fp32, 0 where it is ignored. `bpe` puts a token's nats on its last byte."""
    num_commits: int
    """Entries that the trunk's cache would hold."""
    trunk_pairs: int
    """Query-key pairs that one trunk layer sees, each position itself included."""
    num_positions: int
    """Positions of the local parts; padding left out."""
    num_scratchpads: int = 0
    pooled_positions: int = 0
    """Positions that all slots pool."""
    entropy_head_nats: ByteFloats | None = None
    """The same as `nats` by the entropy head; None without one."""
    output: "ByteLMOutput | None" = None
    """All that the patch model returned; None for baselines."""


class LanguageModel(nn.Module, ABC):
    """A model of the next byte, or token, given those before it in the document."""

    scratchpad_threshold_nats: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.trigger: Trigger = build_trigger(config.trigger, config.patchifier)
        self.calibration: Calibration | None = None
        """Translates compute into a threshold; set by `patchpad.load` and `patchpad calibrate`."""
        self.register_buffer("scratchpad_threshold_nats", torch.tensor(math.nan))
        self.store_threshold(self.trigger.threshold)
        self.register_load_state_dict_post_hook(_restore_thresholds)

    @abstractmethod
    def predict_targets(
        self,
        byte_ids: ByteIds,
        targets: ByteIds,
        threshold: Threshold = None,
        *,
        trigger: Trigger | None = None,
        patchifier: Patchifier | None = None,
    ) -> Predicted:
        """Runs a full pass and returns the nats of its targets, differentiable.

        Args:
            byte_ids: 0..255 bytes, 256 separators (each row starts with one), 257 padding at the ends of rows.
            targets: the next id at each position; `IGNORED_TARGET` where nothing is predicted or counted.
            threshold: scratchpad threshold in nats; None for the stored one.
            trigger: replaces the model's own trigger.
            patchifier: replaces the model's own patchifier.

        Raises:
            InputError: ids that break the contract, or an impossible threshold.
        """

    @abstractmethod
    def checked_threshold(self, threshold: ThresholdLike, batch: int, length: int | None = None) -> Threshold:
        """Returns a threshold that a caller gave for `batch` rows of `length` positions, None in a step.

        Raises:
            InputError: an impossible threshold, or one for a model that has no scratchpads.
        """

    def store_threshold(self, threshold: float) -> None:
        """Makes `threshold` the one that is used when a caller gives none; it is saved with the weights."""
        self.scratchpad_threshold_nats.fill_(threshold)
        self.trigger.threshold = float(self.scratchpad_threshold_nats)

    def require_scratchpads(self, what: str) -> None:
        """Does nothing for a model that has scratchpads.

        Args:
            what: what a model without them cannot do, for the message.

        Raises:
            GenerationError: the model has none.
        """

    def restore_thresholds(self) -> None:
        """Takes over the threshold that was loaded with the weights; `load_state_dict` calls it."""
        self.store_threshold(float(self.scratchpad_threshold_nats))

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.scratchpad_threshold_nats.device

    @property
    def highest_id(self) -> int:
        """Largest id that a step reads; all from 0 to it are allowed."""
        return SEPARATOR

    def bytes_of(self, chosen_id: int) -> bytes | None:
        """Returns the bytes that a generated id stands for; None for the end of the document."""
        return None if chosen_id == SEPARATOR else bytes((chosen_id,))

    def prepare(self, documents: "Sequence[np.ndarray]") -> None:
        """Learns from the training text, before the first step, what is no weight: the tokens of `bpe`."""

    def extra_files(self) -> dict[str, str]:
        """Returns name -> content of what a checkpoint holds beside the weights."""
        return {}

    def read_extra_files(self, folder: Path) -> None:
        """Takes over what `extra_files` gave, from a checked checkpoint."""

    @staticmethod
    def check_ids(byte_ids: ByteIds) -> None:
        """Checks the contract of a full pass.

        Raises:
            InputError: another shape or type, an empty batch, ids out of range, no leading separator, or padding before
                the end of a row.
        """
        if byte_ids.dim() != 2 or byte_ids.dtype != torch.int64:
            found = f"byte_ids has the shape {list(byte_ids.shape)} and the type {byte_ids.dtype}"
            raise InputError(f"{found}; allowed: [batch, byte] of torch.int64", hint="Write byte_ids[None] or .long().")
        if byte_ids.numel() == 0:
            raise InputError(f"byte_ids has the shape {list(byte_ids.shape)}; allowed: at least one row and one id")
        low, high = int(byte_ids.min()), int(byte_ids.max())
        if low < 0 or high >= NUM_INPUT_IDS:
            raise InputError(f"byte_ids holds {low if low < 0 else high}; allowed: 0 to {NUM_INPUT_IDS - 1}")
        if bool((byte_ids[:, 0] != SEPARATOR).any()):
            raise InputError(f"a row of byte_ids starts with another id than the separator; put {SEPARATOR} first")
        padding = byte_ids == PADDING
        if bool((padding[:, :-1] & ~padding[:, 1:]).any()):
            raise InputError(f"padding ({PADDING}) stands before other ids; allowed: only at the end of a row")


def _restore_thresholds(model: LanguageModel, _: object) -> None:
    """What `load_state_dict` calls; not a lambda, which could not be pickled."""
    model.restore_thresholds()


def target_nats(logits: Logits, targets: ByteIds) -> ByteFloats:
    """Returns -ln p of each target in fp32; 0 where the target is ignored."""
    flat = logits.float().flatten(0, 1)
    nats = F.cross_entropy(flat, targets.flatten(), ignore_index=IGNORED_TARGET, reduction="none")
    return nats.view_as(targets)
