"""No held-out file is trained on, a run is no text of its own, and text that changes under a run is noticed."""

import glob
import json
import logging
import os
import resource
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from patchpad.config import DataConfig, TextConfig
from patchpad.data import Corpus, file_reading, open_corpus, prepare
from patchpad.data.items import absolute_paths
from patchpad.errors import ConfigError, DataError, TrainingInterrupted
from patchpad.training import text as text_module
from patchpad.training import trainer
from patchpad.training.run_folder import glob_matches, require_outside
from patchpad.training.text import RunText


def data_of(paths, validation_paths=()):
    return DataConfig(paths=tuple(map(str, paths)), validation_paths=tuple(map(str, validation_paths)))


def opened(paths, validation_paths=()):
    return RunText.open(data_of(paths, validation_paths))


BESIDE = ("report.html",)


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
        text = opened([texts], [tmp_path / held_out])
    assert [Path(name).name for name in text.training.names] == ["a.txt", "c.txt"]
    assert text.validation.documents[0].tobytes() == (texts / "b.txt").read_bytes()
    assert [record.getMessage() for record in caplog.records] == ["1 file(s) are held out and therefore not trained on"]


def test_file_named_in_both_is_held_out_alone_and_the_order_of_the_others_stays(texts, caplog):
    files = [texts / "deep" / "c.txt", texts / "b.txt", texts]
    text = opened(files, [texts / "b.txt"])
    assert [Path(name).name for name in text.training.names] == ["c.txt", "a.txt"]
    assert text.validation.names == (str(texts / "b.txt"),)
    assert "1 file(s) are held out" in caplog.text


def test_held_out_files_elsewhere_leave_the_training_text_whole_and_nothing_to_report(tmp_path, texts, caplog):
    (tmp_path / "held_out.txt").write_bytes((texts / "a.txt").read_bytes() + b"!")
    assert opened([texts], [tmp_path / "held_out.txt"]).training.names == open_corpus(texts).names
    assert caplog.text == ""


def test_held_out_file_is_recognised_by_another_name_a_hard_link_and_its_bytes_alone(tmp_path, texts, caplog):
    (tmp_path / "hard.txt").hardlink_to(texts / "b.txt")
    assert opened([texts], [tmp_path / "hard.txt"]).training.names == opened([texts], [texts / "b.txt"]).training.names
    assert caplog.messages == ["1 file(s) are held out and therefore not trained on"] * 2
    caplog.clear()
    lines = [{"text": text} for text in ("one", (texts / "b.txt").read_text(), "two", "one")]
    (tmp_path / "copies.jsonl").write_text("\n".join(map(json.dumps, lines)))
    text = opened([texts, tmp_path / "copies.jsonl"], [texts / "b.txt"])
    assert [Path(name).name for name in text.training.names] == [
        *("a.txt", "c.txt", "copies.jsonl:1", "copies.jsonl:3", "copies.jsonl:4")
    ]
    assert caplog.messages[1] == ("1 document(s) equal held-out ones, byte for byte, and are therefore not trained on")


def test_training_text_that_is_all_held_out_is_an_error(texts):
    copies = texts.parent / "copies"
    shutil.copytree(texts, copies)
    for held_out in ([texts], [texts / "a.txt", texts / "b.txt", f"{texts}/deep/*"], [copies]):
        with pytest.raises(DataError, match="none is left to train on") as caught:
            opened([texts], held_out)
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
    *("**", "*", "*/*", "*/*/*", "**/*", "**/**", "**/*.json", "*.json", "a/**", "a/**/b/*", "?/*.json", "a**/*"),
    *("a/*", ".*", ".h/*", "**/.h/**", "a/b/x.json", "[!a]/*", "**/b/**/x.json", "*/b/*", "A/*", "./a/*", "[ab]/**/y"),
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
    for data in (data_of([tmp_path / path]), data_of([texts / "a.txt"], [tmp_path / path])):
        for out in (texts / "run", tmp_path / "link" / "run"):
            if is_refused:
                with pytest.raises(ConfigError, match=r"lies (inside|where)") as caught:
                    require_outside(out, data, steps=100, beside=BESIDE)
                assert str(out) in caught.value.message
                assert str(tmp_path / path) in caught.value.message
                assert caught.value.hint.startswith("Choose an --out outside of it")
            else:
                require_outside(out, data, steps=100, beside=BESIDE)


@pytest.mark.parametrize(
    ("path", "is_refused"),
    [
        ("proj[1]/**", True),
        ("proj[1]/*/*.json", True),
        ("proj[1]/*.txt", False),
        ("p*/**/*.json", True),
        ("via/**/*.json", True),
        ("via/*/run/*.json", True),
        ("via/li*/**", True),
        ("via/**/*.txt", False),
    ],
)
def test_run_is_refused_behind_brackets_and_links_too(tmp_path, texts, path, is_refused):
    """`via/link` leads to the folder in which the run is to lie."""
    project = tmp_path / "proj[1]"
    project.mkdir()
    (tmp_path / "via").mkdir()
    (tmp_path / "via" / "link").symlink_to(project)
    data = data_of([tmp_path / path])
    if is_refused:
        with pytest.raises(ConfigError, match="lies where"):
            require_outside(project / "run", data, steps=3)
    else:
        require_outside(project / "run", data, steps=3)


def stopped(tools, data, out):
    """Trains to the second of 4 steps."""
    stop = tools.Hook(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    tools.train_until_error(tools.config(steps=4), stop, TrainingInterrupted, data=data, out=out)


@pytest.mark.slow
def test_a_change_between_the_samples_of_a_large_text_is_found_when_resuming(tmp_path, tools):
    data = tmp_path / "text.txt"
    content = bytearray(b"0123456789abcde\n" * (1 << 19))
    data.write_bytes(content)
    before = open_corpus(data)
    stopped(tools, data, tmp_path / "run")
    content[5000] ^= 1
    data.write_bytes(content)
    assert open_corpus(data).fingerprint() == before.fingerprint(), "else the place is not between two samples"
    with pytest.raises(DataError, match=r"the text has changed since the run began: .*text\.txt"):
        trainer.resume(tmp_path / "run", progress=tools.Hook())
    content[5000] ^= 1
    data.write_bytes(content)
    trainer.resume(tmp_path / "run", progress=tools.Hook())


def test_text_is_read_again_only_where_a_file_has_another_size_or_time(tmp_path, text, tools, monkeypatch):
    data = tmp_path / "text.txt"
    data.write_bytes(text.read_bytes())
    stopped(tools, data, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    read = []
    original = Corpus.checksum
    monkeypatch.setattr(Corpus, "checksum", lambda self: read.append(1) or original(self))
    trainer.resume(tmp_path / "run", progress=tools.Hook())
    assert read == []
    os.utime(data, (1, 1))
    trainer.resume(tmp_path / "again", progress=tools.Hook())
    assert len(read) == 2


def test_changed_byte_is_found_although_size_and_time_of_the_content_are_put_back(tmp_path, text, tools):
    data = tmp_path / "text.txt"
    data.write_bytes(text.read_bytes())
    stopped(tools, data, tmp_path / "run")
    status = data.stat()
    data.write_bytes(b"X" + text.read_bytes()[1:])
    os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match="the text has changed"):
        trainer.resume(tmp_path / "run", progress=tools.Hook())


def test_last_step_stands_for_all_step_folders(texts):
    data = data_of([f"{texts}/*/*/step-7/*"])
    with pytest.raises(ConfigError):
        require_outside(texts / "run", data, steps=7)
    require_outside(texts / "run", data_of([f"{texts}/*/report.*"]), steps=7)


@pytest.mark.parametrize("part", ["training", "held_out"])
def test_text_overwritten_while_a_run_reads_it_is_reported_and_refused_when_resuming(
    tmp_path, text, tools, monkeypatch, caplog, part
):
    monkeypatch.setattr(file_reading, "SMALLEST_READ_LATE", 1)
    for name in ("training", "held_out"):
        (tmp_path / name).write_bytes(name.encode() + text.read_bytes())

    def overwrite():
        with open(tmp_path / part, "r+b") as file:
            file.write(b"another text")

    class Stopping(tools.Hook):
        def update(self, step, total_steps, metrics):
            super().update(step, total_steps, metrics)
            if step == 8:
                os.kill(os.getpid(), signal.SIGINT)

    config = tools.config(checkpoint_every=2)
    config = tools.replace(config, data=DataConfig(validation_paths=(str(tmp_path / "held_out"),)))
    paths = {"data": tmp_path / "training", "out": tmp_path / "run"}
    tools.train_until_error(config, Stopping(5, overwrite), TrainingInterrupted, **paths)
    assert caplog.text.count(f"{tmp_path / part} changed while the run reads it") == 1
    with pytest.raises(DataError, match="the text has changed since the run began"):
        trainer.resume(tmp_path / "run", progress=tools.Hook())
    (tmp_path / part).write_bytes(part.encode() + text.read_bytes())
    trainer.resume(tmp_path / "run", progress=tools.Hook())


def test_text_that_is_gone_while_a_run_reads_it_is_reported(tmp_path, text, tools, monkeypatch, caplog):
    monkeypatch.setattr(file_reading, "SMALLEST_READ_LATE", 1)
    data = tmp_path / "text.txt"
    data.write_bytes(text.read_bytes())
    trainer.train(tools.config(), data=data, out=tmp_path / "run", progress=tools.Hook(2, data.unlink))
    assert caplog.text.count(f"{data} changed while the run reads it") == 1


def test_duplicates_are_left_out_on_request_and_counted(texts, caplog):
    lines = [{"text": text} for text in ("one", "two", "one", "three", "two", "four")]
    (texts / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = data_of([texts / "lines.jsonl"], [texts / "a.txt"])
    assert len(RunText.open(data).training.documents) == 6
    text = RunText.open(replace(data, remove_duplicates=True))
    assert [document.tobytes() for document in text.training.documents] == [b"one", b"two", b"three", b"four"]
    assert caplog.messages == ["2 document(s) equal earlier ones, byte for byte, and are left out"]


def test_opening_a_large_sparse_text_reads_little_of_it_and_keeps_nothing(tmp_path):
    """10 GB, which take no place on the disk: reading them all would take half a minute and map as much."""
    with open(tmp_path / "large.txt", "wb") as file:
        file.truncate(10 * 1000**3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    text = opened([tmp_path / "large.txt"])
    facts = text.facts()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"
    assert (text.training.num_bytes, text.validation.num_bytes) == (9_000_000_000, 1_000_000_000)
    text.require_same(json.loads(json.dumps(facts)))


def test_large_text_with_other_times_is_taken_for_the_same_by_its_samples_and_that_is_said(texts, monkeypatch, caplog):
    monkeypatch.setattr(text_module, "LARGEST_READ_WHOLE", 10)
    facts = json.loads(json.dumps(opened([texts]).facts()))
    os.utime(texts / "a.txt", (1, 1))
    opened([texts]).require_same(facts)
    assert "a.txt: other times, but the same sizes and samples" in caplog.text
    (texts / "a.txt").write_text("b.txt " * 30)
    with pytest.raises(DataError, match=r"the text has changed since the run began: .*a\.txt"):
        opened([texts]).require_same(facts)


def test_a_run_trains_on_a_prepared_corpus_and_goes_on(tmp_path, text, tools):
    prepare.prepare(TextConfig(paths=(str(text),)), tmp_path / "corpus", shard_bytes=500)
    runs = {}
    for name, data in (("plain", text), ("prepared", tmp_path / "corpus")):
        run = trainer.train(tools.config(steps=3), data=data, out=tmp_path / name, progress=tools.Hook())
        lines = (Path(run.path) / "metrics.jsonl").read_text().splitlines()
        runs[name] = [[json.loads(line).get(key) for key in ("train/bpb", "val/bpb")] for line in lines]
    assert runs["plain"] == runs["prepared"]
