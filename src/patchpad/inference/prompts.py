"""Prompts: what callers may give, and the ids that a prefill reads."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from patchpad.config import SEPARATOR
from patchpad.errors import InputError
from patchpad.inference.transfers import on_device
from patchpad.text import encode_text

Prompts = Sequence[bytes | str]


def encode_prompts(prompts: Prompts) -> list[bytes]:
    """Returns prompts as bytes, text as UTF-8 (lone surrogates kept as they are).

    Raises:
        InputError: no prompt, or a prompt that is neither text nor bytes.
    """
    if isinstance(prompts, str | bytes):
        raise InputError("prompts is a single string; allowed: a list of strings or bytes", hint="Write [prompt].")
    if not isinstance(prompts, Iterable):
        raise InputError(f"prompts is of type {type(prompts).__name__}; allowed: a list of strings or bytes")
    prompts = list(prompts)
    if len(prompts) == 0:
        raise InputError("no prompt was given; allowed: at least one, which may be empty")
    for prompt in prompts:
        if not isinstance(prompt, str | bytes | bytearray):
            raise InputError(f"a prompt is of type {type(prompt).__name__}; allowed: str or bytes")
    return [encode_text(prompt) for prompt in prompts]


def padded_prompts(prompts: Sequence[Sequence[int]], fill: int, device: torch.device) -> Int[Tensor, "batch position"]:
    """Returns prompts as rows of ids, a separator before each."""
    width = max(map(len, prompts))
    rows = [[SEPARATOR, *prompt, *[fill] * (width - len(prompt))] for prompt in prompts]
    return on_device(rows, device, torch.int64)
