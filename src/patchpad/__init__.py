"""Byte-level language models with Scratchpad Patching.

Names are imported when they are first used, so that `import patchpad` does not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from patchpad import plugins
from patchpad.config import PADDING, SEPARATOR, Config, load_config
from patchpad.version import __version__

if TYPE_CHECKING:
    from patchpad.evaluation.bits_per_byte import Point, evaluate, score
    from patchpad.evaluation.calibrate import calibrate
    from patchpad.inference.extending import extend
    from patchpad.inference.generator import Completion, Generation, TextStream, complete, generate, stream
    from patchpad.inference.patch_state import DecodingState
    from patchpad.inference.stepping import prefill, step
    from patchpad.inspection.inspection import Inspection, inspect
    from patchpad.model.byte_lm import ByteLM
    from patchpad.model.outputs import ByteLMOutput
    from patchpad.training.checkpoint import load
    from patchpad.training.trainer import Run, resume, train

_HOMES = {
    "ByteLM": "patchpad.model.byte_lm",
    "ByteLMOutput": "patchpad.model.outputs",
    "Completion": "patchpad.inference.generator",
    "DecodingState": "patchpad.inference.patch_state",
    "Generation": "patchpad.inference.generator",
    "Inspection": "patchpad.inspection.inspection",
    "Point": "patchpad.evaluation.bits_per_byte",
    "TextStream": "patchpad.inference.generator",
    "Run": "patchpad.training.trainer",
    "calibrate": "patchpad.evaluation.calibrate",
    "complete": "patchpad.inference.generator",
    "evaluate": "patchpad.evaluation.bits_per_byte",
    "extend": "patchpad.inference.extending",
    "generate": "patchpad.inference.generator",
    "inspect": "patchpad.inspection.inspection",
    "load": "patchpad.training.checkpoint",
    "prefill": "patchpad.inference.stepping",
    "resume": "patchpad.training.trainer",
    "score": "patchpad.evaluation.bits_per_byte",
    "step": "patchpad.inference.stepping",
    "stream": "patchpad.inference.generator",
    "train": "patchpad.training.trainer",
}

__all__ = [
    "PADDING",
    "SEPARATOR",
    "ByteLM",
    "ByteLMOutput",
    "Completion",
    "Config",
    "DecodingState",
    "Generation",
    "Inspection",
    "Point",
    "Run",
    "TextStream",
    "__version__",
    "calibrate",
    "complete",
    "evaluate",
    "extend",
    "generate",
    "inspect",
    "load",
    "load_config",
    "plugins",
    "prefill",
    "resume",
    "score",
    "step",
    "stream",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'patchpad' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
