"""What every kind of model offers to training, evaluation and generation: the patch model and its baselines."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchpad.calibration_table import Calibration
from patchpad.config import PADDING, SEPARATOR, ModelConfig
from patchpad.errors import CheckpointError, ConfigError, InputError
from patchpad.model.outputs import ByteLMOutput, Predicted
from patchpad.model.precision import PreciseBuffers
from patchpad.patching import (
    Decisions,
    Patchifier,
    SlotRoom,
    ThresholdLike,
    Trigger,
    build_patchifier,
    build_trigger,
    checked_threshold,
    initial_threshold,
)
from patchpad.patching.patchifiers import ScoringPatchifier
from patchpad.shapes import ByteFloats, ByteIds

if TYPE_CHECKING:
    import numpy as np


class LanguageModel(PreciseBuffers, ABC):
    """A model of the next byte, or token, given those before it in the document."""

    scratchpad_threshold_nats: Tensor
    """The stored threshold: what is used where a caller gives none. It is saved with the weights."""
    patch_threshold_nats: Tensor
    """What a patchifier with a threshold in nats compares its score with, saved with its weights; others ignore it."""

    padding_id = PADDING
    """Fills the ends of rows; the largest id that a full pass reads."""
    is_one_graph = True
    """Whether `predict_targets` is a function of tensors alone, which can be compiled as a whole."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.trigger: Trigger = build_trigger(config.trigger)
        self.patchifier: Patchifier = build_patchifier(config.patchifier)
        self.weights = "fp32"
        """How its linear layers are kept; see `patchpad.model.int8`."""
        self.calibration: Calibration | None = None
        """Translates compute into a threshold; set by `patchpad.load` and `patchpad calibrate`."""
        threshold, cuts_by_entropy = initial_threshold(config.trigger, config.patchifier), config.cuts_by_entropy
        self.register_buffer("scratchpad_threshold_nats", torch.tensor(threshold))
        patch_threshold = config.patchifier.patch_threshold_nats if cuts_by_entropy else math.nan
        self.register_buffer("patch_threshold_nats", torch.tensor(patch_threshold), persistent=cuts_by_entropy)

    @abstractmethod
    def predict_targets(
        self,
        byte_ids: ByteIds,
        targets: ByteIds,
        decisions: Decisions | None = None,
        *,
        room: SlotRoom | None = None,
    ) -> Predicted:
        """Runs a full pass and returns the nats of its targets, differentiable.

        Nothing is checked here: training and evaluation make their own ids, and each check would stop a GPU.

        Args:
            byte_ids: 0..255 bytes, 256 separators (each row starts with one), 257 padding at the ends of rows.
            targets: the next id at each position; `IGNORED_TARGET` where nothing is predicted or counted.
            decisions: what decides patches and scratchpads; None for the model's own at the stored threshold.
            room: places for slots, so that no shape follows from what is decided; None to count them. Baselines have no
                slots.
        """

    def predict_targets_without_trunk(
        self, byte_ids: ByteIds, targets: ByteIds, decisions: Decisions | None = None
    ) -> Predicted:
        """Does the same without the trunk: every byte reads the null context. See `ByteLM.forward`.

        Raises:
            GenerationError: the model has no scratchpads, so its local parts do not work without the trunk.
        """
        self.require_scratchpads("no part of it predicts without the trunk")
        raise NotImplementedError

    def boundary_probabilities(self, byte_ids: ByteIds) -> ByteFloats:
        """Returns how likely the router of an `hnet` model starts a chunk at each byte, by its encoder alone."""
        raise NotImplementedError(f"a model with `{self.config.patchifier.kind}` patches has no router")

    def decisions(
        self, scratchpad_threshold_nats: ThresholdLike = None, *, batch: int, length: int | None = None
    ) -> Decisions:
        """Returns what decides patches and scratchpads at a threshold that a caller gave. All checks of it are here.

        Args:
            scratchpad_threshold_nats: None for the stored threshold, one for all rows, [batch] or [batch, byte].
            batch: rows that it is for.
            length: positions of a row; None in a step, where a threshold per position has no place.

        Raises:
            InputError: not numbers, nan, another shape, or a number of nats for a model that takes none.
        """
        if scratchpad_threshold_nats is None:
            return self.decisions_at(self.scratchpad_threshold_nats)
        threshold = checked_threshold(scratchpad_threshold_nats, batch, length)
        if not self.takes_threshold_in_nats and bool(threshold.isfinite().any()):
            raise self.threshold_refusal()
        return self.decisions_at(threshold.to(self.device))

    def decisions_at(self, scratchpad_threshold: Float[Tensor, "..."]) -> Decisions:
        """Returns the model's own decisions at a threshold on the model's device. The threshold is not checked."""
        return Decisions(
            patchifier=self.patchifier,
            trigger=self.trigger,
            scratchpad_threshold=scratchpad_threshold,
            patch_threshold=self.patch_threshold,
        )

    @property
    def takes_threshold_in_nats(self) -> bool:
        """Whether the threshold of its trigger is in nats. Other models accept only inf and -inf."""
        return self.config.trigger.threshold_in_nats

    @property
    def patch_threshold(self) -> Float[Tensor, ""]:
        """What the patchifier compares its score with; ignored by those without one."""
        return self.patch_threshold_nats

    def threshold_refusal(self) -> InputError:
        """Returns what is raised for a number of nats where none is taken."""
        return InputError(
            f"this model's trigger `{self.config.trigger.kind}` takes no threshold in nats; allowed: None, inf (no "
            "scratchpads) or -inf (one at every byte)"
        )

    def trigger_scores(self, output: ByteLMOutput) -> ByteFloats:
        """Returns the trigger's score at every position."""
        return self.trigger.scores(output.facts, output.layout.open_bytes)

    def eligible_scores(self, output: ByteLMOutput) -> Float[Tensor, " eligible"]:
        """Returns the trigger's scores where a scratchpad may fire, see `PatchLayout.may_fire`."""
        return self.trigger_scores(output)[output.layout.may_fire]

    def patch_end_scores(self, output: ByteLMOutput) -> Float[Tensor, " bytes"]:
        """Returns the scores of the `entropy` or `hnet` patchifier at all bytes."""
        assert isinstance(self.patchifier, ScoringPatchifier)
        return self.patchifier.scores(output.facts)[output.facts.is_byte]

    def store_threshold(self, threshold: float | Float[Tensor, ""]) -> None:
        """Makes `threshold` the stored one; on the model's device, it is not read."""
        self.scratchpad_threshold_nats.fill_(threshold)

    def store_patch_threshold(self, threshold: float | Float[Tensor, ""]) -> None:
        """Sets the threshold of the `entropy` patchifier; on the model's device, it is not read."""
        self.patch_threshold_nats.fill_(threshold)

    @property
    def has_scratchpads(self) -> bool:
        """Whether it is a patch model, which can have scratchpads; the baselines cannot."""
        return self.config.kind == "patch"

    def require_scratchpads(self, what: str) -> None:
        """Does nothing for a model that has scratchpads.

        Args:
            what: what a model without them cannot do, for the message.

        Raises:
            GenerationError: the model has none.
        """

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "LanguageModel":
        if self.weights != "fp32" and (device := fn(torch.empty(0)).device).type != "cpu":
            raise ConfigError(
                f"a model with {self.weights} weights cannot be moved to {device}; allowed: cpu",
                hint="Load the run again with fp32 weights: patchpad.load(RUN, device=...).",
            )
        super()._apply(fn, recurse)
        return self

    def train(self, mode: bool = True) -> "LanguageModel":
        """Sets the mode.

        Raises:
            ConfigError: it is training, and the weights are for inference only.
        """
        if mode and self.weights != "fp32":
            raise ConfigError(
                f"a model with {self.weights} weights cannot be trained; allowed: inference",
                hint="Load the run again with fp32 weights: patchpad.load(RUN).",
            )
        return super().train(mode)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Takes other weights.

        Raises:
            ConfigError: the weights are for inference only.
        """
        if self.weights != "fp32":
            raise ConfigError(
                f"a model with {self.weights} weights cannot take other weights; allowed: a model with fp32 weights",
                hint="Load the run again with fp32 weights: patchpad.load(RUN).",
            )
        return super().load_state_dict(state_dict, strict, assign)

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
        """Learns from the training text, before the first step, what is not a weight: the tokens of `bpe`."""

    def extra_files(self) -> dict[str, str]:
        """Returns name -> content of what a checkpoint holds beside the weights."""
        return {}

    def read_extra_files(self, folder: Path) -> None:
        """Takes over what `extra_files` gave, from a checked checkpoint."""

    @staticmethod
    def extra_text(path: Path) -> str:
        """Returns the content of one of the extra files.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"cannot read {path}: {error}", hint="Use another checkpoint of the run.") from error

    def check_ids(self, byte_ids: ByteIds) -> None:
        """Checks the contract of a full pass.

        Raises:
            InputError: another shape, type or device, an empty batch, ids out of range, no leading separator, or
                padding before the end of a row.
        """
        if byte_ids.device != self.device:
            raise InputError(f"byte_ids is on {byte_ids.device} and the model on {self.device}; allowed: one device")
        if byte_ids.dim() != 2 or byte_ids.dtype != torch.int64:
            found = f"byte_ids has the shape {list(byte_ids.shape)} and the type {byte_ids.dtype}"
            raise InputError(f"{found}; allowed: [batch, byte] of torch.int64", hint="Write byte_ids[None] or .long().")
        if byte_ids.numel() == 0:
            raise InputError(f"byte_ids has the shape {list(byte_ids.shape)}; allowed: at least one row and one id")
        low, high = int(byte_ids.min()), int(byte_ids.max())
        if low < 0 or high > self.padding_id:
            raise InputError(f"byte_ids holds {low if low < 0 else high}; allowed: 0 to {self.padding_id}")
        if bool((byte_ids[:, 0] != SEPARATOR).any()):
            raise InputError(f"a row of byte_ids starts with another id than the separator; put {SEPARATOR} first")
        padding = byte_ids == self.padding_id
        if bool((padding[:, :-1] & ~padding[:, 1:]).any()):
            raise InputError(f"padding ({self.padding_id}) stands before other ids; allowed: only at the end of a row")
