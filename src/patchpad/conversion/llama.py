"""What is used of a model of the llama architecture: its sizes, and the names and shapes of its tensors. Torch-free."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from patchpad.errors import ConversionError

EMBEDDING, LAST_NORM, LM_HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
MOST_CHARACTERS = 60
"""Of a value in a message."""
ONLY_LLAMA = "Only models of the llama architecture can become a trunk."


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """Sizes of a source, by the names that Hugging Face gives them."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool
    """Whether the LM head is the token embedding."""

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden_size // self.num_attention_heads

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns name -> shape of every tensor that the source has; a tied LM head is not one of its own."""
        dim, ffn_dim, kv_dim = self.hidden_size, self.intermediate_size, self.head_dim * self.num_key_value_heads
        shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (self.vocab_size, dim), LAST_NORM: (dim,)}
        if not self.tie_word_embeddings:
            shapes[LM_HEAD] = (self.vocab_size, dim)
        of_layer = {
            "input_layernorm": (dim,),
            "self_attn.q_proj": (dim, dim),
            "self_attn.k_proj": (kv_dim, dim),
            "self_attn.v_proj": (kv_dim, dim),
            "self_attn.o_proj": (dim, dim),
            "post_attention_layernorm": (dim,),
            "mlp.gate_proj": (ffn_dim, dim),
            "mlp.up_proj": (ffn_dim, dim),
            "mlp.down_proj": (dim, ffn_dim),
        }
        for layer in range(self.num_hidden_layers):
            shapes |= {layer_tensor(layer, name): shape for name, shape in of_layer.items()}
        return shapes


def layer_tensor(layer: int, name: str) -> str:
    """Returns the whole name of a layer's tensor, such as `self_attn.q_proj`."""
    return f"model.layers.{layer}.{name}.weight"


class Fields:
    """Fields of a source's own description, read one by one; what does not fit is an error that names the field.

    Args:
        values: by the source's own names.
        place: where they stand, for messages.
    """

    def __init__(self, values: Mapping[str, Any], place: str) -> None:
        self.values = values
        self.place = place

    def refuse(self, name: str, value: Any, allowed: str, hint: str = ONLY_LLAMA) -> ConversionError:
        """Returns the error for a value."""
        return ConversionError(f"{self.place}: {name} is {value}; allowed: {allowed}", hint=hint)

    def require(self, name: str, allowed: tuple[Any, ...], default: Any = None) -> None:
        """Requires that a field has one of some values, the default counting where it is missing or null.

        Raises:
            ConversionError: it has another.
        """
        value = self.values.get(name)
        value = default if value is None else value
        if value not in allowed:
            raise self.refuse(name, _shown(value), _shown(allowed[0]) if allowed[0] is not None else "none")

    def size(self, name: str, default: int | None = None) -> int:
        """Returns an integer of at least 1.

        Raises:
            ConversionError: it is missing without a default, or is something else.
        """
        value = self._value(name, default)
        if type(value) is not int or value < 1:
            raise self.refuse(name, _shown(value), "an integer of at least 1")
        return value

    def number(self, name: str, *, above: float, default: float | None = None) -> float:
        """Returns a finite number above a bound.

        Raises:
            ConversionError: it is missing without a default, or is something else.
        """
        value = self._value(name, default)
        if type(value) not in (int, float) or not above < value < math.inf:
            raise self.refuse(name, _shown(value), f"a number above {above:g}")
        return float(value)

    def _value(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        if value is None and default is None:
            raise ConversionError(f"{self.place} has no {name}", hint=ONLY_LLAMA)
        return default if value is None else value

    def heads(self, dim: str, heads: str, kv_heads: str, head_dims: tuple[str, ...]) -> tuple[int, int, int]:
        """Returns width, query heads and key-value heads, which have to divide each other as in a trunk.

        Args:
            dim: name of the field of the width.
            heads: of that of the query heads.
            kv_heads: of that of the key-value heads.
            head_dims: of those of a head's width, each of which may be missing.

        Raises:
            ConversionError: they do not fit each other.
        """
        width, num_heads = self.size(dim), self.size(heads)
        num_kv_heads = self.size(kv_heads, num_heads)
        if width % (2 * num_heads):
            raise self.refuse(dim, width, f"a multiple of 2 x {heads}, which is {2 * num_heads}")
        if num_heads % num_kv_heads:
            raise self.refuse(kv_heads, num_kv_heads, f"a number that divides {heads}, which is {num_heads}")
        for name in head_dims:
            if self.size(name, width // num_heads) != width // num_heads:
                raise self.refuse(name, self.values[name], f"{dim} / {heads}, which is {width // num_heads}")
        return width, num_heads, num_kv_heads


def one_line(value: Any) -> str:
    """Returns a name that a source gives itself or its licence as one line of a bounded length."""
    return shorten(str(value), 4 * MOST_CHARACTERS, placeholder=" ...")


def _shown(value: Any) -> str:
    """Returns a value as JSON files write it, cut short where it is long."""
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return str(value).lower()
    return shorten(str(value), MOST_CHARACTERS, placeholder=" ...")
