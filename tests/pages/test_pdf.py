"""The PDF shows what the SVG shows, in the same places."""

import sys

import pytest

from patchpad.errors import MissingExtraError
from patchpad.pages.pdf import figure_of, pdf_of
from patchpad.pages.plot_data import LinePlot, Series

pytest.importorskip("matplotlib")
PLOT = LinePlot(
    series=[
        Series("", [(0.1, 2.0), (0.9, 1.8)], look=2, arrow=True),
        Series("plain $5", [(0.1, 2.0)], look=2, hollow=True, deviations=[0.05]),
        Series("scratchpads", [(0.9, 1.8)], look=2),
        Series("curve", [(0.0, 1.9), (1.0, 9.0)], look=1, dashed=True),
    ],
    title="A title",
    x_label="across",
    y_label="up",
    x_ends=(0, 1),
    highest_y=2.1,
    reference_lines={"xz": 1.95},
    direct_labels=True,
    marks_key=("without", "with"),
)


def test_a_pdf_is_the_same_when_it_is_made_again_and_keeps_text_as_text():
    drawn = pdf_of(PLOT)
    assert drawn.startswith(b"%PDF-")
    assert drawn == pdf_of(PLOT)
    assert b"CreationDate" not in drawn
    assert b"/FontFile2" in drawn


def test_a_pdf_holds_every_text_and_every_mark():
    (axes,) = figure_of(PLOT).axes
    texts = {one.get_text() for one in axes.texts}
    assert {"A title", "across", "up", r"plain \$5", "scratchpads", "xz 1.950", "without", "with"} <= texts
    assert "Above this range and not shown: curve 9.0000 at 1." in texts
    marks = [line for line in axes.lines if line.get_marker() in ("s", "D")]
    assert {line.get_markerfacecolor() for line in marks} == {"#fff", "#009e73", "#d55e00"}
    assert {line.get_linestyle() for line in axes.lines if line.get_color() == "#d55e00"} >= {"--"}


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match="matplotlib") as raised:
        pdf_of(PLOT)
    assert 'pip install "patchpad[plot]"' in raised.value.hint
