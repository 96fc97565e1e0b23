"""Baselines train, resume to the last bit, and are stored whole."""

import json
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

import patchpad
from patchpad.config import Config, DataConfig, ModelConfig, PatchifierConfig
from patchpad.errors import CheckpointError, TrainingInterrupted
from patchpad.files import sha256_of
from patchpad.model.baselines import BpeTokens
from patchpad.testing import BASELINE_KINDS
from patchpad.training import trainer
from patchpad.training.checkpoint import load
from patchpad.training.release import save
from patchpad.training.text import RunText

every_kind = pytest.mark.parametrize("kind", BASELINE_KINDS)


def config_of(tools, kind, **train) -> Config:
    model = ModelConfig(
        kind=kind,
        byte_dim=16,
        byte_heads=2,
        decoder_layers=1,
        trunk_dim=32,
        trunk_heads=2,
        trunk_layers=1,
        context_bytes=64,
        bpe_vocab_size=320,
        patchifier=PatchifierConfig(target_patch_size=8),
    )
    return replace(tools.config(**train), model=model)


@every_kind
def test_interrupted_run_resumes_to_the_same_losses_and_weights(tmp_path, text, tools, kind):
    config = config_of(tools, kind, accumulation_steps=2, log_every=4, validate_every=5)
    trainer.train(config, data=text, out=tmp_path / "straight", progress=tools.Hook())
    stop = tools.Hook(6, lambda: os.kill(os.getpid(), signal.SIGINT))
    tools.train_until_error(config, stop, TrainingInterrupted, data=text, out=tmp_path / "stopped")
    torch.manual_seed(99)
    trainer.resume(tmp_path / "stopped", progress=tools.Hook())
    assert tools.losses(tmp_path / "straight") == tools.losses(tmp_path / "stopped")
    names = ["model.safetensors", "config.json", *(["tokenizer.json"] if kind == "bpe" else [])]
    for name in names:
        assert sha256_of(tmp_path / "straight" / name) == sha256_of(tmp_path / "stopped" / name), name


@pytest.mark.unchecked
@every_kind
def test_training_lowers_the_loss_and_metrics_have_the_keys_of_the_patch_model(tmp_path, text, tools, kind):
    config = config_of(tools, kind, steps=60, log_every=20, learning_rate=1e-2)
    run = trainer.train(config, data=text, out=tmp_path / "run", progress=tools.Hook())
    lines = tools.losses(run.path)
    assert lines[-1]["train/bpb"] < 0.75 * lines[0]["train/bpb"]
    patch = trainer.train(tools.config("never", steps=1), data=text, out=tmp_path / "patch", progress=tools.Hook())
    keys = [{key.partition("gradient_norm/")[0] for key in each} for each in (lines[-1], tools.losses(patch.path)[-1])]
    assert keys[0] == keys[1], "but for the parts of the model"
    parts = {name for name, part in run.model.named_children() if list(part.parameters())}
    assert {key.partition("/")[2] for key in lines[-1] if key.startswith("gradient_norm/")} == parts
    assert lines[-1]["scratchpads_per_byte"] == 0
    rate = lines[-1]["patches_per_byte"]
    assert {"byte": 1 <= rate < 1.05, "megabyte": 0.12 < rate < 0.14, "bpe": 0.2 < rate < 0.9}[kind]


@every_kind
def test_a_loaded_run_scores_and_generates_what_the_trained_model_does(tmp_path, text, tools, kind):
    run = trainer.train(config_of(tools, kind, steps=3), data=text, out=tmp_path / "run", progress=tools.Hook())
    loaded = load(run.path)
    assert type(loaded) is type(run.model)
    assert np.array_equal(patchpad.score(loaded, b"the cat\xff"), patchpad.score(run.model, b"the cat\xff"))
    options = {"max_new_bytes": 30, "temperature": 1.0}
    assert patchpad.complete(loaded, ["the"], **options) == patchpad.complete(run.model, ["the"], **options)
    save(loaded, run.config, tmp_path / "copy")
    assert np.array_equal(patchpad.score(load(tmp_path / "copy"), b"the cat"), patchpad.score(loaded, b"the cat"))


@pytest.mark.parametrize("odd", [bytes(700), b"a" * 700, b"nospacesatall" * 50, b"word"], ids=["0", "a", "x", "word"])
@every_kind
def test_odd_texts_train_to_finite_losses(tmp_path, tools, kind, odd):
    (tmp_path / "text").write_bytes(odd)
    (tmp_path / "held_out").write_bytes(odd[1:])
    config = config_of(tools, kind, steps=4)
    config = replace(config, data=replace(config.data, validation_paths=(str(tmp_path / "held_out"),)))
    run = trainer.train(config, data=tmp_path / "text", out=tmp_path / "run", progress=tools.Hook())
    assert np.isfinite(tools.losses(run.path)[-1]["val/bpb"])
    completion = patchpad.complete(run.model, [odd[:3]], max_new_bytes=9)[0]
    assert completion.stop_reason in ("length", "end")


def test_batches_are_those_of_every_other_kind(tmp_path, text, tools):
    def batches_of(config):
        return trainer.Trainer(config, tmp_path, RunText.open(DataConfig(paths=(str(text),)))).batches

    expected = batches_of(tools.config()).batch(3).byte_ids
    for kind in BASELINE_KINDS:
        assert torch.equal(batches_of(config_of(tools, kind)).batch(3).byte_ids, expected)


@pytest.fixture(scope="module")
def run(tmp_path_factory, text, tools):
    out = tmp_path_factory.mktemp("bpe") / "run"
    return trainer.train(config_of(tools, "bpe", steps=2), data=text, out=out, progress=tools.Hook())


class TestTokens:
    def test_they_are_learned_from_the_training_part_alone(self, run, text):
        opened = RunText.open(run.config.data)
        training, held_out = opened.training, opened.validation
        stored = (run.path / "tokenizer.json").read_text(encoding="utf-8")
        assert stored == BpeTokens.learn(training.documents, 320).to_json()
        assert stored != BpeTokens.learn([*training.documents, *held_out.documents], 320).to_json()

    @pytest.mark.parametrize("folder", ["", "checkpoints/step-2"])
    def test_they_are_in_every_folder_that_loads_and_its_manifest(self, run, folder):
        manifest = json.loads((run.path / folder / "manifest.json").read_text())
        assert manifest["files"]["tokenizer.json"] == sha256_of(run.path / folder / "tokenizer.json")
        assert load(run.path / folder).tokens.bytes_of == run.model.tokens.bytes_of

    def test_a_changed_byte_of_them_is_found(self, run, tmp_path):
        shutil.copytree(run.path, tmp_path / "run")
        file = tmp_path / "run" / "tokenizer.json"
        file.write_text(file.read_text(encoding="utf-8").replace("BPE", "BPF"), encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"tokenizer\.json was altered"):
            load(tmp_path / "run")
        file.unlink()
        with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
            load(tmp_path / "run")

    def test_a_checkpoint_that_never_had_them_is_refused(self, run, tmp_path):
        shutil.copytree(run.path, tmp_path / "run")
        (tmp_path / "run" / "tokenizer.json").unlink()
        manifest = tmp_path / "run" / "manifest.json"
        values = json.loads(manifest.read_text())
        del values["files"]["tokenizer.json"]
        manifest.write_text(json.dumps(values))
        with pytest.raises(CheckpointError, match=r"cannot read .*tokenizer\.json"):
            load(tmp_path / "run")

    def test_resuming_does_not_learn_them_again(self, tmp_path, text, tools, monkeypatch):
        config = config_of(tools, "bpe", steps=4)
        stop = tools.Hook(2, lambda: os.kill(os.getpid(), signal.SIGINT))
        tools.train_until_error(config, stop, TrainingInterrupted, data=text, out=tmp_path / "run")
        monkeypatch.setattr(BpeTokens, "learn", None)
        trainer.resume(tmp_path / "run", progress=tools.Hook())

    def test_without_the_library_no_run_is_begun(self, tmp_path, text, tools, monkeypatch):
        import sys

        from patchpad.errors import MissingExtraError

        monkeypatch.setitem(sys.modules, "tokenizers", None)
        with pytest.raises(MissingExtraError):
            trainer.train(config_of(tools, "bpe"), data=text, out=tmp_path / "run", progress=tools.Hook())
        assert not (tmp_path / "run").exists()
