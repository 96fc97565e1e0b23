"""The one place that imports transformers: what the classes of this package are made of.

Importing a class of this package registers it, so that `AutoModelForCausalLM` and alike know it without code in the
folder.
"""

import contextlib
from collections.abc import Iterator

from patchpad.errors import MissingExtraError

try:
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoTokenizer,
        GenerationMixin,
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizer,
    )
    from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList
    from transformers.modeling_outputs import CausalLMOutputWithPast
    from transformers.utils import cached_file
    from transformers.utils import logging as transformers_logging
    from transformers.utils.generic import can_return_tuple
except ImportError as error:
    raise MissingExtraError(
        "the library `transformers` is not installed, or is older than 5.24",
        hint='Install it with: pip install "patchpad[hub]"',
    ) from error


@contextlib.contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keeps transformers from showing bars of its own inside; what was set before holds again afterwards."""
    was_shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_shown:
            transformers_logging.enable_progress_bar()


__all__ = [
    "AutoConfig",
    "AutoModelForCausalLM",
    "AutoTokenizer",
    "CausalLMOutputWithPast",
    "GenerationMixin",
    "PreTrainedConfig",
    "PreTrainedModel",
    "PreTrainedTokenizer",
    "StoppingCriteria",
    "StoppingCriteriaList",
    "cached_file",
    "can_return_tuple",
    "without_progress_bars",
]
