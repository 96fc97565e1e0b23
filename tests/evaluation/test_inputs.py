"""Inputs of the public functions that are of another type, or not finite."""

import json

import numpy as np
import pytest
import torch

import patchpad
from patchpad.config import Config
from patchpad.errors import CheckpointError, InputError, TrainingError
from patchpad.files import sha256_of
from patchpad.testing.models import sharp_model, tiny_model_config
from patchpad.training.release import save


@pytest.fixture(scope="module")
def model():
    return sharp_model(tiny_model_config("fixed", "entropy"))


@pytest.mark.unchecked
@pytest.mark.parametrize("wrong", [5, 1.5, None, [65, 66], np.array([65, 66]), True], ids=repr)
@pytest.mark.parametrize("function", ["score", "inspect"])
def test_a_text_that_is_neither_text_nor_bytes_is_refused(model, function, wrong):
    with pytest.raises(InputError, match=f"of type {type(wrong).__name__}; allowed: str or bytes"):
        getattr(patchpad, function)(model, wrong)


@pytest.mark.unchecked
@pytest.mark.parametrize("wrong", [5, b"the text itself", None, ["a.txt", 5], {"a.txt": 1}], ids=repr)
@pytest.mark.parametrize("function", ["evaluate", "calibrate"])
def test_data_that_are_not_paths_are_refused(model, function, wrong):
    with pytest.raises(InputError, match=f"data is of type {type(wrong).__name__}; allowed: a path"):
        getattr(patchpad, function)(model, wrong)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "options", [{"limit_bytes": "9"}, {"limit_bytes": 1.5}, {"limit_bytes": None}, {"overlap_bytes": "1"}], ids=repr
)
def test_limits_that_are_not_integers_are_refused(model, tmp_path, options):
    (tmp_path / "a.txt").write_bytes(b"some text")
    ((name, value),) = options.items()
    with pytest.raises(InputError, match=f"{name} is {value!r}; allowed: "):
        patchpad.evaluate(model, tmp_path / "a.txt", **options)


def test_one_prompt_gives_one_completion(model):
    alone = patchpad.complete(model, "abc", max_new_bytes=4)
    assert [alone] == patchpad.complete(model, ["abc"], max_new_bytes=4)
    assert alone.text == patchpad.generate(model, b"abc", max_new_bytes=4)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_model_whose_weights_are_not_finite_measures_nothing(tmp_path, value):
    broken = sharp_model(tiny_model_config("fixed", "entropy"))
    with torch.no_grad():
        next(iter(broken.local_encoder.parameters()))[:] = value
    (tmp_path / "a.txt").write_bytes(b"some text " * 9)
    for measure in (
        lambda: patchpad.score(broken, "abc"),
        lambda: patchpad.inspect(broken, "abc"),
        lambda: patchpad.evaluate(broken, tmp_path / "a.txt"),
        lambda: patchpad.calibrate(broken, tmp_path / "a.txt"),
    ):
        with pytest.raises(TrainingError, match="predicts nan or inf in place of probabilities"):
            measure()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_named_at_load(tmp_path, value):
    config = Config(model=tiny_model_config("fixed", "entropy"))
    broken = sharp_model(config.model)
    name, weights = list(broken.named_parameters())[-1]
    with torch.no_grad():
        weights.view(-1)[-1] = value
    save(broken, config, tmp_path / "run")
    with pytest.raises(CheckpointError) as caught:
        patchpad.load(tmp_path / "run")
    assert f"{tmp_path / 'run' / 'model.safetensors'} holds nan or inf in `{name}`" in caught.value.message


def test_a_threshold_may_be_infinite(tmp_path):
    config = Config(model=tiny_model_config("fixed", "entropy"))
    model = sharp_model(config.model)
    save(model, config, tmp_path / "run")
    from safetensors.torch import load_file, save_file

    file, manifest = tmp_path / "run" / "model.safetensors", tmp_path / "run" / "manifest.json"
    tensors = load_file(file)
    threshold = next(name for name in tensors if "scratchpad_threshold" in name)
    tensors[threshold] = torch.full_like(tensors[threshold], torch.inf)
    save_file(tensors, file)
    content = json.loads(manifest.read_text())
    content["files"]["model.safetensors"] = sha256_of(file)
    manifest.write_text(json.dumps(content))
    assert patchpad.load(tmp_path / "run").scratchpad_threshold_nats == torch.inf
