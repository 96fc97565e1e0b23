"""The phases of a step for each kind of model: what the engine calls, whatever the model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from patchpad.inference import megabyte_stepping, plain_stepping, stepping
from patchpad.inference.kernels import fast_kernels
from patchpad.model.byte_lm import ByteLM
from patchpad.model.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Phases:
    """Functions with the arguments of those in `patchpad.inference.stepping`; the state is of the model's own class."""

    read_prompts: Callable[..., tuple[Tensor, Any]]
    """(model, prompts, decisions) -> logits of each row's next id [batch, vocab], and the state."""
    read: Callable[..., Tensor]
    """(model, ids, state, rows, decisions) -> which of the rows need the trunk before they can predict."""
    refresh: Callable[..., None]
    """(model, state, rows): calls the trunk."""
    predict: Callable[..., Tensor]
    """(model, state, rows) -> logits of the next id [row, vocab]."""


def phases_of(model: LanguageModel, *, compile: bool = False) -> Phases:
    """Returns the phases of a model's kind.

    Args:
        model: any kind.
        compile: run the fastest kernels; see `patchpad.inference.kernels.fast_kernels`.
    """
    others = megabyte_stepping if model.config.kind == "megabyte" else plain_stepping
    home: Any = stepping if isinstance(model, ByteLM) else others
    steps: dict[str, Callable[..., Any]] = {"read": home.read, "refresh": home.refresh, "predict": home.predict}
    kernels = fast_kernels(model) if compile else None
    if kernels is not None:
        steps = {name: partial(function, kernels=kernels) for name, function in steps.items()}
    return Phases(read_prompts=home.read_prompts, **steps)
