"""How likely a model finds continuations of contexts: what choices, and much else, are scored by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from patchpad.errors import InputError
from patchpad.model.language_model import LanguageModel
from patchpad.model.wrapped import unwrapped
from patchpad.tasks.compute import Compute, ComputeTally
from patchpad.tasks.full_passes import Window, WindowScore, score_by_full_passes
from patchpad.tasks.shared_passes import SharedPasses, grouped

DEFAULT_BATCH_POSITIONS = 16_384


@dataclass(frozen=True)
class Request:
    """Bytes that are given, and bytes whose likelihood is asked for.

    Raises:
        InputError: not bytes, an empty continuation, or more shared bytes than the context has.
    """

    context: bytes
    continuation: bytes
    shared: int = 0
    """The first so many bytes of the context are the same for many requests, such as shots; a hint for speed alone."""

    def __post_init__(self) -> None:
        for name in ("context", "continuation"):
            value = getattr(self, name)
            if not isinstance(value, bytes):
                raise InputError(
                    f"{name} is of type {type(value).__name__}; allowed: bytes", hint="Write text.encode()."
                )
        if not self.continuation:
            raise InputError("the continuation is empty, so there is nothing to score; allowed: one byte or more")
        if not 0 <= self.shared <= len(self.context):
            raise InputError(
                f"shared is {self.shared} with a context of {len(self.context)} bytes; allowed: 0 to its length"
            )


@dataclass(frozen=True)
class Scored:
    """What a model says about a request."""

    log_likelihood_nats: float
    """ln p of the continuation given the context; the end of the document is not part of it."""
    is_greedy: bool
    """Whether each byte (each token of a bpe model) is the most likely one, the document's end among the others."""
    num_cut_bytes: int
    """Bytes at the left that what was scored last could not see, because they did not fit the model's context."""
    num_bytes: int
    """Of the continuation."""

    @property
    def bits(self) -> float:
        """What the continuation costs."""
        return -self.log_likelihood_nats / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        """The same per byte of the continuation."""
        return self.bits / self.num_bytes


class Scorer:
    """Scores requests with one model at one threshold.

    A request longer than `context_bytes` loses bytes of its context on the left. A continuation longer than that is
    scored without the context, in windows of `context_bytes` that each start anew, as `patchpad evaluate` reads long
    documents. Results do not depend on the other requests beyond rounding.

    A bpe model tokenises context and continuation each by itself, so that no token belongs to both, and what is
    returned is the likelihood of the continuation's tokens.

    Args:
        model: of any kind, in any mode; restored after.
        scratchpad_threshold_nats: None for the stored one.
        batch_positions: about how many positions a pass has.

    Raises:
        InputError: something else than a model, or a threshold that it does not take.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        scratchpad_threshold_nats: float | None = None,
        batch_positions: int = DEFAULT_BATCH_POSITIONS,
    ) -> None:
        if batch_positions < 1:
            raise InputError(f"batch_positions is {batch_positions}; allowed: 1 or more")
        self.model = unwrapped(model)
        self.model.decisions(scratchpad_threshold_nats, batch=1)
        self.threshold = None if scratchpad_threshold_nats is None else float(scratchpad_threshold_nats)
        self.batch_positions = batch_positions
        self._tally = ComputeTally()

    def score(self, requests: Sequence[Request]) -> list[Scored]:
        """Returns the score of each request, in order.

        Raises:
            TrainingError: the model predicts nan or inf.
        """
        if not requests:
            return []
        windows = [windows_of(request, self.model.config.context_bytes) for request in requests]
        was_training = self.model.training
        self.model.eval()
        try:
            scores = iter(self._score_windows(requests, windows))
        finally:
            self.model.train(was_training)
        scored = []
        for request, several in zip(requests, windows, strict=True):
            parts = [next(scores) for _ in several]
            scored.append(
                Scored(
                    log_likelihood_nats=-sum(part.nats for part in parts),
                    is_greedy=all(part.is_greedy for part in parts),
                    num_cut_bytes=len(request.context) + len(request.continuation) - several[-1].num_bytes,
                    num_bytes=len(request.continuation),
                )
            )
        return scored

    def _score_windows(self, requests: Sequence[Request], windows: Sequence[list[Window]]) -> list[WindowScore]:
        """Returns the scores of all windows of all requests, in order."""
        flat = [window for several in windows for window in several]
        shared = [
            request.shared if window.context == request.context else 0  # what is cut begins like nothing else
            for request, several in zip(requests, windows, strict=True)
            for window in several
        ]
        groups, alone = grouped(self.model, flat, shared)
        options = {"batch_positions": self.batch_positions}
        passes = SharedPasses(self.model, self.threshold, self._tally, **options)
        scores: dict[int, WindowScore] = {}
        for group in groups:
            scores |= passes.score(flat, group)
        if alone:
            chosen = [flat[index] for index in alone]
            found = score_by_full_passes(self.model, chosen, self.threshold, self._tally, **options)
            scores |= zip(alone, found, strict=True)
        return [scores[index] for index in range(len(flat))]

    def compute(self) -> Compute:
        """Returns the compute of all that was scored so far.

        Raises:
            InputError: nothing was scored yet.
        """
        return self._tally.compute(self.model, self.threshold)


def windows_of(request: Request, context_bytes: int) -> list[Window]:
    """Returns what a model reads for a request: one window, or several where the continuation alone is too long."""
    text = request.continuation
    if len(text) > context_bytes:
        return [Window(b"", text[begin : begin + context_bytes]) for begin in range(0, len(text), context_bytes)]
    room = context_bytes - len(text)
    return [Window(request.context[max(0, len(request.context) - room) :], text)]


__all__ = ["Request", "Scored", "Scorer", "windows_of"]
