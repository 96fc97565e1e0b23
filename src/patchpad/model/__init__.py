"""The model: `ByteLM` and its parts."""

from patchpad.model.byte_lm import ByteLM, ByteLMOutput

__all__ = ["ByteLM", "ByteLMOutput"]
