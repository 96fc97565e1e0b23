"""Every preset is read; each tiny one trains; the table in the docs is that of the files."""

import math
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from patchpad.config import Config, load_config, preset_names
from patchpad.quickstart.run import CONFIG
from patchpad.training import trainer
from patchpad.training.metrics import read_metrics

ROOT = Path(__file__).parent.parent
PRESETS = preset_names()
TINY = [name for name in PRESETS if name.startswith("tiny-")]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_read_by_its_name_as_by_its_path(name):
    assert load_config(name) == load_config(ROOT / "src" / "patchpad" / "presets" / f"{name}.yaml")


@pytest.mark.parametrize("name", TINY)
def test_every_tiny_preset_trains(name, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"line {number} of a text, {number**2}" for number in range(400)))
    run = trainer.train(load_config(name, {"train.steps": "12"}), data=text, out=tmp_path / "run")
    first, last = (read_metrics(run.path)[index]["train/bpb"] for index in (0, -1))
    assert last < first < math.log2(257) + 0.5


def test_the_quickstart_preset_is_the_one_that_quickstart_trains():
    config = load_config("small-cpu-fixed16-entropy")
    assert config == replace(CONFIG, train=replace(CONFIG.train, steps=config.train.steps))


def in_one_pass(config: Config) -> Config:
    """Returns a configuration whose steps read the same rows in one pass."""
    rows = config.train.batch_rows * config.train.accumulation_steps
    return replace(config, train=replace(config.train, batch_rows=rows, accumulation_steps=1))


@pytest.mark.parametrize("size", ["tiny", "small-cpu", "100m", "350m", "1b", "2b"])
def test_the_three_models_of_a_size_differ_in_patches_and_trigger_and_the_passes_of_a_step_only(size):
    byte, plain, scratchpads = (
        in_one_pass(load_config(f"{size}-{kind}")) for kind in ("fixed1-never", "fixed16-never", "fixed16-entropy")
    )
    patches = replace(byte.model.patchifier, target_patch_size=16)
    assert replace(byte, model=replace(byte.model, patchifier=patches)) == plain
    trigger = replace(plain.model.trigger, kind="entropy")
    assert replace(plain, model=replace(plain.model, trigger=trigger)) == scratchpads


def test_the_page_of_presets_is_up_to_date():
    made = runpy.run_path(str(ROOT / "recipes" / "presets_table.py"))["page"]()
    page = (ROOT / "docs" / "presets.md").read_text(encoding="utf-8")
    assert page == made, "run python recipes/presets_table.py"
    cells = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in page.splitlines()}
    assert 3 <= float(cells["`2b-fixed16-entropy`"][4].split("x")[0]) <= 4  # the paper's saving


def test_the_page_of_presets_says_the_rates_of_the_files():
    patches = [load_config(name) for name in PRESETS if load_config(name).model.reads_entropy]
    assert {config.train.scratchpads_per_byte for config in patches} == {3 / 16}
    free = [config for config in patches if config.model.patchifier.kind != "fixed"]
    assert {config.model.patchifier.target_patch_size for config in free} == {6}
    page = " ".join((ROOT / "docs" / "presets.md").read_text(encoding="utf-8").split())
    assert "`hnet` aim at 6 bytes per patch, with scratchpads at 3/16 per byte too" in page


def test_a_preset_is_compared_with_the_byte_model_of_its_own_widths():
    recipe = runpy.run_path(str(ROOT / "recipes" / "presets_table.py"))
    for name in ("tiny-spacebyte-entropy", "1b-fixed16-entropy"):
        model = load_config(name).model
        byte = recipe["byte_model_of"](load_config(name)).model
        assert (byte.byte_dim, byte.trunk_dim) == (model.byte_dim, model.trunk_dim)
        assert replace(byte, patchifier=model.patchifier, trigger=model.trigger) == model
    byte = recipe["byte_model_of"](load_config("1b-fixed16-entropy"))
    assert in_one_pass(byte) == in_one_pass(load_config("1b-fixed1-never"))
