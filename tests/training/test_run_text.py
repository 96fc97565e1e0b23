"""No held-out file is trained on, and a run is no text of its own."""

import glob
import logging
import os
from pathlib import Path

import pytest

from patchpad.config import Config, DataConfig, TrainConfig
from patchpad.data import open_corpus
from patchpad.errors import ConfigError, DataError
from patchpad.training.run_text import absolute_paths, glob_matches, open_data, require_outside


def config_of(paths, validation_paths=()):
    return Config(data=DataConfig(paths=tuple(map(str, paths)), validation_paths=tuple(map(str, validation_paths))))


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    for name in ("a.txt", "b.txt", "deep/c.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} " * 30)
    return folder


@pytest.mark.parametrize("held_out", ["texts/b.txt", "texts/../texts/b.txt", "texts/b*", "link.txt", "linked/b.txt"])
def test_held_out_file_inside_the_training_folder_is_not_trained_on(tmp_path, texts, caplog, held_out):
    (tmp_path / "link.txt").symlink_to(texts / "b.txt")
    (tmp_path / "linked").symlink_to(texts)
    with caplog.at_level(logging.WARNING):
        training, validation = open_data(config_of([texts], [tmp_path / held_out]))
    assert [Path(name).name for name in training.names] == ["a.txt", "c.txt"]
    assert validation.documents[0].tobytes() == (texts / "b.txt").read_bytes()
    assert [record.getMessage() for record in caplog.records] == ["1 file(s) are held out and therefore not trained on"]


def test_file_named_in_both_is_held_out_alone_and_the_order_of_the_others_stays(texts, caplog):
    files = [texts / "deep" / "c.txt", texts / "b.txt", texts]
    training, validation = open_data(config_of(files, [texts / "b.txt"]))
    assert [Path(name).name for name in training.names] == ["c.txt", "a.txt"]
    assert validation.names == (str(texts / "b.txt"),)
    assert "1 file(s) are held out" in caplog.text


def test_held_out_files_elsewhere_leave_the_training_text_whole_and_nothing_to_report(tmp_path, texts, caplog):
    (tmp_path / "held_out.txt").write_bytes((texts / "a.txt").read_bytes())
    training, _ = open_data(config_of([texts], [tmp_path / "held_out.txt"]))
    assert training.names == open_corpus(texts).names
    assert caplog.text == ""


def test_training_text_that_is_all_held_out_is_an_error(texts):
    for held_out in ([texts], [texts / "a.txt", texts / "b.txt", f"{texts}/deep/*"]):
        with pytest.raises(DataError, match="no text is left to train on") as caught:
            open_data(config_of([texts], held_out))
        assert str(texts) in caught.value.message
        assert "leave data.validation_paths out" in caught.value.hint


def test_empty_path_is_not_the_working_folder(tmp_path, texts, tools, monkeypatch):
    monkeypatch.chdir(texts)
    with pytest.raises(DataError, match="the path of a text is empty"):
        absolute_paths(["a.txt", ""])
    error = tools.train_until_error(tools.config(), tools.Hook(), DataError, data="", out=tmp_path / "run")
    assert "--data PATH" in error.hint
    config = tools.replace(tools.config(), data=DataConfig(validation_paths=("",)))
    tools.train_until_error(config, tools.Hook(), DataError, data="a.txt", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


PATTERNS = [
    *(
        "**",
        "*",
        "*/*",
        "*/*/*",
        "**/*",
        "**/**",
        "**/*.json",
        "*.json",
        "a/**",
        "a/**/b/*",
        "?/*.json",
        "[ab]/**/*.json",
    ),
    *("a/*", "a**/*", ".*", ".h/*", "**/.h/**", "a/b/x.json", "[!a]/*", "**/b/**/x.json", "*/b/*", "A/*", "./a/*"),
]
NAMES = ["x.json", "a/x.json", "a/b/x.json", "b/c/b/x.json", ".h/x.json", "a/.h/x.json", "a/.hidden", "x.txt", "a/b/y"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_glob_matches_what_glob_finds(tmp_path, monkeypatch, pattern):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    found = {path for path in glob.glob(f"{tmp_path}/{pattern}", recursive=True) if os.path.isfile(path)}
    matched = {str(tmp_path / name) for name in NAMES if glob_matches(tmp_path / pattern, tmp_path / name)}
    assert matched == {os.path.normpath(path) for path in found}
    monkeypatch.chdir(tmp_path)
    assert {str(tmp_path / name) for name in NAMES if glob_matches(Path(pattern), tmp_path / name)} == matched


@pytest.mark.parametrize(
    ("path", "is_refused"),
    [
        ("texts", True),
        ("linking", True),
        ("texts/**", True),
        ("link/**", True),
        ("*/**", True),
        ("texts/**/*.jsonl", True),
        ("texts/run/checkpoints/*/trainer.json", True),
        ("texts/*/report.*", True),
        ("texts/**/*.txt", False),
        ("texts/*", False),
        ("texts/deep/**", False),
        ("texts/a.txt", False),
        ("texts/deep", False),
    ],
)
def test_run_is_refused_where_its_own_files_would_be_read_as_text(tmp_path, texts, path, is_refused):
    """`link` is the folder itself, `linking` a folder with a link to it."""
    (tmp_path / "link").symlink_to(texts)
    (tmp_path / "linking").mkdir()
    (tmp_path / "linking" / "link").symlink_to(texts)
    for config in (config_of([tmp_path / path]), config_of([texts / "a.txt"], [tmp_path / path])):
        for out in (texts / "run", tmp_path / "link" / "run"):
            if is_refused:
                with pytest.raises(ConfigError, match=r"lies (inside|where)") as caught:
                    require_outside(out, config)
                assert str(out) in caught.value.message
                assert str(tmp_path / path) in caught.value.message
                assert caught.value.hint.startswith("Choose an --out outside of it")
            else:
                require_outside(out, config)


def test_last_step_stands_for_all_step_folders(texts):
    config = Config(data=DataConfig(paths=(f"{texts}/*/*/step-7/*",)), train=TrainConfig(steps=7))
    with pytest.raises(ConfigError):
        require_outside(texts / "run", config)
