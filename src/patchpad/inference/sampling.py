"""From logits to the next id: greedy, or temperature, top-k and top-p with random numbers of each row's own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.errors import GenerationError, integer_or_none, number_or_nan
from patchpad.inference.transfers import on_device

FIRST_DRAWS = 64
"""Numbers that a row's first draw makes at once."""
MOST_BIAS = 100
"""Most that a bias adds to a logit, or takes from it."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next id is chosen."""

    temperature: int | float = 0.0
    """0 is greedy; else logits are divided by it."""
    top_k: int | None = None
    """Keep the k likeliest ids."""
    top_p: int | float | None = None
    """Keep the likeliest ids whose probabilities add up to at least p."""
    logit_bias: tuple[tuple[int, int | float], ...] = ()
    """Ids and what is added to their logits before anything else, greedy choices included."""

    def __post_init__(self) -> None:
        if not 0 <= number_or_nan(self.temperature) < math.inf:  # nan is in no range
            raise GenerationError(f"temperature is {self.temperature!r}; allowed: 0 (greedy) or a number above 0")
        if self.top_k is not None:
            object.__setattr__(self, "top_k", checked_integer("top_k", self.top_k, least=1))
        if self.top_p is not None and not 0 < number_or_nan(self.top_p) <= 1:
            raise GenerationError(f"top_p is {self.top_p!r}; allowed: a number above 0, up to 1")
        object.__setattr__(self, "logit_bias", checked_bias(self.logit_bias))


def checked_integer(name: str, value: Any, *, least: int) -> int:
    """Returns an option as an integer.

    Raises:
        GenerationError: it is none, or below the least that is allowed.
    """
    number = integer_or_none(value)
    if number is None or number < least:
        raise GenerationError(f"{name} is {value!r}; allowed: an integer of at least {least}")
    return number


def checked_bias(given: Any) -> tuple[tuple[int, float], ...]:
    """Returns what is added to the logits of ids, in ascending order of the ids.

    Raises:
        GenerationError: no pairs of an id and a number within `MOST_BIAS`, or an id twice.
    """
    checked: dict[int, float] = {}
    try:
        pairs = [(one, bias) for one, bias in given]
    except (TypeError, ValueError):
        raise GenerationError(f"logit_bias is {given!r}; allowed: pairs of an id and a number") from None
    for one, bias in pairs:
        chosen_id = integer_or_none(one)
        if chosen_id is None or chosen_id < 0:
            raise GenerationError(f"logit_bias has the id {one!r}; allowed: an integer of at least 0")
        if chosen_id in checked:
            raise GenerationError(f"logit_bias has the id {chosen_id} twice; allowed: each id once")
        number = number_or_nan(bias)
        if not -MOST_BIAS <= number <= MOST_BIAS:  # nan is in no range
            raise GenerationError(
                f"logit_bias of the id {chosen_id} is {bias!r}; allowed: a number from -{MOST_BIAS} to {MOST_BIAS}"
            )
        checked[chosen_id] = number
    return tuple(sorted(checked.items()))


def filtered_logits(logits: Float[Tensor, "batch vocab"], sampling: Sampling) -> Float[Tensor, "batch vocab"]:
    """Applies temperature, then top-k, then top-p; what is left out becomes -inf. Temperature must be above 0."""
    scaled = logits.double()
    scaled = (scaled - scaled.amax(dim=-1, keepdim=True)) / sampling.temperature  # so that none grows beyond fp64
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        kept = scaled.topk(sampling.top_k, dim=-1)
        scaled = torch.full_like(scaled, -torch.inf).scatter(-1, kept.indices, kept.values)
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
        probabilities = ordered.softmax(dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities
        ordered = ordered.masked_fill(before >= sampling.top_p, -torch.inf)
        scaled = torch.empty_like(scaled).scatter(-1, order, ordered)
    return scaled


class Chosen(NamedTuple):
    """The next ids, still on the device of the logits."""

    ids: Int[Tensor, " row"]
    is_number: Bool[Tensor, " row"]
    """False where the logits hold nan or inf, and the id means nothing; -inf stands for an id that is never chosen."""


class Draws:
    """The random numbers of a row, uniform in [0, 1), by their index: asked again, the same one comes.

    Args:
        seed: from 0 to below 2^63.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._numbers: list[float] = []

    def __getitem__(self, index: int) -> float:
        if index >= len(self._numbers):
            stream = torch.Generator("cpu").manual_seed(self.seed)
            count = max(2 * len(self._numbers), index + 1, FIRST_DRAWS)
            self._numbers = torch.rand(count, generator=stream, dtype=torch.float64, device="cpu").tolist()
        return self._numbers[index]


def choose(logits: Float[Tensor, "row vocab"], sampling: Sampling, draws: Sequence[float]) -> Chosen:
    """Chooses one id per row, without a read from the device.

    Args:
        logits: of the next id.
        sampling: how to choose.
        draws: a random number in [0, 1) for each row; not read where the choice is greedy.
    """
    if sampling.logit_bias:
        ids, biases = zip(*sampling.logit_bias, strict=True)
        places = on_device(ids, logits.device, torch.int64)
        logits = logits.index_add(1, places, on_device(biases, logits.device, logits.dtype).expand(len(logits), -1))
    if sampling.temperature == 0:
        ids = logits.argmax(dim=-1)  # that of nan, where there is any
        return Chosen(ids, logits.gather(-1, ids[:, None]).squeeze(1).abs() < math.inf)
    if logits.device.type == "mps":  # has no fp64
        return Chosen(*(part.to(logits.device) for part in choose(logits.cpu(), sampling, draws)))
    is_number = logits.amax(dim=-1).abs() < math.inf  # nan where any of them is
    probabilities = filtered_logits(logits, sampling).softmax(dim=-1)
    cumulative = probabilities.cumsum(dim=-1)
    places = on_device(draws, logits.device, torch.float64) * cumulative[:, -1]
    ids = torch.searchsorted(cumulative, places[:, None], right=True).squeeze(1)
    # A draw at the very end must not land on an id that was filtered out.
    last = probabilities.shape[-1] - 1 - probabilities.flip(-1).ne(0).int().argmax(dim=-1)
    return Chosen(torch.minimum(ids, last), is_number)
