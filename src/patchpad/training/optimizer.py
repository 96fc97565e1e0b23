"""AdamW, and its state as plain tensors for safetensors."""

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from patchpad.config import TrainConfig
from patchpad.errors import CheckpointError
from patchpad.model.compilation import leave_unwritable_cache
from patchpad.training.parts import part_of, trained_parameters


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
    leave_unwritable_cache()
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
    """Returns the optimizer's state as `<parameter name>/<state name>` -> tensor."""
    return {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, parameter in trained_parameters(model).items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restores what `optimizer_tensors` returned.

    Raises:
        CheckpointError: a tensor that belongs to no parameter, or a parameter without state.
    """
    states: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        parameter_name, _, key = name.rpartition("/")
        states.setdefault(parameter_name, {})[key] = value
    parameters = trained_parameters(model)
    if tensors and states.keys() != parameters.keys():
        odd = sorted(states.keys() ^ parameters.keys())[0]
        raise CheckpointError(f"the optimizer's state does not fit the model: {odd}", hint="Use another checkpoint.")
    for name, state in states.items():
        parameter = parameters[name]
        device = parameter.device
        optimizer.state[parameter] = {key: value.to(device) for key, value in state.items()}
