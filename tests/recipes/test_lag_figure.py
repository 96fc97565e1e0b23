"""The figure of the README says how old the marked byte's context is, as the model has it."""

import xml.etree.ElementTree as ElementTree

import lag_figure
import pytest

import patchpad


def test_the_committed_figure_is_what_the_shipped_model_does(tmp_path, monkeypatch):
    monkeypatch.setattr(lag_figure, "TARGET", tmp_path / "lag.svg")
    committed = (lag_figure.Path(lag_figure.__file__).parent.parent / "docs" / "figures" / "lag.svg").read_text()
    lag_figure.main()
    assert (tmp_path / "lag.svg").read_text() == committed, "run python recipes/lag_figure.py"


@pytest.mark.parametrize(("threshold", "age", "marks"), [(float("inf"), 11, 1), (-float("inf"), 0, 2)])
def test_each_row_says_the_lag_and_marks_what_the_trunk_has_read(threshold, age, marks):
    inspection = patchpad.inspect(patchpad.load(), lag_figure.SENTENCE, scratchpad_threshold_nats=threshold)
    assert int(inspection.patch_lag[lag_figure.BYTE]) == age
    svg = lag_figure.lag_figure(inspection, inspection)
    ElementTree.fromstring(svg)
    assert svg.count(f"its context is {age} bytes old") == 2
    assert svg.count('class="commit-line"') + svg.count('class="scratchpad-line"') == 2 * marks
