"""What a server says about its model, read once when it starts."""

import math
from typing import Any

from patchpad.cost import cost
from patchpad.files import without_infinities
from patchpad.inference.generator import threshold_from_dials
from patchpad.model.int8 import num_parameters
from patchpad.model.language_model import LanguageModel
from patchpad.serving.settings import Settings
from patchpad.serving.token_text import TokenNames

CHAT_NOTE = (
    "This model continues text and was not trained to chat. Messages are written one after another, each with its "
    "role's name, and the model continues."
)


class ModelCard:
    """Facts about a model that answers need; nothing here asks the device again.

    Args:
        model: a loaded model.
        settings: give the name, the limits and the threshold of requests that do not say.

    Raises:
        GenerationError: a default that the model cannot serve.
        InputError: the same.
    """

    def __init__(self, model: LanguageModel, settings: Settings) -> None:
        self.model = model
        self.settings = settings
        self.stored_threshold = float(model.scratchpad_threshold_nats)
        self.token_names = TokenNames(model)
        self.cache_bytes_per_patch = _cache_bytes_per_patch(model)
        self.num_parameters = num_parameters(model)
        self.default_threshold = self.stored_threshold
        self.default_threshold = self.threshold(settings.scratchpad_threshold_nats, settings.compute)

    def threshold(self, scratchpad_threshold_nats: int | float | None, compute: int | float | None) -> float:
        """Returns the threshold that a request means.

        Raises:
            GenerationError: both dials at once, or a compute that the model cannot serve.
            InputError: a number of nats for a trigger that takes none.
        """
        threshold = threshold_from_dials(self.model, scratchpad_threshold_nats, compute)
        if threshold is None:
            return self.default_threshold
        if math.isfinite(threshold) and not self.model.takes_threshold_in_nats:
            raise self.model.threshold_refusal()
        return threshold

    def to_dict(self) -> dict[str, Any]:
        """Returns the extra key `patchpad` of /v1/models."""
        config, settings = self.model.config, self.settings
        calibration = self.model.calibration
        return without_infinities(
            {
                "kind": config.kind,
                "patchifier": config.patchifier.kind,
                "target_patch_size": config.patchifier.target_patch_size,
                "trigger": config.trigger.kind,
                "has_scratchpads": self.model.has_scratchpads,
                "takes_threshold_in_nats": self.model.takes_threshold_in_nats,
                "scratchpad_threshold_nats": self.stored_threshold,
                "default_scratchpad_threshold_nats": self.default_threshold,
                "calibration": None
                if calibration is None
                else [
                    {
                        "compute": row["trunk_calls_per_byte"],
                        "scratchpad_threshold_nats": row["scratchpad_threshold_nats"],
                        "bits_per_byte": row["bits_per_byte"],
                    }
                    for row in calibration.rows
                ],
                "most_compute": None if calibration is None else calibration.most_compute,
                "trunk_cache_bytes_per_patch": self.cache_bytes_per_patch,
                "context_bytes": config.context_bytes,
                "num_parameters": self.num_parameters,
                "limits": {
                    "max_tokens": settings.max_new_bytes,
                    "prompt_bytes": settings.max_prompt_bytes,
                    "rows": settings.max_rows,
                },
                "is_chat_model": False,
                "note": CHAT_NOTE,
            }
        )


def _cache_bytes_per_patch(model: LanguageModel) -> int:
    """Returns bytes of keys and values that one entry of the trunk's cache takes."""
    is_half = model.device.type == "cuda" and model.config.kind == "patch"
    rate = 1 / 16
    costs = cost(
        model.config,
        context_bytes=model.config.context_bytes,
        patches_per_byte=rate,
        scratchpads_per_byte=0.0,
        dtype="bfloat16" if is_half else "float32",
    )
    return round(costs.trunk_cache_bytes_per_byte / rate)
