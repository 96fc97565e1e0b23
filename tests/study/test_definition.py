"""Studies as files: what they say, and what is refused with file, key and near matches."""

from pathlib import Path

import pytest

from patchpad.config import Config, load_config
from patchpad.errors import ConfigError
from patchpad.study.changes import first_difference, learned_from
from patchpad.study.definition import (
    BUNDLED,
    bytes_per_step,
    choose_runs,
    load_study,
    with_data,
)

STUDIES = Path(__file__).parents[2] / "configs" / "studies"
MINIMAL = "{name: s, bytes_seen: 9000, data: {a: {}}, arms: [{name: x}]}"


@pytest.fixture
def study(tmp_path):
    def load(text: str):
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return load_study(path)

    return load


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_study_of_the_repository_is_read(file):
    loaded = load_study(file)
    assert all(run.bytes_seen >= (run.arm.bytes_seen or loaded.fields.bytes_seen) for run in loaded.runs)
    for name, text in loaded.fields.data.items():
        assert loaded.references(name)
        assert text.paths in ((), (BUNDLED,)), "no path of a machine"


def test_arms_differ_from_the_base_and_the_base_from_its_file_key_by_key():
    tiny = load_study(STUDIES / "tiny.yaml")
    base = load_config("tiny-fixed16-entropy")
    config = next(run.config for run in tiny.runs if run.arm.name == "fixed16-random")
    assert config.model.trigger.kind == "random"
    assert config.model.trunk_dim == base.model.trunk_dim == 64
    assert config.train.warmup_steps == base.train.warmup_steps
    assert config.train.log_every == 5
    assert config.train.steps == -(-10000 // bytes_per_step(config))


def test_a_base_is_a_preset_by_name_or_a_file_beside_the_study(study, tmp_path):
    (tmp_path / "own.yaml").write_text("model: {trunk_dim: 128}")
    for config, trunk_dim in (("tiny-byte", 64), ("own.yaml", 128)):
        loaded = study(MINIMAL.replace("{a: {}}", f"{{a: {{}}}}, base: {{config: {config}}}"))
        assert loaded.runs[0].config.model.trunk_dim == trunk_dim
    with pytest.raises(ConfigError, match="'tiny-bite' is neither a preset nor a file") as raised:
        study(MINIMAL.replace("{a: {}}", "{a: {}}, base: {config: tiny-bite}"))
    assert "Did you mean `tiny-byte`" in raised.value.hint
    with pytest.raises(ConfigError, match="cannot read the configuration") as raised:
        study(MINIMAL.replace("{a: {}}", "{a: {}}, base: {config: missing.yaml}"))
    assert "base.config" in raised.value.hint


def test_an_arm_may_bring_its_own_base_seeds_bytes_and_text(study):
    loaded = study(
        "{name: s, bytes_seen: 9000, seeds: [0, 1], data: {a: {}, b: {}}, base: {model: {trunk_dim: 64}}, arms: ["
        "{name: x}, {name: y, base: {train: {batch_rows: 1}}, seeds: [7], bytes_seen: 2048, text: b}]}"
    )
    own = loaded.runs[-1]
    assert (own.name, own.text, own.config.model.trunk_dim, own.config.train.steps) == ("y-seed7", "b", 256, 2)
    assert [run.config.train.seed for run in loaded.runs] == [0, 1, 7]
    assert loaded.references("a") == ("x",)
    assert [run.name for run in choose_runs(loaded, arms=["x"], seeds=[1])] == ["x-seed1"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: s,", "nam: s,", "unknown key `nam`\nDid you mean `name`?"),
        ("name: s, ", "", "the key `name` is missing"),
        ("name: s,", "name: s, name: t,", "is not valid YAML: line 1: the key `name` appears twice in a section"),
        ("{name: x}", "{name: x, modl: {}}", "unknown key `arms[0].modl`\nDid you mean `model`?"),
        ("{name: x}", "{name: x, model: {trunk_dims: 8}}", "arm `x`: unknown key `model.trunk_dims`\nDid you mean"),
        ("{name: x}", "{name: x, train: {steps: 5}}", "arm `x`: `train.steps` is set\nLeave it out"),
        ("{name: x}", "{name: x, model: {trunk_dim: 7}}", "arm `x`: model.trunk_dim is 7 with trunk_heads 4"),
        ("{name: x}", "{name: x, text: b}", "arm `x`: unknown text `b`"),
        ("{name: x}", "{name: x}, {name: x}", "arm `x` is used twice"),
        ("{name: x}", "{name: a/b}", "arm `a/b` cannot name a folder"),
        ("{name: x}", "x", "`arms[0]` is 'x'; allowed: keys and values"),
        ("[{name: x}]", "{name: x}", "`arms` is {'name': 'x'}; allowed: a list of sections"),
        ("9000", "0", "arm `x`: `bytes_seen` is 0"),
        ("{a: {}}", "{a: {references: [z]}}", "`data.a.references` names no arm on that text: `z`\nAllowed: x"),
        ("{a: {}}", "{a: {}, b: {references: [x]}}", "`data.b.references` names no arm on that text: `x`"),
        ("{a: {}}", "{a: {path: [z]}}", "unknown key `data.a.path`\nDid you mean `paths`?"),
        ("{a: {}}", "{a: {}}, evaluation: {scratchpads_per_byte: [2]}", "`evaluation.scratchpads_per_byte` holds 2.0"),
        ("{a: {}}", "{a: {}}, seeds: [-1]", "arm `x`: a seed is -1; allowed: an integer of at least 0"),
        ("{a: {}}", "{a: {}}, seeds: [0, 0]", "has the seeds [0, 0]; allowed: each once"),
    ],
)
def test_what_does_not_fit_is_refused_with_file_and_key(study, tmp_path, old, new, message):
    assert old in MINIMAL
    with pytest.raises(ConfigError) as raised:
        study(MINIMAL.replace(old, new))
    assert str(raised.value).startswith(str(tmp_path / "study.yaml"))
    assert message in str(raised.value)
    assert raised.value.hint or "allowed" in raised.value.message


def test_unknown_arms_and_seeds_are_refused(study):
    loaded = study(MINIMAL)
    with pytest.raises(ConfigError, match="has no arm `y`"):
        choose_runs(loaded, arms=["y"])
    with pytest.raises(ConfigError, match="no arm has the seed 5; allowed: 0"):
        choose_runs(loaded, seeds=[0, 5])


def test_files_of_the_command_line_replace_those_of_a_text(study):
    loaded = study(MINIMAL.replace("{a: {}}", "{a: {paths: [own], validation_paths: [held]}, b: {paths: [c]}}"))
    kept = with_data(loaded, [], [])
    assert (kept["a"].paths, kept["a"].validation_paths, kept["b"].paths) == (("own",), ("held",), ("c",))
    given = with_data(loaded, ["x", "a=y", "b=z", "w=v"], ["b=u"])
    assert given["a"].paths == ("x", "y", "w=v")
    assert given["a"].validation_paths == ()
    assert (given["b"].paths, given["b"].validation_paths) == (("z",), ("u",))


def test_what_no_part_of_a_model_reads_makes_no_difference_to_an_arm():
    def learned(trigger: str, **train: float) -> dict:
        return learned_from(Config.from_dict({"model": {"trigger": {"kind": trigger}}, "train": train}))

    assert first_difference(learned("never", entropy_head_weight=1.0), learned("never")) is None
    assert first_difference(learned("entropy", entropy_head_weight=1.0), learned("entropy")) is not None
    assert (
        first_difference(learned("never", log_every=1, learning_rate=0.1), learned("never", learning_rate=0.1)) is None
    )


def test_the_first_difference_is_named_with_both_values():
    old, new = {"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}
    assert first_difference(old, new) == "a.c 2, now 3"
    assert first_difference(old, old) is None
