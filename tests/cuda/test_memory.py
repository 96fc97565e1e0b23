"""Memory and FLOPs of a training pass of the large presets on the pretended device, beside what `cost` says."""

import math
from dataclasses import replace

import pytest
import torch
from pretended_cuda import CudaTensor, Record
from torch import nn

from patchpad.config import PADDING, SEPARATOR, Config, load_config
from patchpad.cost import scheduled_cost, training_memory
from patchpad.model.back_ends import attention_back_end
from patchpad.model.block import recompute_trunk
from patchpad.model.build import build_model
from patchpad.model.language_model import LanguageModel
from patchpad.patching import Decisions
from patchpad.patching.triggers import ConstantTrigger, RandomTrigger
from patchpad.training.passes import PassWeights, training_pass
from patchpad.training.room import MULTIPLE, room_ladder

CLOSE = 0.15
"""Share by which the figures may differ."""
QUICK = [
    ("350m-fixed16-entropy", False),
    ("1b-fixed16-entropy", False),
    ("1b-fixed16-entropy", True),
    ("1b-fixed1-never", False),
]
ALL = [
    (f"{size}-{arm}", recomputes)
    for size in ("100m", "350m", "1b", "2b")
    for arm in ("fixed16-entropy", "fixed1-never")
    for recomputes in (False, True)
]
CASES = [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow) for case in ALL]
"""A preset, and whether the trunk's blocks are computed again."""


def without_values(config: Config, record: Record, monkeypatch) -> LanguageModel:
    """Returns a model on the pretended device whose parameters have shapes alone; thresholds keep their values."""
    monkeypatch.setattr("patchpad.model.byte_lm.draw_weights", lambda model, seed: None)
    model = build_model(config.model)
    for module in model.modules():
        for name, part in module.named_parameters(recurse=False):
            empty = CudaTensor(torch.empty(part.shape, dtype=part.dtype, device="meta"))
            record.hold(empty.host)
            setattr(module, name, nn.Parameter(empty))
        for name, part in module.named_buffers(recurse=False):
            setattr(module, name, CudaTensor(part if part.dim() == 0 else part.to("meta")))
    return model.train()


def full_batch(rows: int, context_bytes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of one window each, padded as training pads them."""
    width = MULTIPLE * math.ceil((context_bytes + 1) / MULTIPLE)
    ids = torch.full((rows, width), PADDING)
    ids[:, 0] = SEPARATOR
    ids[:, 1 : context_bytes + 1] = torch.arange(context_bytes) % 256
    targets = torch.full_like(ids, -100)
    targets[:, :context_bytes] = ids[:, 1 : context_bytes + 1]
    return ids, targets


def scheduled_decisions(model: LanguageModel, config: Config) -> Decisions:
    """Scratchpads at random at the scheduled rate: a model without values has no entropies to follow."""
    rate, trigger, threshold = config.train.scratchpads_per_byte, ConstantTrigger(), math.inf
    if config.model.reads_entropy:
        assert rate is not None
        trigger, threshold = (
            RandomTrigger(0),
            RandomTrigger.threshold_at(rate, config.model.patchifier.target_patch_size),
        )
    own = model.decisions_at(torch.full((), threshold, device="cuda"))
    return replace(own, trigger=trigger)


def run_pass(config: Config, record: Record, monkeypatch) -> None:
    """Runs a pass of a step that is not its first, so that gradients and the optimizer's moments are there."""
    model = without_values(config, record, monkeypatch)
    if config.train.activation_checkpointing:
        recompute_trunk(model)
    parameters = list(model.parameters())
    moments = [torch.empty_like(part) for part in parameters for _ in range(2)]
    for part in parameters:
        part.grad = torch.empty_like(part)
    ids, targets = (part.to("cuda") for part in full_batch(config.train.batch_rows, config.model.context_bytes))
    room = room_ladder(config, *ids.shape)[0]
    weights = PassWeights(
        num_targets=torch.full((), float(targets.numel()), device="cuda"), entropy_head=0.1, ratio=0.0, ratio_loss=None
    )
    # The back end by name: automatically it would try the kernel on values first, and there are none.
    with record.in_phase("pass"), attention_back_end("flex"):
        result = training_pass(model, ids, targets, scheduled_decisions(model, config), weights, room)
        result.loss.backward()
    assert len(moments) == 2 * len(parameters)


@pytest.mark.parametrize(("name", "recomputes"), CASES)
def test_a_pass_takes_the_memory_and_flops_that_cost_says(record, monkeypatch, name, recomputes):
    config = load_config(name)
    config = replace(config, train=replace(config.train, activation_checkpointing=recomputes))
    run_pass(config, record, monkeypatch)
    assert record.peak_bytes == pytest.approx(training_memory(config).peak_bytes, rel=CLOSE)
    assert not record.oddities

    costs = scheduled_cost(config)
    per_byte = costs.checkpointed_training_flops_per_byte if recomputes else costs.training_flops_per_byte
    num_bytes = config.train.batch_rows * config.model.context_bytes
    assert record.num_flops("pass") == pytest.approx(per_byte * num_bytes, rel=CLOSE)
