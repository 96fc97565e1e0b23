"""Released folders: from any step, in any type, with nothing that only training needs."""

import json

import pytest
import torch

from patchpad.calibration_table import ROW_KEYS, Calibration
from patchpad.errors import CheckpointError
from patchpad.files import sha256_of
from patchpad.training import trainer
from patchpad.training.checkpoint import list_steps, load
from patchpad.training.release import release, store_calibration


def test_release_of_a_run_and_of_its_last_step_have_the_runs_own_weights_and_no_paths(tmp_path, finished, text):
    earlier, last = list_steps(finished)
    for source, name in ((finished, "run"), (last, "step"), (earlier, "earlier")):
        release(source, tmp_path / name)
        files = {file.name for file in (tmp_path / name).iterdir()}
        assert files == {"config.json", "model.safetensors", "manifest.json"}
        assert str(text) not in (tmp_path / name / "config.json").read_text()
        load(tmp_path / name)
    digests = [sha256_of(folder / "model.safetensors") for folder in (finished, tmp_path / "run", tmp_path / "step")]
    assert len(set(digests)) == 1
    assert sha256_of(tmp_path / "earlier" / "model.safetensors") not in digests


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_release_in_half_precision_is_half_as_large_and_loads_as_it_was_returned(tmp_path, finished, dtype):
    model = release(finished, tmp_path / "half", dtype=dtype)
    size, half = (path.stat().st_size for path in (finished / "model.safetensors", tmp_path / "half/model.safetensors"))
    assert half < 0.65 * size
    loaded = load(tmp_path / "half")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert loaded.scratchpad_threshold_nats == load(finished).scratchpad_threshold_nats
    expected = model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())


def test_calibration_goes_along_with_the_weights_that_it_was_measured_on(tmp_path, finished, text, tools):
    config = tools.config(steps=2)
    run = trainer.train(config, data=text, out=tmp_path / "run", init_from=finished, progress=tools.Hook()).path
    table = Calibration(rows=(dict.fromkeys(ROW_KEYS, 0.5),), text_sha256="x")
    for folder in (run, *list_steps(run)):
        store_calibration(folder, table)
        assert load(folder).calibration == table
    assert release(run, tmp_path / "same").calibration == table
    assert load(tmp_path / "same").calibration == table
    assert str(finished) in (run / "config.json").read_text()
    assert str(finished) not in (tmp_path / "same" / "config.json").read_text(), "a path of this machine"
    assert release(run, tmp_path / "half", dtype=torch.float16).calibration is None
    assert load(tmp_path / "half").calibration is None


def test_averaged_weights_of_a_run_are_those_of_its_newest_step(tmp_path, text, tools, finished):
    config = tools.config(steps=3, averaged_decay=0.5)
    run = trainer.train(config, data=text, out=tmp_path / "run", progress=tools.Hook()).path
    release(run, tmp_path / "average", averaged=True)
    release(list_steps(run)[-1], tmp_path / "of-step", averaged=True)
    digests = [sha256_of(tmp_path / name / "model.safetensors") for name in ("average", "of-step")]
    assert digests[0] == digests[1] != sha256_of(run / "model.safetensors")
    with pytest.raises(CheckpointError, match="has no averaged weights") as caught:
        release(finished, tmp_path / "none", averaged=True)
    assert "--averaged" in caught.value.hint
    assert not (tmp_path / "none").exists()


def test_release_into_a_folder_that_is_not_empty_is_refused_before_anything_is_read(tmp_path, finished):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(CheckpointError, match="is not an empty folder"):
        release(tmp_path / "missing", tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="is not an empty folder"):
        release(finished, tmp_path / "file")
    assert json.loads((finished / "manifest.json").read_text())["format_version"] == 3
