"""A step reads nothing of the schedule, which stays on the device, and a compiled pass takes it as an input."""

import math

import pytest
import torch

from patchpad.config import PADDING
from patchpad.model.byte_lm import ByteLM
from patchpad.patching import ByteFacts, Documents, SlotRoom
from patchpad.patching.patchifiers import bytes_since_end
from patchpad.testing import as_row, random_documents, sharp_model
from patchpad.training.pass_scores import PassScores
from patchpad.training.ratio_loss import StepRatioLoss
from patchpad.training.threshold_schedule import ThresholdSchedule

CASES = [
    ("fixed", "entropy", {}),
    ("entropy", "entropy", {"threshold_spread": 0.5}),
    ("entropy", "never", {}),
    ("hnet", "entropy_jump", {"threshold_spread": 0.5}),
    ("spacebyte", "random", {"threshold_spread": 0.5}),
    ("entropy", "random", {}),
    ("fixed", "entropy", {"scratchpads_per_byte": None, "scratchpad_threshold_nats": 1.0, "threshold_spread": 0.5}),
    ("entropy", "entropy", {"scratchpads_per_byte": None, "scratchpad_threshold_nats": math.inf}),
]
STEPS = 20


def scores_of(entropies, config, device="cpu"):
    """Scores of a pass whose bytes have these entropies."""
    entropies = entropies.to(device)
    return PassScores(
        entropy_sum=entropies.sum(dtype=torch.float64),
        entropy_count=torch.full((), entropies.numel(), device=device),
        num_commits=torch.full((), entropies.numel() // 8, device=device),
        eligible=entropies if config.model.trigger.kind in ("entropy", "entropy_jump") else None,
        patch_ends=entropies if config.model.cuts_by_entropy else None,
    )


@pytest.mark.parametrize(("patchifier", "trigger", "options"), CASES)
def test_nothing_is_read_from_the_device_in_a_step(tools, patchifier, trigger, options):
    """Tensors on `meta` have no values: whatever reads one raises."""
    config = tools.config(trigger, patchifier, **options)
    model, schedule = ByteLM(config.model).to("meta"), ThresholdSchedule(config, "meta")
    for step in (0, 1, 99):
        decisions = schedule.decisions(model, step)
        assert decisions.scratchpad_threshold.shape == ((2,) if "threshold_spread" in options else ())
        assert {decisions.scratchpad_threshold.device.type, decisions.patch_threshold.device.type} == {"meta"}
        for _ in range(2):
            schedule.observe(scores_of(torch.ones(2, 64), config, "meta") if config.model.reads_entropy else None, 128)
        schedule.move(model, step, planned_steps=100)
    ids = torch.zeros(2, 64, dtype=torch.long, device="meta")
    ratio_loss = StepRatioLoss.of_step(model, [ids], 128)
    assert (ratio_loss is None) == (patchifier != "hnet")


def outputs_of(model):
    """Outputs of two batches of documents of uneven length, with padding."""
    rows = [[as_row(*random_documents(seed + row, [30 + row, 20 + 9 * row])) for row in range(2)] for seed in (1, 9)]
    width = max(len(row) for row in rows[0] + rows[1])
    for batch in rows:
        ids = torch.tensor([[*row, *[PADDING] * (width - len(row))] for row in batch])
        decisions = model.decisions_at(torch.tensor(3.0))
        yield model.run(ids, decisions, room=SlotRoom(commits=128, scratchpads=128))


@pytest.mark.parametrize(
    ("patchifier", "trigger"), [("fixed", "entropy"), ("entropy", "entropy_jump"), ("hnet", "entropy")]
)
def test_scores_of_a_pass_are_those_where_scratchpads_and_patch_ends_may_be(tools, patchifier, trigger):
    model = sharp_model(tools.config(trigger, patchifier).model)
    for output in outputs_of(model):
        scores, used = PassScores.of(model, output), ~output.layout.documents.is_padding
        assert torch.equal(scores.eligible[scores.eligible > -math.inf], model.eligible_scores(output))
        assert not torch.isfinite(scores.eligible[output.layout.patch_end_mask | ~used]).any()
        if patchifier == "entropy":
            assert torch.equal(scores.patch_ends[scores.patch_ends > -math.inf], model.patch_end_scores(output))
        else:
            assert scores.patch_ends is None
        assert float(scores.entropy_sum) == pytest.approx(float(output.entropy_nats[used].sum()), rel=1e-6)
        assert int(scores.entropy_count) == int(used.sum()) < used.numel()
        assert int(scores.num_commits) == int(output.layout.patch_end_mask.sum()) > 0
        assert not scores.eligible.requires_grad


def test_a_model_without_an_entropy_head_has_no_scores(tools):
    model = ByteLM(tools.config("stride").model)
    assert [PassScores.of(model, output) for output in outputs_of(model)] == [None, None]


@pytest.mark.compile
@pytest.mark.parametrize(("patchifier", "trigger"), [("entropy", "entropy"), ("hnet", "entropy_jump")])
def test_scores_of_a_pass_and_its_ratio_loss_come_out_of_one_graph(tools, patchifier, trigger):
    model = ByteLM(tools.config(trigger, patchifier).model)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def collect(output, ratio_loss):
        return PassScores.of(model, output), None if ratio_loss is None else ratio_loss.of_pass(output)

    torch._dynamo.reset()
    compiled = torch.compile(collect, backend=backend, fullgraph=True, dynamic=False)
    with torch.no_grad():
        outputs = list(outputs_of(model))
    for num_bytes, output in zip((90, 110), outputs, strict=True):
        ratio_loss = StepRatioLoss.of_step(model, [output.facts.byte_ids], num_bytes)
        (found, loss), (expected, expected_loss) = compiled(output, ratio_loss), collect(output, ratio_loss)
        assert torch.equal(found.eligible, expected.eligible)
        assert torch.equal(found.entropy_sum, expected.entropy_sum)
        if patchifier == "entropy":
            assert torch.equal(found.patch_ends, expected.patch_ends)
        else:
            assert torch.equal(loss, expected_loss)
    assert len(graphs) == 1


@pytest.mark.compile
@pytest.mark.parametrize(("patchifier", "trigger", "options"), CASES)
def test_decisions_of_20_steps_are_inputs_of_one_graph(tools, patchifier, trigger, options):
    """Through all phases: the head is fresh, then thresholds follow, then they are frozen."""
    config = tools.config(trigger, patchifier, threshold_frozen_fraction=0.3, **options)
    model, schedule = ByteLM(config.model), ThresholdSchedule(config)
    graphs, fresh = [], set()

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def decide(byte_ids, entropies, decisions):
        documents = Documents.locate(byte_ids)
        facts = ByteFacts.gather(byte_ids, documents, entropies, entropies / 6)
        patch_end = decisions.patch_ends(facts, documents)
        return patch_end, decisions.scratchpads(facts, bytes_since_end(patch_end, documents), ~patch_end)

    torch._dynamo.reset()
    compiled = torch.compile(decide, backend=backend, fullgraph=True, dynamic=False)
    source = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        byte_ids = torch.randint(0, 256, (2, 64), generator=source)
        byte_ids[:, ::40] = 256
        entropies = (5.5 if step < 5 else 2.0) + torch.rand(2, 64, generator=source)
        decisions = schedule.decisions(model, step)
        for found, expected in zip(
            compiled(byte_ids, entropies, decisions), decide(byte_ids, entropies, decisions), strict=True
        ):
            assert torch.equal(found, expected)
        fresh.add(bool(schedule.is_fresh))
        schedule.observe(scores_of(entropies, config) if config.model.reads_entropy else None, 122)
        schedule.move(model, step, planned_steps=STEPS)
    assert fresh == ({True, False} if config.model.reads_entropy else {False})
    assert len(graphs) == 1
