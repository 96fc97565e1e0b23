"""Every preset is read; each tiny one trains; the table in the docs is that of the files."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from patchpad.config import load_config, preset_names
from patchpad.quickstart.run import CONFIG
from patchpad.training import trainer

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
    first, last = (trainer.read_metrics(run.path)[index]["train/bpb"] for index in (0, -1))
    assert last < first < math.log2(257) + 0.5


def test_the_quickstart_preset_is_the_one_that_quickstart_trains():
    config = load_config("small-cpu-fixed16-entropy")
    assert config == replace(CONFIG, train=replace(CONFIG.train, steps=config.train.steps))


@pytest.mark.parametrize("size", ["tiny", "small-cpu", "100m", "350m", "1b", "2b"])
def test_the_three_models_of_a_size_differ_in_patches_and_trigger_only(size):
    byte, plain, scratchpads = (
        load_config(f"{size}-{kind}") for kind in ("fixed1-never", "fixed16-never", "fixed16-entropy")
    )
    patches = replace(byte.model.patchifier, target_patch_size=16)
    assert replace(byte, model=replace(byte.model, patchifier=patches)) == plain
    trigger = replace(plain.model.trigger, kind="entropy")
    assert replace(plain, model=replace(plain.model, trigger=trigger)) == scratchpads


def test_the_table_of_presets_is_up_to_date():
    code = "import runpy, sys; sys.stdout.write(runpy.run_path(sys.argv[1])['table']())"
    made = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "recipes" / "presets_table.py")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    page = (ROOT / "docs" / "presets.md").read_text(encoding="utf-8")
    assert page == made, "run python recipes/presets_table.py"
    ratio = next(line for line in page.splitlines() if line.startswith("| 2b-fixed16-entropy")).split("|")[5]
    assert 3 <= float(ratio.split("x")[0]) <= 4  # the paper's saving
