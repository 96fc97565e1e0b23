"""Whether what a stream got is what its request gives alone, and whether rounding explains where it is not."""

from dataclasses import dataclass

import torch
from serving_client import Asked

import patchpad
from patchpad.config import SEPARATOR
from patchpad.inference.sampling import Draws, Sampling, filtered_logits
from patchpad.model.byte_lm import ByteLM

MARGIN = 1e-4
"""Distance from flipping that rounding may bridge: of scores from the threshold in nats, of two logits, of a draw."""


@dataclass(frozen=True)
class Checked:
    """What became of one stream."""

    is_equal: bool
    explanation: str = ""
    """Of the first byte that differs; empty where there is none."""


def check(model: ByteLM, asked: Asked, text: str) -> Checked:
    """Compares a stream's text with that of its request alone.

    Args:
        model: that the server serves.
        asked: the request.
        text: that came.
    """
    alone = patchpad.complete(
        model, asked.prompt, max_new_bytes=asked.max_new_bytes, temperature=asked.temperature, seed=asked.seed
    )
    if alone.text == text:
        return Checked(True)
    same = next(
        (place for place, (one, two) in enumerate(zip(alone.text, text, strict=False)) if one != two),
        min(len(alone.text), len(text)),
    )
    # Bytes of the characters that agree; the next byte that differs may be any of the next character.
    begin = len(alone.text[:same].encode())
    for num_bytes in range(begin, min(begin + 4, len(alone.data)) + 1):
        explanation = explain(model, asked, alone.data[:num_bytes])
        if explanation:
            return Checked(False, explanation)
    return Checked(False)


@torch.no_grad()
def explain(model: ByteLM, asked: Asked, data: bytes) -> str:
    """Returns what lies within rounding before or at the byte after `data`; empty if nothing does."""
    output = model(torch.tensor([[SEPARATOR, *asked.prompt, *data]]))
    threshold = float(model.scratchpad_threshold_nats)
    scores = model.trigger_scores(output)[0]
    nearest = float((scores - threshold).abs().min())
    if nearest < MARGIN:
        return f"a score lies {nearest:.1e} nats from the threshold"
    logits = output.logits[0, -1:]
    if asked.temperature == 0:
        first, second = logits[0].topk(2).values.tolist()
        return f"two logits differ by {first - second:.1e}" if first - second < MARGIN else ""
    probabilities = filtered_logits(logits, [Sampling(temperature=asked.temperature)]).softmax(-1)[0]
    draw = Draws(asked.seed)[len(data)]
    distance = float((probabilities.cumsum(-1) - draw).abs().min())
    return f"a draw lies {distance:.1e} from another byte" if distance < MARGIN else ""


def unexplained(checked: list[Checked]) -> int:
    """Returns how many streams differ for no reason that is known."""
    return sum(not one.is_equal and not one.explanation for one in checked)


__all__ = ["MARGIN", "Checked", "check", "explain", "unexplained"]
