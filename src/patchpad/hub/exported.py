"""The files of an exported folder, and what `config.json` holds of patchpad. Needs neither torch nor transformers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from patchpad.calibration_table import Calibration
from patchpad.config import Config
from patchpad.errors import CheckpointError, ConfigError, MissingPluginError

MODEL_TYPE = "patchpad"
CONFIG, MODEL, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER_CONFIG, CARD = "tokenizer_config.json", "README.md"
DIGESTS = "patchpad_files.json"
"""SHA-256 of the configuration and of the weights, as they were when the folder was saved."""
WEIGHTS_PREFIX = "model."
"""What the names of the weights begin with in such a folder."""
AUTO_MAP = {
    "AutoConfig": "configuration_patchpad.PatchpadConfig",
    "AutoModelForCausalLM": "modeling_patchpad.PatchpadForCausalLM",
}
TOKENIZER_AUTO_MAP = {"AutoTokenizer": ["tokenization_patchpad.PatchpadTokenizer", None]}
REMOTE_CODE = ("configuration_patchpad.py", "modeling_patchpad.py", "tokenization_patchpad.py")
"""Files that transformers runs under `trust_remote_code=True`; they import the classes from this package."""


@dataclass(frozen=True)
class Described:
    """What `config.json` says about a model."""

    config: Config
    calibration: Calibration | None
    calibrated_sha256: str | None
    """Of the weights that the calibration was measured with; see `weights_sha256`."""


def described(values: Mapping[str, Any], source: str) -> Described:
    """Reads the keys of patchpad in a `config.json` of transformers.

    Args:
        values: of the whole file.
        source: where it is, for messages.

    Raises:
        CheckpointError: it is not of a patchpad model, or of another version of patchpad.
        MissingPluginError: it was trained with a plug-in that is not loaded.
    """
    config = values.get("patchpad")
    if values.get("model_type") != MODEL_TYPE or not isinstance(config, dict):
        raise CheckpointError(
            f"{source} is not of a patchpad model: its model_type is {values.get('model_type')!r}; allowed: "
            f"{MODEL_TYPE!r}, with a key `patchpad`",
            hint="Give a folder that `patchpad export` or its model's `save_pretrained` wrote.",
        )
    try:
        checked = Config.from_dict(config, source=f"{source}, key `patchpad`")
    except MissingPluginError:
        raise
    except ConfigError as error:
        raise CheckpointError(
            f"{source} is of another version of patchpad: {error.message}",
            hint=error.hint or "Load it with the version that wrote it; the key `patchpad_version` names it.",
        ) from error
    table = values.get("calibration")
    calibration = None if table is None else Calibration.from_dict(table, source=f"{source}, key `calibration`")
    return Described(checked, calibration, values.get("calibrated_weights_sha256"))
