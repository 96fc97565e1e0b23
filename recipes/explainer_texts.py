"""What the explainer's figure shows: short texts, read by a model at every patch size and every place of the threshold.

Entropies depend on the bytes alone. So a threshold and a patch size say where scratchpads are, and there are only so
many ways: none, one at the most uncertain byte, two, and so on. Each of them is a row of a batch.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from patchpad.config import SEPARATOR, PatchifierConfig
from patchpad.model.language_model import LanguageModel
from patchpad.patching.patchifiers import FixedPatchifier

MILLIBITS = 1000
"""Costs are kept in thousandths of a bit."""


@dataclass(frozen=True)
class Slots:
    """Where the slots of one text are, and what each position reads.

    Arrays are [position]: the separator, then the bytes.
    """

    patch_end: np.ndarray
    scratchpad: np.ndarray
    slot: np.ndarray
    """Position of the newest slot at or before each position; -1 where there is none yet."""

    @staticmethod
    def of(entropy_nats: np.ndarray, patch_size: int, threshold: float) -> "Slots":
        """Places the slots of a text as the model does.

        Args:
            entropy_nats: of the next byte, [position].
            patch_size: bytes per patch, counted from the first byte.
            threshold: in nats.
        """
        positions = np.arange(len(entropy_nats))
        patch_end = (positions > 0) & (positions % patch_size == 0)
        scratchpad = (entropy_nats > np.float32(threshold)) & ~patch_end
        slot = np.maximum.accumulate(np.where(patch_end | scratchpad, positions, -1))
        return Slots(patch_end, scratchpad, slot)

    @property
    def lag(self) -> np.ndarray:
        """Bytes since the newest slot, or since the start where there is none yet."""
        return np.arange(len(self.slot)) - np.maximum(self.slot, 0)

    @property
    def num_patches(self) -> int:
        """Commits, which are also the entries of the trunk's cache."""
        return int(self.patch_end.sum())

    @property
    def num_scratchpads(self) -> int:
        """Scratchpads, one at the separator included."""
        return int(self.scratchpad.sum())

    @property
    def mean_lag(self) -> float:
        """Mean over the bytes, the separator left out."""
        return float(self.lag[1:].mean())


@dataclass(frozen=True)
class ReadText:
    """A text as a model reads it."""

    name: str
    text: bytes
    entropy_nats: np.ndarray
    """[position] of float32: the separator, then the bytes."""
    millibits: dict[int, np.ndarray]
    """By patch size, [scratchpads, byte]: what each byte cost with 0, 1, 2, ... scratchpads, at the most uncertain
    places."""

    def bits(self, patch_size: int, num_scratchpads: int) -> np.ndarray:
        """Returns what each byte cost, in bits."""
        return self.millibits[patch_size][num_scratchpads] / MILLIBITS

    def to_dict(self) -> dict[str, Any]:
        """Returns what the page's script reads: little-endian numbers in base64."""
        return {
            "name": self.name,
            "text": _base64(np.frombuffer(self.text, dtype=np.uint8), "u1"),
            "entropy": _base64(self.entropy_nats, "<f4"),
            "millibits": {str(size): _base64(rows, "<u2") for size, rows in self.millibits.items()},
        }

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "ReadText":
        """Reads what `to_dict` wrote."""
        text = base64.b64decode(values["text"])
        rows = {
            int(size): np.frombuffer(base64.b64decode(data), dtype="<u2").reshape(-1, len(text))
            for size, data in values["millibits"].items()
        }
        entropies = np.frombuffer(base64.b64decode(values["entropy"]), dtype="<f4")
        return ReadText(values["name"], text, entropies, rows)


def _base64(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(values.astype(dtype).tobytes()).decode("ascii")


@torch.no_grad()
def read_text(model: LanguageModel, name: str, text: str, patch_sizes: Sequence[int]) -> ReadText:
    """Runs a model over a text in every way that patch sizes and thresholds can place its slots.

    Args:
        model: with fixed patches and the entropy trigger, in eval mode.
        name: of the text.
        text: printable ASCII and newlines, so that each byte is a character; no longer than the model's context.
        patch_sizes: bytes per patch; none above the model's own, for which pooling has no weights.

    Raises:
        ValueError: two entropies are so near that no threshold fits between them.
    """
    data = text.encode("ascii")
    ids = torch.tensor([[SEPARATOR, *data]])
    entropies = model(ids, math.inf).entropy_nats
    assert entropies is not None
    read = {size: _costs(model, ids, entropies[0].float().numpy(), size) for size in patch_sizes}
    return ReadText(name, data, entropies[0].float().numpy(), read)


def _costs(model: LanguageModel, ids: torch.Tensor, entropies: np.ndarray, patch_size: int) -> np.ndarray:
    may_fire = ~Slots.of(entropies, patch_size, math.inf).patch_end
    ordered = np.sort(entropies[may_fire].astype(np.float64))[::-1]
    thresholds = [math.inf, *((ordered[:-1] + ordered[1:]) / 2), -math.inf]
    decisions = replace(
        model.decisions(math.inf, batch=1),
        patchifier=FixedPatchifier(PatchifierConfig(kind="fixed", target_patch_size=patch_size)),
        scratchpad_threshold=torch.tensor(thresholds, dtype=torch.float32),
    )
    output = model(ids.expand(len(thresholds), -1), decisions=decisions)
    for count, (threshold, fired) in enumerate(zip(thresholds, output.layout.scratchpad_mask, strict=True)):
        expected = Slots.of(entropies, patch_size, threshold).scratchpad
        if expected.sum() != count or not np.array_equal(fired.numpy(), expected):
            raise ValueError(f"no threshold gives exactly {count} scratchpads with patches of {patch_size} bytes")
    log_probabilities = output.logits[:, :-1].double().log_softmax(dim=-1)
    nats = -log_probabilities.gather(2, ids[:, 1:, None].expand(len(thresholds), -1, 1))[..., 0]
    return np.rint(nats.numpy() / math.log(2) * MILLIBITS).clip(0, 65535).astype(np.uint16)
