"""Simulates a training step of the largest preset on many ranks: memory of a rank, and what the ranks tell each other.

No GPU, no network and no numbers: see `fake_cluster.py` for what is real. FLOPs are those of `patchpad cost`, attention
counted analytically.

Usage: python benchmarks/simulate_cluster.py [--ranks 64 256]
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from cluster_report import report
from fake_cluster import GRADIENTS, MOMENTS, WEIGHTS, Meter, fake_rank
from measuring import arguments, write_results
from torch.nn.utils import clip_grad_norm_

from patchpad.config import IGNORED_TARGET, Config, load_config
from patchpad.cost import Devices, scheduled_cost, training_memory
from patchpad.model.block import recompute_trunk
from patchpad.model.byte_lm import ByteLM
from patchpad.training.optimizer import build_optimizer
from patchpad.training.passes import PassWeights, training_pass
from patchpad.training.room import MULTIPLE, room_ladder
from patchpad.training.sharded import shard

STEPS = 2
"""The first makes the optimizer's moments, so the last one is counted."""
NODE = 8
"""Devices that hold one copy under `hsdp`."""
PRESETS = ("2b-fixed16-entropy", "2b-fixed16-never", "2b-fixed1-never")


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is simulated."""

    preset: str
    ranks: int
    parallel: str = "fsdp"
    recomputes: bool = False

    @property
    def shard_ranks(self) -> int:
        """Ranks that hold one copy of the weights."""
        return NODE if self.parallel == "hsdp" else self.ranks

    def config(self, layers: int | None = None) -> Config:
        """Returns the preset with as many rows on each rank as it has on one GPU, in one pass."""
        config = load_config(self.preset)
        rows = config.train.batch_rows * self.ranks
        train = replace(config.train, batch_rows=rows, accumulation_steps=1, activation_checkpointing=self.recomputes)
        layers = layers or config.model.trunk_layers
        return replace(config, train=train, model=replace(config.model, trunk_layers=layers))


def cases(all_ranks: Sequence[int]) -> Iterator[Case]:
    """Returns the cases for numbers of ranks."""
    for ranks in all_ranks:
        for recomputes in (False, True):
            yield Case(preset=PRESETS[0], ranks=ranks, recomputes=recomputes)
        yield Case(preset=PRESETS[0], ranks=ranks, parallel="hsdp")
        for preset in PRESETS[1:]:
            yield Case(preset=preset, ranks=ranks)


def simulated(case: Case, layers: int | None = None) -> dict[str, Any]:
    """Simulates a step and returns the row of the result file.

    Args:
        case: what to simulate.
        layers: of the trunk; None for the preset's.
    """
    config = case.config(layers)
    meter = Meter()
    with fake_rank(case.ranks, case.shard_ranks) as mesh:
        model = ByteLM(config.model).train()
        if case.recomputes:
            recompute_trunk(model)
        shard(model, mesh, in_bf16=True)
        run_steps(model, config, case, meter)
    devices = Devices(count=case.ranks, parallel=case.parallel, shard_ranks=case.shard_ranks)  # pyrefly: ignore
    costs = scheduled_cost(config)
    num_bytes = config.train.batch_rows // case.ranks * config.model.context_bytes
    return {
        "preset": case.preset,
        "ranks": case.ranks,
        "parallel": case.parallel,
        "shard_ranks": case.shard_ranks,
        "activation_checkpointing": case.recomputes,
        "rank_rows": config.train.batch_rows // case.ranks,
        "context_bytes": config.model.context_bytes,
        "peak_bytes": dict(meter.peak),
        "counted_peak_bytes": training_memory(config, devices).peak_bytes,
        "collectives": dict(meter.collectives),
        "collective_bytes": dict(meter.collective_bytes),
        "training_flops": num_bytes
        * (costs.checkpointed_training_flops_per_byte if case.recomputes else costs.training_flops_per_byte),
        "attention_flops": num_bytes * 3 * costs.attention_flops_per_byte,
    }


def run_steps(model: ByteLM, config: Config, case: Case, meter: Meter) -> None:
    """Makes steps as the trainer does on CUDA, on rows of one window each."""
    optimizer = build_optimizer(model, config.train)
    rows, context = config.train.batch_rows // case.ranks, config.model.context_bytes
    width = MULTIPLE * -(-(context + 1) // MULTIPLE)
    (room, *_) = room_ladder(config, rows, width)
    parameters = list(model.parameters())
    with meter.watching():
        for part in parameters:
            meter.label(part.to_local(), WEIGHTS)  # pyrefly: ignore  # they are DTensors
        ids = torch.zeros(rows, width, dtype=torch.int64)
        targets = torch.full_like(ids, IGNORED_TARGET)
        for _ in range(STEPS):
            meter.begin()
            weights = PassWeights(
                num_targets=torch.ones(()),
                entropy_head=config.train.entropy_head_weight,
                ratio=config.train.ratio_loss_weight,
                ratio_loss=None,
            )
            decisions = model.decisions_at(torch.zeros(()))
            training_pass(model, ids, targets, decisions, weights, room).loss.backward()
            for part in parameters:
                assert part.grad is not None
                meter.label(part.grad.to_local(), GRADIENTS)  # pyrefly: ignore
            clip_grad_norm_(parameters, config.train.max_grad_norm)
            optimizer.step()
            for part in parameters:
                for key in ("exp_avg", "exp_avg_sq"):
                    meter.label(optimizer.state[part][key].to_local(), MOMENTS)
            optimizer.zero_grad(set_to_none=True)


def main() -> None:
    """Simulates all cases."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--ranks", nargs="+", type=int, default=(64, 256))
    parser.add_argument("--layers", type=int, help="layers of the trunk, in the place of the preset's")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for case in cases(options.ranks):
        rows.append(simulated(case, options.layers))
        print(rows[-1], flush=True)
    write_results(options, "simulated-cluster", rows, report(rows))


if __name__ == "__main__":
    main()
