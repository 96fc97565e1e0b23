"""Ranks that hold a part of each weight: torch's `fully_shard`, over all ranks or over groups of them."""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from patchpad.launcher import Place
from patchpad.model.block import Stack
from patchpad.model.build import build_model
from patchpad.model.language_model import LanguageModel
from patchpad.training.gradient_norms import tensor_norms
from patchpad.training.parallel import Ranks, RunPass

LOCAL_PARTS = ("local_encoder", "entropy_head", "local_decoder")
"""Their stacks are thin: each is put together as a whole. All other stacks are, block by block."""
FORWARD_METHODS = ("predict_targets", "predict_targets_without_trunk", "boundary_probabilities")
"""What is called of a model in training and evaluation, beside its `forward`."""


class ShardedRanks(Ranks):
    """Ranks that hold a part of each weight, gradient and moment.

    Args:
        device: of this rank.
        place: of this rank.
        shard_ranks: ranks that hold one copy of the model together, neighbours; gradients are summed over copies too.
    """

    is_sharded = True

    def __init__(self, device: torch.device, place: Place, *, shard_ranks: int) -> None:
        super().__init__(device, place)
        self.mesh = init_device_mesh(
            device.type, (self.num_ranks // shard_ranks, shard_ranks), mesh_dim_names=("replicate", "shard")
        )

    def prepare(self, model: nn.Module, run_pass: RunPass) -> RunPass:
        """Shards the model; each part of it is put together when it is run, and taken apart after."""
        shard(model, self.mesh if self.mesh.size(0) > 1 else self.mesh["shard"])
        return run_pass

    def tensor_norms(self, gradients: Sequence[Tensor]) -> Float[Tensor, " tensors"]:
        """Returns the norm of each gradient, of which every rank of a copy holds a part."""
        parts = [gradient.to_local() for gradient in gradients]  # pyrefly: ignore  # they are DTensors
        squares = tensor_norms(parts).square()
        dist.all_reduce(squares, group=self.mesh.get_group("shard"))
        return squares.sqrt()

    def whole_model(self, model: LanguageModel) -> LanguageModel | None:
        """Returns a copy of the model, put together on the main rank; None on others."""
        weights = {
            name: value.full_tensor() if isinstance(value, DTensor) else value
            for name, value in model.state_dict().items()
        }
        if not self.is_main:
            return None
        whole = build_model(model.config).to(self.device)
        whole.load_state_dict(weights)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in model.extra_files().items():
                (Path(folder) / name).write_text(content, encoding="utf-8")
            whole.read_extra_files(Path(folder))
        return whole

    def end_evaluation(self, model: nn.Module) -> None:
        """Takes apart what passes without gradients have left whole."""
        assert isinstance(model, FSDPModule)
        model.reshard()


def shard(model: nn.Module, mesh: DeviceMesh, *, in_bf16: bool | None = None) -> None:
    """Shards a model in place: blocks and thin stacks each for themselves, then the rest of it.

    In bf16, the weights of blocks are put together in bf16, as autocast would round them for each product; gradients
    are summed in fp32, and fp32 is what each rank keeps. The rest stays in fp32: LM heads, embeddings, the router.

    Args:
        model: on its device.
        mesh: of one axis, or of two for several copies.
        in_bf16: None for whether the mesh is of CUDA devices.
    """
    # Of the model's nats, which are views; nothing is written into them.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    in_bf16 = mesh.device_type == "cuda" if in_bf16 is None else in_bf16
    precision = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if in_bf16 else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for part in shardable_parts(model):
        fully_shard(part, mesh=mesh, mp_policy=precision)
    fully_shard(model, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):  # sums, where torch would take means
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    for name in FORWARD_METHODS:
        register_fsdp_forward_method(model, name)


def shardable_parts(model: nn.Module) -> list[nn.Module]:
    """Returns the parts of a model that are put together one at a time."""
    parts: list[nn.Module] = []
    for name, module in model.named_modules():
        if isinstance(module, Stack):
            parts.extend([module] if name.startswith(LOCAL_PARTS) else module.blocks)
    return [part for part in parts if next(part.parameters(), None) is not None]
