"""Parts of a model in training: which parameters are whose, and which stay as they are."""

from collections.abc import Iterable

from torch import nn

from patchpad.model.language_model import LanguageModel


def part_of(parameter_name: str) -> str:
    """Returns the part that a parameter of a model belongs to: for a patch model one of `PARTS`."""
    return parameter_name.partition(".")[0]


def freeze(model: LanguageModel, parts: Iterable[str]) -> None:
    """Leaves parts out of training: they get no gradient, and no backward pass where nothing before them learns."""
    for part in parts:
        model.get_submodule(part).requires_grad_(False)


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters that are not frozen, by their names."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
