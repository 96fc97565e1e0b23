"""What the baselines share: a causal Transformer, and the refusal of every dial."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from patchpad.config import ModelConfig
from patchpad.errors import GenerationError, InputError
from patchpad.model.attention import Attend
from patchpad.model.block import NORM_EPSILON, RMSNorm, Stack
from patchpad.model.language_model import LanguageModel
from patchpad.model.outputs import Predicted, target_nats
from patchpad.patching import (
    Decisions,
    Documents,
    SlotRoom,
)
from patchpad.shapes import ByteFloats, ByteIds, Logits

KeptLayers = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class BaselineOutput:
    """Result of a full pass."""

    logits: Logits
    """`logits[:, n]` predict the id after position n."""
    documents: Documents
    trunk: KeptLayers
    """Keys and values of each layer of the trunk, kept when asked for."""
    local: KeptLayers
    """The same of MegaByte's local model."""
    states: Float[Tensor, "batch byte trunk_dim"] | None = None
    """Outputs of a plain Transformer's trunk."""
    slices: Float[Tensor, "batch row_slot place byte_dim"] | None = None
    """What MegaByte's global model says about each byte of each patch."""


def counted(
    output: BaselineOutput,
    targets: Int[Tensor, "batch position"],
    nats: ByteFloats,
    *,
    num_commits: Int[Tensor, ""],
    trunk_pairs: Int[Tensor, ""],
    num_positions: Int[Tensor, ""],
) -> Predicted:
    """Returns what a pass of a model without scratchpads gave; see `Predicted`."""
    none = torch.zeros_like(num_commits)
    return Predicted(
        nats=nats,
        logits=output.logits,
        targets=targets,
        num_commits=num_commits,
        num_scratchpads=none,
        trunk_pairs=trunk_pairs,
        pooled_positions=none,
        num_positions=num_positions,
    )


class CausalTransformer(nn.Module):
    """Blocks and a last norm; what each position sees is up to `attend`.

    Args:
        num_layers: blocks.
        dim: width.
        num_heads: heads of attention.
        ffn_dim: hidden width of SwiGLU.
        rotary_base: base of the rotary positions.
        norm_epsilon: of all norms.
    """

    def __init__(
        self,
        num_layers: int,
        dim: int,
        num_heads: int,
        ffn_dim: int,
        rotary_base: float,
        norm_epsilon: float = NORM_EPSILON,
    ) -> None:
        super().__init__()
        self.stack = Stack(num_layers, dim, num_heads, ffn_dim, rotary_base, norm_epsilon=norm_epsilon)
        self.norm = RMSNorm(dim, norm_epsilon)

    @staticmethod
    def trunk(config: ModelConfig) -> "CausalTransformer":
        """Returns one with the sizes of the trunk."""
        return CausalTransformer(
            config.trunk_layers,
            config.trunk_dim,
            config.trunk_heads,
            config.trunk_hidden_dim,
            config.trunk_base,
            config.trunk_norm_epsilon,
        )

    def forward(
        self, states: Float[Tensor, "*where dim"], positions: Int[Tensor, "*where"], attend: Attend
    ) -> Float[Tensor, "*where dim"]:
        """Runs the blocks; `positions` are the rotary ones."""
        return self.norm(self.stack(states, positions, attend))


class Baseline(LanguageModel):
    """A model without scratchpads: its compute per byte is what it is, so it takes no dial."""

    def predict_targets(
        self,
        byte_ids: ByteIds,
        targets: ByteIds,
        decisions: Decisions | None = None,
        *,
        room: SlotRoom | None = None,
    ) -> Predicted:
        """Runs a pass and returns the nats of its targets; see `LanguageModel`. There is nothing to decide."""
        output = self.run(byte_ids)
        return self.count(output, targets, target_nats(output.logits, targets))

    @abstractmethod
    def run(self, ids: Int[Tensor, "batch position"], *, keep_activations: bool = False) -> BaselineOutput:
        """Does what `forward` does, without checks of the ids."""

    @abstractmethod
    def count(self, output: BaselineOutput, targets: Int[Tensor, "batch position"], nats: ByteFloats) -> Predicted:
        """Returns the nats, and what the pass took."""

    def threshold_refusal(self) -> InputError:
        """Returns what is raised for a number of nats; None, inf and -inf pass, which change nothing."""
        return InputError(
            f"a `{self.config.kind}` model has no scratchpads, so it takes no scratchpad threshold in nats",
            hint="Leave the threshold out: its compute per byte is fixed.",
        )

    def require_scratchpads(self, what: str) -> None:
        """Refuses what needs scratchpads."""
        raise GenerationError(
            f"a `{self.config.kind}` model has no scratchpads, so {what}",
            hint="Its compute per byte is fixed; `patchpad cost` tells how much it is.",
        )
