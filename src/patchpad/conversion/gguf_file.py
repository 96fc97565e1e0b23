"""A source that is a GGUF file, the format of llama.cpp, quantised or not.

The library `gguf` reads it, one tensor at a time; transformers is needed for its tokenizer alone.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchpad.conversion.licences import licence_beside
from patchpad.conversion.llama import LM_HEAD, Fields, LlamaConfig, one_line
from patchpad.conversion.source_files import Licence, SourceFiles
from patchpad.errors import ConversionError, MissingExtraError

ARCHITECTURE = "llama"
FREQUENCIES = "rope_freqs.weight"
"""Holds how single rotary frequencies are scaled, where they are."""
AGAIN = "Download or copy the file again."
BROKEN = (ValueError, IndexError, KeyError, OverflowError, TypeError, MemoryError)
"""What the library raises where a file is cut off or damaged."""
INSTALL = 'Install what is missing with: pip install "patchpad[convert]"'


class GgufFile(SourceFiles):
    """A GGUF file. It is mapped into memory, and dequantised where a tensor is asked for.

    Args:
        path: the file.

    Raises:
        ConversionError: it is damaged, not of the llama architecture, or quantised in a way that is not known.
        MissingExtraError: the library `gguf` is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            import gguf
        except ImportError as error:
            raise MissingExtraError(f"the library `gguf` is not installed; {path} needs it", hint=INSTALL) from error
        self._gguf = gguf
        try:
            reader = gguf.GGUFReader(path)
            values = {key: reader.fields[key].contents() for key in reader.fields if not key.startswith("tokenizer.")}
        except BROKEN as error:
            raise self._damaged(error) from error
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.config = config_of(values, self._tensors, str(path))
        self.name = one_line(values.get("general.name") or path.stem)
        named = values.get("general.license")
        self.licence = Licence(one_line(named), "general.license") if named else licence_beside(path.parent)
        self.weight_files = (path,)
        self._require_known_types()

    def _require_known_types(self) -> None:
        for name, tensor in self._tensors.items():
            try:
                self._gguf.dequantize(tensor.data[:1], tensor.tensor_type)
            except NotImplementedError as error:
                raise ConversionError(
                    f"{self.path}: `{name}` is quantised as {tensor.tensor_type.name}, which cannot be read",
                    hint="Take another file of the model: F32, F16, BF16, Q8_0, Q4_0, Q4_1 and Q4_K, say, can be read.",
                ) from error
            except BROKEN as error:
                raise self._damaged(error) from error

    @cached_property
    def _own_names(self) -> dict[str, str]:
        """Hugging Face's name of a tensor -> that in the file; what Hugging Face has no name for keeps its own."""
        names = self._gguf.get_tensor_name_map(self._gguf.MODEL_ARCH.LLAMA, self.config.num_hidden_layers)
        own = {name: names.get_name(name, try_suffixes=(".weight",)) for name in (*self.config.shapes(), LM_HEAD)}
        known = {name: own_name for name, own_name in own.items() if own_name in self._tensors}
        return known | {name: name for name in self._tensors.keys() - known.values()}

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Returns name -> shape; see `SourceFiles`."""
        return {name: _shape(self._tensors[own]) for name, own in self._own_names.items()}

    def read(self, name: str) -> Tensor:
        """Returns a tensor; see `SourceFiles`."""
        tensor = self._tensors[self._own_names[name]]
        try:
            values = self._gguf.dequantize(tensor.data, tensor.tensor_type)
            found = torch.from_numpy(np.array(values, dtype=np.float32).reshape(_shape(tensor)))
        except BROKEN as error:
            raise self._damaged(error) from error
        if name.endswith((".q_proj.weight", ".k_proj.weight")):
            return _half_split(found, found.shape[0] // self.config.head_dim)
        return found

    def tokenizer_json(self) -> str:
        """Returns the tokenizer; see `SourceFiles`."""
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise MissingExtraError("the library `transformers` is not installed", hint=INSTALL) from error
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(self.path.parent, gguf_file=self.path.name)
            return tokenizer.backend_tokenizer.to_str()
        except (*BROKEN, OSError, AttributeError, NotImplementedError) as error:
            raise ConversionError(
                f"cannot read the tokenizer of {self.path}: {' '.join(str(error).split())}",
                hint="Take the model's folder of Hugging Face, with its tokenizer.json.",
            ) from error

    def _damaged(self, error: Exception) -> ConversionError:
        return ConversionError(f"cannot read {self.path}: {' '.join(str(error).split())}", hint=AGAIN)


def config_of(values: Mapping[str, Any], tensors: Mapping[str, Any], place: str) -> LlamaConfig:
    """Reads the sizes in a GGUF file, and refuses what a trunk cannot be.

    Args:
        values: its keys, without those of the tokenizer.
        tensors: by their own names.
        place: its path, for messages.

    Raises:
        ConversionError: a field that does not fit, with its value and what is allowed.
    """
    fields = Fields(values, place)
    fields.require("general.architecture", (ARCHITECTURE,))
    if values.get("split.count") not in (None, 0, 1):
        raise fields.refuse(
            "split.count", values["split.count"], "a model in one file", "Join its parts with: gguf-split --merge"
        )
    fields.require("llama.expert_count", (0,), 0)
    fields.require("llama.rope.scaling.type", ("none",), "none")
    for name in ("llama.rope.scaling.factor", "llama.rope.scale_linear"):
        fields.require(name, (1, 0), 1)
    if FREQUENCIES in tensors:
        raise fields.refuse(FREQUENCIES, "there", "rotary frequencies that are not scaled one by one")
    dim, heads, kv_heads = fields.heads(
        "llama.embedding_length",
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        head_dims=("llama.rope.dimension_count", "llama.attention.key_length", "llama.attention.value_length"),
    )
    embedding = tensors.get("token_embd.weight")
    return LlamaConfig(
        vocab_size=fields.size("llama.vocab_size", None if embedding is None else _shape(embedding)[0]),
        hidden_size=dim,
        intermediate_size=fields.size("llama.feed_forward_length"),
        num_hidden_layers=fields.size("llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        rms_norm_eps=_decimal(fields.number("llama.attention.layer_norm_rms_epsilon", above=0.0)),
        rope_theta=_decimal(fields.number("llama.rope.freq_base", above=1.0, default=10000.0)),
        tie_word_embeddings="output.weight" not in tensors,
    )


def _decimal(value: float) -> float:
    """Returns the shortest decimal number that is the same in fp32, as the file keeps it: 1e-5, not 9.99999975e-6."""
    return float(str(np.float32(value)))


def _shape(tensor: Any) -> tuple[int, ...]:
    """Returns the shape as torch has it; the file names the innermost axis first."""
    return tuple(int(size) for size in reversed(tensor.shape))


def _half_split(weights: Tensor, heads: int) -> Tensor:
    """Puts rotary features that turn together half a head apart; in the file they are neighbours."""
    return weights.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(weights.shape)
