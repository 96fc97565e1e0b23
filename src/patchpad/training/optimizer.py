"""AdamW, and its state as named tensors."""

from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from patchpad.config import TrainConfig
from patchpad.model.compilation import choose_cache
from patchpad.training.parts import part_of, trained_parameters
from patchpad.training.tensor_folders import load_tensors


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Returns AdamW that decays parameters of two or more dimensions, and no norms or single vectors.

    Those are the matrices of linear layers, embeddings, and one bias: that of patch pooling, [head, distance]. Frozen
    parameters are left out, and cost no memory for moments.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained_parameters(model).items():
        decay = config.weight_decay if parameter.dim() >= 2 else 0.0
        ratio = config.learning_rate_ratios.get(part_of(name), 1.0)
        groups.setdefault((decay, ratio), []).append(parameter)
    choose_cache()
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "learning_rate_ratio": ratio}
            for (decay, ratio), parameters in groups.items()
        ],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the next step's learning rate, of which each group takes its own ratio."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["learning_rate_ratio"]


def update_if(optimizer: torch.optim.AdamW, condition: Bool[Tensor, ""]) -> None:
    """Lets the next step change nothing, neither weights nor moments, if a condition on the device is false."""
    optimizer.found_inf = (~condition).float()  # pyrefly: ignore  # fused AdamW looks for it


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Returns the optimizer's own state as `<parameter name>/<state name>` -> tensor, sharded as the parameters are."""
    return {
        f"{name}/{key}": value.detach()
        for name, parameter in trained_parameters(model).items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Reads the state of an optimizer that has not stepped yet. Weights keep their values, but not the sign of a zero.

    Args:
        folder: of `optimizer_tensors`, saved by any number of ranks.
        model: whose parameters it trains; may be sharded.
        optimizer: of this run.

    Raises:
        CheckpointError: it does not fit the model, or cannot be read.
    """
    set_learning_rate(optimizer, 0.0)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # makes the state
    optimizer.zero_grad(set_to_none=True)
    load_tensors(folder, optimizer_tensors(model, optimizer))
