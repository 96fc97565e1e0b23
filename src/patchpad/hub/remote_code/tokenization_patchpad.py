"""Loads a model of patchpad. The code itself is the package `patchpad`: pip install "patchpad[hub]"."""

try:
    from patchpad.hub.tokenizer import PatchpadTokenizer
except ImportError as error:
    raise ImportError(
        'this model needs the package `patchpad`. Install it with: pip install "patchpad[hub]"'
    ) from error

__all__ = ["PatchpadTokenizer"]
