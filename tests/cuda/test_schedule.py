"""The schedule of thresholds on the pretended device: a step of it never waits."""

from dataclasses import replace

import pytest
import torch
from cuda_models import CASES, small_config

from patchpad.config import SEPARATOR, Config
from patchpad.model.byte_lm import ByteLM
from patchpad.training.pass_scores import PassScores
from patchpad.training.ratio_loss import StepRatioLoss
from patchpad.training.threshold_schedule import ThresholdSchedule

STEPS = 10


@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize(("patchifier", "trigger"), [case for case in CASES if case[1] != "never"])
def test_thresholds_are_used_and_moved_without_a_wait(record, patchifier, trigger, spread):
    config = Config(model=small_config(patchifier, trigger))
    config = replace(config, train=replace(config.train, batch_rows=2, threshold_spread=spread))
    model = ByteLM(config.model).to("cuda")
    schedule = ThresholdSchedule(config, model.device)
    ids = torch.randint(0, 256, (2, 200), generator=torch.Generator().manual_seed(0))
    ids[:, 0] = SEPARATOR
    ids = ids.to(model.device)
    with torch.no_grad():
        output = model(ids)
    with record.in_phase("schedule"):
        for step in (0, 1, STEPS - 1):
            decisions = schedule.decisions(model, step)
            patch_end = decisions.patch_ends(output.facts, output.layout.documents)
            decisions.scratchpads(output.facts, output.facts.document_offset, ~patch_end)
            ratio_loss = StepRatioLoss.of_step(model, [ids, ids], 796)
            if ratio_loss is not None:
                ratio_loss.of_pass(output)
            schedule.observe(PassScores.of(model, output), 398)
            schedule.move(model, step, STEPS)
    assert record.num_kernels("schedule") > 0
    assert record.num_waits("schedule") == 0, record.waits
    assert not record.oddities
