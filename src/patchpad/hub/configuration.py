"""`PatchpadConfig`: a run's configuration and calibration in the `config.json` of transformers."""

from typing import Any, no_type_check

from patchpad.config import PADDING, SEPARATOR, Config
from patchpad.hub.exported import AUTO_MAP, MODEL_TYPE, Described, described
from patchpad.hub.library import AutoConfig, PreTrainedConfig

HUB_VOCAB_SIZE = PADDING + 1
"""Ids of the tokenizer and columns of the logits: 256 bytes, the separator and padding."""


@no_type_check  # transformers lets its constructor take any key, and checks the types itself
class PatchpadConfig(PreTrainedConfig):
    """Configuration of an exported model. What stands in `patchpad` decides; sizes beside it are for other tools."""

    model_type = MODEL_TYPE
    keys_to_ignore_at_inference = ["cache", "past_key_values"]  # noqa: RUF012  (theirs, which adds lists to it)
    has_no_defaults_at_init = True

    patchpad: dict[str, Any] | None = None
    """The resolved configuration of the run; None for the defaults."""
    calibration: dict[str, Any] | None = None
    """The calibration table, if there is one: what `calibration.json` of a run holds."""
    calibrated_weights_sha256: str | None = None
    """Checksum of the weights that the calibration was measured with."""
    patchpad_version: str | None = None
    """Of the package that wrote the folder."""
    auto_map: dict[str, Any] | None = None
    vocab_size: int = HUB_VOCAB_SIZE
    hidden_size: int = 0
    num_hidden_layers: int = 0
    num_attention_heads: int = 0
    max_position_embeddings: int = 0
    bos_token_id: int = SEPARATOR
    eos_token_id: int = SEPARATOR
    pad_token_id: int = PADDING
    use_cache: bool = True
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Checks the configuration, and sets what follows from it.

        Raises:
            CheckpointError: it is of another version of patchpad.
        """
        if self.patchpad is None:
            self.patchpad = Config().to_dict()
        model = self.described().config.model
        self.auto_map = dict(AUTO_MAP)
        self.vocab_size = HUB_VOCAB_SIZE
        self.hidden_size = model.trunk_dim
        self.num_hidden_layers = model.trunk_layers
        self.num_attention_heads = model.trunk_heads
        self.max_position_embeddings = model.context_bytes
        super().__post_init__(**kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Does nothing: the class is in a package, so no code of it is copied into folders."""

    def described(self) -> Described:
        """Returns what it says about the model, checked."""
        values = {
            "model_type": self.model_type,
            "patchpad": self.patchpad,
            "calibration": self.calibration,
            "calibrated_weights_sha256": self.calibrated_weights_sha256,
        }
        return described(values, "config.json")


AutoConfig.register(MODEL_TYPE, PatchpadConfig, exist_ok=True)

__all__ = ["HUB_VOCAB_SIZE", "PatchpadConfig"]
