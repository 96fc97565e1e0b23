"""Stop strings by their bytes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from patchpad.errors import InputError
from patchpad.hub.library import StoppingCriteria
from patchpad.hub.text import text_bytes


class EndsWithBytes(StoppingCriteria):
    """Ends a row whose newest bytes are those of a stop string.

    As in transformers, a stop string may begin in the prompt, and stays in the result.

    Args:
        stop_strings: one, or several.

    Raises:
        InputError: one of them is not text.
    """

    def __init__(self, stop_strings: str | Sequence[str]) -> None:
        strings = [stop_strings] if isinstance(stop_strings, str) else list(stop_strings)
        wrong = next((string for string in strings if not isinstance(string, str)), None)
        if wrong is not None:
            raise InputError(f"stop_strings holds {wrong!r}; allowed: text")
        self.endings = [torch.tensor(list(text_bytes(string))) for string in strings if string]

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Returns which rows end here, [batch]."""
        ends = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        for ending in self.endings:
            if len(ending) <= input_ids.shape[1]:
                ends |= (input_ids[:, -len(ending) :] == ending.to(input_ids.device)).all(dim=1)
        return ends


__all__ = ["EndsWithBytes"]
