"""The calibration table: which threshold spends how much compute, and what it buys. Torch-free."""

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchpad.errors import CheckpointError, GenerationError, number_or_nan
from patchpad.files import strict_json

ROW_KEYS = (
    "scratchpad_threshold_nats",
    "scratchpads_per_byte",
    "patches_per_byte",
    "trunk_calls_per_byte",
    "bits_per_byte",
    "num_bytes",
)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Rows sorted from +inf (fewest trunk calls) to -inf (most), measured on one text."""

    rows: tuple[dict[str, Any], ...]
    text_sha256: str
    commits_tokens: bool = False
    """Whether patches are `tokens`: then a scratchpad may fire at a byte that commits some."""

    @property
    def least_compute(self) -> float:
        """Trunk calls per byte without scratchpads: patches per byte."""
        return self.rows[0]["trunk_calls_per_byte"]

    @property
    def most_compute(self) -> float:
        """Trunk calls per byte with a scratchpad wherever one may fire: 1, and more with `tokens` patches."""
        return self.rows[-1]["trunk_calls_per_byte"] if self.commits_tokens else 1.0

    def threshold_for(self, compute: int | float) -> float:
        """Translates trunk calls per byte into a threshold, by linear interpolation.

        Raises:
            GenerationError: below patches per byte, above `most_compute`, or not a number.
        """
        least, most = self.least_compute, self.most_compute
        if not least - 1e-9 <= number_or_nan(compute) <= most:
            raise GenerationError(
                f"compute is {compute!r}; allowed: {least:.4g} (patches alone) to {most:.4g} (the trunk at every byte)",
                hint="Compute is trunk calls per byte; choose a value in that range.",
            )
        if compute <= least:
            return math.inf
        if compute >= most:
            return -math.inf
        finite = [
            (row["trunk_calls_per_byte"], row["scratchpad_threshold_nats"])
            for row in self.rows
            if math.isfinite(row["scratchpad_threshold_nats"])
        ]
        for (low, high_threshold), (high, low_threshold) in itertools.pairwise(finite):
            if low <= compute <= high:
                share = (compute - low) / (high - low) if high > low else 1.0
                return high_threshold + share * (low_threshold - high_threshold)
        return finite[0][1] if compute < finite[0][0] else finite[-1][1]

    def to_dict(self) -> dict[str, Any]:
        """Returns what `calibration.json` holds."""
        beside = {"commits_tokens": True} if self.commits_tokens else {}
        return {"text_sha256": self.text_sha256, **beside, "rows": list(self.rows)}

    def to_json(self) -> str:
        """Returns the content of `calibration.json`."""
        return strict_json(self.to_dict(), indent=1)

    @staticmethod
    def read(path: Path) -> "Calibration":
        """Reads `calibration.json`.

        Raises:
            CheckpointError: the file is not such a table.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _not_a_table(str(path), error) from error
        return Calibration.from_dict(content, source=str(path))

    @staticmethod
    def from_dict(content: Any, *, source: str) -> "Calibration":
        """Takes over what `to_dict` gave, after a trip through JSON.

        Args:
            content: the table.
            source: where it comes from, for messages.

        Raises:
            CheckpointError: it is not such a table.
        """
        try:
            rows = tuple({key: float(row[key]) for key in ROW_KEYS} for row in content["rows"])
            if not any(math.isfinite(row["scratchpad_threshold_nats"]) for row in rows):
                raise ValueError("no row has a finite threshold")
            commits_tokens = content.get("commits_tokens", False) is True
            return Calibration(rows=rows, text_sha256=str(content["text_sha256"]), commits_tokens=commits_tokens)
        except (ValueError, KeyError, TypeError) as error:
            raise _not_a_table(source, error) from error


def _not_a_table(source: str, error: Exception) -> CheckpointError:
    """Returns what is raised for something else than a calibration table."""
    return CheckpointError(f"{source} is not a calibration table: {error}", hint="Run `patchpad calibrate` again.")
