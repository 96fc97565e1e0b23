"""Training that starts from another model's weights: what is taken over, what is new, and what cannot be."""

import json
import logging
from dataclasses import replace

import pytest
import torch

from patchpad.config import Config, DataConfig, ModelConfig, PatchifierConfig, TriggerConfig, load_config
from patchpad.errors import CheckpointError, ConfigError
from patchpad.model.build import build_model
from patchpad.training import trainer
from patchpad.training.checkpoint import BUNDLED, TRAINER, load, open_checkpoint
from patchpad.training.init_from import Source, fitted_distances, fitted_lags
from patchpad.training.steps import TrainingSteps
from patchpad.training.text import RunText
from patchpad.training.trainer import Trainer


def started(source, model: ModelConfig, seed: int = 1) -> torch.nn.Module:
    """Returns a new model that has started from another one's weights."""
    found = build_model(model, seed=seed)
    Source.open(source).require_fits(model)
    Source.open(source).start(found)
    return found


def with_patches(config: Config, kind: str, size: int = 8, trigger: str = "entropy") -> ModelConfig:
    patchifier = PatchifierConfig(kind=kind, target_patch_size=size)  # pyrefly: ignore
    return replace(config.model, patchifier=patchifier, trigger=TriggerConfig(kind=trigger))  # pyrefly: ignore


@pytest.fixture(scope="module")
def plain(tmp_path_factory, text, tools):
    """A run without scratchpads, and so without an entropy head."""
    out = tmp_path_factory.mktemp("plain") / "run"
    trainer.train(tools.config("never", steps=4, checkpoint_every=2), data=text, out=out, progress=tools.Hook())
    return out


def test_weights_are_taken_over_and_thresholds_are_not(finished, tools):
    config = replace(tools.config().model, context_bytes=100, window_bytes=6)
    found, source = started(finished, config), load(finished)
    for name, weights in source.named_parameters():
        assert torch.equal(found.get_parameter(name), weights), name
    assert float(found.scratchpad_threshold_nats) == config.trigger.scratchpad_threshold_nats
    assert float(source.scratchpad_threshold_nats) != config.trigger.scratchpad_threshold_nats


def test_a_new_run_has_its_own_text_schedule_and_context_and_says_where_it_began(tmp_path, plain, documents, tools):
    step = plain / "checkpoints" / "step-2"
    model = replace(tools.config().model, context_bytes=32)
    config = replace(tools.config(steps=4, schedule="wsd", checkpoint_every=3, seed=5), model=model)
    out = tmp_path / "run"
    run = trainer.train(config, data=documents, out=out, init_from=step, progress=tools.Hook())
    lines = tools.losses(out)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["learning_rate"] < lines[3]["learning_rate"] == config.train.learning_rate
    saved = open_checkpoint(out).config
    assert saved.train.init_from == run.config.train.init_from == str(step)
    state = json.loads((out / "checkpoints" / "step-3" / TRAINER).read_text())
    assert state["init_from"].keys() == {"name", "step", "manifest_sha256"}
    assert (state["init_from"]["name"], state["init_from"]["step"]) == (str(step), 2)
    again = tmp_path / "again"
    trainer.train(replace(saved, data=DataConfig()), data=documents, out=again, progress=tools.Hook())
    assert tools.losses(again) == lines


def test_a_resumed_run_needs_its_source_no_more_and_keeps_where_it_began(tmp_path, plain, text, tools):
    source = tmp_path / "source"
    source.symlink_to(plain)
    config = tools.config(steps=4)
    whole = trainer.train(config, data=text, out=tmp_path / "whole", init_from=source, progress=tools.Hook())

    def stop():
        source.unlink()
        raise KeyboardInterrupt

    config = replace(config, train=replace(config.train, checkpoint_every=1))
    run = Trainer(
        replace(config, train=replace(config.train, init_from=str(source))),
        tmp_path / "resumed",
        RunText.open(whole.config.data),
        source=Source.open(source),
    )
    with pytest.raises(KeyboardInterrupt):
        run.run(tools.Hook(2, stop))
    trainer.resume(tmp_path / "resumed", progress=tools.Hook())
    assert tools.losses(tmp_path / "resumed") == tools.losses(tmp_path / "whole")
    states = [tmp_path / name / "checkpoints" / "step-4" / TRAINER for name in ("whole", "resumed")]
    of_whole, of_resumed = (json.loads(state.read_text())["init_from"] for state in states)
    assert of_whole == of_resumed


def test_an_absent_entropy_head_starts_fresh_and_is_named(plain, tools, caplog):
    config = tools.config().model
    with caplog.at_level(logging.INFO):
        found = started(plain, config)
    assert f"starting from {plain}: 30 tensors of weights; new: entropy_head; not taken: none" in caplog.text
    drawn, source = build_model(config, seed=1), load(plain)
    for name, weights in found.named_parameters():
        expected = drawn if name.startswith("entropy_head") else source
        assert torch.equal(weights, expected.get_parameter(name)), name


@pytest.mark.parametrize(
    ("kind", "size", "trigger", "new", "not_taken"),
    [
        ("entropy", 8, "never", "none", "none"),
        ("fixed", 16, "random", "none", "entropy_head"),
        ("fixed", 4, "entropy_jump", "none", "none"),
        ("hnet", 8, "entropy", "routing, patch_pooling", "patch_pooling"),
        ("fixed", 1, "never", "patch_pooling", "entropy_head, patch_pooling"),
    ],
)
def test_other_patches_and_triggers_train_on(
    tmp_path, finished, text, tools, caplog, kind, size, trigger, new, not_taken
):
    config = replace(tools.config(steps=2), model=with_patches(tools.config(), kind, size, trigger))
    with caplog.at_level(logging.INFO):
        run = trainer.train(config, data=text, out=tmp_path / "run", init_from=finished, progress=tools.Hook())
    assert f"new: {new}; not taken: {not_taken}\n" in caplog.text
    assert run.config.model == config.model


def test_longer_patches_change_nothing_that_shorter_ones_decided(finished, tools):
    """With longer patches, bytes close to their slot are pooled and read as before."""
    source = load(finished)
    found = started(finished, with_patches(tools.config(), "fixed", 16))
    bias, longer = source.patch_pooling.distance_bias, found.patch_pooling.distance_bias
    assert longer.shape[1] == bias.shape[1] + 8
    assert torch.equal(longer[:, : bias.shape[1]], bias)
    states = torch.randn(3, source.config.trunk_dim)
    before, after = source.context_to_bytes(states), found.context_to_bytes(states)
    assert torch.equal(after[:, :8], before)
    assert torch.equal(after[:, 8:], before[:, 7:].expand(-1, 8, -1))


def test_parameters_by_distance_and_by_lag_fit_other_patches():
    drawn = -torch.arange(6.0)[None]
    assert fitted_distances(torch.tensor([[1.0, 3.0, 7.0]]), drawn).tolist() == [[1, 3, 7, 6, 5, 4]]
    assert fitted_distances(torch.tensor([[1.0, 3.0, 7.0]]), drawn[:, :2]).tolist() == [[1, 3]]
    weights = torch.arange(10.0).view(10, 1)  # three lags and two layers, of width 2
    assert fitted_lags(weights, 3, 3, 2).flatten().tolist() == list(range(10))
    assert fitted_lags(weights, 3, 5, 2).flatten().tolist() == [0, 1, 2, 3, 4, 5, 4, 5, 4, 5, 6, 7, 8, 9]
    assert fitted_lags(weights, 3, 1, 2).flatten().tolist() == [0, 1, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"trunk_dim": 64}, "model.trunk_dim is 64, and 32 in {run}; model.trunk_kv_dim is 64, and 32 in"),
        ({"trunk_layers": 2}, "model.trunk_layers is 2, and 1 in {run}; allowed: the same"),
        ({"trunk_ffn_dim": 40}, "model.trunk_ffn_dim is 40, and None in {run}; allowed: the same"),
        ({"byte_heads": 1}, "model.byte_heads is 1, and 2 in {run}"),
        ({"ngram_sizes": (3, 4)}, "model.ngram_sizes is [3, 4], and [3, 4, 5, 6, 7, 8] in {run}"),
        ({"pooling_heads": 4}, "model.pooling_heads is 4, and 2 in {run}"),
        ({"entropy_head_layers": 0}, "model.entropy_head_layers is 0, and 1 in {run}"),
        ({"kind": "byte"}, "model.kind is byte, and patch in {run}; allowed: the same"),
    ],
)
def test_sizes_that_differ_are_refused_before_there_is_a_folder(tmp_path, finished, text, tools, changes, expected):
    config = replace(tools.config(), model=replace(tools.config().model, **changes))
    with pytest.raises(ConfigError) as caught:
        trainer.train(config, data=text, out=tmp_path / "run", init_from=finished)
    assert caught.value.message.startswith(expected.format(run=finished))
    assert not (tmp_path / "run").exists()


def test_what_is_no_model_cannot_be_started_from(tmp_path, text, tools):
    for folder, expected in (("missing", "no run is at"), ("", "is not a patchpad checkpoint")):
        config = tools.config(init_from=str(tmp_path / folder))
        with pytest.raises(CheckpointError, match=expected):
            trainer.train(config, data=text, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_keys_of_the_model_that_are_set_nowhere_are_those_of_the_run(tmp_path, finished):
    file = tmp_path / "more.yaml"
    file.write_text(f"model: {{trigger: {{kind: never}}}}\ntrain: {{init_from: {finished}, steps: 7}}")
    model = open_checkpoint(finished).config.model
    overrides = {"model.patchifier.target_patch_size": "4"}
    found = load_config(file, overrides, model_of=lambda name: Source.open(name).model_config)
    expected = replace(
        model, trigger=replace(model.trigger, kind="never"), patchifier=replace(model.patchifier, target_patch_size=4)
    )
    assert found.model == expected
    assert (found.train.steps, found.train.learning_rate) == (7, Config().train.learning_rate)


@pytest.mark.parametrize("kind", ["byte", "megabyte"])
def test_a_baseline_starts_from_its_own_kind(tmp_path, text, tools, kind):
    model = ModelConfig(kind=kind, byte_dim=16, trunk_dim=32, trunk_heads=2, trunk_layers=1, context_bytes=64)
    config = replace(tools.config(steps=1), model=model)
    first = trainer.train(config, data=text, out=tmp_path / "first", progress=tools.Hook())
    found = started(tmp_path / "first", model)
    for name, weights in first.model.state_dict().items():
        assert torch.equal(found.state_dict()[name], weights), name
    if kind == "megabyte":
        other = replace(model, patchifier=PatchifierConfig(target_patch_size=8))
        with pytest.raises(ConfigError, match=r"model\.patchifier\.target_patch_size is 8, and 16 in"):
            started(tmp_path / "first", other)


def test_the_bundled_model_can_be_started_from(text):
    source = Source.open(BUNDLED)
    config = Config(model=source.model_config)
    config = replace(config, train=replace(config.train, init_from=BUNDLED, frozen=("trunk",), device="cpu"))
    steps = TrainingSteps(config, RunText.open(DataConfig(paths=(str(text),))).training, Source.of(config))
    for name, weights in load().named_parameters():
        assert torch.equal(steps.model.get_parameter(name), weights), name
    assert source.facts()["step"] == source.checkpoint.config.train.steps
