"""What scoring and generating took: the compute that stands beside every result."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from patchpad.config import ModelConfig
from patchpad.cost import cost
from patchpad.errors import InputError

if TYPE_CHECKING:  # results are read and compared without torch
    from patchpad.inference.generator import Completion
    from patchpad.model.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Compute of a model at one threshold. The names and meanings are those of `patchpad.Point`.

    Rates and FLOPs are per byte of `bytes_in_requests`, so they say what the model does at a byte and not how cleverly
    the requests were batched. What sharing saves is `bytes_read` against `bytes_in_requests`.
    """

    scratchpad_threshold_nats: float
    bytes_scored: int
    """Bytes whose likelihood counts, or that were generated."""
    bytes_in_requests: int
    """Bytes of contexts and continuations after the cut on the left: what a full pass of each would read."""
    bytes_read: int
    """Bytes that were read, a shared context once."""
    patches_per_byte: float
    scratchpads_per_byte: float
    trunk_calls_per_byte: float
    """Patches and scratchpads per byte: compute, as `--compute` and the calibration mean it."""
    flops_per_byte: float
    """Forward FLOPs for each byte of the requests, as if each had a full pass of its own."""
    trunk_cache_bytes_per_byte: float
    """Of fp32 keys and values."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the values by name."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Compute":
        """Returns what `to_dict` was made of."""
        return Compute(**values)

    @staticmethod
    def of_completions(
        model: "LanguageModel",
        prompts: Sequence[bytes],
        completions: "Sequence[Completion]",
        scratchpad_threshold_nats: float | None = None,
    ) -> "Compute":
        """Returns the compute of generated text, its prompts included.

        Generation keeps no record of what each slot saw, so FLOPs assume patches of equal size and slots spread evenly.

        Args:
            model: that generated.
            prompts: one per completion.
            completions: of `patchpad.complete` or `generate`.
            scratchpad_threshold_nats: that was used; None for the stored one.

        Raises:
            InputError: no completion, or another number of prompts.
        """
        if not completions or len(prompts) != len(completions):
            raise InputError(
                f"there are {len(completions)} completions and {len(prompts)} prompts; allowed: one prompt per "
                "completion, at least one"
            )
        generated = sum(len(completion.data) for completion in completions)
        num_bytes = sum(map(len, prompts)) + generated
        entries = sum(completion.trunk_cache_entries for completion in completions)
        calls = sum(completion.trunk_calls for completion in completions)
        tally = ComputeTally(
            bytes_scored=generated,
            bytes_in_requests=num_bytes,
            bytes_read=num_bytes,
            num_commits=entries,
            num_scratchpads=calls - entries,
            num_positions=num_bytes + len(prompts),
            document_positions=[
                1 + len(prompt) + len(completion.data) for prompt, completion in zip(prompts, completions, strict=True)
            ],
        )
        return tally.compute(model, scratchpad_threshold_nats)


COUNTS = ("num_commits", "num_scratchpads", "trunk_pairs", "pooled_positions")
"""What passes count; the names are those of `Predicted` and `Extension`."""


@dataclass(kw_only=True)
class ComputeTally:
    """Integer counts of what requests would take if each had a full pass; the fields are those of `Predicted`."""

    bytes_scored: int = 0
    bytes_in_requests: int = 0
    bytes_read: int = 0
    num_commits: int = 0
    num_scratchpads: int = 0
    trunk_pairs: int | None = None
    """None where nothing counted them."""
    pooled_positions: int | None = None
    num_positions: int = 0
    document_positions: list[int] = field(default_factory=list)
    """Positions of each window, the separator included."""

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Adds what passes took, by name. Positions are those of windows; see `count_windows`."""
        for name in COUNTS:
            setattr(self, name, (getattr(self, name) or 0) + counts[name])

    def count_windows(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Counts the bytes of windows: those of each, and how many of them are scored.

        A separator stands in the place of the last byte, which nothing reads, so a window has as many positions.
        """
        for num_bytes, num_scored in sizes:
            self.bytes_scored += num_scored
            self.bytes_in_requests += num_bytes
            self.num_positions += num_bytes
            self.document_positions.append(num_bytes)

    def compute(self, model: "LanguageModel", threshold: float | None) -> Compute:
        """Turns the counts into rates.

        Args:
            model: gives the cost formulas, and the stored threshold.
            threshold: that was used; None for the stored one.

        Raises:
            InputError: nothing was counted.
        """
        if self.num_positions == 0:
            raise InputError(
                "nothing has been scored yet, so there is no compute to report; allowed: after the first request"
            )
        num_bytes = max(1, self.bytes_in_requests)  # an empty prompt whose completion is empty reads a separator
        patches, scratchpads = self.num_commits / num_bytes, self.num_scratchpads / num_bytes
        pairs, pooled = self._per_slot()
        costs = cost(
            model.config,
            context_bytes=_mean_length(self.document_positions, model.config),
            patches_per_byte=patches,
            scratchpads_per_byte=scratchpads,
            positions_per_byte=self.num_positions / num_bytes,
            document_positions=self.document_positions,
            trunk_pairs_per_slot=pairs,
            pooled_bytes_per_slot=pooled,
        )
        return Compute(
            scratchpad_threshold_nats=float(model.scratchpad_threshold_nats) if threshold is None else threshold,
            bytes_scored=self.bytes_scored,
            bytes_in_requests=self.bytes_in_requests,
            bytes_read=self.bytes_read,
            patches_per_byte=patches,
            scratchpads_per_byte=scratchpads,
            trunk_calls_per_byte=patches + scratchpads,
            flops_per_byte=costs.flops_per_byte,
            trunk_cache_bytes_per_byte=costs.trunk_cache_bytes_per_byte,
        )

    def _per_slot(self) -> tuple[float | None, float | None]:
        """Returns what a slot sees and pools; None for what nothing counted, so that it is assumed from the rates."""
        if self.num_commits == 0 or (self.trunk_pairs is not None and self.pooled_positions is not None):
            slots = max(1, self.num_commits + self.num_scratchpads)
            return (self.trunk_pairs or 0) / slots, (self.pooled_positions or 0) / slots
        return None, None


def _mean_length(positions: Sequence[int], config: ModelConfig) -> int:
    """Returns the positions of a window over which the trunk's attention is averaged."""
    return min(config.context_bytes, max(1, round(sum(positions) / len(positions))))


__all__ = ["Compute", "ComputeTally"]
