"""AdamW, and its state as plain tensors for safetensors."""

import torch
from torch import Tensor, nn

from patchpad.config import TrainConfig
from patchpad.errors import CheckpointError


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Returns AdamW that decays matrices only: no norms, biases or single vectors."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Returns the optimizer's state as `<parameter name>/<state name>` -> tensor."""
    return {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
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
    parameters = dict(model.named_parameters())
    if tensors and states.keys() != parameters.keys():
        odd = sorted(states.keys() ^ parameters.keys())[0]
        raise CheckpointError(f"the optimizer's state does not fit the model: {odd}", hint="Use another checkpoint.")
    for name, state in states.items():
        parameter = parameters[name]
        device = parameter.device
        optimizer.state[parameter] = {key: value.to(device) for key, value in state.items()}
