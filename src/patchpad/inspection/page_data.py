"""What the page of an inspection holds, as compact as it can be: arrays, deflated and in base64."""

import base64
import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchpad.inspection.along_threshold import NextBytes
from patchpad.inspection.inspection import NOT_READ, Inspection
from patchpad.inspection.terminal import full_shade_nats

PATCH_END, SEPARATOR, UNREAD, SCRATCHPAD, MAY_FIRE = 1, 2, 4, 8, 16
"""Bits of a cell's flags, as the page's script reads them."""
COST_STEPS_PER_BIT = 256
PROBABILITY_STEPS = 255
"""A probability is kept as this many times its square root, in a byte: to half a percent and better."""
GAIN_SHARE = 0.995
"""Share of the bytes whose gain is less than that of the deepest shade."""


@dataclass(frozen=True)
class Cells:
    """Bytes and separators in the order in which the page shows them, one separator before each window."""

    byte: np.ndarray
    """Index in the text, -1 for a separator."""
    flags: np.ndarray
    score: np.ndarray
    entropy_nats: np.ndarray
    """NaN where there is none."""
    open_bytes: np.ndarray | None
    """Bytes that no commit covers; None where each commit covers its own byte."""

    @staticmethod
    def of(inspection: Inspection) -> "Cells":
        """Puts the separators among the bytes."""
        one, starts = inspection, inspection.windows
        before = starts.first_byte
        at_bytes = np.full(one.num_bytes, math.nan, dtype=np.float32)
        at_starts = np.full(len(starts), math.nan, dtype=np.float32)
        flags = one.patch_end * PATCH_END + (one.slot_byte == NOT_READ) * UNREAD
        flags += one.scratchpad * SCRATCHPAD + one.may_fire * MAY_FIRE
        commits_tokens = one.config.patchifier.commits_tokens
        at_separators = SEPARATOR + commits_tokens * PATCH_END
        at_separators = at_separators + starts.scratchpad * SCRATCHPAD + starts.may_fire * MAY_FIRE
        return Cells(
            byte=np.insert(np.arange(one.num_bytes), before, -1),
            flags=np.insert(flags, before, at_separators).astype(np.uint8),
            score=np.insert(one.score, before, starts.score),
            entropy_nats=np.insert(
                at_bytes if one.entropy_nats is None else one.entropy_nats,
                before,
                at_starts if starts.entropy_nats is None else starts.entropy_nats,
            ),
            open_bytes=np.insert(one.open_bytes, before, 0) if commits_tokens else None,
        )

    @property
    def scratchpad(self) -> np.ndarray:
        """Where scratchpads are at the chosen threshold."""
        return (self.flags & SCRATCHPAD) > 0


def page_data(inspection: Inspection) -> tuple[dict[str, Any], str]:
    """Returns what the page's script reads: numbers ready for JSON, and the arrays in base64.

    The arrays stand one behind the other, each as its lowest bytes, then its next ones, and so on; what differs little
    from threshold to threshold is given as differences, modulo the size of the type. `parts` lists them.
    """
    one, cells = inspection, Cells.of(inspection)
    costs = np.rint(_nats(one) / math.log(2) * COST_STEPS_PER_BIT).clip(0, 2**16 - 1).astype("<u2")
    parts = {
        "value": np.frombuffer(one.text, dtype=np.uint8),
        "flags": cells.flags,
        "score": cells.score.astype("<f4"),
        "cost": np.diff(costs, axis=0, prepend=np.zeros_like(costs[:1])),
    }
    if one.entropy_nats is not None and not np.array_equal(cells.entropy_nats, cells.score, equal_nan=True):
        parts["entropy"] = cells.entropy_nats.astype("<f4")
    if cells.open_bytes is not None:
        parts["open"] = cells.open_bytes.astype("<u2")
    if one.along is not None and one.along.next_bytes is not None:
        parts |= _likeliest(one.along.next_bytes)
    planes = b"".join(_planes(part) for part in parts.values())
    points = one.along.points if one.along is not None else (one.point,)
    numbers = {
        "threshold": one.scratchpad_threshold_nats,
        "stored": one.stored_threshold_nats,
        "hasEntropy": one.entropy_nats is not None,
        "commitsTokens": one.config.patchifier.commits_tokens,
        "numBytes": one.num_bytes,
        "contextBytes": one.config.context_bytes,
        "numPatches": one.num_patches,
        "fullNats": full_shade_nats(one),
        "fullGain": full_gain_bits(one),
        "costSteps": COST_STEPS_PER_BIT,
        "points": [
            {
                "threshold": point.scratchpad_threshold_nats,
                "calls": round(point.trunk_calls_per_byte * one.num_bytes),
                "bpb": point.bits_per_byte,
            }
            for point in points
        ],
        "parts": [{"name": name, "itemBytes": part.itemsize, "count": part.size} for name, part in parts.items()],
    }
    return numbers, base64.b64encode(zlib.compress(planes, 6)).decode("ascii")


def full_gain_bits(inspection: Inspection) -> float:
    """Returns the gain of the deepest shade: nearly the largest of all thresholds, in half bits."""
    if inspection.along is None:
        return 0.5
    most = float(np.quantile(np.abs(inspection.along.bits_saved), GAIN_SHARE))
    return min(4.0, max(0.5, math.ceil(2 * most) / 2))


def _nats(inspection: Inspection) -> np.ndarray:
    return inspection.nats[None] if inspection.along is None else inspection.along.nats


def _likeliest(found: NextBytes) -> dict[str, np.ndarray]:
    """Returns the likeliest bytes, those without the newest scratchpad as differences from those with it."""
    sides = []
    for ids, probability in (
        (found.with_ids, found.with_probability),
        (found.without_ids, found.without_probability),
    ):
        quantised = np.rint(np.sqrt(probability) * PROBABILITY_STEPS).astype(np.uint8)
        sides.append((ids, quantised))
    (ids, probability), (other_ids, other_probability) = sides
    return {
        "likelyIds": _differences(ids),
        "likelySteps": _differences(probability),
        "otherIds": other_ids - ids,
        "otherSteps": other_probability - probability,
    }


def _differences(values: np.ndarray) -> np.ndarray:
    """Returns what is added from threshold to threshold, modulo 256; likeliest of all positions first."""
    return np.diff(values, axis=0, prepend=np.zeros_like(values[:1]))


def _planes(part: np.ndarray) -> bytes:
    return np.ascontiguousarray(part.reshape(-1).view(np.uint8).reshape(-1, part.itemsize).T).tobytes()
