"""Noised text for training: every piece has noise, of each kind in turn, and the same seed gives the same text."""

import json
import lzma

import noised_text

WORDS = "the quick brown fox jumps over the lazy dog and comes back again "


def texts_of(path) -> list[str]:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def test_pieces_are_taken_at_even_distances_and_noised(tmp_path, capsys):
    source, books = tmp_path / "books.jsonl.xz", [f"{number} " + WORDS * 700 for number in range(4)]
    with lzma.open(source, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in books)
    pieces = list(noised_text.pieces(source))
    assert "".join(pieces) == "".join(books)
    made = []
    for seed in ("1", "1", "2"):
        out = tmp_path / f"{len(made)}.jsonl.xz"
        noised_text.main([str(source), str(out), "--bytes", "60000", "--seed", seed])
        made.append(texts_of(out))
    assert made[0] == made[1] != made[2]
    clean = pieces[:: len(pieces) // len(made[0])]
    assert len(noised_text.NOISES) < len(made[0]) < len(pieces)
    assert all(text != before for text, before in zip(made[0], clean, strict=False))
    assert any("\u043e" in text for text in made[0])  # a homoglyph
    assert f"{len(made[0])} pieces" in capsys.readouterr().out
