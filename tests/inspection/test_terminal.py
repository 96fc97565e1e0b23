import dataclasses
import math
import random
import unicodedata

import pytest

from patchpad.inspection.columns import ASCII_GLYPHS, UNICODE_GLYPHS, glyphs_for, text_columns
from patchpad.inspection.inspection import inspect
from patchpad.inspection.terminal import inspection_lines, size_text, summary_lines
from patchpad.testing import random_documents, sharp_model, tiny_model_config

CONTEXT_BYTES = 64
TEXT = random_documents(5, [2 * CONTEXT_BYTES + 9])[0]
WIDTH = 80
GUTTER = 8


@pytest.fixture(scope="module")
def model():
    return sharp_model(tiny_model_config(context_bytes=CONTEXT_BYTES))


def blocks(inspection, **options):
    """The rows of each block, as a dictionary from label to what stands in its columns."""
    lines = ["".join(text for text, _ in line) for line in inspection_lines(inspection, **options)]
    found, rows = [], []
    for line in [*lines[lines.index("") + 1 :], ""]:
        if line:
            rows.append((line[:GUTTER].strip(), line[GUTTER:]))
        else:
            found.append(rows)
            rows = []
    return found


def cells(text):
    """Splits a text row into columns: a wide character fills two, a combining mark joins the one before."""
    found = []
    for character in text:
        if unicodedata.category(character).startswith("M"):
            found[-1] += character
        else:
            found.append(character)
            if unicodedata.east_asian_width(character) in "WF":
                found.append("")
    return found


def shown(text, encoding="utf-8", first_bytes=(0,)):
    groups = list(text_columns(text, list(first_bytes), glyphs_for(encoding), encoding))
    columns = [column for group, _ in groups for column in group]
    return columns[1:] if first_bytes == (0,) else columns  # without the one separator


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_every_byte_has_one_column_in_order(seed, encoding):
    text = random_documents(seed, [150])[0] + random.Random(seed).randbytes(30)
    columns = shown(text, encoding, first_bytes=(0, 64, 128))
    assert [column.byte for column in columns if column.byte is not None] == list(range(len(text)))
    assert sum(column.byte is None for column in columns) == 3
    "".join(column.glyph for column in columns).encode(encoding)


def test_characters_of_several_bytes_fill_their_columns():
    assert [column.glyph for column in shown("aé日🙂e\u0301א".encode())] == [
        *("a", "é", "·", "日", "", "·", "🙂", "", "·", "·", "e", "◌\u0301", "·", "א", "·"),
    ]


def test_unprintable_bytes_are_visible_and_recognisable():
    columns = shown(b"\x00\n\x7f\xff" + "\u202e".encode())
    assert [column.glyph for column in columns] == ["␀", "↵", "␡", "×", "×", "×", "×"]  # noqa: RUF001
    assert [column.is_escape for column in columns] == [False, False, False, True, True, True, True]
    columns = shown("\té".encode(), "ascii")
    assert [(column.glyph, column.is_escape) for column in columns] == [("?", True)] * 3


def test_a_character_that_a_window_cuts_is_shown_byte_by_byte():
    columns = shown("日x".encode(), first_bytes=(0, 2))
    assert [column.glyph for column in columns] == ["»", "×", "×", "»", "×", "x"]  # noqa: RUF001


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_marks_stand_below_their_bytes(model, encoding):
    threshold = float(sorted(inspect(model, TEXT).score[:60])[30]) + 1e-3
    one = inspect(model, TEXT, scratchpad_threshold_nats=threshold)
    glyphs = UNICODE_GLYPHS if encoding == "utf-8" else ASCII_GLYPHS
    place, window, num_escapes = 0, -1, 0
    for rows in blocks(one, width=WIDTH, encoding=encoding):
        labels = [label for label, _ in rows]
        assert [label for label in labels[1:] if label not in ("", "hex")] == ["slots", "entropy", "lag"]
        below = {label: row.ljust(WIDTH) for label, row in rows[1:] if label}
        low = rows[2][1].ljust(WIDTH) if "hex" in labels else ""  # the row below has no label
        assert int(rows[0][0].replace(",", "")) == place
        columns = cells(rows[0][1].ljust(1))
        if place in one.windows.first_byte:
            window += 1
            assert columns[0] == glyphs.separator
            assert below["slots"][0] == (glyphs.scratchpad if one.windows.scratchpad[window] else " ")
            assert below["lag"][0] == "0"
        for column in range(int(place in one.windows.first_byte), len(columns)):
            mark = glyphs.commit if one.patch_end[place] else glyphs.scratchpad if one.scratchpad[place] else " "
            assert below["slots"][column] == mark
            lag = int(one.patch_lag[place])
            assert below["lag"][column] == (" " if lag < 0 else str(lag))
            assert (below["entropy"][column] == " ") == math.isnan(one.score[place])
            if columns[column] == glyphs.escape and low[column : column + 1].strip():
                assert int(below["hex"][column] + low[column], 16) == TEXT[place]
                num_escapes += 1
            place += 1
    assert place == len(TEXT)
    assert window == len(one.windows) - 1
    assert num_escapes > 5


@pytest.mark.parametrize(("threshold", "expected"), [(math.inf, "● ● "), (-math.inf, "●○◉○")])
def test_tokens_that_end_where_a_scratchpad_fires_are_shown_beside_it(threshold, expected):
    model = sharp_model(tiny_model_config("tokens", context_bytes=CONTEXT_BYTES))
    one = inspect(model, b"a c", scratchpad_threshold_nats=threshold)
    ((_, (label, marks), *_),) = blocks(one, width=WIDTH)
    assert (label, marks.ljust(4)) == ("slots", expected)
    legend = "\n".join("".join(text for text, _ in line) for line in inspection_lines(one))
    assert "● commit: tokens end before this byte, cached" in legend
    assert "◉ both" in legend


def test_entropy_rises_with_its_block(model):
    text = TEXT[:60].replace(b"\n", b" ")
    one = inspect(model, text)
    assert one.entropy_nats is not None
    row = dict(blocks(one, width=400)[0])["entropy"][1:]
    in_order = [UNICODE_GLYPHS.entropy.index(row[place]) for place in one.entropy_nats.argsort()]
    assert in_order == sorted(in_order)
    assert in_order[-1] - in_order[0] > 4


@pytest.mark.parametrize("width", [30, 80, 200])
def test_rows_fit_the_width(model, width):
    one = inspect(model, TEXT)
    widths = [GUTTER + len(row) for rows in blocks(one, width=width) for label, row in rows if label != rows[0][0]]
    assert max(widths) <= width
    assert max(widths) > width - 8 or width == 200


def test_legend_fits_80_columns(model):
    for line in inspection_lines(inspect(model, TEXT)):
        if not line:
            break
        assert len("".join(text for text, _ in line)) <= WIDTH


def test_right_to_left_rows_are_held_in_order_on_a_terminal_only(model):
    one = inspect(model, "abc\n\u05e9\u05dc\n")
    texts = [rows[0][1] for rows in blocks(one, keeps_direction=True)]
    assert texts[0] == "»abc↵"
    assert texts[1] == "\u202d\u05e9·\u05dc·↵\u202c"
    assert [rows[0][1] for rows in blocks(one)][1] == "\u05e9·\u05dc·↵"


def test_a_model_without_entropies_has_no_entropy_row():
    one = inspect(sharp_model(tiny_model_config(trigger="stride")), "some text")
    assert [label for label, _ in blocks(one)[0]] == ["0", "slots", "lag"]
    assert "none: the trigger `stride` has none in nats" in "\n".join(summary_lines(one))


def test_long_lags_become_letters_and_then_a_plus(model):
    one = inspect(model, b"a" * 60)
    changed = one.patch_lag.copy()
    changed[:4] = [9, 10, 35, 36]
    assert dict(blocks(dataclasses.replace(one, patch_lag=changed))[0])["lag"][1:5] == "9az+"


def test_summary_states_the_totals(model):
    one = inspect(model, TEXT, scratchpad_threshold_nats=-math.inf)
    lines = "\n".join(summary_lines(one, "a.txt"))
    assert f"a.txt: {len(TEXT)} bytes in 3 windows of up to 64" in lines
    assert "-inf nats, the trunk at every byte" in lines
    assert f"{one.num_patches} (" in lines
    assert f"{one.num_scratchpads} ({one.point.scratchpads_per_byte:.4f} per byte)" in lines
    assert f"{one.trunk_calls} ({one.point.trunk_calls_per_byte:.4f} per byte)" in lines
    assert f"{one.bits_per_byte:.4f}" in lines


@pytest.mark.parametrize(("amount", "text"), [(0, "0 B"), (999, "999 B"), (294912, "295 kB"), (1.49e6, "1.49 MB")])
def test_sizes_have_units(amount, text):
    assert size_text(round(amount)) == text
