"""The recipe of the log's entry on scratchpads that are added later."""

import json
import runpy
from pathlib import Path

import pytest

from patchpad.study.definition import load_study

ROOT = Path(__file__).parents[2]
BITS = {
    "plain": 2.2,
    "plain-longer": 2.0,
    "scratchpads-added": 1.95,
    "scratchpads": 2.1,
    "scratchpads-longer": 1.9,
}


@pytest.fixture
def recipe():
    return runpy.run_path(str(ROOT / "recipes" / "continuing_log.py"))


def test_the_entry_compares_arms_after_as_many_bytes_in_all(tmp_path, recipe):
    for name, bits in BITS.items():
        points = [
            {"at": "inf", "bits_per_byte": 9.0, "trunk_calls_per_byte": 0.0},
            {"at": "stored", "bits_per_byte": bits, "trunk_calls_per_byte": 0.25},
        ]
        result = {"measured": {"points": points}, "training": {"bytes_seen": 400_000}}
        (tmp_path / f"{name}-seed0.json").write_text(json.dumps(result))
    found = recipe["read"](tmp_path)
    assert "| scratchpads-added | 0.40 MB | 1.9500 | 0.2500 |" in recipe["table"](found)
    said = recipe["finding"](found)
    assert "from the start gain 0.1000 bits per byte (5.0%)" in said
    assert "they gain 0.0500 (2.5%): 50% of it." in said


def test_the_arms_of_the_recipe_are_those_of_the_study(recipe):
    study = load_study(ROOT / "configs" / "studies" / "continuing.yaml")
    assert {arm.name for arm in study.fields.arms} == set(recipe["ARMS"])
