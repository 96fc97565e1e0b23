"""A prepared corpus is the texts that it was made of, whoever made it and however often it was stopped."""

import json
import os

import pytest

from patchpad.cli.app import main
from patchpad.config import DataConfig, TextConfig
from patchpad.data import open_corpus, prepare, prepared
from patchpad.errors import ConfigError, DataError
from patchpad.training.text import RunText


def documents(corpus):
    return [document.tobytes() for document in corpus.documents]


def content(folder):
    """All files of a prepared corpus, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def texts(tmp_path):
    """Six files: lines with prompts, plain ones, one of them twice, and a large one."""
    folder = tmp_path / "texts"
    folder.mkdir()
    lines = [{"text": f"line {number} " * (number % 7 + 1)} for number in range(40)]
    lines[3:3] = [{"prompt": "question? ", "completion": "answer"}, {"text": ""}]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for name in ("b.txt", "c.txt"):
        (folder / name).write_text("the same text twice\n" * 5)
    (folder / "d.txt").write_text("another text\n" * 30)
    (folder / "e.jsonl").write_text("\n".join(map(json.dumps, lines[10:20])))
    (folder / "f.txt").write_text("the largest of them\n" * 200)
    return folder


def config_of(texts, **options):
    return TextConfig(paths=(str(texts),), **options)


def made(texts, out, *, shard_bytes=700, **options):
    return prepare.prepare(config_of(texts), out, shard_bytes=shard_bytes, **options)


@pytest.mark.parametrize("fraction", [0.1, 0.6])
@pytest.mark.parametrize("removes", [False, True])
def test_training_on_a_prepared_corpus_is_training_on_its_texts(tmp_path, texts, fraction, removes):
    """With a fraction that whole documents come to, and one for which the largest is cut."""
    config = config_of(texts, validation_fraction=fraction, remove_duplicates=removes)
    manifest = prepare.prepare(config, tmp_path / "corpus", shard_bytes=700)
    fields = {"validation_fraction": fraction, "remove_duplicates": removes}
    expected = RunText.open(DataConfig(paths=(str(texts),), **fields))
    text = RunText.open(DataConfig(paths=(str(tmp_path / "corpus"),)))
    for found, wanted in ((text.training, expected.training), (text.validation, expected.validation)):
        assert documents(found) == documents(wanted)
        assert (found.prompt_bytes is None) == (wanted.prompt_bytes is None or not wanted.prompt_bytes.any())
        assert found.prompt_bytes is None or found.prompt_bytes.tolist() == wanted.prompt_bytes.tolist()
        assert found.documents.digests.tolist() == [
            wanted.documents.digest(index) for index in range(len(wanted.names))
        ]
    assert manifest["left_out"] == {"bad_records": 0, "empty": 1, "duplicates": 11 * removes, "held_out_too": 0}
    assert prepared.verify(tmp_path / "corpus") == manifest
    assert not list((tmp_path / "corpus").rglob(".*")), "nothing temporary is left"
    assert documents(open_corpus(tmp_path / "corpus")) == documents(expected.validation)
    assert documents(open_corpus(tmp_path / "corpus" / "training")) == documents(expected.training)
    assert max(facts["num_bytes"] for name, facts in manifest["files"].items() if "shards" in name) == 4000


def test_held_out_texts_are_given_or_nothing_is_held_out(tmp_path, texts):
    config = config_of(texts, validation_paths=(str(texts / "d.txt"),))
    manifest = prepare.prepare(config, tmp_path / "given")
    assert documents(open_corpus(tmp_path / "given")) == [(texts / "d.txt").read_bytes()]
    assert manifest["parts"]["validation"]["num_documents"] == 1
    manifest = made(texts, tmp_path / "whole", hold_out=False)
    assert list(manifest["parts"]) == ["training"]
    assert documents(open_corpus(tmp_path / "whole")) == documents(open_corpus(texts))
    split = RunText.open(DataConfig(paths=(str(tmp_path / "whole"),)))
    assert documents(split.training) == documents(RunText.open(DataConfig(paths=(str(texts),))).training)


def test_a_stopped_preparation_goes_on_where_it_was_and_is_begun_anew_for_other_texts(tmp_path, texts, monkeypatch):
    expected = made(texts, tmp_path / "expected")
    original, calls = prepare.prepare_group, []

    def stopping(group):
        calls.append(group.number)
        if len(calls) == 3:
            (group.out / "shards" / ".half.tmp").write_bytes(b"what a killed process leaves")
            raise KeyboardInterrupt
        original(group)

    monkeypatch.setattr(prepare, "prepare_group", stopping)
    out = tmp_path / "corpus"
    with pytest.raises(KeyboardInterrupt):
        made(texts, out)
    with pytest.raises(DataError, match="cannot read"):
        prepared.read_manifest(out)
    with pytest.raises(DataError, match="is not whole"):
        open_corpus(out)
    assert made(texts, out) == expected
    assert sorted(calls) == [0, 1, 2, 2, 3], "what was done is not done again"
    assert content(out) == content(tmp_path / "expected")
    assert made(texts, out) == expected, "all is done: nothing is read"
    assert len(calls) == 5
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        made(texts, tmp_path / "other")
    (texts / "d.txt").write_text("changed")
    assert "d.txt" in str(made(texts, tmp_path / "other")["sources"])
    assert calls[3:] == list(range(len(calls) - 3)), "all groups are made again"
    with pytest.raises(ConfigError, match="corpus exists and is not empty"):
        made(texts, out)


@pytest.mark.distributed
def test_two_processes_make_what_one_makes(tmp_path, texts):
    made(texts, tmp_path / "one")
    made(texts, tmp_path / "two", num_processes=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    (texts / "e.jsonl").write_text('{"text": "fine"}\nbroken\n')
    with pytest.raises(DataError, match=r"e\.jsonl, line 2 is not JSON") as caught:
        made(texts, tmp_path / "broken", num_processes=2)
    assert "Fix the line" in caught.value.hint


class EndsItsReader(str):
    """The name of a file that ends the process which gets it."""

    def __reduce__(self):
        return os._exit, (9,)


def test_process_that_is_killed_is_an_error_that_says_how_to_go_on(tmp_path):
    options = {"role": "undivided", "data": TextConfig(), "shard_bytes": 1, "out": tmp_path}
    groups = [prepare.Group(number=number, items=(EndsItsReader(),), **options) for number in range(2)]
    with pytest.raises(DataError, match="ended from outside") as caught:
        list(prepare._run(groups, 2))
    assert "it continues" in caught.value.hint


def test_bad_records_of_all_files_count_together(tmp_path, texts):
    for name in ("a.jsonl", "e.jsonl"):
        with open(texts / name, "a") as file:
            file.write("\nbroken\n")
    manifest = prepare.prepare(config_of(texts, most_bad_records=2), tmp_path / "two")
    assert manifest["left_out"]["bad_records"] == 2
    with pytest.raises(DataError, match="2 bad records"):
        prepare.prepare(config_of(texts, most_bad_records=1), tmp_path / "one", shard_bytes=700)


@pytest.mark.parametrize("name", ["shards/00000-00000.bytes", "training/begins.npy", "manifest.json"])
def test_a_shard_that_shrank_grew_or_has_gone_is_an_error_at_opening_and_a_changed_byte_when_verified(
    tmp_path, texts, name
):
    made(texts, tmp_path / "corpus")
    file = tmp_path / "corpus" / name
    before = file.read_bytes()
    for damaged in (before[: len(before) // 2], b"", *(() if "json" in name else (before[:-1], before + b"x"))):
        file.write_bytes(damaged)
        with pytest.raises(DataError) as caught:
            RunText.open(DataConfig(paths=(str(tmp_path / "corpus"),)))
        assert str(file) in caught.value.message
        if "json" not in name:
            with pytest.raises(DataError, match="manifest says") as caught:
                made(texts, tmp_path / "corpus")
            assert caught.value.hint.endswith(f"rm -r {tmp_path / 'corpus'}"), "what has gone is not found done"
    if "json" in name:
        return
    file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    if "shards" in name:
        RunText.open(DataConfig(paths=(str(tmp_path / "corpus"),)))
    with pytest.raises(DataError, match="has changed: its SHA-256"):
        prepared.verify(tmp_path / "corpus")
    file.unlink()
    with pytest.raises(DataError, match="cannot read"):
        prepared.verify(tmp_path / "corpus")


def test_shard_that_is_cut_short_while_a_run_reads_it_is_an_error_that_names_it(tmp_path, texts):
    made(texts, tmp_path / "corpus")
    training = open_corpus(tmp_path / "corpus" / "training")
    for shard in (tmp_path / "corpus" / "shards").iterdir():
        os.truncate(shard, 1)
    with pytest.raises(DataError, match=r"00000\.bytes has shrunk while it is read"):
        documents(training)


def test_command_prepares_verifies_and_names_the_next_command(tmp_path, texts, capsys):
    out = str(tmp_path / "corpus")
    assert main(["prepare", str(texts), "--out", out, "--remove-duplicates"]) == 0
    shown = capsys.readouterr().out
    assert f"{out} is prepared" in shown
    assert "left out: 1 empty, 11 duplicates" in shown
    assert f"patchpad train --config FILE --data {out}" in shown
    assert main(["prepare", "--verify", out]) == 0
    assert "every byte is as it was prepared" in capsys.readouterr().out
    assert main(["prepare", str(texts)]) == 2
    assert "--out is missing" in capsys.readouterr().err
    assert main(["prepare", str(texts), "--out", out, "--processes", "0"]) == 2
    assert "--processes is 0; allowed: an integer of at least 1" in capsys.readouterr().err
