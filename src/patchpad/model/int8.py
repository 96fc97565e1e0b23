"""Linear layers whose weights have 8 bits, for inference on a CPU.

At few rows a product takes as long as its weights are read from memory, so a quarter of the bytes is a quarter of the
time. Each output has a scale of its own: what its weights are multiplied by.

Activations are not rounded to 8 bits. A full pass and a step differ by the last bits of fp32, and where such a
difference meets a border of coarse rounding, it becomes a whole step of 1/127. So each activation is written as three
digits of 8 bits, which together are as exact as fp32. The digits are three rows of one product, for which the weights
are read once.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, Literal, get_args
from weakref import WeakValueDictionary

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor, nn

from patchpad.errors import ConfigError
from patchpad.model.language_model import LanguageModel
from patchpad.model.weights import Linear, PreciseLinear

Weights = Literal["fp32", "int8", "int8-all"]
"""How the weights of linear layers are kept."""
TRUNK_PARTS = ("trunk", "patch_pooling", "context_to_bytes")
"""Parts that compute once for each call of the trunk."""
NUM_DIGITS = {127: 3, 63: 4}
"""Digits of an activation, by the largest one."""
LARGEST_WEIGHT = 127
LEAST_SCALE = 1e-30
"""Stands for the scale of a row of zeros."""

_LAYERS: "WeakValueDictionary[int, PackedWeights]" = WeakValueDictionary()
"""Weights by the number that stands for them in compiled code."""
_NUMBERS = itertools.count()
_LIBRARY = torch.library.Library("patchpad", "FRAGMENT")
_LIBRARY.define("int8_products(Tensor digits, int layer, int outputs, int zero) -> Tensor")


class PackedWeights:
    """Int8 weights in the order in which oneDNN reads them."""

    def __init__(self, weight: Int8[Tensor, "output input"], scales: Float[Tensor, " output"]) -> None:
        self.packed = torch.ops.onednn.qlinear_prepack(weight, None)
        self.scales = scales
        self.zeros = torch.zeros(len(scales), dtype=torch.int32)
        self.number = next(_NUMBERS)
        _LAYERS[self.number] = self

    def products(self, digits: UInt8[Tensor, "row input"], zero: int) -> Float[Tensor, "row output"]:
        """Multiplies digits, of which `zero` stands for 0, with the weights."""
        options = (None, 1.0, 0, torch.float32, "none", [], "")
        return torch.ops.onednn.qlinear_pointwise(digits, 1.0, zero, self.packed, self.scales, self.zeros, *options)

    def dense(self) -> Int8[Tensor, "output input"]:
        """Returns the weights as they were given."""
        return self.packed.to_dense().t().contiguous()


@torch.library.impl(_LIBRARY, "int8_products", "CPU")
def _products_of_layer(digits: Tensor, layer: int, outputs: int, zero: int) -> Tensor:
    return _LAYERS[layer].products(digits, zero)


@torch.library.register_fake("patchpad::int8_products", lib=_LIBRARY)
def _fake_products(digits: Tensor, layer: int, outputs: int, zero: int) -> Tensor:
    return digits.new_empty((digits.shape[0], outputs), dtype=torch.float32)


class Int8Linear(nn.Module):
    """A linear layer without bias that was quantised. It is for inference.

    Args:
        weight: in fp32, [output, input].
        largest_digit: 127, or 63 on a processor that adds up products of larger ones wrongly.
    """

    def __init__(self, weight: Float[Tensor, "output input"], largest_digit: int | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.largest_digit = _largest_digit() if largest_digit is None else largest_digit
        with torch.no_grad():
            scales = (weight.float().abs().amax(dim=1) / LARGEST_WEIGHT).clamp_min(LEAST_SCALE)
            rounded = (weight.float() / scales[:, None]).round().to(torch.int8)
        self._take(rounded, scales)

    def _take(self, weight: Int8[Tensor, "output input"], scales: Float[Tensor, " output"]) -> None:
        self.weights = PackedWeights(weight, scales)
        self.layer = self.weights.number

    @property
    def num_weights(self) -> int:
        """Weights of the layer."""
        return self.out_features * self.in_features

    def dequantised(self) -> Float[Tensor, "output input"]:
        """Returns the weights that the layer multiplies with, in fp32."""
        return self.weights.dense() * self.weights.scales[:, None]

    def forward(self, input: Float[Tensor, "*where input"]) -> Float[Tensor, "*where output"]:
        """Applies the layer."""
        rows = input.reshape(-1, self.in_features).float()
        largest, base = self.largest_digit, 2 * self.largest_digit
        scale = torch.linalg.vector_norm(rows, torch.inf, dim=1, keepdim=True).clamp_min(LEAST_SCALE)
        rest = rows * (largest / scale)
        digits = []
        for _ in range(NUM_DIGITS[largest] - 1):
            digits.append(rest.round())
            rest = (rest - digits[-1]) * base
        stacked = torch.cat((*digits, rest)) + (largest + 1.5)  # cutting off its fraction then rounds the last digit
        products = self._products(stacked.to(torch.uint8), largest + 1)
        *others, total = products.view(NUM_DIGITS[largest], -1, self.out_features).unbind()
        for product in reversed(others):
            total = torch.add(product, total, alpha=1 / base)
        return (total * (scale / largest)).view(*input.shape[:-1], self.out_features).to(input.dtype)

    def _products(self, digits: UInt8[Tensor, "row input"], zero: int) -> Float[Tensor, "row output"]:
        if torch.compiler.is_compiling():
            return torch.ops.patchpad.int8_products(digits, self.layer, self.out_features, zero)
        return self.weights.products(digits, zero)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "Int8Linear":
        return self  # scales stay in fp32, and `LanguageModel` refuses other devices

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[prefix + "int8_weight"] = self.weights.dense()
        destination[prefix + "scales"] = self.weights.scales

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles hold the weights themselves; what oneDNN has made of them belongs to this process."""
        state = self.__dict__.copy()
        state["weights"] = (self.weights.dense(), self.weights.scales)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.largest_digit = _largest_digit()
        self._take(*state["weights"])

    def extra_repr(self) -> str:
        """Returns the sizes."""
        return f"in_features={self.in_features}, out_features={self.out_features}, weights=int8"


def use_int8(model: LanguageModel, weights: Weights = "int8") -> LanguageModel:
    """Replaces linear layers of a model by quantised ones, in place, and frees their fp32 weights.

    Embeddings, norms, LM heads, the router of `hnet` and the output head of a converted model stay in fp32.

    Args:
        model: on the CPU.
        weights: `int8` for the trunk with what goes into and out of it, which leaves entropies, and so all decisions
            where patches end and scratchpads fire, as they are; `int8-all` for the local parts too. `fp32` changes
            nothing.

    Returns:
        The model, in eval mode.

    Raises:
        ConfigError: another value, a model on another device, or int8 products that are missing or wrong here.
    """
    check_weights(weights, model.device)
    if weights == "fp32":
        return model
    model.requires_grad_(False)
    model.eval()
    for name, part in list(model.named_modules()):
        for child_name, child in list(part.named_children()):
            path = f"{name}.{child_name}" if name else child_name
            if not isinstance(child, Linear) or isinstance(child, PreciseLinear):
                continue
            if weights == "int8-all" or path.split(".")[0] in TRUNK_PARTS:
                setattr(part, child_name, Int8Linear(child.weight).eval())
    model.weights = weights
    return model


def check_weights(weights: str, device: torch.device) -> None:
    """Checks whether weights can be kept so on a device.

    Raises:
        ConfigError: an unknown kind of weights, or one that this device, processor or torch cannot multiply with.
    """
    if weights not in get_args(Weights):
        raise ConfigError(f"weights is {weights!r}; allowed: {', '.join(get_args(Weights))}")
    if weights == "fp32":
        return
    if device.type != "cpu":
        raise ConfigError(
            f"weights is {weights!r} with the device {device}; allowed there: fp32",
            hint="Leave the weights out, or use the device cpu.",
        )
    _largest_digit()


def num_parameters(module: nn.Module) -> int:
    """Returns how many parameters a module has. Int8 weights count too, although torch does not count them."""
    quantised = sum(part.num_weights for part in module.modules() if isinstance(part, Int8Linear))
    return sum(parameter.numel() for parameter in module.parameters()) + quantised


@functools.cache
def _largest_digit() -> int:
    """Returns the largest digit that this processor multiplies exactly.

    Processors without VNNI add two products of 8 bits in 16, where larger sums than 32,767 are cut off.

    Raises:
        ConfigError: none, or this torch lacks such products.
    """
    weight = torch.full((16, 64), LARGEST_WEIGHT, dtype=torch.int8)
    weight[1::2] = -LARGEST_WEIGHT
    try:
        layer = PackedWeights(weight, torch.ones(len(weight)))
        for largest in (127, 63):
            digits = torch.tensor([[largest], [-largest]]).expand(2, weight.shape[1])
            expected = (digits @ weight.long().t()).float()
            zero = largest + 1
            if torch.equal(layer.products((digits + zero).to(torch.uint8), zero), expected):
                return largest
        reason = "its products are wrong on this processor"
    except (AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
    raise ConfigError(
        f"int8 weights need oneDNN's int8 products, and this torch ({torch.__version__}) cannot serve: {reason}",
        hint="Use fp32 weights: leave --weights out.",
    )


__all__ = ["Int8Linear", "Weights", "check_weights", "num_parameters", "use_int8"]
