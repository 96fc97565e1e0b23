"""From a model to the stepper of its kind."""

import logging

from patchpad.inference.compiled import kernels_compiled_for
from patchpad.inference.cuda_graphs import captured_kernels
from patchpad.inference.kernels import PLAIN, Kernels
from patchpad.inference.megabyte_stepper import MegaByteStepper
from patchpad.inference.patch_stepper import PatchStepper
from patchpad.inference.plain_stepper import PlainStepper
from patchpad.inference.stepper import Stepper
from patchpad.model.baselines import BpeTransformer, ByteTransformer, MegaByte
from patchpad.model.byte_lm import ByteLM
from patchpad.model.language_model import LanguageModel

logger = logging.getLogger(__name__)


def stepper_for(model: LanguageModel, *, compile: bool = False) -> Stepper:
    """Returns what steps a model.

    Args:
        model: of any kind, used in eval mode.
        compile: run the fastest kernels: they are compiled, and on CUDA captured as graphs too. Only patch models have
            them; for others a warning says so.
    """
    if isinstance(model, ByteLM):
        if compile and model.config.patchifier.commits_tokens:
            logger.warning("`tokens` patches are found on the host; steps run without compiled kernels")
            compile = False
        return PatchStepper(model, fast_kernels(model) if compile else PLAIN)
    if compile:
        logger.warning("only patch models have compiled kernels; `%s` runs without", model.config.kind)
    if isinstance(model, MegaByte):
        return MegaByteStepper(model)
    assert isinstance(model, ByteTransformer | BpeTransformer)
    return PlainStepper(model)


def fast_kernels(model: ByteLM) -> Kernels:
    """Returns the fastest kernels for a patch model and its device."""
    return captured_kernels(model) if model.device.type == "cuda" else kernels_compiled_for(model)
