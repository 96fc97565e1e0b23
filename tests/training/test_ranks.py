"""Ranks that share a batch see what one process sees: losses, counts, norms, thresholds. All on gloo."""

from dataclasses import replace

import pytest
import torch

from patchpad.config import DataConfig, PatchifierConfig, TriggerConfig
from patchpad.model.byte_lm import ByteLM
from patchpad.testing import tiny_source_tokens
from patchpad.testing.ranks import run_ranks
from patchpad.training import release
from patchpad.training.init_from import Source
from patchpad.training.starting import start_parallel
from patchpad.training.steps import TrainingSteps
from patchpad.training.sums import StepSums
from patchpad.training.text import RunText

pytestmark = pytest.mark.distributed

STEPS = 20
MOST_BITS_APART = 1e-5
"""Of losses in bits per byte: sums are taken in another order."""
MOST_NATS_APART = 1e-5
"""Of thresholds."""
MANY_OPTIONS = {"accumulation_steps": 2, "batch_rows": 3, "threshold_spread": 0.5, "activation_checkpointing": True}
"""With four ranks, one has no row. The first steps are clipped."""
SKIPS = {"max_skipped_steps": 20, "skip_norm_ratio": 1.2, "averaged_decay": 0.5}
"""From the 17th step on, so that some of the last ones are skipped."""
DEFAULT = [
    ("fixed", "entropy", {"parallel": "ddp", "batch_rows": 5}),
    ("fixed", "entropy", {"parallel": "hsdp", "shard_ranks": 2, **SKIPS, **MANY_OPTIONS}),
    ("hnet", "entropy", {"parallel": "fsdp", "frozen": ("trunk", "routing"), "z_loss_weight": 1e-3, **MANY_OPTIONS}),
    ("entropy", "entropy", {"parallel": "ddp", **MANY_OPTIONS}),
]
SLOW = [
    (patchifier, trigger, {"parallel": parallel, **options})
    for patchifier, trigger in (("fixed", "entropy"), ("entropy", "random"), ("hnet", "entropy"))
    for parallel in ("ddp", "fsdp")
    for options in ({"batch_rows": 6}, {"batch_rows": 1}, MANY_OPTIONS)
]


def train(configs, data, start=None):
    """Trains each configuration on this rank; returns what every step saw, the thresholds and the weights.

    All start from the run in the folder `start`, if there is one.
    """
    found = []
    for config in configs:
        parallel, source = start_parallel(config), None if start is None else Source.open(start)
        steps = TrainingSteps(config, RunText.open(DataConfig(paths=(data,))).training, source, parallel)
        seen = []
        for _ in range(config.train.steps):
            sums = StepSums()
            steps.train_step(sums)
            steps.step += 1
            readings = steps.readings
            seen.append(
                {
                    "bits": [sums.bits_per_byte(sums.nats), sums.bits_per_byte(sums.head_nats)],
                    "counts": [
                        sums.num_bytes,
                        sums.num_commits,
                        sums.num_scratchpads,
                        steps.bytes_seen,
                        steps.guard.num_skipped,
                    ],
                    "norms": [readings.gradient_norm, *readings.part_gradient_norms.values()],
                    "nats": [readings.scratchpad_threshold_nats, readings.patch_threshold_nats],
                }
            )
        weights = [parameter.detach() for parameter in steps.model.parameters()]
        if parallel.is_sharded:
            weights = [weight.full_tensor() for weight in weights]
        found.append((seen, steps.schedule.state(), [weight.clone() for weight in weights]))
    return found


def agree(found, expected):
    """Fails unless the steps of ranks are those of one process."""
    for step, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours["counts"] == theirs["counts"], step
        for name, apart in (("bits", MOST_BITS_APART), ("nats", MOST_NATS_APART)):
            assert ours[name] == pytest.approx(theirs[name], abs=apart, rel=0, nan_ok=True), (step, name)
        assert ours["norms"] == pytest.approx(theirs["norms"], rel=1e-4, abs=1e-7), step


def check(cases, sizes, documents, tools):
    """Compares ranks with one process, whose results are returned."""
    configs = [tools.config(trigger, patchifier, steps=STEPS, **options) for patchifier, trigger, options in cases]
    return check_configs(configs, sizes, str(documents))


def check_configs(configs, sizes, *arguments):
    """The same for configurations."""
    (one,) = run_ranks(1, train, configs, *arguments)
    for num_ranks in sizes:
        several = run_ranks(num_ranks, train, configs, *arguments, seconds=500.0)
        for case, alone in enumerate(one):
            for rank in several:
                agree(rank[case][0], alone[0])
                assert str(rank[case][:2]) == str(several[0][case][:2]), "ranks decide alike"
                for weight, first in zip(rank[case][2], several[0][case][2], strict=True):
                    assert torch.equal(weight, first)
    return one


def test_ranks_see_what_one_process_sees(documents, tools):
    one = check(DEFAULT, (4,), documents, tools)
    assert 0 < one[1][0][-1]["counts"][-1] < 4, "some of the last steps are skipped"


@pytest.mark.slow
def test_two_and_four_ranks_see_what_one_process_sees_in_every_way_of_patching_and_sharing(documents, tools):
    check(SLOW, (2, 4), documents, tools)


@pytest.mark.slow
def test_ranks_of_a_model_with_a_source_head_see_what_one_process_sees(tmp_path, documents, tools):
    tokens, configs = tiny_source_tokens(32), []
    for parallel in ("ddp", "fsdp"):
        config = tools.config("entropy", steps=6, parallel=parallel, **MANY_OPTIONS)
        patchifier = PatchifierConfig(kind="tokens", target_patch_size=8, num_token_ids=tokens.num_ids)
        trigger = TriggerConfig(kind="ending_entropy")
        model = replace(config.model, patchifier=patchifier, trigger=trigger, source_head="tied")
        configs.append(replace(config, model=model))
    source = ByteLM(configs[0].model)
    source.use_source_tokens(tokens)
    release.save(source, configs[0], tmp_path / "source")
    one = check_configs(configs, (4,), str(documents), str(tmp_path / "source"))
    assert min(step["counts"][2] for step in one[0][0]) > 0, "scratchpads fire"
