"""A request for text as the engine sees it: its rows, and what becomes of them, piece by piece."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from patchpad.inference.engine import Request, StopReason
from patchpad.inference.generator import Completion
from patchpad.inference.reports import ByteReport
from patchpad.inference.sampling import Sampling
from patchpad.serving.api_error import ApiError
from patchpad.serving.delivery import Delivery, Handle
from patchpad.serving.fields import Prompt
from patchpad.serving.model_card import ModelCard
from patchpad.serving.scheduler import Scheduler
from patchpad.serving.scoring import Drawn, passes, require_bytes, score_prompts

DEFAULT_TEMPERATURE = 1.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one request asks for; choice i continues prompt i // num_choices."""

    prompts: tuple[Prompt, ...]
    num_choices: int
    max_new_bytes: int
    threshold: float
    sampling: Sampling
    seed: int
    """Choice i draws from seed + i."""
    stop: tuple[bytes, ...] = ()
    num_logprobs: int | None = None
    details: bool = False
    echo: bool = False

    @property
    def num_rows(self) -> int:
        """Choices of all prompts."""
        return len(self.prompts) * self.num_choices

    def prompt_of(self, choice: int) -> Prompt:
        """Returns the prompt that a choice continues."""
        return self.prompts[choice // self.num_choices]

    @property
    def scores_prompts(self) -> bool:
        """Whether the probabilities of the prompts' bytes are asked for."""
        return self.echo and self.num_logprobs is not None

    @property
    def is_one_pass(self) -> bool:
        """Whether one full pass answers all: nothing but the id after each prompt is to be chosen."""
        return self.scores_prompts and self.max_new_bytes <= 1 and not self.details

    @property
    def needs_rows(self) -> bool:
        """Whether the engine has something to write."""
        return self.max_new_bytes > 0 and not self.is_one_pass

    @property
    def most_facts(self) -> int:
        """Log-probabilities and entries of `bytes` that the answer may hold."""
        num_new = self.num_rows * self.max_new_bytes
        num_details = num_new if self.details else 0
        if self.num_logprobs is None:
            return num_details
        scored = sum(len(prompt.data) for prompt in self.prompts) if self.echo else 0
        return num_details + (self.num_choices * scored + num_new) * (1 + self.num_logprobs)

    def requests(self) -> list[Request]:
        """Returns the rows for the engine, in the order of the choices."""
        return [
            Request(
                prompt=self.prompt_of(choice).data,
                max_new_bytes=self.max_new_bytes,
                threshold=self.threshold,
                sampling=self.sampling,
                seed=self.seed + choice,
                stop=self.stop,
                num_logprobs=self.num_logprobs,
                details=self.details,
            )
            for choice in range(self.num_rows)
        ]


def check_limits(job: Job, card: ModelCard) -> None:
    """Refuses a job that is larger than the server allows.

    Raises:
        ApiError: a prompt, the bytes asked for, the rows, or the log-probabilities and byte details.
        GenerationError: probabilities of bytes of a model that has none.
    """
    settings = card.settings
    if job.num_rows > settings.max_rows:
        raise ApiError(
            400,
            f"the request asks for {job.num_rows} choices ({len(job.prompts)} prompts, n = {job.num_choices}); "
            f"allowed: {settings.max_rows} together",
            param="n",
            code="too_many_choices",
        )
    longest = max(len(prompt.data) for prompt in job.prompts)
    if longest > settings.max_prompt_bytes:
        raise ApiError(
            400,
            f"the prompt has {longest} bytes; allowed: {settings.max_prompt_bytes}",
            param="prompt",
            code="context_length_exceeded",
        )
    if job.max_new_bytes > settings.max_new_bytes:
        raise ApiError(
            400, f"`max_tokens` is {job.max_new_bytes}; allowed: 0 to {settings.max_new_bytes}", param="max_tokens"
        )
    if job.most_facts > settings.max_facts:
        raise ApiError(
            400,
            f"the answer may hold {job.most_facts} log-probabilities and byte details; allowed: {settings.max_facts}. "
            "Ask for fewer choices, bytes or `logprobs`",
            param="logprobs" if job.num_logprobs is not None else "byte_details",
        )
    if job.scores_prompts:
        require_bytes(card.model)
    if job.sampling.logit_bias and job.sampling.logit_bias[-1][0] > card.model.highest_id:
        raise ApiError(400, "`logit_bias` names an id that the model does not have", param="logit_bias")


def random_seed() -> int:
    """Returns a seed for a request that names none."""
    return secrets.randbelow(2**62)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Something new of one choice."""

    choice: int
    data: bytes = b""
    reports: tuple[ByteReport, ...] = ()
    is_prompt: bool = False
    """Whether these are bytes of the prompt, which the answer repeats."""
    stop_reason: StopReason | None = None
    """Why the choice has ended; None while it goes on."""

    @property
    def is_last(self) -> bool:
        """Whether the choice has ended."""
        return self.stop_reason is not None


@dataclass(kw_only=True)
class Usage:
    """What a job took so far."""

    began: float = field(default_factory=time.monotonic)
    prompt_ids: int = 0
    new_bytes: int = 0
    trunk_calls: int = 0
    trunk_cache_entries: int = 0
    stop_reasons: dict[int, StopReason | None] = field(default_factory=dict)
    """By choice."""

    def add(self, choice: int, completion: Completion) -> None:
        """Adds what a row took."""
        self.trunk_calls += completion.trunk_calls
        self.trunk_cache_entries += completion.trunk_cache_entries
        self.stop_reasons[choice] = completion.stop_reason

    def to_dict(self, card: ModelCard) -> dict[str, object]:
        """Returns the object `usage` of an answer; prompt and completion are counted in bytes."""
        reasons = [self.stop_reasons[choice] for choice in sorted(self.stop_reasons)]
        return {
            "prompt_tokens": self.prompt_ids,
            "completion_tokens": self.new_bytes,
            "total_tokens": self.prompt_ids + self.new_bytes,
            "patchpad": {
                "trunk_calls": self.trunk_calls,
                "scratchpads": self.trunk_calls - self.trunk_cache_entries if card.model.has_scratchpads else 0,
                "trunk_cache_entries": self.trunk_cache_entries,
                "trunk_cache_bytes": self.trunk_cache_entries * card.cache_bytes_per_patch,
                "stop_reason": reasons[0] if len(reasons) == 1 else reasons,
                "seconds": round(time.monotonic() - self.began, 6),
            },
        }


class RunningJob:
    """A job whose rows are on their way: iterate over `pieces`, and `cancel` it in any case.

    Args:
        job: was checked.
        scheduler: its deliveries arrive in the running event loop.
    """

    def __init__(self, job: Job, scheduler: Scheduler) -> None:
        self.job = job
        self.usage = Usage(prompt_ids=sum(prompt.num_ids for prompt in job.prompts))
        self._scheduler = scheduler
        self._queue: asyncio.Queue[tuple[int, Delivery]] = asyncio.Queue()
        self._handles: dict[int, Handle] = {}
        if job.needs_rows:
            deliver = [partial(self._take, choice) for choice in range(job.num_rows)]
            handles = scheduler.submit_all(list(zip(job.requests(), deliver, strict=True)))
            self._handles = dict(enumerate(handles))

    def _take(self, choice: int, delivery: Delivery) -> None:
        self._queue.put_nowait((choice, delivery))

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yields the pieces of all choices as they come; the last one of each has its stop reason.

        Raises:
            PatchpadError: a row failed.
        """
        if self.job.scores_prompts:
            async for piece in self._scored():
                yield piece
        elif self.job.echo:
            for choice in range(self.job.num_rows):
                yield Piece(choice=choice, data=self.job.prompt_of(choice).data, is_prompt=True)
        if not self.job.needs_rows and not self.job.is_one_pass:
            for choice in range(self.job.num_rows):
                yield self._next(choice, ())
        while self._handles:
            choice, delivery = await self._queue.get()
            if delivery.error is not None:
                del self._handles[choice]
                raise delivery.error
            completion = delivery.completion
            self.usage.new_bytes += len(delivery.data)
            if completion is not None:
                del self._handles[choice]
                self.usage.add(choice, completion)
            yield Piece(
                choice=choice,
                data=delivery.data,
                reports=delivery.reports,
                stop_reason=None if completion is None else completion.stop_reason or "stop",
            )

    async def _scored(self) -> AsyncIterator[Piece]:
        """Yields the prompts with their probabilities, and all that one pass gives."""
        job = self.job
        chooses = job.is_one_pass and job.max_new_bytes == 1
        prompts = [prompt.data for prompt in job.prompts]
        for places in passes(prompts):
            count = job.num_choices
            seeds = [tuple(job.seed + place * count + number for number in range(count)) for place in places]
            call = partial(
                score_prompts,
                prompts=[prompts[place] for place in places],
                threshold=job.threshold,
                num_logprobs=job.num_logprobs or 0,
                drawn=[Drawn(sampling=job.sampling, seeds=own) if chooses else None for own in seeds],
            )
            scored = await asyncio.wrap_future(self._scheduler.call(call))
            for place, found in zip(places, scored, strict=True):
                if job.is_one_pass:
                    self.usage.trunk_calls += found.trunk_calls
                    self.usage.trunk_cache_entries += found.trunk_cache_entries
                for number in range(count):
                    choice = place * count + number
                    yield Piece(choice=choice, data=prompts[place], reports=found.reports, is_prompt=True)
                    if job.is_one_pass:
                        yield self._next(choice, found.next_reports[number : number + 1])

    def _next(self, choice: int, reports: tuple[ByteReport, ...]) -> Piece:
        """Returns the last piece of a choice that the engine did not write, which has at most one byte."""
        data = bytes(report.chosen_id for report in reports if report.num_bytes)
        reason: StopReason = "end" if reports and not data else "length"
        if data and data in self.job.stop:
            data, reports, reason = b"", (), "stop"
        self.usage.new_bytes += len(data)
        self.usage.stop_reasons[choice] = reason
        return Piece(choice=choice, data=data, reports=reports, stop_reason=reason)

    def cancel(self) -> None:
        """Drops the rows that have not ended."""
        for handle in self._handles.values():
            self._scheduler.cancel(handle)
        self._handles = {}


def sampling_of(
    *,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    logit_bias: Sequence[tuple[int, float]],
) -> Sampling:
    """Returns how ids are chosen; what a request leaves out is OpenAI's default."""
    return Sampling(
        temperature=DEFAULT_TEMPERATURE if temperature is None else temperature,
        top_p=top_p,
        top_k=top_k,
        logit_bias=tuple(logit_bias),
    )
