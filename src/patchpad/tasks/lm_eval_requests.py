"""What lm_eval's requests mean to patchpad: bytes, options of a generation, and seeds. Needs no lm_eval."""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, runtime_checkable

from patchpad.errors import GenerationError, InputError
from patchpad.inference.sampling import checked_integer
from patchpad.tasks.scoring import Request
from patchpad.text import encode_text

logger = logging.getLogger(__name__)

LENGTH_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names that tasks give the length of an answer; the first that is there counts, as in lm_eval."""
KNOWN_NAMES = (*LENGTH_NAMES, "until", "do_sample", "temperature", "top_k", "top_p")


@runtime_checkable
class Asked(Protocol):
    """A request of lm_eval, its `Instance`."""

    args: tuple[Any, ...]
    idx: int
    task_name: str | None
    doc_id: int | None


def scoring_requests(asked: Sequence[Asked]) -> list[Request]:
    """Returns contexts and continuations as bytes; what all contexts of a task begin with, such as shots, is shared.

    A beginning that is the smaller part of the contexts is not: reading on from it would save less than it costs.

    Raises:
        InputError: an empty continuation; the message names the task and the document.
    """
    texts = [(encode_text(one.args[0]), encode_text(one.args[1])) for one in asked]
    contexts: dict[str | None, list[bytes]] = defaultdict(list)
    for one, (context, continuation) in zip(asked, texts, strict=True):
        contexts[one.task_name].append(context)
        if not continuation:
            raise InputError(
                f"task {one.task_name}, document {one.doc_id}: an answer to score is empty; allowed: one byte or more",
                hint="Look at doc_to_choice, or doc_to_target, of the task.",
            )
    shared = {name: _num_shared_bytes(several) for name, several in contexts.items()}
    return [Request(*pair, shared=shared[one.task_name]) for one, pair in zip(asked, texts, strict=True)]


def _num_shared_bytes(texts: Sequence[bytes]) -> int:
    """Returns how many bytes all texts begin with, 0 where that is less than half of them."""
    first, last = min(texts), max(texts)  # which differ soonest
    pairs = enumerate(zip(first, last, strict=False))
    common = next((index for index, (one, other) in pairs if one != other), min(len(first), len(last)))
    return common if 2 * common * len(texts) >= sum(map(len, texts)) else 0


def generation_options(given: Mapping[str, Any], default_max_bytes: int) -> dict[str, Any]:
    """Returns lm_eval's generation arguments as those of `patchpad.complete`.

    Without `do_sample`, a temperature above 0 samples; with `do_sample: false` nothing does. What patchpad lacks, such
    as beams, is left out with a warning.

    Args:
        given: of a task or of `--gen_kwargs`.
        default_max_bytes: where they do not say how long an answer may be.

    Raises:
        GenerationError: stop strings that are not text, or a length that is not a number.
    """
    lengths = [given[name] for name in LENGTH_NAMES if given.get(name) is not None]
    until = given.get("until") or []
    until = [until] if isinstance(until, str) else list(until)
    for stop in until:
        if not isinstance(stop, str):
            raise GenerationError(f"`until` holds {stop!r}; allowed: text", hint="Quote it in the task's YAML.")
    does_sample = given.get("do_sample") is not False
    for name in sorted(given.keys() - set(KNOWN_NAMES)):
        if given[name]:
            _warn_of_unknown(name, repr(given[name]))
    return {
        "max_new_bytes": checked_integer("max_gen_toks", lengths[0] if lengths else default_max_bytes, least=0),
        "stop": tuple(stop for stop in until if stop),
        "temperature": (given.get("temperature") or 0.0) if does_sample else 0.0,
        "top_k": given.get("top_k") or None,
        "top_p": given.get("top_p") or None,
    }


@cache  # so once per process
def _warn_of_unknown(name: str, value: str) -> None:
    logger.warning("generation argument %s=%s: patchpad has no such option, so it has no effect", name, value)


def grouped_by_options(asked: Sequence[Asked], default_max_bytes: int) -> list[tuple[dict[str, Any], list[int]]]:
    """Returns which requests can be generated together: pairs of the options of a generation and indices."""
    groups: dict[Hashable, tuple[dict[str, Any], list[int]]] = {}
    for index, one in enumerate(asked):
        options = generation_options(one.args[1], default_max_bytes)
        groups.setdefault(tuple(options.items()), (options, []))[1].append(index)
    return list(groups.values())


def seeds_of(asked: Iterable[Asked], base: int) -> list[int]:
    """Returns a seed for each request, from 0 to below 2^63.

    It follows from the base, the task, the document and how often it was asked for before, so that an answer does not
    depend on the other requests, and the answers to a repeated request differ.
    """
    count: Counter[tuple[Any, ...]] = Counter()
    seeds = []
    for one in asked:
        place = (one.task_name, one.doc_id, one.idx)
        digest = hashlib.sha256(repr((base, *place, count[place])).encode()).digest()
        seeds.append(int.from_bytes(digest[:8], "big") >> 1)
        count[place] += 1
    return seeds
