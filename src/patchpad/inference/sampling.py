"""From logits to the next id: greedy, or temperature, top-k and top-p with random numbers of each row's own."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.errors import GenerationError, integer_or_none, number_or_nan
from patchpad.inference.transfers import on_device

FIRST_DRAWS = 64
"""Numbers that a row's first draw makes at once."""
LARGEST_DRAW = 1 - 2**-52
"""So that, rounded, this share of a sum of probabilities is below the sum: no draw lands behind the last likely id."""
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
        GenerationError: it is not an integer, or below the least that is allowed.
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


class Chosen(NamedTuple):
    """The next ids, still on the device of the logits."""

    ids: Int[Tensor, " row"]
    is_number: Bool[Tensor, " row"]
    """False where the logits hold nan or inf, and the id means nothing; -inf stands for an id that is never chosen."""


class Draws:
    """The random numbers of a row, uniform in [0, 1), by their index: the same index always gives the same number.

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


def filtered_logits(logits: Float[Tensor, "row vocab"], samplings: Sequence[Sampling]) -> Float[Tensor, "row vocab"]:
    """Applies temperature, then top-k, then top-p; what is left out becomes -inf.

    Each row gets exactly what it gets alone: rows differ in numbers that are applied to all at once.

    Args:
        logits: of the next id.
        samplings: one for each row, with temperatures above 0.
    """
    scaled = logits.double()
    scaled = scaled - scaled.amax(dim=-1, keepdim=True)  # so that none grows beyond fp64
    scaled = scaled / _alike_or_column([sampling.temperature for sampling in samplings], logits.device)
    top_k: dict[int, list[int]] = {}
    top_p: dict[int, int | float] = {}
    for row, sampling in enumerate(samplings):
        if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
            top_k.setdefault(sampling.top_k, []).append(row)
        if sampling.top_p is not None and sampling.top_p < 1:
            top_p[row] = sampling.top_p
    for count, rows in top_k.items():
        scaled = _changed(scaled, rows, partial(_keep_top_k, count=count))
    if top_p:
        share = _alike_or_column(list(top_p.values()), logits.device)
        scaled = _changed(scaled, list(top_p), partial(_keep_top_p, share=share))
    return scaled


def _keep_top_k(scaled: Float[Tensor, "row vocab"], *, count: int) -> Float[Tensor, "row vocab"]:
    kept = scaled.topk(count, dim=-1)
    return torch.full_like(scaled, -torch.inf).scatter(-1, kept.indices, kept.values)


def _keep_top_p(
    scaled: Float[Tensor, "row vocab"], *, share: int | float | Float[Tensor, "row 1"]
) -> Float[Tensor, "row vocab"]:
    ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    ordered = ordered.masked_fill(before >= share, -torch.inf)
    return torch.empty_like(scaled).scatter(-1, order, ordered)


def _alike_or_column(values: Sequence[int | float], device: torch.device) -> int | float | Float[Tensor, "row 1"]:
    """Returns the number that all rows have, or a column of them."""
    return values[0] if len(set(values)) == 1 else on_device(values, device, torch.float64)[:, None]


def _changed(
    values: Float[Tensor, "row vocab"],
    rows: Sequence[int],
    change: Callable[[Float[Tensor, "some vocab"]], Float[Tensor, "some vocab"]],
) -> Float[Tensor, "row vocab"]:
    """Returns values of which some rows, ascending, were changed."""
    if len(rows) == len(values):
        return change(values)
    places = on_device(rows, values.device, torch.int64)
    return values.index_copy(0, places, change(values[places]))


def choose(logits: Float[Tensor, "row vocab"], samplings: Sequence[Sampling], draws: Sequence[float]) -> Chosen:
    """Chooses one id per row, without a read from the device.

    Args:
        logits: of the next id.
        samplings: how to choose, for each row.
        draws: a random number in [0, 1) for each row; not read where the choice is greedy.
    """
    logits = _biased(logits, samplings)
    drawn = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0]
    if len(drawn) == len(samplings):
        return Chosen(_drawn(logits, samplings, draws), logits.amax(dim=-1).abs() < math.inf)  # nan where any is
    ids = logits.argmax(dim=-1)  # that of nan, where there is any
    is_number = logits.gather(-1, ids[:, None]).squeeze(1).abs() < math.inf
    if drawn:
        places = on_device(drawn, logits.device, torch.int64)
        own = _drawn(logits[places], [samplings[row] for row in drawn], [draws[row] for row in drawn])
        ids = ids.index_copy(0, places, own)
    return Chosen(ids, is_number)


def _biased(logits: Float[Tensor, "row vocab"], samplings: Sequence[Sampling]) -> Float[Tensor, "row vocab"]:
    """Adds each row's own biases."""
    biases = [(row, *pair) for row, sampling in enumerate(samplings) for pair in sampling.logit_bias]
    if not biases:
        return logits
    rows, ids, values = zip(*biases, strict=True)
    places = tuple(on_device(part, logits.device, torch.int64) for part in (rows, ids))
    return logits.index_put(places, on_device(values, logits.device, logits.dtype), accumulate=True)


def _drawn(
    logits: Float[Tensor, "row vocab"], samplings: Sequence[Sampling], draws: Sequence[float]
) -> Int[Tensor, " row"]:
    """Draws an id per row."""
    if logits.device.type == "mps":  # has no fp64
        return _drawn(logits.cpu(), samplings, draws).to(logits.device)
    probabilities = filtered_logits(logits, samplings).softmax(dim=-1)
    cumulative = probabilities.cumsum(dim=-1)
    shares = on_device([min(draw, LARGEST_DRAW) for draw in draws], logits.device, torch.float64)
    return torch.searchsorted(cumulative, shares[:, None] * cumulative[:, -1:], right=True).squeeze(1)
