"""This project's side of the benchmarks: a model with scratchpads forced at random, a training step, a generation.

Random weights cost what trained ones do, but their entropies say nothing. So the entropy head runs as ever, and a
random trigger decides, at the rate that the entropy trigger is trained to.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from itertools import accumulate, pairwise

import torch
from sizes import PRESET_SIZES, SCRATCHPADS_PER_BYTE, SIZES

from patchpad.config import IGNORED_TARGET, SEPARATOR, Config, ModelConfig, TrainConfig, load_config
from patchpad.cost import Cost, cost
from patchpad.data import Batch, open_corpus
from patchpad.inference.engine import Engine, Request, Row
from patchpad.inference.sampling import Sampling
from patchpad.inference.stepping import prefill
from patchpad.model.block import compile_blocks
from patchpad.model.byte_lm import ByteLM
from patchpad.model.outputs import Predicted
from patchpad.model.precision import autocast
from patchpad.patching import ByteFacts, Decisions, Trigger
from patchpad.patching.triggers import RandomTrigger
from patchpad.training.optimizer import build_optimizer

TINY = ModelConfig(byte_dim=16, window_bytes=8, trunk_dim=64, trunk_layers=2, context_bytes=256)
"""For tests of the benchmarks."""
SEEDS = 1000
"""Seeds of the random trigger that are tried for an even rate."""
NO_END = 2**31
"""New bytes that a row is asked for: more than any benchmark takes."""
ENDLESS = Sampling(temperature=0.8, logit_bias=((SEPARATOR, -100.0),))
"""How a trained model writes on: it neither ends nor goes in circles."""

Positions = Sequence[range]
"""Positions in a document, one range per row."""


def config_named(name: str) -> ModelConfig:
    """Returns one of `SIZES`, the tiny one, or that of a preset with scratchpads."""
    if name in PRESET_SIZES:
        return load_config(f"{name}-fixed16-entropy").model
    return {**SIZES, "tiny": TINY}[name]


def build(config: ModelConfig, device: str = "cpu", *, compile: bool = False) -> ByteLM:
    """Returns a model with random weights that never ends a document when it generates greedily.

    The end's output weights are the mean of all bytes', and so is its logit: never the largest.
    """
    model = ByteLM(config).to(device)
    with torch.no_grad():
        head = model.local_decoder.lm_head.weight
        head[SEPARATOR] = head[:SEPARATOR].mean(dim=0)
    if compile:
        compile_blocks(model)
    return model


def forced_trigger(config: ModelConfig, spans: Sequence[Positions]) -> Trigger | None:
    """Returns a random trigger that gives 3/16 scratchpads per byte in each span; None for a model without scratchpads.

    Of `SEEDS` seeds, that one is taken whose number of scratchpads is nearest to it in all spans, so that a short
    measurement is one of 1/4 trunk call per byte, not of a lucky draw.

    Args:
        config: of a model with fixed patches.
        spans: what is measured, each span by the positions of its rows.
    """
    if not config.reads_entropy:
        return None
    patch_size = config.patchifier.target_patch_size
    offsets = torch.tensor([place for span in spans for positions in span for place in positions])
    bounds = [0, *accumulate(sum(map(len, span)) for span in spans)]
    wanted = [SCRATCHPADS_PER_BYTE * (last - first) for first, last in pairwise(bounds)]
    ends_patch = (offsets % patch_size == 0) & (offsets > 0)
    facts = ByteFacts(
        byte_ids=offsets,
        previous_byte_ids=offsets,
        document_offset=offsets,
        is_byte=offsets > 0,
        entropy_nats=None,
        previous_entropy_nats=None,
    )

    def error(trigger: Trigger) -> float:
        fires = (trigger.scores(facts, offsets) > forced_threshold(config)) & ~ends_patch
        sums = [0, *fires.cumsum(0).tolist()]
        counts = [sums[last] - sums[first] for first, last in pairwise(bounds)]
        return sum((count - goal) ** 2 for count, goal in zip(counts, wanted, strict=True))

    return min((RandomTrigger(seed) for seed in range(SEEDS)), key=error)


def forced_threshold(config: ModelConfig) -> float:
    """Returns the threshold at which a random trigger gives 3/16 scratchpads per byte."""
    return RandomTrigger.threshold_at(SCRATCHPADS_PER_BYTE, config.patchifier.target_patch_size)


def force(model: ByteLM, trigger: Trigger | None) -> None:
    """Lets a model decide by a trigger of `forced_trigger`, at its rate; None leaves the model as it is."""
    if trigger is not None:
        model.trigger = trigger
        model.store_threshold(forced_threshold(model.config))


def forced_decisions(model: ByteLM, trigger: Trigger | None) -> Decisions | None:
    """The same for one pass."""
    if trigger is None:
        return None
    return replace(model.decisions(forced_threshold(model.config), batch=1), trigger=trigger)


@cache
def text() -> bytes:
    """Returns the novels that come with the package, as one text."""
    corpus = open_corpus(str(resources.files("patchpad") / "data" / "bundled" / "austen_train.jsonl.xz"))
    return b"".join(document.tobytes() for document in corpus.documents)


def text_batch(rows: int, context_bytes: int, device: str = "cpu") -> Batch:
    """Returns rows of text, each a window of `context_bytes` bytes that are all predicted."""
    ids = torch.tensor(list(text()[: rows * context_bytes])).view(rows, context_bytes)
    inputs = torch.cat((torch.full((rows, 1), SEPARATOR), ids[:, :-1]), dim=1)
    return Batch.of(inputs, ids).to(torch.device(device))


def prompts(lengths: Sequence[int]) -> list[bytes]:
    """Returns prompts of the given lengths, each from another place of the text."""
    return [text()[1000 * number :][:length] for number, length in enumerate(lengths)]


def ragged_lengths(rows: int, shortest: int) -> list[int]:
    """Returns prompt lengths, all different and spread over all places of a patch."""
    return [shortest + 7 * row for row in range(rows)]


class TrainingStep:
    """A training step as `Trainer` makes it, again and again on one batch: forward, loss, backward, clipping, AdamW.

    Left out are the sums for the log, and the threshold, which follows nothing where a random trigger decides.
    """

    def __init__(self, model: ByteLM, batch: Batch, config: TrainConfig | None = None) -> None:
        self.model = model.train()
        self.config = config or Config().train
        self.optimizer = build_optimizer(model, self.config)
        self.use(batch)

    def use(self, batch: Batch) -> None:
        """Takes another batch, whose rows hold one document each and are equally long."""
        self.batch = batch
        self.num_targets, self.num_bytes = batch.num_targets, batch.num_bytes
        self.decisions = forced_decisions(self.model, _row_trigger(self.model.config, batch.byte_ids.shape[1]))

    def run(self) -> None:
        """Makes a whole step."""
        self.run_passes()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        self.optimizer.step()

    def run_passes(self) -> None:
        """Makes the forward and the backward pass: a step without clipping and AdamW."""
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.model.device):
            predicted = self._predict()
            loss = predicted.nats.sum() / self.num_targets
            if predicted.entropy_head_nats is not None:
                loss = loss + self.config.entropy_head_weight * predicted.entropy_head_nats.sum() / self.num_targets
        if not math.isfinite(float(loss.detach())):
            raise ArithmeticError(f"the loss is {float(loss.detach())}")
        loss.backward()

    def cost(self) -> Cost:
        """Returns the cost at the patches, scratchpads and visible pairs of this batch."""
        with torch.no_grad(), autocast(self.model.device):
            return _measured_cost(self.model.config, self._predict(), self.num_bytes, self.batch.byte_ids.shape[1])

    def _predict(self) -> Predicted:
        return self.model.predict_targets(self.batch.byte_ids, self.batch.targets, self.decisions)


class Prefill:
    """Reading prompts of equal length, on the library's own prefill."""

    def __init__(self, model: ByteLM, rows: int, bytes_per_row: int) -> None:
        self.model = model.eval()
        self.prompts = prompts([bytes_per_row] * rows)
        self.num_bytes = rows * bytes_per_row
        self.trigger = _row_trigger(model.config, bytes_per_row + 1)

    def run(self) -> None:
        """Reads them."""
        force(self.model, self.trigger)
        prefill(self.model, self.prompts)

    def cost(self) -> Cost:
        """Returns the cost at the patches, scratchpads and visible pairs of these prompts, per byte of them."""
        ids = torch.tensor([[SEPARATOR, *prompt] for prompt in self.prompts], device=self.model.device)
        with torch.no_grad(), autocast(self.model.device):
            decisions = forced_decisions(self.model, self.trigger)
            predicted = self.model.predict_targets(ids, torch.full_like(ids, IGNORED_TARGET), decisions)
        return _measured_cost(self.model.config, predicted, self.num_bytes, ids.shape[1])


class Generation:
    """A batch that generates without end, on the library's engine; its prompts have been read already.

    Each run goes on where the one before stopped, so the context grows by a run's bytes.

    Args:
        engine: without rows.
        requests: that no row ends.
        bytes_per_run: of all rows together.
        read_prompts: has the rows of the engine join.
    """

    def __init__(
        self,
        engine: Engine,
        requests: Sequence[Request],
        bytes_per_run: int,
        read_prompts: Callable[[Engine], object],
    ) -> None:
        self.engine = engine
        self.bytes_per_run = bytes_per_run
        self.rows: list[Row] = engine.submit(list(requests))
        self.counts: list[dict[str, int]] = []
        """Bytes that each run has really generated, trunk calls of its rows, and batches of them."""
        read_prompts(engine)
        self._totals = self._read_totals()

    def run(self) -> None:
        """Generates the bytes of a run, and up to one more per row, since rows advance together.

        Raises:
            RuntimeError: a row has ended.
        """
        done = 0
        while done < self.bytes_per_run:
            for new in self.engine.advance():
                done += len(new.data)
                if new.is_last:
                    raise RuntimeError(f"row {new.row} has ended; what was timed is not a steady generation")
        totals = self._read_totals()
        self.counts.append({key: totals[key] - self._totals[key] for key in totals})
        self._totals = totals

    def _read_totals(self) -> dict[str, int]:
        self.engine.refresh_counts()
        return {
            "bytes": sum(len(row.data) for row in self.rows),
            "trunk_calls": sum(row.trunk_calls for row in self.rows),
            "trunk_batches": self.engine.batch.num_trunk_batches,
        }


class SteadyGeneration(Generation):
    """A batch that generates greedily without end; its prompts have been read already."""

    def __init__(
        self,
        model: ByteLM,
        prompt_lengths: Sequence[int],
        *,
        bytes_per_row: int,
        runs: int,
        compile: bool = False,
    ) -> None:
        """Reads the prompts.

        Args:
            model: of `build`; its trigger is replaced, so use one generation of a model at a time.
            prompt_lengths: of the rows.
            bytes_per_row: bytes that a run generates in each row, on average over the rows.
            runs: how many runs there will be, the warm-up included; scratchpads are even over each of them.
            compile: run the engine's compiled steps, or on CUDA its captured graphs.
        """
        # The separator is at position 0, and the first new byte is read before the first run.
        firsts = [[length + 2 + run * bytes_per_row for length in prompt_lengths] for run in range(runs)]
        spans = [[range(first, first + bytes_per_row) for first in row_firsts] for row_firsts in firsts]
        force(model, forced_trigger(model.config, spans))
        requests = [
            Request(
                prompt=prompt,
                max_new_bytes=NO_END,
                threshold=float(model.scratchpad_threshold_nats),
                sampling=Sampling(temperature=0.0),
                seed=0,
            )
            for prompt in prompts(prompt_lengths)
        ]
        engine = Engine(model, batch_rows=len(prompt_lengths), compile=compile)
        super().__init__(engine, requests, bytes_per_row * len(prompt_lengths), Engine.advance)

    @property
    def trunk_cache_bytes_per_byte(self) -> float:
        """Bytes of keys and values in the trunk's cache per byte of context, as they are now; spare room left out."""
        self.engine.refresh_counts()
        state = self.engine.batch.state
        assert state is not None
        config = self.engine.model.config
        entry_bytes = config.trunk_layers * 2 * config.trunk_kv_dim * state.trunk.keys[0].element_size()
        return sum(row.trunk_cache_entries for row in self.rows) * entry_bytes / int(state.position.sum())


@cache
def _row_trigger(config: ModelConfig, positions: int) -> Trigger | None:
    return forced_trigger(config, [[range(positions)]])


def _measured_cost(config: ModelConfig, predicted: Predicted, num_bytes: int, context_bytes: int) -> Cost:
    """Returns the analytic cost of a pass, with its own counts instead of the mean of even patches."""
    num_commits, num_scratchpads = int(predicted.num_commits), int(predicted.num_scratchpads)
    slots = num_commits + num_scratchpads
    return cost(
        config,
        context_bytes=context_bytes,
        patches_per_byte=num_commits / num_bytes,
        scratchpads_per_byte=num_scratchpads / num_bytes,
        trunk_pairs_per_slot=int(predicted.trunk_pairs) / slots,
        pooled_bytes_per_slot=int(predicted.pooled_positions) / slots,
        positions_per_byte=int(predicted.num_positions) / num_bytes,
    )
