"""Log-probabilities of prompts by full passes: what `echo` with `logprobs` asks for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from patchpad.config import IGNORED_TARGET, PADDING
from patchpad.errors import GenerationError
from patchpad.evaluation.bits_per_byte import not_finite
from patchpad.inference.prompts import padded_prompts
from patchpad.inference.reports import ByteReport
from patchpad.inference.sampling import Draws, Sampling, choose
from patchpad.model.language_model import LanguageModel
from patchpad.model.precision import autocast

PASS_POSITIONS = 4096
"""About how many positions a pass has, so that running rows do not wait for long."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """How the id after a prompt is chosen."""

    sampling: Sampling
    seeds: tuple[int, ...]
    """One for each choice."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a pass says about one prompt."""

    reports: tuple[ByteReport, ...]
    """Of each byte of the prompt, given those before it and the separator."""
    next_reports: tuple[ByteReport, ...]
    """Of the chosen next ids, one for each choice; none where none was asked for."""
    trunk_calls: int
    """Of the whole pass in which it was; 0 for all but the first prompt of a pass."""
    trunk_cache_entries: int
    """The same."""


def passes(prompts: Sequence[bytes]) -> Iterator[range]:
    """Yields the places of prompts that one pass reads together: neighbours, about `PASS_POSITIONS` with padding."""
    begin = 0
    while begin < len(prompts):
        end, longest = begin, 0
        while end < len(prompts):
            longest = max(longest, len(prompts[end]) + 1)
            if end > begin and longest * (end - begin + 1) > PASS_POSITIONS:
                break
            end += 1
        yield range(begin, end)
        begin = end


@torch.inference_mode()
def score_prompts(
    model: LanguageModel,
    prompts: Sequence[bytes],
    threshold: float,
    num_logprobs: int,
    drawn: Sequence[Drawn | None],
) -> list[Scored]:
    """Reads prompts in one pass and returns what it says about each.

    Args:
        model: in eval mode.
        prompts: of any length.
        threshold: of scratchpads, in nats.
        num_logprobs: likeliest ids to tell beside each byte.
        drawn: how to choose the id after each prompt; None for none.

    Raises:
        GenerationError: a model of tokens.
        TrainingError: it predicts nan or inf.
    """
    require_bytes(model)
    device = model.device
    ids = padded_prompts(prompts, PADDING, device)
    targets = torch.full_like(ids, IGNORED_TARGET)
    targets[:, :-1] = torch.where(ids[:, 1:] == PADDING, IGNORED_TARGET, ids[:, 1:])
    with autocast(device):
        predicted = model.predict_targets(ids, targets, model.decisions(threshold, batch=len(prompts)))
    counts = predicted.counts()
    calls = counts["num_commits"] + counts["num_scratchpads"]
    found = []
    for row, (prompt, how) in enumerate(zip(prompts, drawn, strict=True)):
        logits = predicted.logits[row, : len(prompt) + 1].float()
        if not bool(logits.isfinite().all()):
            raise not_finite()
        found.append(
            Scored(
                reports=_reports(logits[:-1], list(prompt), num_logprobs),
                next_reports=_next_reports(logits[-1:], how, num_logprobs),
                trunk_calls=calls if row == 0 else 0,
                trunk_cache_entries=counts["num_commits"] if row == 0 else 0,
            )
        )
    return found


def require_bytes(model: LanguageModel) -> None:
    """Refuses models whose ids are not bytes.

    Raises:
        GenerationError: it is a `bpe` model.
    """
    if model.config.kind == "bpe":
        raise GenerationError(
            "the model predicts tokens and not bytes, so single bytes of a prompt have no probability",
            hint="Leave out `echo` or `logprobs`.",
        )


def _next_reports(logits: Float[Tensor, "1 vocab"], how: Drawn | None, num_logprobs: int) -> tuple[ByteReport, ...]:
    if how is None:
        return ()
    count = len(how.seeds)
    rows = logits.expand(count, -1)
    chosen = choose(rows, [how.sampling] * count, [Draws(seed)[0] for seed in how.seeds])
    return _reports(rows, chosen.ids.tolist(), num_logprobs)


def _reports(logits: Float[Tensor, "position vocab"], ids: Sequence[int], num_logprobs: int) -> tuple[ByteReport, ...]:
    """Returns the reports of ids, given the logits that predict each."""
    if not ids:
        return ()
    logprobs = logits.log_softmax(dim=-1)
    own = logprobs.gather(-1, torch.tensor(ids, device=logits.device)[:, None]).squeeze(1).tolist()
    top = logprobs.topk(num_logprobs, dim=-1)
    tops = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return tuple(
        ByteReport(
            chosen_id=one,
            num_bytes=int(one < 256),
            logprob=logprob,
            top=tuple(zip(numbers, values, strict=True)),
            ends_patch=None,
            has_scratchpad=None,
            entropy_nats=None,
        )
        for one, logprob, (numbers, values) in zip(ids, own, tops, strict=True)
    )
