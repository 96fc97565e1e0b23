"""Training: which bytes it sees, how passes add up, and what it refuses."""

import json
import math

import numpy as np
import pytest
import torch

from patchpad.config import SEPARATOR, DataConfig
from patchpad.data import PrefetchedBatches, TrainingBatches
from patchpad.errors import ConfigError, DataError, TrainingError
from patchpad.evaluation.bits_per_byte import evaluate
from patchpad.model.byte_lm import ByteLM
from patchpad.training import trainer
from patchpad.training.checkpoint import load
from patchpad.training.learning_rate import learning_rate
from patchpad.training.optimizer import build_optimizer, set_learning_rate
from patchpad.training.sums import StepSums
from patchpad.training.text import RunText
from patchpad.training.threshold_schedule import ThresholdSchedule
from patchpad.training.trainer import Trainer

GRADIENT_TOLERANCE = 1e-6
"""Largest difference of two fp32 gradients whose sums are taken in another order, over the largest gradient."""


def gradients(config, data, tmp_path, steps=1):
    run = Trainer(config, tmp_path / "unused", RunText.open(DataConfig(paths=(str(data),))))
    sums = StepSums()
    for _ in range(steps):
        run.train_step(sums)
        run.step += 1
    return [parameter.grad for parameter in run.model.parameters()], run.readings.gradient_norm, sums, run


@pytest.mark.parametrize(("rows", "passes"), [(1, 4), (2, 2)])
@pytest.mark.parametrize(("trigger", "spread"), [("entropy", 0.0), ("random", 0.0), ("entropy", 0.5), ("random", 0.5)])
def test_accumulated_passes_give_the_gradient_of_one_big_batch(
    tmp_path, documents, tools, trigger, spread, rows, passes
):
    big, norm, big_sums, big_run = gradients(
        tools.config(trigger, batch_rows=4, threshold_spread=spread), documents, tmp_path
    )
    config = tools.config(trigger, batch_rows=rows, accumulation_steps=passes, threshold_spread=spread)
    small, small_norm, small_sums, small_run = gradients(config, documents, tmp_path)
    counts = [small_run.batches.batch(index).num_targets for index in range(passes)]
    assert len(set(counts)) > 1, "passes of equal weight cannot tell a weighted sum from a mean"
    largest = max(float(gradient.abs().max()) for gradient in big)
    for expected, found in zip(big, small, strict=True):
        assert float((expected - found).abs().max()) <= GRADIENT_TOLERANCE * largest
    assert small_norm == pytest.approx(norm, rel=1e-5)
    assert small_sums.nats == pytest.approx(big_sums.nats, rel=1e-6)
    assert small_sums.num_bytes == big_sums.num_bytes == small_run.bytes_seen == big_run.bytes_seen
    assert small_sums.num_scratchpads == big_sums.num_scratchpads > 0


def settled_step(config, data, tmp_path):
    """A step of a model whose head is no longer fresh and whose entropies, or boundaries, are spread."""
    run = Trainer(config, tmp_path / "unused", RunText.open(DataConfig(paths=(str(data),))))
    with torch.no_grad():
        run.model.entropy_head.lm_head.weight.mul_(40)
        if run.model.routing is not None:
            run.model.routing.query.weight.copy_(torch.randn(16, 16, generator=torch.Generator().manual_seed(2)))
    run.schedule.is_fresh = torch.tensor(False)
    run.schedule.scratchpad.nats = torch.tensor(2.5, dtype=torch.float64)
    run.model.store_patch_threshold(2.9)
    sums = StepSums()
    run.train_step(sums)
    run.step += 1
    return [parameter.grad for parameter in run.model.parameters()], run.readings.gradient_norm, sums, run


@pytest.mark.parametrize("patchifier", ["fixed", "entropy", "hnet"])
def test_a_step_of_four_passes_is_the_step_of_one(tmp_path, documents, tools, patchifier):
    options = {"threshold_spread": 0.5, "ratio_loss_weight": 1.0, "max_grad_norm": 1e9}
    one = tools.config("entropy", patchifier, batch_rows=4, **options)
    four = tools.config("entropy", patchifier, batch_rows=1, accumulation_steps=4, **options)
    (big, norm, big_sums, big_run), (small, small_norm, small_sums, small_run) = (
        settled_step(config, documents, tmp_path) for config in (one, four)
    )
    assert small_sums.num_scratchpads == big_sums.num_scratchpads > 0
    assert small_sums.num_commits == big_sums.num_commits > 0
    assert small_sums.nats == pytest.approx(big_sums.nats, rel=1e-6)
    assert small_norm == pytest.approx(norm, rel=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in big)
    for expected, found in zip(big, small, strict=True):
        assert float((expected - found).abs().max()) <= GRADIENT_TOLERANCE * largest
    for name in ("scratchpad_threshold_nats", "patch_threshold_nats"):
        expected, found = (float(getattr(run.model, name)) for run in (big_run, small_run))
        assert found == pytest.approx(expected, rel=1e-6, nan_ok=True)
    expected, found = (run.schedule.state() for run in (big_run, small_run))
    assert found["scratchpad"]["nats"] == pytest.approx(expected["scratchpad"]["nats"], rel=1e-6)
    # Entropies of logits that are forty times as large are rounded by as much, however small they are.
    assert [part["nats"] for part in found["spread"]] == pytest.approx(
        [part["nats"] for part in expected["spread"]], rel=1e-6, abs=2e-6
    )
    assert found["patch_rate"] == pytest.approx(expected["patch_rate"], rel=1e-9)


def test_thresholds_stay_within_a_step(tmp_path, documents, tools, monkeypatch):
    used = []
    original = ThresholdSchedule.decisions

    def decisions(self, model, step, pass_number=0, rows=None):
        found = original(self, model, step, pass_number, rows)
        used.append((step, float(found.scratchpad_threshold)))
        return found

    monkeypatch.setattr(ThresholdSchedule, "decisions", decisions)
    _, _, _, run = settled_step(tools.config("entropy", batch_rows=1, accumulation_steps=4), documents, tmp_path)
    run.train_step(StepSums())
    assert [nats for step, nats in used if step == 0] == [2.5] * 4
    second = {nats for step, nats in used if step == 1}
    assert len(second) == 1
    assert 2.5 not in second


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_training_does_not_mind_the_callers_mode(tmp_path, text, tools, mode):
    config = tools.config("entropy", steps=4, checkpoint_every=2)
    trainer.train(config, data=text, out=tmp_path / "plain", progress=tools.Hook())
    with mode():
        tools.train_until_error(config, tools.Hook(3, interrupt), RuntimeError, data=text, out=tmp_path / "run")
        run = trainer.resume(tmp_path / "run", progress=tools.Hook())
    assert tools.losses(tmp_path / "run") == tools.losses(tmp_path / "plain")
    assert not any(parameter.is_inference() for parameter in run.model.parameters())


def interrupt():
    raise RuntimeError("stopped")


def test_loss_of_a_step_is_the_mean_over_targets_and_the_heads_loss_has_its_weight(tmp_path, documents, tools):
    alone, *_ = gradients(tools.config("entropy", entropy_head_weight=0.0, max_grad_norm=1e9), documents, tmp_path)
    both, *_ = gradients(tools.config("entropy", entropy_head_weight=1.0, max_grad_norm=1e9), documents, tmp_path)
    double, _, _, run = gradients(
        tools.config("entropy", entropy_head_weight=2.0, max_grad_norm=1e9), documents, tmp_path
    )
    head = {id(p) for p in run.model.entropy_head.parameters()}
    trunk = {id(p) for p in run.model.trunk.parameters()}
    for parameter, none, once, twice in zip(run.model.parameters(), alone, both, double, strict=True):
        if id(parameter) in head:
            assert none is None or float(none.abs().max()) == 0
            torch.testing.assert_close(2 * once, twice, rtol=1e-4, atol=1e-7)
        elif id(parameter) in trunk:
            torch.testing.assert_close(none, twice, rtol=1e-4, atol=1e-7)


def test_training_never_sees_the_held_out_text(tmp_path, tools, monkeypatch):
    data = tmp_path / "text.txt"
    data.write_bytes(b"training line\n" * 60 + b"ZZZZ ZZZZ\n" * 9)
    seen = []
    original = TrainingBatches.batch

    def spy(self, index, rows=None):
        batch = original(self, index, rows)
        seen.append(batch)
        return batch

    monkeypatch.setattr(TrainingBatches, "batch", spy)
    config = tools.config(steps=30, validate_every=7, checkpoint_every=10)
    run = trainer.train(config, data=data, out=tmp_path / "run", progress=tools.Hook())
    assert set(RunText.open(run.config.data).validation.documents[0].tobytes()) == set(b"Z \n")
    ids = torch.cat([torch.cat([batch.byte_ids, batch.targets]).flatten() for batch in seen])
    assert ord("Z") not in ids
    assert ord("t") in ids


def test_held_out_files_can_be_given_and_all_other_text_is_trained_on(tmp_path, text, documents, tools):
    config = tools.config(steps=1)
    config = tools.replace(config, data=tools.replace(config.data, validation_paths=(str(documents),)))
    run = trainer.train(config, data=text, out=tmp_path / "run", progress=tools.Hook())
    assert len(RunText.open(run.config.data).validation.documents) == 60
    assert run.config.data.paths == (str(text),)


def test_last_line_of_metrics_is_the_evaluation_of_the_returned_and_of_the_loaded_model(tmp_path, text, tools):
    run = trainer.train(tools.config(steps=6), data=text, out=tmp_path / "run", progress=tools.Hook())
    last = tools.losses(run.path)[-1]
    assert not run.model.training
    for model in (run.model, load(run.path)):
        point = evaluate(
            model, RunText.open(run.config.data).validation, limit_bytes=run.config.train.validation_bytes
        )[0]
        assert point.bits_per_byte == last["val/bpb"]
        assert point.scratchpad_threshold_nats == last["scratchpad_threshold_nats"]


def test_metrics_are_strict_json_with_a_line_where_one_is_due(tmp_path, text, tools):
    config = tools.config("never", steps=10, log_every=4, validate_every=5)
    trainer.train(config, data=text, out=tmp_path / "run", progress=tools.Hook())
    content = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line, parse_constant=pytest.fail) for line in content.splitlines()]
    assert [line["step"] for line in lines] == [4, 5, 8, 10]
    assert [line["step"] for line in lines if "val/bpb" in line] == [5, 10]
    assert lines[-1]["scratchpad_threshold_nats"] == "inf"
    assert {line["scratchpads_per_byte"] for line in lines} == {0.0}
    assert all("train/entropy_head_bpb" not in line for line in lines)


def test_bits_per_byte_of_training_leave_the_ends_of_documents_out(tmp_path, documents, tools):
    _, _, sums, run = gradients(tools.config("never"), documents, tmp_path)
    batch = run.batches.batch(0)
    model = ByteLM(run.config.model, seed=run.config.train.seed)
    with torch.no_grad():
        log_p = torch.log_softmax(model(batch.byte_ids).logits.double(), dim=-1)
    is_byte = (batch.targets >= 0) & (batch.targets != SEPARATOR)
    nats = -log_p.gather(-1, batch.targets.clamp(min=0)[..., None])[..., 0][is_byte].sum()
    assert sums.nats == pytest.approx(float(nats), rel=1e-5)
    assert sums.num_bytes == int(is_byte.sum()) < batch.num_targets


def test_file_of_zeros_is_learned_like_any_other_text(tmp_path, tools):
    data = tmp_path / "zeros"
    data.write_bytes(bytes(2000))
    config = tools.config(steps=20, learning_rate=0.02)
    run = trainer.train(config, data=data, out=tmp_path / "run", progress=tools.Hook())
    lines = tools.losses(run.path)
    assert lines[0]["train/bpb"] > 7
    assert lines[-1]["train/bpb"] < 1
    point = evaluate(run.model, data, limit_bytes=0)[0]
    assert point.num_bytes == 2000
    assert point.bits_per_byte < 1


@pytest.mark.parametrize("size", [2, 3, 64, 65])
def test_very_short_text_can_be_trained_on(tmp_path, tools, size):
    (tmp_path / "text").write_bytes(b"abcde" * 13)
    data = tmp_path / "short"
    data.write_bytes((b"abcde" * 13)[:size])
    run = trainer.train(tools.config(steps=2), data=data, out=tmp_path / "run", progress=tools.Hook())
    assert math.isfinite(tools.losses(run.path)[-1]["val/bpb"])


def test_same_seed_gives_the_same_run_and_another_seed_another(tmp_path, text, tools):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trainer.train(tools.config(steps=3, seed=seed), data=text, out=tmp_path / name, progress=tools.Hook())
    assert tools.losses(tmp_path / "a") == tools.losses(tmp_path / "b")
    assert tools.losses(tmp_path / "a") != tools.losses(tmp_path / "c")


def test_output_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path, text, tools):
    out = tmp_path / "run"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    hook = tools.Hook()
    error = tools.train_until_error(tools.config(), hook, ConfigError, data=text, out=out)
    assert error.message == f"{out} exists and is not empty; a run needs a new folder"
    assert error.hint == "Choose another --out.", "no run is there to go on with"
    assert [file.name for file in out.iterdir()] == ["notes.txt"]
    assert hook.steps == []
    file = out / "notes.txt"
    assert "not empty" in tools.train_until_error(tools.config(), hook, ConfigError, data=text, out=file).message


def test_empty_output_folder_is_used_and_missing_text_makes_none(tmp_path, text, tools):
    (tmp_path / "empty").mkdir()
    trainer.train(tools.config(steps=1), data=text, out=tmp_path / "empty", progress=tools.Hook())
    missing = tmp_path / "missing.txt"
    tools.train_until_error(tools.config(), tools.Hook(), DataError, data=missing, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_output_folder_that_cannot_be_made_is_an_error(tmp_path, text, tools):
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "run"
    error = tools.train_until_error(tools.config(), tools.Hook(), ConfigError, data=text, out=out)
    assert f"cannot make the run directory {out}" in error.message


@pytest.mark.parametrize(("steps", "passes"), [(1, 1), (9, 1), (9, 2)])
def test_run_that_diverges_says_so_instead_of_saving_nonsense(tmp_path, text, tools, steps, passes):
    """The weights break at the first step: noticed at the next one, or at the validation that ends the run."""
    config = tools.config("entropy", steps=steps, accumulation_steps=passes, learning_rate=1e39, warmup_steps=0)
    error = tools.train_until_error(config, tools.Hook(), TrainingError, data=text, out=tmp_path / "run")
    assert f"training has diverged: the {'validation loss' if steps == 1 else 'loss'} is nan" in error.message
    assert "learning_rate below 1e+39" in error.hint
    assert list((tmp_path / "run").rglob("model.safetensors")) == []


def test_device_that_this_machine_lacks_is_an_error_and_leaves_no_folder(tmp_path, text, tools):
    config = tools.config(device="cuda:77")
    error = tools.train_until_error(config, tools.Hook(), ConfigError, data=text, out=tmp_path / "r")
    assert error.message == "device is 'cuda:77', but this machine has none"
    assert not (tmp_path / "r").exists()


def test_each_pass_takes_the_next_batch_and_each_step_its_learning_rate(tmp_path, text, tools, monkeypatch):
    asked, rates = [], []
    original, rate = PrefetchedBatches.batch, learning_rate
    monkeypatch.setattr(PrefetchedBatches, "batch", lambda self, index: asked.append(index) or original(self, index))
    config = tools.config(steps=4, accumulation_steps=3, warmup_steps=2)
    run = Trainer(config, tmp_path / "run", RunText.open(DataConfig(paths=(str(text),))))
    original_step = run.optimizer.step
    run.optimizer.step = lambda: rates.append({group["lr"] for group in run.optimizer.param_groups}) or original_step()
    run.run(tools.Hook())
    assert asked == list(range(12))
    assert rates == [{rate(step, config.train)} for step in range(4)]
    assert [line["learning_rate"] for line in tools.losses(tmp_path / "run")] == [
        rate(s, config.train) for s in range(4)
    ]


def test_learning_rate_warms_up_then_falls_to_its_floor(tools):
    config = tools.config(steps=100, warmup_steps=10, learning_rate=1.0, final_learning_rate_ratio=0.1).train
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.55)
    assert rates[99] > rates[100] == pytest.approx(0.1), "the floor lies one step after the last"
    short = tools.replace(config, steps=5)  # a warm-up longer than the run
    assert np.isfinite([learning_rate(step, short) for step in range(6)]).all()


def test_weight_decay_touches_parameters_of_two_dimensions_alone(tools):
    model = ByteLM(tools.config().model)
    decayed, others = build_optimizer(model, tools.config(weight_decay=0.3).train).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert {parameter.dim() for parameter in others["params"]} == {1}
    assert min(parameter.dim() for parameter in decayed["params"]) == 2
    assert len(decayed["params"]) + len(others["params"]) == len(list(model.parameters()))
    ids = {id(parameter) for parameter in decayed["params"]}
    named = {name for name, parameter in model.named_parameters() if id(parameter) in ids}
    assert {name for name in named if not name.endswith("weight")} == {"patch_pooling.distance_bias"}


def test_wsd_stays_at_the_peak_and_falls_in_a_straight_line_to_its_floor(tools):
    values = {"steps": 100, "warmup_steps": 10, "learning_rate": 1.0, "final_learning_rate_ratio": 0.1}
    config = tools.config(**values, schedule="wsd", decay_fraction=0.2).train
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[:10] == [learning_rate(step, tools.config(**values).train) for step in range(10)]
    assert rates[10:81] == [1.0] * 71
    assert rates[80:] == pytest.approx(np.linspace(1.0, 0.1, 21))
    assert learning_rate(170, config, 200) == pytest.approx(0.775), "the decay follows the steps that are planned"
    at_once = tools.config(**values, schedule="wsd", decay_fraction=1.0).train
    assert [learning_rate(step, at_once) for step in range(10, 101)] == pytest.approx(np.linspace(1.0, 0.1, 91))
    never = tools.config(**values, schedule="wsd", decay_fraction=0.0).train
    assert [learning_rate(step, never) for step in range(10, 100)] == [1.0] * 90


def test_a_part_has_its_own_share_of_the_learning_rate(tools):
    model = ByteLM(tools.config().model)
    ratios = {"patch_pooling": 0.25, "trunk": 0.25, "context_to_bytes": 0.25}
    optimizer = build_optimizer(model, tools.config(learning_rate_ratios=ratios).train)
    set_learning_rate(optimizer, 8.0)
    rates = {parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        runs_once_per_slot = name.split(".")[0] in ("patch_pooling", "trunk", "context_to_bytes")
        assert rates[parameter] == (2.0 if runs_once_per_slot else 8.0), name
