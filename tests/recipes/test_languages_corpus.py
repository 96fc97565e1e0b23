"""The corpus in many languages: documents begin with a paragraph, every byte once, a part of each language held out."""

import io
import json
import lzma
import tarfile

import languages_corpus

PARAGRAPHS = {"de": 400, "ja": 150, "om": 60}


def text_of(language: str) -> str:
    word = {"de": "Größe", "ja": "日本語", "om": "guddina"}[language]
    return "".join(f"{number} {word * (number % 30)}\n" for number in range(PARAGRAPHS[language]))


def records(path) -> list[dict[str, str]]:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_documents_are_whole_paragraphs_and_together_the_text_of_each_language(tmp_path, capsys):
    with tarfile.open(tmp_path / "texts.tar.xz", "w:xz") as archive:
        for language in PARAGRAPHS:
            content = text_of(language).encode()
            member = tarfile.TarInfo(f"texts/{language}.txt")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    languages_corpus.main(str(tmp_path / "texts.tar.xz"), str(tmp_path / "out"))
    train, held_out = (records(tmp_path / "out" / f"{part}.jsonl.xz") for part in ("train", "validation"))
    for language in PARAGRAPHS:
        parts = [[one["text"] for one in part if one["language"] == language] for part in (train, held_out)]
        assert all(parts), "each language is trained on and held out"
        assert "".join(parts[0] + parts[1]) == text_of(language)
        for text in parts[0] + parts[1]:
            assert text.endswith("\n")
            assert len(text.encode()) <= languages_corpus.DOCUMENT_BYTES
        size = len(text_of(language).encode())
        assert sum(len(text.encode()) for text in parts[1]) < languages_corpus.HELD_OUT_SHARE * size + 1024
    assert f"train: {len(train)} documents" in capsys.readouterr().out


def test_a_folder_gives_what_an_archive_gives_and_a_long_paragraph_stays_whole(tmp_path):
    (tmp_path / "texts").mkdir()
    text = "a\n" + "b" * 3000 + "\u2028 goes on\n" + "end"
    (tmp_path / "texts" / "xx.txt").write_text(text, encoding="utf-8")
    languages_corpus.main(str(tmp_path / "texts"), str(tmp_path / "out"))
    found = records(tmp_path / "out" / "train.jsonl.xz") + records(tmp_path / "out" / "validation.jsonl.xz")
    assert [one["text"] for one in found] == ["a\n", "b" * 3000 + "\u2028 goes on\n", "end"]
