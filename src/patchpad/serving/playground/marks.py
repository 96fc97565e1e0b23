"""Where the patches of a prompt end and where its scratchpads are."""

from typing import Any

import torch

from patchpad.config import SEPARATOR
from patchpad.model.byte_lm import ByteLM
from patchpad.model.language_model import LanguageModel
from patchpad.model.precision import autocast
from patchpad.model.wrapped import unwrapped
from patchpad.serving.playground.next_byte import checked_length
from patchpad.text import encode_text


def marks(
    model: LanguageModel, prompt: bytes | str, *, scratchpad_threshold_nats: int | float | None = None
) -> dict[str, Any]:
    """Returns what the model decides at the separator and at each byte of a prompt, ready for JSON.

    Args:
        model: in eval mode after.
        prompt: the text.
        scratchpad_threshold_nats: None for the stored one.

    Returns:
        Lists with one value for the separator and then one for each byte: `ends_patch`, `has_scratchpad`, and
        `entropy_nats` of the next byte. None in place of a list that the model does not have: entropies without an
        entropy head, and all of them without scratchpads.

    Raises:
        InputError: a text that is too long, or an impossible threshold.
    """
    model = unwrapped(model).eval()
    data = encode_text(prompt)
    checked_length(len(data))
    decisions = model.decisions(scratchpad_threshold_nats, batch=1)
    if not isinstance(model, ByteLM):
        return dict.fromkeys(("ends_patch", "has_scratchpad", "entropy_nats"))
    byte_ids = torch.tensor([[SEPARATOR, *data]], device=model.device)
    with torch.inference_mode(), autocast(model.device):
        output = model.run(byte_ids, decisions)
    entropies = output.entropy_nats
    return {
        "ends_patch": output.layout.patch_end_mask[0].tolist(),
        "has_scratchpad": output.layout.scratchpad_mask[0].tolist(),
        "entropy_nats": None if entropies is None else entropies[0].float().tolist(),
    }


__all__ = ["marks"]
