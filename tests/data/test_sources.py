"""The same text in every format, and behind every path, is the same documents; what is damaged or absent is named."""

import gzip
import json
import sys

import pyarrow
import pytest
from pyarrow import parquet

from patchpad.config import DataConfig
from patchpad.data import Corpus, open_corpus
from patchpad.errors import DataError, MissingExtraError
from patchpad.training.text import RunText

TEXTS = ["one line\n", "größer 🙂", "x" * 3000, "the fourth\r\n", "fünf"]


def texts(corpus: Corpus) -> list[str]:
    return [document.tobytes().decode() for document in corpus.documents]


def write_parquet(file, values, *, kind=None, column="text", **options):
    table = pyarrow.table({"id": range(len(values)), column: pyarrow.array(values, kind or pyarrow.string())})
    parquet.write_table(table, file, **options)


def write_stream(file, values, *, rows_at_once=2, **options):
    """Writes Arrow's stream format, as `datasets` does."""
    schema = pyarrow.schema([("text", pyarrow.string())])
    with pyarrow.ipc.new_stream(str(file), schema, **options) as writer:
        for first in range(0, len(values), rows_at_once):
            writer.write_batch(pyarrow.record_batch([values[first : first + rows_at_once]], schema=schema))


def save_dataset(folder, values):
    """Writes what `datasets.Dataset.save_to_disk` does: its files are read, their list is in state.json."""
    folder.mkdir(parents=True)
    names = [f"data-0000{number}-of-00002.arrow" for number in range(2)]
    write_stream(folder / names[0], values[:3])
    write_stream(folder / names[1], values[3:])
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")


def json_lines(values, field="text"):
    return "".join(json.dumps({field: value}) + "\n" for value in values)


@pytest.fixture
def formats(tmp_path):
    """A path for each format, with the same texts."""
    folder = tmp_path / "formats"
    folder.mkdir()
    (folder / "a.jsonl").write_text(json_lines(TEXTS))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(json_lines(TEXTS).encode()))
    for name, kind in (("string", pyarrow.string()), ("wide", pyarrow.large_string()), ("bytes", pyarrow.binary())):
        values = [text.encode() for text in TEXTS] if name == "bytes" else TEXTS
        write_parquet(folder / f"{name}.parquet", values, kind=kind, row_group_size=2)
    write_parquet(folder / "words.parquet", TEXTS, kind=pyarrow.dictionary(pyarrow.int32(), pyarrow.string()))
    write_stream(folder / "stream.arrow", TEXTS)
    options = pyarrow.ipc.IpcWriteOptions(compression="lz4")
    write_stream(folder / "packed.arrow", TEXTS, options=options)
    with pyarrow.ipc.new_file(str(folder / "file.arrow"), pyarrow.schema([("text", pyarrow.string())])) as writer:
        writer.write_batch(pyarrow.record_batch([TEXTS], names=["text"]))
    save_dataset(folder / "saved", TEXTS)
    return folder


def test_the_same_text_in_each_format_is_the_same_documents(formats):
    paths = sorted(formats.iterdir())
    assert len(paths) == 10
    for path in paths:
        for spelling in (path, f"file://{path}") if path.is_file() else (path,):
            corpus = open_corpus(spelling)
            assert texts(corpus) == TEXTS, spelling
            assert corpus.lengths.tolist() == [len(text.encode()) for text in TEXTS]
            assert len({corpus.names[index] for index in range(5)}) == 5
    assert open_corpus(formats / "string.parquet").names[4] == f"{formats / 'string.parquet'}:5"


def test_what_arrow_files_hold_stays_in_them_unless_it_is_packed(formats):
    saved = formats / "saved"
    assert open_corpus(saved).files == {str(file) for file in saved.glob("*.arrow")}
    assert open_corpus(formats / "stream.arrow").files == {str(formats / "stream.arrow")}
    assert open_corpus(formats / "packed.arrow").files == set()
    assert open_corpus(saved).read(2, 5, 9).tobytes() == b"xxxx"


def test_a_saved_dataset_is_found_by_folders_and_globs_as_one_text_with_its_splits(tmp_path, caplog):
    held_out = [f"held out {number}" for number in range(5)]
    save_dataset(tmp_path / "all" / "splits" / "train", TEXTS)
    save_dataset(tmp_path / "all" / "splits" / "test", held_out)
    (tmp_path / "all" / "splits" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    (tmp_path / "all" / "z.txt").write_text("plain")
    splits = tmp_path / "all" / "splits"
    for path in (splits, tmp_path / "all", f"{tmp_path}/all/s*", f"{tmp_path}/**"):
        text = RunText.open(DataConfig(paths=(str(path),), validation_fraction=0.5))
        own = 5 if "z.txt" not in str(list(text.training.names) + list(text.validation.names)) else 6
        assert len({*text.training.names, *text.validation.names}) - 5 == own
        assert set(held_out) <= set(texts(text.validation))
        assert set(TEXTS) <= set(texts(text.training))
    assert texts(open_corpus(splits)) == held_out
    assert texts(open_corpus(splits / "train")) == TEXTS
    text = RunText.open(DataConfig(paths=(str(splits / "train"),), validation_paths=(str(splits),)))
    assert texts(text.training) == TEXTS
    assert texts(text.validation) == held_out


def test_columns_of_prompts_are_read_as_lines_with_prompts_are(tmp_path):
    rows = [
        {"prompt": "a? ", "completion": "b"},
        {"prompt": "c", "completion": None},
        {"prompt": "", "completion": "d"},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in ("a.parquet", "a.jsonl"):
        corpus = open_corpus(tmp_path / name, most_bad_records=1)
        assert texts(corpus) == ["a? b", "d"]
        assert corpus.prompt_bytes.tolist() == [3, 0]


def test_rows_without_text_are_bad_records_and_empty_ones_are_left_out(tmp_path, caplog):
    write_parquet(tmp_path / "a.parquet", ["a", None, "", "d"])
    assert texts(open_corpus(tmp_path, most_bad_records=1)) == ["a", "d"]
    assert open_corpus(tmp_path, most_bad_records=1).names[1].endswith("a.parquet:4")
    assert "a.parquet, row 2 has no `text` but null" in caplog.messages[0]
    assert "1 empty document(s)" in caplog.text
    with pytest.raises(DataError, match=r"a\.parquet, row 2 has no `text` but null"):
        open_corpus(tmp_path)


def test_columns_of_other_names_or_types_are_errors_that_tell_what_is_there(tmp_path):
    write_parquet(tmp_path / "a.parquet", ["a"], column="content")
    with pytest.raises(DataError, match=r"has no column `text`, nor .*it has: id, content") as caught:
        open_corpus(tmp_path / "a.parquet")
    assert "data.text_field" in caught.value.hint
    assert texts(open_corpus(tmp_path / "a.parquet", text_field="content")) == ["a"]
    with pytest.raises(DataError, match="the column `id` is of type int64; allowed: text or bytes"):
        open_corpus(tmp_path / "a.parquet", text_field="id")


@pytest.mark.parametrize("name", ["string.parquet", "stream.arrow", "file.arrow", "saved", "b.jsonl.gz"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_a_file_that_was_cut_is_an_error_that_names_it(formats, name, share):
    file = formats / name
    if file.is_dir():
        file /= "data-00001-of-00002.arrow"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(DataError, match="cannot read") as caught:
        open_corpus(formats / name)
    assert str(file) in caught.value.message


def test_a_saved_dataset_that_lost_a_file_or_has_other_splits_is_an_error(formats, tmp_path):
    (formats / "saved" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match="saved has lost data-00001-of-00002"):
        open_corpus(formats / "saved")
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "dataset_dict.json").write_text('{"splits": ["de", "fr"]}')
    with pytest.raises(DataError, match="has no split `train`; it has: de, fr"):
        RunText.open(DataConfig(paths=(str(tmp_path / "splits"),)))


def test_urls_name_files_folders_and_globs_of_any_file_system(formats):
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("a.jsonl", "string.parquet", "stream.arrow", "b.jsonl.gz"):
        memory.pipe(f"/texts/deep/{name}", (formats / name).read_bytes())
    memory.pipe("/texts/plain.txt", b"plain")
    memory.pipe("/texts/.hidden/x.txt", b"hidden")
    try:
        assert texts(open_corpus("memory://texts")) == TEXTS * 4 + ["plain"]
        assert texts(open_corpus("memory://texts/*.txt")) == ["plain"]
        assert texts(open_corpus(["memory://texts/deep/a.jsonl", formats / "a.jsonl"])) == TEXTS * 2
        assert open_corpus("memory://texts/plain.txt").names == ("memory:///texts/plain.txt",)
        with pytest.raises(DataError, match="no file is at memory://texts/none"):
            open_corpus("memory://texts/none")
        data = DataConfig(paths=("memory://texts/deep",), validation_paths=("memory://texts/plain.txt",))
        facts = RunText.open(data).facts()
        RunText.open(data).require_same(json.loads(json.dumps(facts)))
        memory.pipe("/texts/plain.txt", b"other")
        with pytest.raises(DataError, match=r"the text has changed since the run began: memory:///texts/plain\.txt"):
            RunText.open(data).require_same(json.loads(json.dumps(facts)))
    finally:
        memory.rm("/texts", recursive=True)
    for url, message in (("nowhere://x", "cannot read nowhere://x"), (f"file://{formats}/saved", "saved dataset")):
        with pytest.raises(DataError, match=message):
            open_corpus(url)


@pytest.mark.parametrize(("library", "name"), [("pyarrow", "string.parquet"), ("pyarrow", "saved"), ("fsspec", "url")])
def test_a_library_that_is_absent_is_named_with_the_line_that_installs_it(formats, monkeypatch, library, name):
    for module in [module for module in sys.modules if module.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError) as caught:
        open_corpus("memory://texts" if name == "url" else formats / name)
    assert f"needs {library}, which is not installed" in caught.value.message
    assert "pip install 'patchpad[data]'" in caught.value.hint


def test_a_url_of_a_system_whose_library_is_absent_names_that_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingExtraError, match="needs a further library: Install s3fs"):
        open_corpus("s3://bucket/texts/*.jsonl")
