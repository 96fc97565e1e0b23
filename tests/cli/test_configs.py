"""`patchpad configs`: what it lists, prints and refuses."""

import json

import pytest
import yaml

from patchpad.config import load_config, preset_names
from patchpad.cost import count_parameters


def listed(patchpad) -> dict[str, dict]:
    called = patchpad("configs", "--json")
    assert called.code == 0, called.err
    return {row["name"]: row for row in json.loads(called.out, parse_constant=pytest.fail)["presets"]}


def test_every_preset_is_listed_with_what_it_is_and_costs(patchpad):
    rows = listed(patchpad)
    assert sorted(rows) == preset_names()
    assert [row["num_params"] for row in rows.values()] == sorted(row["num_params"] for row in rows.values())
    assert rows["tiny-fixed16-entropy"]["num_params"] == sum(
        count_parameters(load_config("tiny-fixed16-entropy").model).values()
    )
    assert rows["tiny-spacebyte-entropy"]["patchifier"] == "spacebyte"
    assert rows["tiny-spacebyte-entropy"]["target_patch_size"] == 6
    assert rows["1b-fixed16-never"]["trigger"] == "never"
    assert rows["1b-fixed16-never"]["flops_per_byte"] < rows["1b-fixed1-never"]["flops_per_byte"]
    assert (rows["tiny-bpe"]["kind"], rows["tiny-bpe"]["patchifier"], rows["tiny-bpe"]["flops_per_byte"]) == (
        *("bpe", None, None),
    )


def test_flops_of_the_list_are_those_of_the_cost_command(patchpad):
    alone = json.loads(patchpad("cost", "--config", "tiny-fixed16-entropy", "--json").out)
    assert listed(patchpad)["tiny-fixed16-entropy"]["flops_per_byte"] == alone["flops_per_byte"]


def test_the_table_fits_80_columns_and_cuts_no_name(patchpad):
    lines = patchpad("configs").out.splitlines()
    assert max(map(len, lines)) <= 80
    for name in preset_names():
        (line,) = [line for line in lines if line.startswith(name + " ")]
        assert "…" not in line


def test_a_preset_is_printed_to_copy_and_change(patchpad, tmp_path):
    called = patchpad("configs", "small-cpu-fixed16-entropy")
    (tmp_path / "my.yaml").write_text(called.out)
    assert load_config(tmp_path / "my.yaml") == load_config("small-cpu-fixed16-entropy")
    assert yaml.safe_load(called.out)["model"]["trunk_dim"] == 192
    resolved = json.loads(patchpad("configs", "small-cpu-fixed16-entropy", "--json").out)
    assert resolved == load_config("small-cpu-fixed16-entropy").to_dict()


def test_an_unknown_preset_comes_with_near_matches(fails):
    assert "Did you mean `tiny-byte`" in fails(2, "configs", "tiny-bytes")
    assert "`patchpad configs` lists" in fails(2, "cost", "--config", "tiny-bytes")
