"""Completions of a task's prompts, the same whatever is generated beside them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from patchpad.inference.generator import Completion, complete
from patchpad.model.language_model import LanguageModel
from patchpad.tasks.compute import Compute
from patchpad.tasks.definition import TaskOptions
from patchpad.tasks.scoring import Scored, Scorer

PROMPTS_AT_ONCE = 256
"""About how many prompts a generation gets at once, so that progress can be shown."""


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How completions are made."""

    max_new_bytes: int
    stop: tuple[str, ...]
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float | None = None


class Writer:
    """Completes prompts with one model at one threshold, and counts what that took.

    A prompt is cut on the left to what the model's context leaves beside the completion; at least half of the context
    stays for it. Each completion has a seed of its own, so batches and order do not matter beyond rounding.

    Args:
        model: in any mode.
        options: the threshold, and the seed of samples.
        writing: length, stop strings and sampling.
    """

    def __init__(self, model: LanguageModel, options: TaskOptions, writing: Writing) -> None:
        self.model, self.options, self.writing = model, options, writing
        self.prompt_bytes = prompt_room(model.config.context_bytes, writing.max_new_bytes)
        self.num_cut_prompts = 0
        self.num_cut_bytes = 0
        self._prompts: list[bytes] = []
        self._completions: list[Completion] = []

    def complete(self, prompts: Sequence[tuple[str, bytes]], samples: int = 1) -> Iterator[list[list[Completion]]]:
        """Yields the completions of each prompt, in order, for some prompts at a time.

        Args:
            prompts: id of the example, and its prompt.
            samples: completions of each.
        """
        at_once = max(1, PROMPTS_AT_ONCE // samples)
        for begin in range(0, len(prompts), at_once):
            part = [(name, self._cut(prompt)) for name, prompt in prompts[begin : begin + at_once]]
            repeated = [prompt for _, prompt in part for _ in range(samples)]
            completions = complete(
                self.model,
                repeated,
                max_new_bytes=self.writing.max_new_bytes,
                stop=self.writing.stop or None,
                temperature=self.writing.temperature,
                top_p=self.writing.top_p,
                seed=[sample_seed(self.options.seed, name, number) for name, _ in part for number in range(samples)],
                scratchpad_threshold_nats=self.options.scratchpad_threshold_nats,
                draft="off",  # or seconds would decide what lies within rounding
            )
            self._prompts += repeated
            self._completions += completions
            yield [completions[first : first + samples] for first in range(0, len(completions), samples)]

    def compute(self) -> Compute:
        """Returns the compute of all that was generated so far."""
        return Compute.of_completions(
            self.model, self._prompts, self._completions, self.options.scratchpad_threshold_nats
        )

    def _cut(self, prompt: bytes) -> bytes:
        excess = max(0, len(prompt) - self.prompt_bytes)
        self.num_cut_bytes += excess
        self.num_cut_prompts += excess > 0
        return prompt[excess:]


def prompt_room(context_bytes: int, max_new_bytes: int) -> int:
    """Returns the most bytes of a prompt: what a completion leaves of the context, at least half of it."""
    return context_bytes - min(max_new_bytes, context_bytes // 2)


def scoring_details(scorer: Scorer, scores: Sequence[Scored]) -> dict[str, Any]:
    """Returns what a result says, beside the compute of what was written, of right answers that were scored.

    Args:
        scorer: that scored them, and nothing else.
        scores: at least one. A right answer leaves another part of the context to the prompt than what is written does.
    """
    return {
        "compute": scorer.compute().to_dict(),
        "num_cut_examples": sum(score.num_cut_bytes > 0 for score in scores),
        "num_cut_bytes": sum(score.num_cut_bytes for score in scores),
    }


def sample_seed(seed: int, name: str, number: int) -> int:
    """Returns the seed of a sample: it depends on the example and not on which others are run."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}/{number}".encode("utf-8", "surrogatepass")).digest()[:7])
