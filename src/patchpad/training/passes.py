"""One forward pass of training, from a batch to its loss: a function of tensors, which CUDA runs as one graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchpad.config import Config, TrainConfig
from patchpad.data import Batch, BatchCounts
from patchpad.data.loader import counted
from patchpad.device import wide_dtype
from patchpad.model.block import compile_blocks
from patchpad.model.compilation import Compiled
from patchpad.model.language_model import LanguageModel
from patchpad.model.outputs import squared_log_normalizers
from patchpad.model.precision import autocast
from patchpad.patching import Decisions, SlotRoom
from patchpad.shapes import ByteIds
from patchpad.training.parallel import Parallel
from patchpad.training.pass_scores import PassScores
from patchpad.training.ratio_loss import StepRatioLoss
from patchpad.training.room import Rooms, holds, room_ladder


@dataclass(frozen=True, kw_only=True)
class PassWeights:
    """What the parts of a pass's loss are weighted with. What changes from step to step is a tensor."""

    num_targets: Float[Tensor, ""]
    """Targets of the whole step, by which the loss is divided."""
    entropy_head: float
    z: float = 0.0
    """Of the squared logarithm of softmax's divisor, at each target."""
    distillation: float = 0.0
    """Of what the source expects behind tokens that have ended."""
    ratio: float
    ratio_loss: StepRatioLoss | None
    """None unless the patchifier is `hnet`."""

    @staticmethod
    def of_step(
        model: LanguageModel,
        batches: Sequence[Batch],
        counts: Sequence[Batch | BatchCounts],
        config: TrainConfig,
        parallel: Parallel | None = None,
    ) -> "PassWeights":
        """Returns the weights for the passes of a step.

        Args:
            model: being trained.
            batches: this rank's rows of the step, on the model's device.
            counts: what is in the rows of all ranks, pass by pass.
            config: of the run.
            parallel: this rank and the others; None for one process.
        """
        num_targets = sum(count.num_targets for count in counts)
        return PassWeights(
            num_targets=torch.full((), num_targets, dtype=torch.float32, device=model.device),
            entropy_head=config.entropy_head_weight,
            z=config.z_loss_weight,
            ratio=config.ratio_loss_weight,
            distillation=config.distillation_weight,
            ratio_loss=StepRatioLoss.of_step(
                model,
                [batch.byte_ids for batch in batches],
                sum(count.num_bytes_read for count in counts),
                parallel,
            ),
        )


@dataclass(frozen=True, kw_only=True)
class PassResult:
    """What a pass gives, all of it on the device."""

    loss: Float[Tensor, ""]
    """The pass's share of the step's loss."""
    sums: Float[Tensor, "4"]
    """Nats of predicted bytes, the entropy head's nats of them, commits and scratchpads; in fp64, on MPS in fp32."""
    num_slots: Int[Tensor, "2"]
    """Commits and scratchpads. If there are more than the pass had room for, nothing else of it may be used."""
    scores: PassScores | None
    """What the thresholds follow; None for baselines and for models without an entropy head."""

    def of_all_ranks(self, parallel: Parallel, most_rows: int) -> "PassResult":
        """Returns the result of a whole batch whose rows several ranks share; it has no gradient.

        Args:
            parallel: this rank and the others.
            most_rows: that a rank has.
        """
        if parallel.num_ranks == 1:
            return self
        scores, wide = self.scores, self.sums.dtype
        own_counts = () if scores is None else (scores.entropy_sum, scores.entropy_count, scores.num_commits)
        own = torch.stack([part.detach().to(wide) for part in (self.loss, *own_counts)])
        total = parallel.sum(torch.cat((self.sums, own)))
        sums, loss, counts = total[: len(self.sums)], total[len(self.sums)], total[len(self.sums) + 1 :]
        return PassResult(
            loss=loss,
            sums=sums,
            num_slots=sums[-2:].long(),
            scores=None if scores is None else scores.of_all_ranks(parallel, counts, most_rows),
        )


def training_pass(
    model: LanguageModel,
    byte_ids: ByteIds,
    targets: ByteIds,
    decisions: Decisions,
    weights: PassWeights,
    room: SlotRoom | None,
) -> PassResult:
    """Runs a model over a batch. With a room, no shape follows from values, and nothing is read from the device.

    Args:
        model: in training mode.
        byte_ids: input.
        targets: next ids; `IGNORED_TARGET` where nothing is predicted.
        decisions: of patches and scratchpads.
        weights: of the step.
        room: places for slots; None to count them.
    """
    with autocast(byte_ids.device):
        predicted = model.predict_targets(byte_ids, targets, decisions, room=room)
        nats, head_nats, output = predicted.nats, predicted.entropy_head_nats, predicted.output
        loss = nats.sum() / weights.num_targets
        if weights.z:
            squares = squared_log_normalizers(predicted.logits, predicted.targets)
            loss = loss + weights.z * squares.sum() / weights.num_targets
        if head_nats is not None:
            loss = loss + weights.entropy_head * head_nats.sum() / weights.num_targets
        if predicted.source_nats is not None:
            loss = loss + weights.distillation * predicted.source_nats.sum() / weights.num_targets
        if output is not None and weights.ratio_loss is not None:
            loss = loss + weights.ratio * weights.ratio_loss.of_pass(output)
    wide, is_byte = wide_dtype(byte_ids.device), counted(targets)
    summed = [
        torch.zeros((), dtype=wide, device=byte_ids.device)
        if part is None
        else torch.where(is_byte, part.detach(), 0).sum(dtype=wide)
        for part in (nats, head_nats)
    ]
    num_slots = torch.stack((predicted.num_commits, predicted.num_scratchpads))
    return PassResult(
        loss=loss,
        sums=torch.cat((torch.stack(summed), num_slots.to(wide))),
        num_slots=num_slots,
        scores=None if output is None else PassScores.of(model, output),
    )


class TrainingPasses:
    """Runs the passes of a run in the way that suits its device.

    On CUDA every pass has room for a fixed number of slots, and is compiled as one graph unless `train.compile` is
    false. Elsewhere slots are counted, and `train.compile` compiles the blocks alone.

    Args:
        model: on its device.
        config: of the run.
        width: positions of the rows of all batches; None where they differ.
        parallel: this rank and the others; None for one process.
    """

    def __init__(
        self, model: LanguageModel, config: Config, width: int | None, parallel: Parallel | None = None
    ) -> None:
        self.model = model
        self.parallel = parallel or Parallel(model.device)
        self.rooms: Rooms | None = None
        self._pass: Callable[..., PassResult] = training_pass
        on_cuda, compile = model.device.type == "cuda", config.train.compile
        if on_cuda and width is not None and model.has_scratchpads:
            rows = max(1, len(self.parallel.rows(config.train.batch_rows)))
            self.rooms = Rooms(room_ladder(config, rows, width))
        if on_cuda and compile is not False and model.is_one_graph and not self.parallel.is_sharded:
            self._pass = compiled_pass()
        elif compile or (on_cuda and compile is None):
            compile_blocks(model)
        self._pass = self.parallel.prepare(model, self._pass)

    def run(self, batch: Batch, decisions: Decisions, weights: PassWeights) -> PassResult:
        """Runs a pass. One whose slots do not fit is repeated with more room, so that none is left out.

        With a room this waits for the device once: for the number of slots. If one rank repeats a pass, all do.
        """
        arguments = (self.model, batch.byte_ids, batch.targets, decisions, weights)
        if self.rooms is None:
            return self._pass(*arguments, None)
        room = self.rooms.next
        while True:
            result = self._pass(*arguments, room)
            num_commits, num_scratchpads = result.num_slots.tolist()
            if not self.parallel.any(not holds(room, num_commits, num_scratchpads)):
                self.rooms.note(num_commits, num_scratchpads)
                return result
            del result  # its graph holds memory that the next one needs
            room = self.rooms.holding(num_commits, num_scratchpads)


def compiled_pass(**options: Any) -> Callable[..., PassResult]:
    """Returns `training_pass` as one graph, forward and backward, that is compiled when it is first called.

    Args:
        options: of `torch.compile`, beside those that are set here.
    """
    effect = "training continues uncompiled, which takes up to twice the time and more memory"
    forward = Compiled(training_pass, effect=effect, dynamic=False, **options)

    def run(*arguments: Any) -> PassResult:
        # The backward pass is compiled with the forward one: what cannot be compiled shows here, not in `backward`.
        with torch._functorch.config.patch(force_non_lazy_backward_lowering=True):
            return forward(*arguments)

    return run
