"""A configuration means what it says: no value is dropped or read as another, in Python, YAML, JSON or an override."""

import json
import math
import re
import shutil
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import patchpad
from patchpad.config import Config, DataConfig, ModelConfig, PatchifierConfig, TrainConfig, TriggerConfig, load_config
from patchpad.config.checks import field_types
from patchpad.config.conversion import Range
from patchpad.config.reading import parse_json, parse_yaml
from patchpad.errors import CheckpointError, ConfigError
from patchpad.files import sha256_of, strict_json
from patchpad.training.checkpoint import BUNDLED_MODEL

SECTIONS: list[Any] = [ModelConfig, PatchifierConfig, TriggerConfig, DataConfig, TrainConfig, Config]
EVERY_FIELD = [(section, field.name) for section in SECTIONS for field in fields(section)]
WRONG = {
    "word": "entropi",
    "true": True,
    "nan": math.nan,
    "numpy nan": np.float32("nan"),
    "bytes": b"auto",
    "list": [object()],
    "keys": {"kind": "fixed"},
    "complex": 1j,
    "huge": 10**5000,
    "array": np.zeros(3),
    "object": object(),
}
unchecked = pytest.mark.unchecked  # the hook that checks shapes checks these types too, with an error of its own
TAKES_BOOL = {"compile", "activation_checkpointing", "checkpoint_async", "remove_duplicates"}
TAKES_TEXT = {"paths", "validation_paths", "init_from", "text_field", "sample_prompt", "plugin"}
"""Fields of free text; every other one takes a word of a list, or a number."""
TAKES_KEYS = {"tracker_plugins"}
"""Texts by name."""


@unchecked
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("section", "name"), EVERY_FIELD, ids=lambda value: getattr(value, "__name__", value))
def test_every_field_refuses_a_wrong_value_in_python_and_names_itself_the_value_and_what_is_allowed(
    section, name, wrong
):
    taken = {"true": TAKES_BOOL, "word": TAKES_TEXT, "keys": TAKES_KEYS}
    if name in taken.get(wrong, ()):
        return
    with pytest.raises(ConfigError) as caught:
        section(**{name: WRONG[wrong]})
    path = f"{section.SECTION}.{name}".lstrip(".")
    assert re.match(rf"`?{re.escape(path)}[\[`]? ?", caught.value.message), caught.value.message
    assert "; allowed: " in caught.value.message
    assert len(caught.value.message) < 400


@unchecked
@pytest.mark.parametrize(("section", "name"), EVERY_FIELD, ids=lambda value: getattr(value, "__name__", value))
def test_only_fields_that_may_be_none_take_none(section, name):
    given = {name: None}
    if type(None) in getattr(field_types(section)[name], "__args__", ()):
        other = {"scratchpads_per_byte": {"scratchpad_threshold_nats": 1.0}}.get(name, {})
        assert getattr(section(**given, **other), name) is None
    else:
        with pytest.raises(ConfigError, match=rf"`.*{name}` is None; allowed: "):
            section(**given)


def test_every_number_of_a_configuration_has_a_range():
    free = [
        (section.__name__, name)
        for section, name in EVERY_FIELD
        for kind in (field_types(section)[name],)
        if kind in (int, float, int | None, float | None) and name != "format_version"
        if not any(isinstance(part, Range) for part in getattr(kind, "__metadata__", ()))
    ]
    assert free == [("TriggerConfig", "seed")], "any seed is a seed"


@unchecked
@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: ModelConfig(trunk_layers=np.int64(3)).trunk_layers, 3),
        (lambda: ModelConfig(trunk_layers=torch.tensor(3)).trunk_layers, 3),
        (lambda: TrainConfig(learning_rate=np.float64(0.25)).learning_rate, 0.25),
        (lambda: TrainConfig(learning_rate=1).learning_rate, 1.0),
        (lambda: TrainConfig(scratchpads_per_byte=Fraction(3, 16)).scratchpads_per_byte, 3 / 16),
        (lambda: TrainConfig(compile=np.bool_(True)).compile, True),
        (lambda: TriggerConfig(kind=np.str_("stride")).kind, "stride"),
        (lambda: TriggerConfig(scratchpad_threshold_nats="inf").scratchpad_threshold_nats, math.inf),
        (lambda: ModelConfig(ngram_sizes=[3, np.int32(4)]).ngram_sizes, (3, 4)),
        (lambda: DataConfig(paths="text.txt").paths, ("text.txt",)),
        (lambda: DataConfig(paths=[Path("a"), "b"]).paths, ("a", "b")),
    ],
)
def test_numbers_of_numpy_lists_and_paths_become_plain_values(made, expected):
    value = made()
    assert value == expected
    assert type(value) is type(expected)


@unchecked
def test_a_configuration_with_numbers_of_numpy_is_saved_and_loaded():
    config = Config(model=ModelConfig(trunk_layers=np.int64(3)), train=TrainConfig(learning_rate=np.float32(0.5)))
    assert Config.from_dict(json.loads(strict_json(config.to_dict()))) == config
    assert hash(config) == hash(replace(config))


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:12"])
def test_names_of_devices(device):
    assert TrainConfig(device=device).device == device


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cuda:1.5", "CPU", "", " cpu", "cuda:0\n", "cuda:٣"])
def test_words_that_name_no_device(device):
    with pytest.raises(ConfigError, match=r"train\.device is .*; allowed: auto, cpu, cuda, cuda:N or mps"):
        TrainConfig(device=device)


def from_yaml(folder: Path, text: str) -> Config:
    (folder / "model.yaml").write_text(text, encoding="utf-8")
    return load_config(folder / "model.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {steps: 5, steps: 6}", "the key `steps` appears twice"),
        ("train: {steps: 5, 'steps': 6}", "the key `steps` appears twice"),
        ("train: {steps: 5}\ntrain: {seed: 6}", "line 2: the key `train` appears twice"),
        ("train: {steps: 1_000}", "`train.steps` is '1_000'; allowed: an integer"),
        ("train: {steps: 0o17}", "`train.steps` is '0o17'"),
        ("train: {steps: 017}", "`train.steps` is '017'"),
        ("train: {steps: 0x1F}", "`train.steps` is '0x1F'"),
        ("train: {steps: 0b11}", "`train.steps` is '0b11'"),
        ("train: {steps: 1:30}", "`train.steps` is '1:30'"),
        ("train: {steps: 5.0}", "`train.steps` is 5.0"),
        ("train: {steps: 1e3}", "`train.steps` is 1000.0"),
        ("train: {steps: '5'}", "`train.steps` is '5'"),
        ("train: {steps: 2024-01-01}", "`train.steps` is '2024-01-01'"),
        ("train: {steps: !!int '1_000'}", "1_000 is not a decimal number"),
        ("train: {steps: !!float 5}", "`train.steps` is 5.0"),
        ("train: {steps: 1" + "0" * 5000 + "}", "is not valid YAML"),
        ("train: {learning_rate: 1_0.5}", "`train.learning_rate` is '1_0.5'"),
        ("train: {learning_rate: 1:30.5}", "`train.learning_rate` is '1:30.5'"),
        ("train: {learning_rate: '0.5'}", "`train.learning_rate` is '0.5'"),
        ("train: {learning_rate: 1e-400}", "1e-400 is too small"),
        ("train: {learning_rate: .nan}", "train.learning_rate is nan"),
        ("model: {trigger: {scratchpad_threshold_nats: 1e400}}", "1e400 is too large"),
        ("model: {trigger: {scratchpad_threshold_nats: infinity}}", "is 'infinity'; allowed: a number"),
        ("model: {trigger: {scratchpad_threshold_nats: .nan}}", "scratchpad_threshold_nats is nan"),
        ("train: {compile: no}", "`train.compile` is 'no'; allowed: true or false"),
        ("train: {compile: on}", "`train.compile` is 'on'; allowed: true or false"),
        ("train: {compile: 0}", "`train.compile` is 0; allowed: true or false"),
        ("train: {device: null}", "`train.device` is None; allowed: text"),
        ("data: {paths: [a, null]}", "`data.paths` is ['a', None]; allowed: a list of strings"),
        ("data: {paths: !!set {a, b}}", "is not valid YAML"),
        ("data: {paths: !!binary aGk=}", "is not valid YAML"),
        ("train:", "`train` is None; allowed: keys and values"),
        ("train: [steps, 5]", "`train` is ['steps', 5]; allowed: keys and values"),
        ("train: steps", "`train` is 'steps'; allowed: keys and values"),
        ("model: {trigger: null}", "`model.trigger` is None; allowed: keys and values"),
        ("train.steps: 5", "unknown key `train.steps`"),
        ("[]", "holds a list; allowed: sections"),
        ("false", "holds a bool; allowed: sections"),
        ("0", "holds a int; allowed: sections"),
        ("train: {steps: 5}\n---\ntrain: {steps: 6}", "is not valid YAML"),
        ("model: &m {trigger: *m}", "is not valid YAML"),
        ("? [a, b]\n: 1", "is not valid YAML"),
        ("train: {? [a] : 1}", "is not valid YAML"),
        ("train: {<<: {steps: 5}, <<: {seed: 1}}", "the key `<<` appears twice"),
    ],
)
def test_yaml_that_would_be_dropped_or_read_as_another_value_is_an_error(tmp_path, text, expected):
    with pytest.raises(ConfigError) as caught:
        from_yaml(tmp_path, text)
    assert str(tmp_path / "model.yaml") in caught.value.message
    assert expected in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "section", "name", "expected"),
    [
        ("train: {learning_rate: 1e-3}", "train", "learning_rate", 1e-3),
        ("train: {learning_rate: 1}", "train", "learning_rate", 1.0),
        ("train: {learning_rate: 2.}", "train", "learning_rate", 2.0),
        ("train: {learning_rate: .5}", "train", "learning_rate", 0.5),
        ("train: {weight_decay: 0e5}", "train", "weight_decay", 0.0),
        ("train: {steps: +5}", "train", "steps", 5),
        ("train: {compile: True}", "train", "compile", True),
        ("train: {patch_threshold_nats: -.inf}", "train", "patch_threshold_nats", -math.inf),
        ("train: {patch_threshold_nats: ~}", "train", "patch_threshold_nats", None),
        ("data: {paths: [no, on, 2024-01-01, 1:30, 0x1F, 1_000]}", "data", "paths",
         ("no", "on", "2024-01-01", "1:30", "0x1F", "1_000")),
        ("data: {paths: !!str 5}", "data", "paths", ("5",)),
        ("model: {trunk_dim: &d 64, byte_dim: *d, byte_heads: 2}", "model", "byte_dim", 64),
        ("train: {<<: {steps: 5, seed: 3}, steps: 7}", "train", "steps", 7),
        ("\ufefftrain: {steps: 7}", "train", "steps", 7),
    ],
)  # fmt: skip
def test_yaml_is_read_as_it_stands(tmp_path, text, section, name, expected):
    assert getattr(getattr(from_yaml(tmp_path, text), section), name) == expected


def test_aliases_that_double_again_and_again_make_a_short_message(tmp_path):
    lines = ["data:", "  paths:", "  - &a0 [x]"] + [f"  - &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    with pytest.raises(ConfigError, match="allowed: a list of strings") as caught:
        from_yaml(tmp_path, "\n".join(lines))
    assert len(caught.value.message) < 2000


@unchecked
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"train.steps": "1_000"}, "`train.steps` is '1_000'"),
        ({"train.steps": "5 # five"}, "whose '# five' is a YAML comment"),
        ({"data.paths": "my file #2.txt"}, "whose '#2.txt' is a YAML comment"),
        ({"data.paths": "# a"}, "whose '# a' is a YAML comment"),
        ({"train.patch_threshold_nats": " "}, "--train.patch_threshold_nats has an empty value"),
        ({"model.patchifier": "{kind: hnet}"}, "--model.patchifier is a section"),
        ({"train": "{steps: 5}"}, "--train is a section"),
        ({"train.steps": "{a: 1, a: 2}"}, "the key `a` appears twice"),
        ({"train.steps": "5\n---\n6"}, "is not a YAML value"),
        ({"train.steps": 5}, "the value of train.steps is 5; allowed: YAML text"),
        ({"train.steps.more": "5"}, "`train.steps` is {'more': 5}; allowed: an integer"),
    ],
)
def test_overrides_are_read_as_strictly(overrides, expected):
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides)
    assert expected in caught.value.message
    assert caught.value.hint or "allowed" in caught.value.message


def test_quotes_keep_what_yaml_would_take_for_a_comment():
    assert load_config(None, {"data.paths": "'my file #2.txt'"}).data.paths == ("my file #2.txt",)
    assert load_config(None, {"data.paths": "my-file#2.txt"}).data.paths == ("my-file#2.txt",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"train": {"steps": 5, "steps": 6}}', "the key `steps` appears twice"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": 1e400}', "1e400 is too large"),
        ('{"a": 1e-400}', "1e-400 is too small"),
        ('{"a": 1', "delimiter"),
    ],
)
def test_json_is_read_as_strictly(text, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        parse_json(text)


def test_a_key_twice_in_the_configuration_of_a_run_is_found_at_load(tmp_path):
    run = tmp_path / "run"
    shutil.copytree(BUNDLED_MODEL, run)
    written = run / "config.json"
    written.write_text(written.read_text().replace('"byte_dim":', '"byte_dim": 64, "byte_dim":'))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["files"]["config.json"] = sha256_of(written)
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="the key `byte_dim` appears twice"):
        patchpad.load(run)


def test_yaml_of_nothing_and_what_follows_a_value():
    assert parse_yaml("") == (None, "")
    assert parse_yaml("5 # five") == (5, " # five")
    assert parse_yaml("[a, {b: 1.5}]") == (["a", {"b": 1.5}], "")


def test_a_range_error_of_a_file_names_the_file_too(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.yaml: train\.steps is 0; allowed: an integer of at least 1"):
        from_yaml(tmp_path, "train: {steps: 0}")


def test_a_baseline_keeps_what_its_trigger_said():
    trigger = TriggerConfig(scratchpad_threshold_nats=2.0)
    assert ModelConfig(kind="byte", trigger=trigger).trigger == replace(trigger, kind="never")
