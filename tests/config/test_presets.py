"""Presets are found by name; files by path; and neither is taken for the other."""

from pathlib import Path

import pytest

import patchpad
from patchpad.config import Config, load_config, preset_names, preset_text
from patchpad.errors import ConfigError


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_preset_is_found_by_name_from_any_folder(here):
    config = patchpad.load_config("tiny-fixed16-entropy")
    assert config.model.trunk_dim == 64
    (here / "my.yaml").write_text(preset_text("tiny-fixed16-entropy"))
    assert load_config("my.yaml") == load_config(here / "my.yaml") == config != Config()


def test_overrides_go_above_a_preset():
    assert load_config("tiny-fixed16-entropy", {"train.steps": "3"}).train.steps == 3


@pytest.mark.parametrize(
    ("name", "near"),
    [("tiny-fixed16-entrop", "`tiny-fixed16-entropy`"), ("small-cpu-fixd1-never", "`small-cpu-fixed1-never`")],
)
def test_an_unknown_name_lists_near_ones_and_the_command_that_lists_all(here, name, near):
    with pytest.raises(ConfigError) as caught:
        load_config(name)
    assert caught.value.message == f"{name!r} is neither a preset nor a file"
    assert near in caught.value.hint
    assert "`patchpad configs`" in caught.value.hint


@pytest.mark.parametrize("path", ["configs/tiny-byte.yaml", "tiny-byte.yaml", "./tiny-byte", Path("tiny-byte")])
def test_a_path_that_leads_nowhere_but_ends_like_a_preset_names_it(here, path):
    with pytest.raises(ConfigError, match="cannot read the configuration") as caught:
        load_config(path)
    assert "`tiny-byte` is a preset: give its name alone" in caught.value.hint


def test_a_file_without_an_ending_is_read_by_its_name(here):
    (here / "mine").write_text("train: {steps: 3}")
    assert load_config("mine").train.steps == 3


def test_a_file_named_like_a_preset_is_never_mixed_up_with_it(here):
    (here / "tiny-byte").write_text("train: {steps: 3}")
    with pytest.raises(ConfigError, match="a preset and of a file in this folder") as caught:
        load_config("tiny-byte")
    assert "./tiny-byte" in caught.value.hint
    assert load_config("./tiny-byte").train.steps == load_config(Path("tiny-byte")).train.steps == 3


def test_a_folder_named_like_a_preset_does_not_hide_it(here):
    (here / "tiny-byte").mkdir()
    assert load_config("tiny-byte").model.kind == "byte"


def test_names_of_presets_are_sorted_and_say_no_ending():
    assert preset_names() == sorted(preset_names())
    assert "tiny-fixed16-entropy" in preset_names()
    assert not any("." in name for name in preset_names())
