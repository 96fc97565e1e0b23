"""`patchpad train --help` says every key of the configuration; options that contradict each other are refused."""

import dataclasses
import re

import pytest

from patchpad.config import Config, load_config
from patchpad.config.checks import field_types
from patchpad.config.field_texts import SECTIONS, field_texts


@pytest.mark.parametrize("columns", ["80", "200"])
def test_help_lists_every_key_with_its_default_and_meaning(patchpad, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    called = patchpad("train", "--help")
    assert called.code == 0
    words = " ".join(called.out.split())
    for section, keys in field_texts().items():
        for key in keys:
            assert f"--{section}.{key.name} {key.default} {key.text}" in words
    assert "One of entropy, never, always, random, stride, whitespace, entropy_jump, ending_entropy." in words


def test_help_fits_the_terminal(patchpad, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, patchpad("train", "--help").out.splitlines())) <= 80


def test_help_of_other_commands_does_not_list_the_keys(patchpad):
    assert "--model.trunk_dim" not in patchpad("cost", "--help").out


def test_no_field_is_without_its_text_and_defaults_are_those_of_the_configuration():
    texts = field_texts()
    for section in SECTIONS:
        kinds = field_types(section)
        named = [name for name, kind in kinds.items() if not dataclasses.is_dataclass(kind)]
        assert [key.name for key in texts[section.SECTION]] == named
        for key in texts[section.SECTION]:
            assert re.match(r"[A-Z`].*[.`)]$", key.text), key
            assert "None" not in key.text


def test_defaults_of_the_help_are_yaml_that_gives_the_defaults():
    overrides = {f"{section}.{key.name}": key.default for section, keys in field_texts().items() for key in keys}
    rounded = {"model.ffn_ratio": "2.6666666666666665"}
    assert load_config(None, {**overrides, **rounded}) == Config()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--train.steps", "5", "--train.steps", "6"], "--train.steps was given twice: '5' and '6'"),
        (["--train.steps=5", "--train.steps=5"], "--train.steps was given twice: '5' and '5'"),
        (["--train.batch-rows", "1", "--train.batch_rows", "2"], "--train.batch_rows was given twice: '1' and '2'"),
        (["--device", "cpu", "--train.device", "cpu"], "--device and --train.device were both given"),
        (["--format", "raw", "--data.format", "raw"], "--format and --data.format were both given"),
        (["--data.paths", "a.txt"], "--data and --data.paths were both given"),
        (["--model.patchifier", "{kind: hnet}"], "--model.patchifier is a section"),
        (["--train.steps", "5 # five"], "whose '# five' is a YAML comment"),
    ],
)
def test_options_that_would_be_dropped_are_refused(fails, tmp_path, config, text, options, expected):
    arguments = ("train", "--config", config, "--data", text, "--out", tmp_path / "new", *options)
    assert expected in fails(2, *arguments)
    assert not (tmp_path / "new").exists()


def test_a_configuration_given_twice_is_refused(fails, config, text, tmp_path):
    arguments = ("--config", config, "--config", "tiny-byte", "--data", text, "--out", tmp_path / "new")
    assert "--config" in fails(2, "train", *arguments)
