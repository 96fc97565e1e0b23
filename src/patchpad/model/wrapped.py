"""Models inside wrappers, as `torch.compile` and `DataParallel` put them."""

from typing import Any

from torch import nn

from patchpad.errors import InputError
from patchpad.model.language_model import LanguageModel

WRAPPERS = ("_orig_mod", "module")
"""Names under which wrappers keep the model: `torch.compile`, then `DataParallel`, `DistributedDataParallel`, ..."""


def unwrapped(model: Any) -> LanguageModel:
    """Returns a patchpad model that may be inside wrappers of torch; public functions call it on what they are given.

    Raises:
        InputError: it is something else.
    """
    inner = model
    while isinstance(inner, nn.Module) and not isinstance(inner, LanguageModel):
        inner = next((getattr(inner, name) for name in WRAPPERS if hasattr(inner, name)), None)
    if isinstance(inner, LanguageModel):
        return inner
    kind = "a class" if isinstance(model, type) else f"of type {type(model).__name__}"
    raise InputError(
        f"model is {kind}; allowed: a patchpad model, which torch.compile or DataParallel may wrap",
        hint=_hint(model),
    )


def _hint(model: Any) -> str:
    if isinstance(getattr(model, "model", None), LanguageModel):
        return f"Give the `model` of this {type(model).__name__}."
    return "Load one with patchpad.load(RUN), or patchpad.load() for the small model that ships with patchpad."
