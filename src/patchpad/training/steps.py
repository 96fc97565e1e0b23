"""Optimizer steps: batches in, weights and thresholds changed, sums out."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from patchpad.config import Config
from patchpad.data import Batch, Corpus, PrefetchedBatches, TextSource, TrainingBatches
from patchpad.device import select_device
from patchpad.model.block import recompute_trunk
from patchpad.model.build import build_model
from patchpad.model.precision import trainable
from patchpad.training.averaging import AveragedWeights
from patchpad.training.gradient_norms import part_names, part_norms
from patchpad.training.guard import StepGuard
from patchpad.training.init_from import Source
from patchpad.training.learning_rate import learning_rate
from patchpad.training.metrics import Readings
from patchpad.training.optimizer import build_optimizer, set_learning_rate, update_if
from patchpad.training.own_rows import OwnRows
from patchpad.training.parallel import Parallel
from patchpad.training.parts import freeze
from patchpad.training.passes import PassWeights, TrainingPasses
from patchpad.training.room import MULTIPLE
from patchpad.training.sums import StepSums
from patchpad.training.threshold_schedule import ThresholdSchedule


class TrainingSteps:
    """State of training between two steps.

    Args:
        config: of the run.
        training: the text to train on, or several with their weights.
        source: whose weights to start from; None to draw them, or where a checkpoint's take their place.
        parallel: this rank and the others; None for one process.
    """

    @trainable()
    def __init__(
        self,
        config: Config,
        training: Corpus | Sequence[TextSource],
        source: Source | None = None,
        parallel: Parallel | None = None,
    ) -> None:
        self.config = config
        model_config, train_config = config.model, config.train
        self.parallel = parallel or Parallel(select_device(train_config.device))
        self.device = self.parallel.device
        on_cuda, row_positions = self.device.type == "cuda", model_config.context_bytes + 1
        width = MULTIPLE * math.ceil(row_positions / MULTIPLE) if on_cuda else None
        self.batches = TrainingBatches(
            training,
            context_bytes=model_config.context_bytes,
            batch_rows=train_config.batch_rows,
            seed=train_config.seed,
            width=width,
        )
        self.own_rows = OwnRows(self.batches, self.parallel.rows(train_config.batch_rows))
        self.feed: OwnRows | PrefetchedBatches = self.own_rows
        """Where the steps take their batches from."""
        self.model = build_model(model_config, seed=train_config.seed)
        if source is not None:
            source.start(self.model)
        self.model.to(self.device)
        freeze(self.model, train_config.frozen)
        if train_config.activation_checkpointing:
            recompute_trunk(self.model)
        self.passes = TrainingPasses(self.model, config, width, self.parallel)
        self.optimizer = build_optimizer(self.model, train_config)
        decay = train_config.averaged_decay
        self.averaged = None if decay is None else AveragedWeights(self.model, decay)
        self.guard = StepGuard(train_config, late=on_cuda, device=self.device)
        self.schedule = ThresholdSchedule(config, self.device)
        self.step = 0
        self.planned_steps: int | float = train_config.steps
        """Steps of the whole run as its budget sees it; what the schedules reckon with."""
        self.bytes_seen = 0
        self.unread_sums: Float[Tensor, "4"] | None = None
        """Sums of passes that are still on the device."""
        self.gradient_norms: tuple[Float[Tensor, ""], list[str], Float[Tensor, " tensors"]] | None = None
        """Of the newest step, before clipping: of all gradients, their parameters' names, and of each gradient."""
        self.readings: Readings | None = None
        """What `read` last found."""

    def train_step(self, sums: StepSums) -> None:
        """Makes one optimizer step and adds what it saw to `sums`.

        On CUDA nothing is read from the device but the number of slots of each pass: what was summed there is added by
        `read`, and numbers that are not finite are noticed a step later, while the step itself changes no weights.

        Raises:
            TrainingError: training has diverged; see `StepGuard`.
        """
        train_config, parallel, rows = self.config.train, self.parallel, self.own_rows.rows or range(1)
        most_rows = -(-train_config.batch_rows // parallel.num_ranks)
        self.model.train()
        first = self.step * train_config.accumulation_steps
        numbers = range(first, first + train_config.accumulation_steps)
        started = time.perf_counter()
        batches = [self.feed.batch(number).to(self.device) for number in numbers]
        sums.data_wait_seconds += time.perf_counter() - started
        counts = [self.batches.counts(number) for number in numbers]
        sums.num_positions += sum(count.num_positions for count in counts)
        sums.num_padding += sum(count.num_padding for count in counts)
        weights = PassWeights.of_step(self.model, batches, counts, train_config, parallel)
        self.optimizer.zero_grad(set_to_none=True)
        sums_before, bytes_before = self.unread_sums, self.bytes_seen
        losses = []
        for pass_number, (batch, count) in enumerate(zip(batches, counts, strict=True)):
            decisions = self.schedule.decisions(self.model, self.step, pass_number, rows)
            with parallel.adding_up(is_last=batch is batches[-1]):
                own_result = self.passes.run(batch, decisions, weights)
                own_result.loss.backward()
            result = own_result.of_all_ranks(parallel, most_rows)
            losses.append(result.loss.detach())
            self.unread_sums = result.sums if self.unread_sums is None else self.unread_sums + result.sums
            sums.num_bytes += count.num_bytes
            self.bytes_seen += count.num_bytes
            self.schedule.observe(result.scores, count.num_bytes_read)
        norm = self._clip_gradients()
        is_kept = self.guard.note(self.step, losses, norm, self.bytes_seen - bytes_before)
        set_learning_rate(self.optimizer, learning_rate(self.step, train_config, self.planned_steps))
        if self.guard.late or self.guard.skips:
            update_if(self.optimizer, is_kept)
        if self.guard.skips and self.unread_sums is not None:
            before = torch.zeros_like(self.unread_sums) if sums_before is None else sums_before
            self.unread_sums = torch.where(is_kept, self.unread_sums, before)
        self.optimizer.step()
        condition = is_kept if self.guard.skips else None
        if self.averaged is not None:
            self.averaged.update(self.step, is_kept=condition)
        self.schedule.move(self.model, self.step, self.planned_steps, is_kept=condition)
        if not self.guard.late:
            self.read(sums)

    def _clip_gradients(self) -> Float[Tensor, ""]:
        """Returns the norm of all gradients, to which they are then clipped; it is not waited for."""
        parameters = dict(self.model.named_parameters())
        gradients = {name: each.grad for name, each in parameters.items() if each.grad is not None}
        norms = self.parallel.tensor_norms(list(gradients.values()))
        norm = torch.linalg.vector_norm(norms)
        torch.nn.utils.clip_grads_with_norm_(parameters.values(), self.config.train.max_grad_norm, norm)
        self.gradient_norms = norm, list(gradients), norms
        return norm

    def read(self, sums: StepSums) -> None:
        """Reads what the steps since the last call left on the device: sums, which are added, and `readings`.

        It waits for the newest step, so that is checked too.

        Raises:
            TrainingError: a step that was not checked yet has diverged; nothing is added then.
        """
        self.guard.finish()
        if self.unread_sums is None or self.gradient_norms is None:
            return
        norm, names, norms = self.gradient_norms
        newest = torch.stack((norm, self.model.scratchpad_threshold_nats, self.model.patch_threshold_nats))
        on_device = (self.unread_sums, newest, part_norms(names, norms))
        values = torch.cat([part.to(self.unread_sums.dtype) for part in on_device]).tolist()  # one wait for all
        num_sums = len(self.unread_sums)
        sums.add(*values[:num_sums])
        sums.num_skipped_bytes += self.guard.take_skipped_bytes()
        self.unread_sums = None
        self.readings = Readings(
            gradient_norm=values[num_sums],
            scratchpad_threshold_nats=values[num_sums + 1],
            patch_threshold_nats=values[num_sums + 2],
            part_gradient_norms=dict(zip(part_names(names), values[num_sums + 3 :], strict=True)),
            skipped_steps=self.guard.num_skipped,
        )

    def epochs(self) -> dict[str, float]:
        """Returns how often the text has been gone through, as metrics: of a mixture, each of its sources."""
        epochs = self.batches.epochs(self.step * self.config.train.accumulation_steps)
        return {f"epoch/{name}" if name else "epoch": count for name, count in epochs.items()}

    @contextmanager
    def prefetching(self) -> Iterator[None]:
        """Lets a thread make the batches of the steps inside, so that they are read and cut while the device computes.

        For CUDA they lie where they can be copied meanwhile, too.
        """

        def make(index: int) -> Batch:
            batch = self.own_rows.batch(index)
            return batch.pinned() if self.device.type == "cuda" else batch

        ahead = PrefetchedBatches(make, ahead=max(2, self.config.train.accumulation_steps))
        self.feed = ahead
        try:
            yield
        finally:
            self.feed = self.own_rows
            ahead.close()
