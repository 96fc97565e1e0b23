"""The calibration table: measured rows, sorted, and the way from compute to a threshold."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchpad.calibration_table import ROW_KEYS, Calibration
from patchpad.data import Corpus, cut_windows
from patchpad.errors import CheckpointError, GenerationError
from patchpad.evaluation.bits_per_byte import evaluate
from patchpad.evaluation.calibrate import calibrate
from patchpad.testing import random_documents, sharp_model, tiny_model_config


def table_of(*rows: tuple[float, float]) -> Calibration:
    """A table of (threshold, trunk calls per byte)."""
    keys = dict.fromkeys(ROW_KEYS, 0.0)
    return Calibration(
        rows=tuple({**keys, "scratchpad_threshold_nats": t, "trunk_calls_per_byte": c} for t, c in rows),
        text_sha256="0",
    )


TABLE = table_of((math.inf, 0.1), (5.0, 0.1), (3.0, 0.3), (2.0, 0.7), (0.5, 0.9), (-math.inf, 1.0))


@pytest.fixture(scope="module")
def windows():
    documents = random_documents(1, [900, 70, 300])
    arrays = tuple(np.frombuffer(document, dtype=np.uint8) for document in documents)
    return cut_windows(Corpus(arrays, ("a", "b", "c")), 64)


@pytest.fixture(scope="module")
def model():
    return sharp_model(tiny_model_config(context_bytes=64))


@pytest.fixture(scope="module")
def table(model, windows):
    return calibrate(model, windows)


def test_rows_run_from_no_scratchpads_to_one_at_every_byte(table, model, windows):
    thresholds = [row["scratchpad_threshold_nats"] for row in table.rows]
    assert thresholds == sorted(set(thresholds), reverse=True)
    assert (thresholds[0], thresholds[-1]) == (math.inf, -math.inf)
    assert float(model.scratchpad_threshold_nats) in thresholds
    calls = [row["trunk_calls_per_byte"] for row in table.rows]
    assert calls == sorted(calls)
    assert table.rows[0]["scratchpads_per_byte"] == 0
    assert calls[-1] >= 1 - len(windows) / windows.bounds.num_bytes.sum()
    assert table.least_compute == calls[0] == table.rows[0]["patches_per_byte"]
    assert table.text_sha256 == windows.corpus.fingerprint()
    for row in table.rows:
        assert tuple(row) == ROW_KEYS
        assert row["num_bytes"] == windows.corpus.num_bytes


def test_rows_lie_close_enough_together_whatever_the_entropies(table):
    calls = [row["trunk_calls_per_byte"] for row in table.rows]
    assert max(np.diff(calls)) < 0.27


def test_rows_are_what_an_evaluation_at_their_threshold_gives(table, model, windows):
    for row in table.rows:
        (point,) = evaluate(model, windows, scratchpad_threshold_nats=row["scratchpad_threshold_nats"], limit_bytes=0)
        assert {key: point.to_dict()[key] for key in ROW_KEYS} == row


def test_compute_asked_for_is_compute_spent(table, model, windows):
    for compute in (table.least_compute, 0.3, 0.5, 0.8, 1.0):
        threshold = table.threshold_for(compute)
        (point,) = evaluate(model, windows, scratchpad_threshold_nats=threshold, limit_bytes=0)
        assert point.trunk_calls_per_byte == pytest.approx(compute, abs=0.08)


def test_threshold_is_interpolated_between_rows():
    assert TABLE.threshold_for(0.1) == math.inf
    assert TABLE.threshold_for(0.2) == pytest.approx(4.0)
    assert TABLE.threshold_for(0.3) == pytest.approx(3.0)
    assert TABLE.threshold_for(0.4) == pytest.approx(2.75)
    assert TABLE.threshold_for(0.7) == pytest.approx(2.0)
    assert TABLE.threshold_for(0.95) == 0.5, "beyond the last finite row there is nothing to interpolate with"
    assert TABLE.threshold_for(1.0) == -math.inf


@given(st.lists(st.floats(0.1, 1.0), min_size=2, max_size=2))
def test_more_compute_never_means_a_higher_threshold(computes):
    low, high = sorted(computes)
    assert TABLE.threshold_for(low) >= TABLE.threshold_for(high)


@pytest.mark.parametrize("compute", [0.0999, 0.0, -1.0, 1.0001, math.inf, -math.inf, math.nan])
def test_compute_out_of_range_is_an_error_that_names_the_range(compute):
    with pytest.raises(GenerationError) as caught:
        TABLE.threshold_for(compute)
    assert caught.value.message.startswith(f"compute is {compute}; allowed: 0.1 (patches alone) to 1 ")
    assert caught.value.exit_code == 2


def test_least_compute_itself_is_allowed_although_rounded_in_the_message():
    table = table_of((math.inf, 1 / 7), (5.0, 1 / 7), (-math.inf, 1.0))
    assert table.threshold_for(1 / 7) == math.inf
    assert table.threshold_for(table.least_compute) == math.inf


def test_rows_at_equal_compute_do_not_divide_by_zero():
    table = table_of((math.inf, 0.1), (5.0, 0.3), (4.0, 0.3), (3.0, 0.3), (-math.inf, 1.0))
    assert 3.0 <= table.threshold_for(0.3) <= 5.0
    assert table.threshold_for(0.2) == 5.0


def test_table_survives_its_file_exactly_and_infinities_are_strings(tmp_path, table):
    path = tmp_path / "calibration.json"
    path.write_text(table.to_json(), encoding="utf-8")
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content["rows"][0]["scratchpad_threshold_nats"] == "inf"
    assert content["rows"][-1]["scratchpad_threshold_nats"] == "-inf"
    assert Calibration.read(path) == table


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"rows": [{}], "text_sha256": ""}',
        '{"rows": [], "text_sha256": ""}',
        '{"rows": [1]}',
        "\xff",
    ],
)
def test_file_that_is_no_table_is_an_error_with_the_next_command(tmp_path, content):
    path = tmp_path / "calibration.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match="is not a calibration table") as caught:
        Calibration.read(path)
    assert "patchpad calibrate" in caught.value.hint


@pytest.mark.parametrize("trigger", ["never", "always", "random", "stride", "whitespace"])
def test_triggers_without_a_threshold_in_nats_cannot_be_calibrated(trigger, windows):
    with pytest.raises(GenerationError, match=f"the trigger `{trigger}` has no threshold to calibrate"):
        calibrate(sharp_model(tiny_model_config(trigger=trigger)), windows)


@pytest.mark.parametrize("options", [{"patch_size": 1}, {"trigger": "entropy_jump"}, {"patchifier": "spacebyte"}])
def test_every_model_with_a_threshold_in_nats_can_be_calibrated(options, windows):
    model = sharp_model(tiny_model_config(context_bytes=64, **options))
    table = calibrate(model, windows)
    assert table.threshold_for(min(1.0, table.least_compute)) == math.inf


def test_one_byte_is_enough_to_calibrate(model):
    windows = cut_windows(Corpus((np.frombuffer(b"a", dtype=np.uint8),), ("a",)), 64)
    table = calibrate(model, windows)
    assert table.least_compute == 0
    assert table.threshold_for(1.0) == -math.inf
