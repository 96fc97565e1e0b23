"""Languages: the same sentences in each, each a document of its own, measured as a plain pass measures them."""

import io
import json
import math
import tarfile

import numpy as np
import pytest

from patchpad.data import Corpus
from patchpad.errors import ConfigError, DataError
from patchpad.evaluation.bits_per_byte import evaluate, score
from patchpad.tasks.definition import TaskOptions
from patchpad.tasks.kinds import load_task, run_task
from patchpad.tasks.language_rows import ratio_error
from patchpad.tasks.parallel import drawn
from patchpad.tasks.parallel_text import non_latin_share, read_parallel
from patchpad.testing import BASELINE_KINDS, sharp_baseline, sharp_model, tiny_model_config

CONTEXT_BYTES = 64
RELATIVE_TOLERANCE = 1e-5
NAMES = ("texts/src.{language}.txt", "texts/ref.{language}.txt")
SENTENCES = {
    "eng": [b"a cat", b"the dog barks", b"rain", b"it is late", b"so they went home"],
    "deu": [b"eine Katze", b"der Hund bellt", b"Regen", "es ist spät".encode(), b"also gingen sie heim"],
    "rus": ["кот".encode(), "собака лает".encode(), b"  ", "поздно".encode(), ("да " * 30).encode()],
}
TASK = f"""\
kind: parallel
data: [text.tar.xz]
file_names: {json.dumps(NAMES)}
reference: eng
"""


def file_of(language: str) -> str:
    return (NAMES[0] if language == "eng" else NAMES[1]).replace("{language}", language)


def content_of(sentences) -> bytes:
    return b"".join(sentence + b"\r\n" for sentence in sentences)


def write_archive(path, sentences):
    with tarfile.open(path, "w:xz") as archive:
        for name, content in [("LICENSE", b"x\n"), *((file_of(key), content_of(value)) for key, value in sentences)]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def archive(tmp_path):
    write_archive(tmp_path / "text.tar.xz", SENTENCES.items())
    return tmp_path / "text.tar.xz"


def task_of(folder, text=TASK):
    (folder / "mine.yaml").write_text(text)
    return load_task(folder / "mine.yaml")


@pytest.fixture(scope="module")
def model():
    return sharp_model(tiny_model_config(context_bytes=CONTEXT_BYTES))


def test_an_archive_a_folder_and_rows_give_the_same_sentences(archive, tmp_path):
    folder = tmp_path / "folder"
    (folder / "texts").mkdir(parents=True)
    for language, sentences in SENTENCES.items():
        (folder / file_of(language)).write_bytes(content_of(sentences).replace(b"\r\n", b"\n").removesuffix(b"\n"))
    rows = [{key: value[line].decode() for key, value in SENTENCES.items()} for line in range(5)]
    plain, nested = tmp_path / "plain.jsonl", tmp_path / "nested.jsonl"
    plain.write_text("".join(json.dumps({**row, "n": 1}) + "\n" for row in rows))
    nested.write_text("".join(json.dumps({"id": "a", "text": row}, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    expected = {language: SENTENCES[language] for language in sorted(SENTENCES)}
    assert read_parallel(archive, file_names=NAMES) == expected
    assert read_parallel(folder, file_names=NAMES) == expected
    assert read_parallel(plain) == expected
    assert read_parallel(nested, field="text") == expected
    assert list(read_parallel(plain, languages=["rus", "eng"])) == ["rus", "eng"]
    task = task_of(tmp_path, TASK.replace("text.tar.xz", "folder"))
    assert task.files(tmp_path) == sorted(folder / file_of(language) for language in SENTENCES)


def test_text_that_is_not_aligned_or_not_there_is_refused(archive, tmp_path):
    with pytest.raises(DataError, match=r"holds no file called none-\{language\}\.txt\nSee what it holds: tar -tf"):
        read_parallel(archive, file_names=["none-{language}.txt"])
    with pytest.raises(DataError, match=r"`file_names` is \['a\.txt'\]; allowed: names of files, each with"):
        read_parallel(archive, file_names=["a.txt"])
    with pytest.raises(DataError, match="has no language `ger`\n"):
        read_parallel(archive, file_names=NAMES, languages=["ger"])
    write_archive(archive, [("eng", SENTENCES["eng"]), ("deu", SENTENCES["deu"][:3])])
    with pytest.raises(DataError, match="`eng` has 5 lines and `deu` has 3; allowed: as many in each"):
        read_parallel(archive, file_names=NAMES)
    write_archive(archive, [("eng", SENTENCES["eng"]), ("eng", SENTENCES["eng"])])
    with pytest.raises(DataError, match="two files for the language `eng`"):
        read_parallel(archive, file_names=NAMES)
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(DataError, match=r"cannot read .*text\.tar\.xz"):
        read_parallel(archive, file_names=NAMES)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": {"eng": "a"}}\n{"text": "b"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2: `text` is 'b'; allowed: an object"):
        read_parallel(rows, field="text")


@pytest.mark.parametrize("kind", ["patch", *BASELINE_KINDS])
def test_each_sentence_is_measured_as_if_it_were_alone(kind, model, archive, tmp_path):
    model = model if kind == "patch" else sharp_baseline(kind)
    result = run_task(task_of(tmp_path), model, TaskOptions(data=tmp_path))
    assert result.details["lines"] == [1, 2, 4, 5], "line 3 lacks one language"
    assert result.details["num_lines_not_in_every_language"] == 1
    assert result.num_examples == 3
    rows = {row["language"]: row for row in result.details["languages"]}
    for language, column in SENTENCES.items():
        chosen = [column[line - 1] for line in result.details["lines"]]
        bits = [float(score(model, sentence).sum(dtype=np.float64)) / math.log(2) for sentence in chosen]
        num_bytes = sum(map(len, chosen))
        corpus = Corpus(tuple(np.frombuffer(one, dtype=np.uint8) for one in chosen), tuple("abcd"))
        (point,) = evaluate(model, corpus, limit_bytes=0)
        row = rows[language]
        assert row["bits_per_byte"] == pytest.approx(sum(bits) / num_bytes, rel=RELATIVE_TOLERANCE)
        assert row["bits_per_byte"] == pytest.approx(point.bits_per_byte, rel=RELATIVE_TOLERANCE)
        assert row["bits_per_sentence"] == pytest.approx(sum(bits) / 4, rel=RELATIVE_TOLERANCE)
        assert row["bytes_per_sentence"] == num_bytes / 4
        assert row["trunk_calls_per_sentence"] == pytest.approx(point.trunk_calls_per_byte * num_bytes / 4)
        assert row["num_bytes"] == point.num_bytes == num_bytes
        other = rows["eng"]["bits_per_sentence"]
        assert row["bits_to_reference"] == pytest.approx(row["bits_per_sentence"] / other)
    expected = np.mean([row["bits_per_byte"] for row in rows.values()])
    assert result.main.value == pytest.approx(expected)
    assert result.compute.bytes_scored == sum(row["num_bytes"] for row in rows.values())
    too_long = len(SENTENCES["rus"][4]) - model.config.context_bytes
    assert (result.num_cut_examples, result.num_cut_bytes) == (1, too_long)
    assert not result.higher_is_better


def test_the_standard_error_of_a_language_is_that_of_repeated_draws_of_sentences():
    source = np.random.default_rng(0)
    sizes = source.integers(3, 40, size=300).astype(float)
    bits = sizes * source.normal(2.0, 0.5, size=300) + source.normal(5.0, 3.0, size=300)
    draws = source.integers(300, size=(4000, 300))
    spread = (bits[draws].sum(axis=1) / sizes[draws].sum(axis=1)).std()
    assert ratio_error(bits, sizes, bits.sum() / sizes.sum()) == pytest.approx(spread, rel=0.05)
    assert ratio_error(bits[:1], sizes[:1], 2.0) is None


def test_all_languages_have_the_same_sentences_and_fewer_are_a_part_of_more(archive, tmp_path, model):
    def lines(limit, seed=0):
        return set(drawn(np.array([0, 1, 3, 4]), limit, seed).tolist())

    assert lines(1) < lines(2) < lines(3) < {0, 1, 3, 4} == lines(9)
    assert len({tuple(sorted(lines(2, seed))) for seed in range(5)}) > 1
    result = run_task(task_of(tmp_path), model, TaskOptions(data=tmp_path, limit=2, seed=3))
    assert result.details["lines"] == sorted(line + 1 for line in lines(2, 3))
    assert {row["num_sentences"] for row in result.details["languages"]} == {2}


def test_languages_that_were_trained_on_have_means_of_their_own(archive, tmp_path, model):
    told = []
    options = TaskOptions(data=tmp_path, progress=told.append)
    result = run_task(task_of(tmp_path, TASK + "trained: [eng, deu]\n"), model, options)
    bits = {row["language"]: row["bits_per_byte"] for row in result.details["languages"]}
    assert result.metrics["bits_per_byte_trained"].value == pytest.approx((bits["eng"] + bits["deu"]) / 2)
    assert result.metrics["bits_per_byte_unseen"].value == pytest.approx(bits["rus"])
    assert result.values_of("bits_per_byte_unseen").keys() == {"rus"}
    assert told == [1, 1, 1]
    with pytest.raises(DataError, match="has no language `enm`, which the task `mine` names\nDid you mean `eng`"):
        run_task(task_of(tmp_path, TASK + "trained: [enm]\n"), model, options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TASK.replace("[text.tar.xz]", "[a, b]"), "`data` names 2 files; allowed: one"),
        (TASK + "languages: [deu]\n", "`languages` lacks the reference `eng`"),
        (TASK + "replacements: [{pattern: a}]\n", "`replacements` is set; allowed: none"),
        (TASK + "sentences: 0\n", "sentences is 0; allowed: an integer of at least 1"),
    ],
)
def test_a_wrong_file_is_refused(text, message, tmp_path):
    with pytest.raises(ConfigError) as raised:
        task_of(tmp_path, text)
    assert message in str(raised.value)


def test_noise_and_text_that_no_line_has_in_every_language_are_refused(archive, tmp_path, model):
    with pytest.raises(ConfigError, match="of kind `parallel` takes no noise"):
        run_task(task_of(tmp_path), model, TaskOptions(data=tmp_path, change_context=lambda text, place: text))
    write_archive(archive, [("eng", [b"a", b""]), ("deu", [b"", b"b"])])
    with pytest.raises(DataError, match=r"text\.tar\.xz: no line says something in every language"):
        run_task(task_of(tmp_path), model, TaskOptions(data=tmp_path))


@pytest.mark.parametrize(
    ("text", "share"),
    [("Straße, café!", 0), ("кот", 1), ("ab кот 12", 3 / 5), ("", 0), ("1 2 3 …", 0), ("日本 go", 1 / 2), ("កម្ពុជា", 1)],
)
def test_the_share_of_letters_that_are_not_latin(text, share):
    assert non_latin_share(text) == share
