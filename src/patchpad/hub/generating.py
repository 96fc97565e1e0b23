"""`generate` of transformers with our dials, our caches and stop strings of bytes."""

import logging
from typing import Any

from torch import Tensor

from patchpad.errors import GenerationError, InputError
from patchpad.hub.library import GenerationMixin, StoppingCriteriaList
from patchpad.hub.row_cache import RowCache
from patchpad.hub.saving import weights_sha256
from patchpad.hub.stop_strings import EndsWithBytes
from patchpad.inference.generator import threshold_from_dials
from patchpad.model.language_model import LanguageModel
from patchpad.patching import ThresholdLike, threshold_values

logger = logging.getLogger(__name__)

DIALS = ("scratchpad_threshold_nats", "compute")
"""Arguments of `forward` and `generate`, and keys of a generation configuration, that set how much the trunk works."""


class PatchpadGenerationMixin(GenerationMixin):
    """What a model of patchpad changes about `generate`. Its name ends as transformers wants it."""

    model: LanguageModel
    generation_config: Any
    _calibrated_sha256: str | None
    _is_calibration_checked: bool

    def _threshold(self, nats: ThresholdLike, compute: float | None) -> ThresholdLike:
        """Returns the threshold that the dials mean; None for the stored one."""
        if compute is None:
            return nats
        self._check_calibration()
        return threshold_from_dials(self.model, nats, compute)  # pyrefly: ignore  # it looks at numbers alone

    def _check_calibration(self) -> None:
        """Warns, once, where the weights are not those that the calibration was measured with."""
        if self._is_calibration_checked or self.model.calibration is None or self._calibrated_sha256 is None:
            return
        self._is_calibration_checked = True
        if weights_sha256(self.model.state_dict()) != self._calibrated_sha256:
            logger.warning(
                "the weights are not those that the calibration was measured with, so `compute` is only about right; "
                "`patchpad import` and `patchpad calibrate` measure it again"
            )

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """Leaves the cache to the model: what `forward` returns is handed back as it is."""
        return False

    def _reorder_cache(self, cache: RowCache, beam_idx: Tensor) -> RowCache:
        """Gives each beam the state of the one that it goes on from."""
        cache.reorder_cache(beam_idx)
        return cache

    def generate(self, inputs: Tensor | None = None, generation_config: Any = None, **kwargs: Any) -> Any:
        """Generates as transformers does, with two dials more.

        Args:
            inputs: ids; see transformers.
            generation_config: its keys `scratchpad_threshold_nats` and `compute` count too; without it, those of the
                model's own.
            kwargs: `scratchpad_threshold_nats` (a number, or one for each prompt) or `compute`, and what
                transformers takes.

        Raises:
            GenerationError: a dial that the model cannot serve, or guidance.
        """
        dials = {name: kwargs.pop(name) for name in DIALS if name in kwargs}
        for config in (generation_config, self.generation_config):
            if not any(value is not None for value in dials.values()):
                dials = {name: getattr(config, name, None) for name in DIALS}
        guidance = kwargs.get(
            "guidance_scale", getattr(generation_config or self.generation_config, "guidance_scale", None)
        )
        if guidance not in (None, 1, 1.0):
            raise GenerationError(
                f"guidance_scale is {guidance}; allowed: 1, since an unguided pass would not have the dials",
                hint="Leave it out.",
            )
        threshold = self._threshold(_number(dials.get("scratchpad_threshold_nats")), dials.get("compute"))
        if threshold is not None:
            values = threshold_values(threshold)  # a tensor is repeated for beams, a number cannot be
            kwargs["row_thresholds"] = float(values) if values.dim() == 0 else values.float()
        return super().generate(inputs, generation_config, **kwargs)

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        """Refuses: there, transformers hands out places in caches of its own.

        Raises:
            GenerationError: always.
        """
        raise GenerationError(
            "continuous batching (`generate_batch`, `cache_implementation='paged'`) needs caches of transformers' own",
            hint="`patchpad serve` batches requests that come and go; `generate` takes a batch at once.",
        )

    def prepare_inputs_for_generation(self, *args: Any, row_thresholds: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Adds the thresholds that `generate` was given to the arguments of `forward`."""
        for name in ("tokenizer", "assistant_tokenizer"):  # which transformers leaves among the model's arguments
            kwargs.pop(name, None)
        prepared = super().prepare_inputs_for_generation(*args, **kwargs)
        return prepared if row_thresholds is None else {**prepared, "scratchpad_threshold_nats": row_thresholds}

    def _get_stopping_criteria(self, generation_config: Any, *args: Any, **kwargs: Any) -> StoppingCriteriaList:
        """Finds stop strings by their bytes; transformers would look at each byte as a character."""
        stop_strings, generation_config.stop_strings = generation_config.stop_strings, None
        try:
            criteria = super()._get_stopping_criteria(generation_config, *args, **kwargs)  # pyrefly: ignore
        finally:
            generation_config.stop_strings = stop_strings
        if stop_strings is not None:
            criteria.append(EndsWithBytes(stop_strings))
        return criteria


def _number(value: Any) -> Any:
    """Returns a threshold that JSON had to write as text ("inf") as a number; others as they are.

    Raises:
        InputError: a text that is not a number.
    """
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError as error:
        raise InputError(f"scratchpad_threshold_nats is {value!r}; allowed: a number of nats, inf or -inf") from error


__all__ = ["DIALS", "PatchpadGenerationMixin"]
