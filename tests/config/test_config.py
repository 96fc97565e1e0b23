"""Configuration: checked values, exact round trips, and messages that name file, key and near matches."""

import json
import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.config import (
    Config,
    DataConfig,
    ModelConfig,
    PatchifierConfig,
    TrainConfig,
    TriggerConfig,
    load_config,
)
from patchpad.config.checks import LARGEST_FLOAT32
from patchpad.errors import ConfigError, near_matches
from patchpad.files import strict_json
from patchpad.registry import TRIGGERS


def write(folder, text: str):
    path = folder / "model.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_file_that_says_nothing_gives_the_defaults(tmp_path):
    assert load_config(None) == load_config(write(tmp_path, "# nothing yet\n")) == Config()


def test_command_line_beats_the_file_and_the_file_beats_the_defaults(tmp_path):
    path = write(tmp_path, "model:\n  trunk_dim: 64\n  trunk_layers: 2\ntrain: {steps: 7}\n")
    config = load_config(
        path, {"train.steps": "9", "model.patchifier.kind": "spacebyte", "train.learning_rate": "1e-3"}
    )
    assert (config.model.trunk_dim, config.model.trunk_layers) == (64, 2)
    assert config.train.steps == 9
    assert config.train.learning_rate == 1e-3
    assert config.model.patchifier.kind == "spacebyte"
    assert config.model.byte_dim == ModelConfig().byte_dim


def test_infinities_and_null_can_be_written_in_yaml(tmp_path):
    path = write(tmp_path, "train: {scratchpads_per_byte: null, scratchpad_threshold_nats: -inf}\n")
    assert load_config(path).train.scratchpad_threshold_nats == -math.inf
    config = load_config(None, {"model.trigger.scratchpad_threshold_nats": ".inf"})
    assert config.model.trigger.scratchpad_threshold_nats == math.inf


def test_one_string_stands_for_a_list_of_strings():
    assert load_config(None, {"data.validation_paths": "held_out.txt"}).data.validation_paths == ("held_out.txt",)
    assert load_config(None, {"data.paths": "[a, b]"}).data.paths == ("a", "b")


@given(
    threshold=st.sampled_from([math.inf, -math.inf, 1.5, 0.1 + 0.2]),
    rate=st.floats(0, 1, exclude_max=True),
    steps=st.integers(1, 10**9),
    paths=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
    longest=st.none() | st.integers(1, 99),
    ngram_sizes=st.sets(st.integers(1, 9), min_size=1),
)
def test_config_survives_the_trip_through_strict_json_exactly(threshold, rate, steps, paths, longest, ngram_sizes):
    config = Config(
        model=ModelConfig(
            ngram_sizes=tuple(ngram_sizes),
            patchifier=PatchifierConfig(max_patch_size=longest),
            trigger=TriggerConfig(kind="random", scratchpad_threshold_nats=threshold, scratchpads_per_byte=rate),
        ),
        data=DataConfig(paths=tuple(paths)),
        train=TrainConfig(steps=steps, scratchpads_per_byte=rate),
    )
    written = strict_json(config.to_dict())
    assert Config.from_dict(json.loads(written, parse_constant=pytest.fail)) == config
    fixed = replace(config.train, scratchpads_per_byte=None, scratchpad_threshold_nats=threshold)
    config = replace(config, train=fixed)
    assert Config.from_dict(json.loads(strict_json(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("train: {stepz: 5}", "`train.stepz`", "Did you mean `steps`?"),
        ("model: {patchifier: {target_patchsize: 5}}", "`model.patchifier.target_patchsize`", "`target_patch_size`"),
        ("modle: {}", "`modle`", "Did you mean `model`?"),
        ("train: {xyzzy: 1}", "`train.xyzzy`", "Allowed: accumulation_steps, activation_checkpointing"),
        ("train: {3: 1}", "`train.3`", "Allowed: accumulation_steps, activation_checkpointing"),
    ],
)
def test_unknown_key_is_an_error_that_names_file_key_and_near_matches(tmp_path, text, key, hint):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in caught.value.message
    assert key in caught.value.message
    assert hint in caught.value.hint


def test_unknown_key_on_the_command_line_is_said_to_come_from_there(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.yaml and the command line: unknown key `train\.stepz`"):
        load_config(write(tmp_path, "train: {steps: 3}"), {"train.stepz": "5"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {steps: many}", "`train.steps` is 'many'; allowed: an integer"),
        ("train: {steps: 2.5}", "`train.steps` is 2.5; allowed: an integer"),
        ("train: {steps: true}", "`train.steps` is True; allowed: an integer"),
        ("train: {steps: null}", "`train.steps` is None; allowed: an integer"),
        ("train: {learning_rate: fast}", "`train.learning_rate` is 'fast'; allowed: a number"),
        ("train: {learning_rate: true}", "`train.learning_rate` is True; allowed: a number"),
        ("train: {learning_rate: 1" + "0" * 400 + "}", "allowed: a number"),
        ("train: {device: 0}", "`train.device` is 0; allowed: text"),
        ("data: {paths: 3}", "`data.paths` is 3; allowed: a list of strings"),
        ("data: {paths: [a, 3]}", "`data.paths` is ['a', 3]; allowed: a list of strings"),
        ("model: {ngram_sizes: 3}", "`model.ngram_sizes` is 3; allowed: a list of integers"),
        ("model: {ngram_sizes: [3, four]}", "`model.ngram_sizes` is [3, 'four']; allowed: a list of integers"),
        ("model: {ngram_sizes: [3, true]}", "`model.ngram_sizes` is [3, True]; allowed: a list of integers"),
        ("model: 3", "`model` is 3; allowed: keys and values"),
        ("model:", "`model` is None; allowed: keys and values"),
        ("model: {trigger: {kind: entropi}}", "`model.trigger.kind` is 'entropi'"),
        ("model: {trigger: {kind: [entropy]}}", "`model.trigger.kind` is ['entropy']"),
        ("- a\n- b", "holds a list; allowed: sections model, data, train"),
        ("model: {", "is not valid YAML"),
        ("a: b: c", "is not valid YAML"),
        ("!!python/object/apply:os.getpid []", "is not valid YAML"),
    ],
)
def test_wrong_type_or_broken_yaml_is_an_error_that_names_the_file(tmp_path, text, expected):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in caught.value.message
    assert expected in caught.value.message
    assert "\n" not in caught.value.message


def test_wrong_word_comes_with_near_matches(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean `entropy`"):
        load_config(write(tmp_path, "model: {trigger: {kind: entropi}}"))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"train.steps": "{"}, "--train.steps has the value '{', which is not a YAML value"),
        ({"train.steps": ""}, "--train.steps has an empty value"),
        ({"train.steps.more": "1"}, "--train.steps.more: `steps` is not a section"),
    ],
)
def test_command_line_value_that_is_no_yaml_is_named(tmp_path, overrides, expected):
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, "train: {steps: 3}"), overrides)
    assert expected in caught.value.message


def test_missing_file_folder_and_bytes_that_are_no_text_are_errors(tmp_path):
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing.yaml", tmp_path, binary):
        with pytest.raises(ConfigError, match="cannot read the configuration") as caught:
            load_config(path)
        assert str(path) in caught.value.message
        assert "--config" in caught.value.hint


@pytest.mark.parametrize(
    ("make", "values", "expected"),
    [
        (ModelConfig, {"byte_dim": 15}, "byte_dim is 15 with byte_heads 2"),
        (ModelConfig, {"trunk_dim": 36, "trunk_heads": 4}, "trunk_dim is 36 with trunk_heads 4"),
        (ModelConfig, {"pooling_heads": 5}, "byte_dim is 96 with pooling_heads 5"),
        (ModelConfig, {"trunk_layers": 0}, "trunk_layers is 0"),
        (ModelConfig, {"window_bytes": -1}, "window_bytes is -1"),
        (ModelConfig, {"context_bytes": 0}, "context_bytes is 0"),
        (ModelConfig, {"context_lags": 0}, "context_lags is 0"),
        (ModelConfig, {"encoder_window_bytes": 0}, "encoder_window_bytes is 0"),
        (ModelConfig, {"entropy_head_window_bytes": 0}, "entropy_head_window_bytes is 0"),
        (ModelConfig, {"decoder_window_bytes": -2}, "decoder_window_bytes is -2"),
        (ModelConfig, {"trunk_kv_heads": 3}, "trunk_kv_heads is 3 with trunk_heads 4"),
        (ModelConfig, {"trunk_kv_heads": 0}, "trunk_kv_heads is 0; allowed: an integer of at least 1"),
        (ModelConfig, {"ngram_vocab_size": -1}, "ngram_vocab_size is -1"),
        (ModelConfig, {"ngram_sizes": ()}, "ngram_sizes is []"),
        (ModelConfig, {"ngram_sizes": (3, 3)}, "ngram_sizes is [3, 3]"),
        (ModelConfig, {"ngram_sizes": (0, 3)}, "ngram_sizes is [0, 3]"),
        (ModelConfig, {"ffn_ratio": math.inf}, "ffn_ratio is inf"),
        (ModelConfig, {"ffn_ratio": 0.0}, "ffn_ratio is 0.0"),
        (ModelConfig, {"rotary_base": math.nan}, "rotary_base is nan"),
        (ModelConfig, {"trunk_ffn_dim": 0}, "trunk_ffn_dim is 0; allowed: an integer of at least 1"),
        (ModelConfig, {"trunk_rotary_base": 1.0}, "trunk_rotary_base is 1.0; allowed: a number above 1"),
        (ModelConfig, {"trunk_norm_epsilon": 0.0}, "trunk_norm_epsilon is 0.0; allowed: a number above 0"),
        (PatchifierConfig, {"target_patch_size": 0}, "target_patch_size is 0"),
        (PatchifierConfig, {"max_patch_size": 0}, "max_patch_size is 0"),
        *(
            (
                PatchifierConfig,
                {"kind": kind, "target_patch_size": 16, "max_patch_size": 15},
                "max_patch_size is 15 with target_patch_size 16",
            )
            for kind in ("spacebyte", "entropy", "hnet")
        ),
        (TriggerConfig, {"stride": 0}, "stride is 0"),
        (TriggerConfig, {"scratchpad_threshold_nats": math.nan}, "scratchpad_threshold_nats is nan"),
        (
            TriggerConfig,
            {"scratchpad_threshold_nats": 1e39},
            "scratchpad_threshold_nats is 1e+39; allowed: a number from",
        ),
        (PatchifierConfig, {"patch_threshold_nats": -1e39}, "patch_threshold_nats is -1e+39"),
        (PatchifierConfig, {"patch_threshold_nats": math.nan}, "patch_threshold_nats is nan"),
        (TriggerConfig, {"scratchpads_per_byte": 1.5}, "scratchpads_per_byte is 1.5"),
        (DataConfig, {"validation_fraction": 0.0}, "validation_fraction is 0.0"),
        (DataConfig, {"validation_fraction": 1.0}, "validation_fraction is 1.0"),
        (TrainConfig, {"steps": 0}, "steps is 0"),
        (TrainConfig, {"batch_rows": 0}, "batch_rows is 0"),
        (TrainConfig, {"keep_checkpoints": -1}, "keep_checkpoints is -1"),
        (TrainConfig, {"seed": -1}, "seed is -1"),
        (TrainConfig, {"seed": 2**63}, f"seed is {2**63}"),
        (TrainConfig, {"learning_rate": math.nan}, "learning_rate is nan"),
        (TrainConfig, {"learning_rate": 0.0}, "learning_rate is 0.0"),
        (TrainConfig, {"learning_rate_ratios": {"trunk": 0.0}}, "learning_rate_ratios.trunk is 0.0"),
        (TrainConfig, {"learning_rate_ratios": {"trunk": math.inf}}, "learning_rate_ratios.trunk is inf"),
        (TrainConfig, {"learning_rate_ratios": {"trnk": 0.5}}, "learning_rate_ratios names `trnk`; allowed: local_enc"),
        (TrainConfig, {"frozen": ("trnk",)}, "frozen names `trnk`; allowed: local_encoder, entropy_head, routing, "),
        (TrainConfig, {"z_loss_weight": -1.0}, "z_loss_weight is -1.0"),
        (
            TrainConfig,
            {"skip_norm_ratio": 1.0, "max_skipped_steps": 1},
            "skip_norm_ratio is 1.0; allowed: a number above",
        ),
        (TrainConfig, {"skip_norm_ratio": 8.0}, "skip_norm_ratio is 8.0 with train.max_skipped_steps 0"),
        (TrainConfig, {"init_from": ""}, "init_from is empty"),
        (TrainConfig, {"decay_fraction": 1.5}, "decay_fraction is 1.5"),
        (TrainConfig, {"beta2": 1.0}, "beta2 is 1.0"),
        (TrainConfig, {"threshold_frozen_fraction": 1.1}, "threshold_frozen_fraction is 1.1"),
        (TrainConfig, {"threshold_spread": 1.1}, "threshold_spread is 1.1"),
        (TrainConfig, {"threshold_spread": math.nan}, "threshold_spread is nan"),
        (TrainConfig, {"scratchpads_per_byte": 1.0}, "train.scratchpads_per_byte is 1.0"),
        (TrainConfig, {"scratchpads_per_byte": None}, "scratchpad_threshold_nats is None"),
        (TrainConfig, {"scratchpad_threshold_nats": 1.5}, "scratchpads_per_byte is 0.1875"),
        (
            TrainConfig,
            {"scratchpads_per_byte": None, "scratchpad_threshold_nats": 3.5e38},
            "train.scratchpad_threshold_nats is 3.5e+38",
        ),
        (TrainConfig, {"patch_threshold_nats": 1e300}, "train.patch_threshold_nats is 1e+300"),
        (ModelConfig, {"trunk_dim": 10**400}, "trunk_dim is 1000"),
        (Config, {"format_version": 1}, "format_version is 1"),
        (
            Config,
            {"model": ModelConfig(kind="byte"), "train": TrainConfig(learning_rate_ratios={"trunk": 0.5})},
            "train.learning_rate_ratios is {'trunk': 0.5} with model.kind byte",
        ),
        (
            Config,
            {"model": ModelConfig(kind="byte"), "train": TrainConfig(frozen=("trunk",))},
            "train.frozen is ['trunk'] with model.kind byte",
        ),
        (
            Config,
            {"train": TrainConfig(frozen=("routing",))},
            "train.frozen names `routing`; allowed: local_encoder, entropy_head, patch_pooling, trunk",
        ),
        (
            Config,
            {"train": TrainConfig(learning_rate_ratios={"routing": 2.0})},
            "train.learning_rate_ratios names `routing`; allowed: local_encoder, entropy_head, patch_pooling, trunk",
        ),
        (Config, {"train": TrainConfig(frozen=ModelConfig().parts)}, "train.frozen names all parts of the model"),
        (
            Config,
            {
                "model": ModelConfig(trigger=TriggerConfig(kind="random")),
                "train": TrainConfig(scratchpads_per_byte=0.125),
            },
            "train.scratchpads_per_byte is 0.125 with the trigger `random`, whose own rate is 0.1875",
        ),
    ],
)
def test_impossible_value_is_an_error_that_names_value_and_range(make: Any, values, expected):
    with pytest.raises(ConfigError) as caught:
        make(**values)
    assert expected in caught.value.message
    assert "allowed: " in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("nats", [LARGEST_FLOAT32, -LARGEST_FLOAT32, math.inf, -math.inf])
def test_a_threshold_may_be_all_that_fp32_can_hold(nats):
    assert TriggerConfig(scratchpad_threshold_nats=nats).scratchpad_threshold_nats == nats
    assert TrainConfig(patch_threshold_nats=nats).patch_threshold_nats == nats
    assert float(torch.tensor(0.0).fill_(nats)) == nats


def test_longest_patch_is_exact_for_fixed_and_a_ceiling_for_spacebyte():
    assert PatchifierConfig(target_patch_size=3, max_patch_size=99).longest_patch == 3
    assert PatchifierConfig(kind="spacebyte", target_patch_size=3).longest_patch == 16
    assert PatchifierConfig(kind="spacebyte", target_patch_size=6).longest_patch == 24
    assert PatchifierConfig(kind="spacebyte", target_patch_size=6, max_patch_size=7).longest_patch == 7


def test_entropy_head_is_wanted_by_the_triggers_in_nats_alone():
    reading = [kind for kind in TRIGGERS.built_in if TriggerConfig(kind=kind).reads_entropy]
    assert reading == ["entropy", "entropy_jump", "ending_entropy"]


def test_entropies_of_endings_need_a_source_head():
    with pytest.raises(
        ConfigError, match=r"trigger.kind is ending_entropy with source_head none; allowed: a source head"
    ):
        ModelConfig(trigger=TriggerConfig(kind="ending_entropy"))


def test_error_is_a_value_error_with_message_and_hint_on_two_lines():
    error = ConfigError("steps is 0; allowed: more", hint="Change it.")
    assert isinstance(error, ValueError)
    assert str(error) == "steps is 0; allowed: more\nChange it."
    assert str(ConfigError("alone")) == "alone"


def test_near_matches_come_sorted_and_all_words_are_listed_when_none_is_near():
    assert near_matches("stepz", ["steps", "seed"]) == "Did you mean `steps`?"
    assert near_matches("qqq", ["steps", "seed"]) == "Allowed: seed, steps"


def test_every_field_of_every_section_has_a_default():
    for section in (Config, ModelConfig, DataConfig, TrainConfig, PatchifierConfig, TriggerConfig):
        assert [field.name for field in fields(section())]
