"""The model: `ByteLM` and its parts."""

from patchpad.model.byte_lm import ByteLM
from patchpad.model.outputs import ByteLMOutput

__all__ = ["ByteLM", "ByteLMOutput"]
