"""The recipes that train: what they run exists, and the ones for a laptop and for one machine run."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import pytest

from patchpad.config import Config
from patchpad.config.checks import field_types
from patchpad.config.presets import preset_names

ROOT = Path(__file__).parent.parent.parent
RECIPES = ["train_laptop.sh", "train_gpu.sh", "train_node.sh", "train_slurm.sbatch", "scale_demo.sh", "languages.sh"]
KEY = re.compile(r"(?<![\w./-])(?:--)?((?:train|data|model)\.[a-z_]+(?:\.[a-z_]+)*)(?![\w/*])")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*(f"recipes/{recipe}" for recipe in RECIPES), "docs/training.md", "docs/data.md"])
def test_every_key_and_preset_that_is_named_exists(name):
    text = read(name)
    for key in {key for key in KEY.findall(text) if not key.endswith(".md")}:
        kind = Config
        for part in key.split("."):
            if not is_dataclass(kind):  # names of a dictionary: parts, sources
                break
            assert part in field_types(kind), key
            kind = field_types(kind)[part]
    for preset in re.findall(r"\b(?:tiny|small-cpu|\d+[mb])-[a-z]+\d*-[a-z]+\b", text):
        assert preset in preset_names(), preset


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_recipe_is_a_script_that_bash_reads(recipe):
    subprocess.run(["bash", "-n", str(ROOT / "recipes" / recipe)], check=True)


@pytest.fixture
def environment():
    """That of a user whose PATH begins with this Python's commands."""
    paths = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PATH": paths, "PYTHONPATH": str(ROOT / "src")}


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(
    ("recipe", "arguments"),
    [
        ("train_laptop.sh", ["20"]),
        ("train_node.sh", ["tiny-fixed16-entropy", "--train.steps", "6", "--train.device", "cpu"]),
    ],
)
def test_a_recipe_trains_and_goes_on(recipe, arguments, environment, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("It was a text of no great length.\n" * 400)
    call = ["bash", str(ROOT / "recipes" / recipe), str(text), str(tmp_path / "run"), *arguments]
    for _ in range(2):  # the second time it finds the run, and has nothing left to train
        done = subprocess.run(call, env={**environment, "RANKS": "2"}, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    assert (tmp_path / "run" / "model.safetensors").exists()
