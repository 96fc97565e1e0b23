"""A source that is a folder of Hugging Face: `config.json` and safetensors, in one file or several."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from patchpad.config.reading import parse_json
from patchpad.conversion.licences import licence_beside
from patchpad.conversion.llama import Fields, LlamaConfig
from patchpad.conversion.source_files import SourceFiles
from patchpad.errors import ConversionError

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
INDEX = "model.safetensors.index.json"
TYPES = ("F32", "F16", "BF16", "F64")
AGAIN = "Download or copy the model again."
BUFFER = ".rotary_emb.inv_freq"
"""Ends the name of what old versions of transformers saved beside the weights; it follows from the configuration."""


class HuggingFaceFolder(SourceFiles):
    """A folder of Hugging Face. Only headers are read until a tensor is asked for.

    Args:
        folder: the folder.

    Raises:
        ConversionError: it is not one, is not of the llama architecture, or its files are damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / CONFIG).is_file():
            raise ConversionError(
                f"{folder} has no {CONFIG}", hint="Give a folder of Hugging Face with its safetensors, or a .gguf file."
            )
        self.config = config_of(_read_json(folder / CONFIG), str(folder / CONFIG))
        self.name = folder.resolve().name
        self.licence = licence_beside(folder)
        self.weight_files = tuple(folder / name for name in _weight_names(folder))

    @cached_property
    def _homes(self) -> dict[str, tuple[Path, tuple[int, ...]]]:
        """Name of a tensor -> its file and its shape."""
        homes: dict[str, tuple[Path, tuple[int, ...]]] = {}
        for path in self.weight_files:
            try:
                with safe_open(path, framework="pt") as file:
                    for name in file.keys():  # noqa: SIM118  (it is not a mapping)
                        part = file.get_slice(name)
                        if name.endswith(BUFFER):
                            continue
                        if part.get_dtype() not in TYPES:
                            raise ConversionError(
                                f"{path}: `{name}` has the type {part.get_dtype()}; allowed: {', '.join(TYPES)}",
                                hint="Quantised safetensors are not read: take the weights that they were made of.",
                            )
                        homes[name] = path, tuple(part.get_shape())
            except (SafetensorError, OSError) as error:
                raise _unreadable(path, error) from error
        return homes

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Returns name -> shape; see `SourceFiles`."""
        return {name: shape for name, (_, shape) in self._homes.items()}

    def read(self, name: str) -> Tensor:
        """Returns a tensor; see `SourceFiles`."""
        path, _ = self._homes[name]
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(name).float()
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from error

    def tokenizer_json(self) -> str:
        """Returns the tokenizer; see `SourceFiles`."""
        try:
            return (self.folder / TOKENIZER).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConversionError(
                f"cannot read the tokenizer {self.folder / TOKENIZER}: {error}",
                hint="Save it there with `save_pretrained` of the model's tokenizer.",
            ) from error


def config_of(values: Mapping[str, Any], place: str) -> LlamaConfig:
    """Reads the sizes in a `config.json`, and refuses what a trunk cannot be.

    Args:
        values: what the file holds.
        place: its path, for messages.

    Raises:
        ConversionError: a field that does not fit, with its value and what is allowed.
    """
    fields = Fields(values, place)
    fields.require("model_type", ("llama",))
    fields.require("quantization_config", (None,))
    fields.require("attention_bias", (False,), False)
    fields.require("mlp_bias", (False,), False)
    fields.require("hidden_act", ("silu", "swish"), "silu")
    dim, heads, kv_heads = fields.heads(
        "hidden_size", "num_attention_heads", "num_key_value_heads", head_dims=("head_dim",)
    )
    return LlamaConfig(
        vocab_size=fields.size("vocab_size"),
        hidden_size=dim,
        intermediate_size=fields.size("intermediate_size"),
        num_hidden_layers=fields.size("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        rms_norm_eps=fields.number("rms_norm_eps", above=0.0, default=1e-6),
        rope_theta=_rope_theta(fields),
        tie_word_embeddings=values.get("tie_word_embeddings") is True,
    )


def _rope_theta(fields: Fields) -> float:
    """Returns the rotary base, which newer versions of transformers put into a section. Refuses scaled positions."""
    theta = fields.values.get("rope_theta")
    for section in ("rope_scaling", "rope_parameters"):
        inside = fields.values.get(section)
        if inside is None:
            continue
        if not isinstance(inside, dict):
            raise fields.refuse(section, inside, "a section, or null")
        rope = Fields({f"{section}.{name}": value for name, value in inside.items()}, fields.place)
        for name in ("rope_type", "type"):
            rope.require(f"{section}.{name}", ("default",), "default")
        rope.require(f"{section}.partial_rotary_factor", (1,), 1)
        theta = inside.get("rope_theta", theta)
    return Fields({"rope_theta": theta}, fields.place).number("rope_theta", above=1.0, default=10000.0)


def _weight_names(folder: Path) -> list[str]:
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    if not (folder / INDEX).is_file():
        hint = "Save it with `save_pretrained` of transformers, which writes safetensors."
        if any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
            hint += " Pickled weights are not read: they could run any code."
        raise ConversionError(f"{folder} has neither {WEIGHTS} nor {INDEX}", hint=hint)
    names = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or any(Path(str(name)).name != name for name in names.values()):
        raise ConversionError(f"{folder / INDEX} does not name the files of the weights", hint=AGAIN)
    files = sorted(set(names.values()))
    for name in files:
        if not (folder / name).is_file():
            raise ConversionError(f"{folder / name} is missing; {INDEX} names it", hint=AGAIN)
    return files


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, dict):
        raise ConversionError(f"{path} is not a JSON object", hint=AGAIN)
    return content


def _unreadable(path: Path, error: Exception) -> ConversionError:
    return ConversionError(f"cannot read {path}: {' '.join(str(error).split())}", hint=AGAIN)
