"""Bits per byte taken apart: parts add up to the whole, and the null context is what it says."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from patchpad.data import Corpus, cut_windows
from patchpad.evaluation.bits_per_byte import evaluate, predictions
from patchpad.evaluation.breakdown import (
    BYTE_CLASSES,
    LONGEST_WORD,
    break_down,
    byte_class_table,
    letters_so_far,
    measure,
    null_context_bits_per_byte,
)
from patchpad.model.back_ends import window_attentions
from patchpad.testing import as_row, random_documents, safe_threshold, sharp_baseline, sharp_model, tiny_model_config

TOLERANCE = 1e-9


@pytest.fixture(scope="module")
def windows():
    documents = [np.frombuffer(text, dtype=np.uint8) for text in random_documents(3, [50, 7, 90])]
    return cut_windows(Corpus(tuple(documents), ("a", "b", "c")), 40)


def model_of(patchifier="fixed", trigger="entropy"):
    return sharp_model(tiny_model_config(patchifier=patchifier, trigger=trigger, context_bytes=40))


@pytest.mark.parametrize("patchifier", ["fixed", "spacebyte", "hnet"])
def test_bits_per_byte_by_position_lag_and_letter_add_up_to_the_whole(windows, patchifier):
    model = model_of(patchifier)
    for threshold in (math.inf, None):
        found = break_down(model, windows, threshold, lead_in_bytes=0).to_dict()
        (point,) = evaluate(model, windows, scratchpad_threshold_nats=threshold, limit_bytes=0)
        for table in ("bits_per_byte_by_position", "bits_per_byte_by_patch_lag", "bits_per_byte_by_letter"):
            rows = found[table]
            assert sum(row["num_bytes"] for row in rows) == point.num_bytes
            total = sum(row["bits_per_byte"] * row["num_bytes"] for row in rows) / point.num_bytes
            assert total == pytest.approx(point.bits_per_byte, abs=TOLERANCE)


def test_positions_are_counted_from_the_first_byte_of_each_patch():
    model = model_of()
    size = model.config.patchifier.target_patch_size
    text = np.arange(2 * size + 1, dtype=np.uint8)
    windows = cut_windows(Corpus((text,), ("a",)), 40)
    rows = break_down(model, windows, math.inf, lead_in_bytes=0).to_dict()["bits_per_byte_by_position"]
    assert {row["position"]: row["num_bytes"] for row in rows} == {1: 3, **dict.fromkeys(range(2, size + 1), 2)}
    nats = next(iter(predictions(model, windows, math.inf)))[1].nats[0]
    firsts = float(nats[[0, size, 2 * size]].sum())
    assert rows[0]["bits_per_byte"] == pytest.approx(firsts / 3 / math.log(2), rel=1e-6)


def test_the_first_bytes_of_each_window_are_left_out():
    model = model_of()
    size = model.config.patchifier.target_patch_size
    text = np.arange(40, dtype=np.uint8)
    windows = cut_windows(Corpus((text,), ("a",)), 40)
    found = break_down(model, windows, math.inf, lead_in_bytes=30).to_dict()
    expected = Counter(offset % size + 1 for offset in range(30, 40))
    assert {row["position"]: row["num_bytes"] for row in found["bits_per_byte_by_position"]} == expected
    nats = next(iter(predictions(model, windows, math.inf)))[1].nats[0, 30:40]
    total = sum(row["bits_per_byte"] * row["num_bytes"] for row in found["bits_per_byte_by_letter"])
    assert total == pytest.approx(float(nats.sum()) / math.log(2), rel=1e-6)
    rows = break_down(model, windows, math.inf).to_dict()["bits_per_byte_by_patch_lag"]
    assert sum(row["num_bytes"] for row in rows) == 40 - 40 // 8


def test_letters_are_counted_from_the_first_of_each_word():
    ids = torch.tensor([[*"It's aZ`{@[é".encode(), 256, ord("x"), -100], [ord("y")] * 16])
    found = letters_so_far(ids, torch.from_numpy(byte_class_table())).tolist()
    assert found[0] == [1, 2, 0, 1, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    assert found[1] == [*range(1, LONGEST_WORD + 1), *[LONGEST_WORD] * (16 - LONGEST_WORD)]


def test_without_scratchpads_the_lag_is_the_position_less_one(windows):
    found = break_down(model_of(), windows, math.inf, lead_in_bytes=0).to_dict()
    by_position = {row["position"] - 1: row["num_bytes"] for row in found["bits_per_byte_by_position"]}
    assert by_position == {row["patch_lag"]: row["num_bytes"] for row in found["bits_per_byte_by_patch_lag"]}
    mean = sum(lag * count for lag, count in by_position.items()) / sum(by_position.values())
    assert found["mean_patch_lag"] == pytest.approx(mean)


def test_scratchpads_by_class_add_up_to_all_of_them(windows):
    model = model_of()
    found = break_down(model, windows, -math.inf)
    rows = found.to_dict()["scratchpads_by_class"]
    assert sum(row["num_scratchpads"] for row in rows) == found.tally.num_scratchpads > 0
    assert sum(row["num_bytes"] for row in rows) == found.tally.num_positions
    starts = next(row for row in rows if row["class"] == "document_start")
    assert starts["num_bytes"] == len(windows) == starts["num_scratchpads"]


def test_every_byte_has_the_class_that_python_gives_it():
    table = byte_class_table()
    names = [BYTE_CLASSES[index] for index in table]
    for value in range(128):
        character = chr(value)
        assert (names[value] == "letter") == character.isalpha()
        assert (names[value] == "digit") == character.isdigit()
        assert (names[value] in ("space", "newline")) == (character in " \t\n\r")
        assert (names[value] == "control") == (not character.isprintable() and character not in "\t\n\r")
    assert {names[byte] for byte in "é日𝄞".encode()} == {"utf8_lead", "utf8_continuation"}
    assert [names[byte] for byte in "é".encode()] == ["utf8_lead", "utf8_continuation"]
    assert names[256] == "document_start"


def test_the_null_context_equals_a_hand_made_pass_in_which_nothing_reads_the_trunk(windows):
    model = model_of()
    batch, predicted = next(iter(predictions(model, windows, math.inf, null_context=True)))
    ids, documents = batch.byte_ids, predicted.output.layout.documents
    with torch.no_grad():
        sees = window_attentions(documents, (model.config.encoder_window, model.config.decoder_window), keep=False)
        states = model.local_encoder(ids, documents.offset, sees[0])
        null = model.context_to_bytes.with_null(torch.zeros(1, model.config.trunk_dim))[:1]
        lag = predicted.output.layout.patch_lag
        context = model.context_to_bytes.read(null, (torch.zeros_like(lag),), lag)
        logits = model.local_decoder(states, context, documents.offset, sees[1])
    torch.testing.assert_close(predicted.output.logits, logits, rtol=0, atol=1e-5)
    with_context = model(ids, math.inf)
    assert not torch.allclose(with_context.logits, logits, atol=1e-2)
    assert torch.equal(with_context.layout.newest_slot, predicted.output.layout.newest_slot)


def test_without_the_trunks_context_the_trunk_has_no_say():
    model = model_of()
    ids = torch.tensor([as_row(b"any text at all")])
    before = model(ids, -math.inf, null_context=True).logits.detach()
    with torch.no_grad():
        for parameter in model.trunk.parameters():
            parameter.mul_(3)
    torch.testing.assert_close(model(ids, -math.inf, null_context=True).logits, before, rtol=0, atol=0)


def test_measure_gives_the_points_of_evaluate_and_the_heads_own_bits(windows):
    model = model_of()
    scores = [model.eligible_scores(passed.output) for _, passed in predictions(model, windows, math.inf)]
    model.store_threshold(safe_threshold(torch.cat(scores), 0.3))
    found = measure(model, windows, [0.2])
    never, stored = (next(p for p in found["points"] if p["at"] == at) for at in ("never", "stored"))
    thresholds = [math.inf, float(model.scratchpad_threshold_nats)]
    points = evaluate(model, windows, scratchpad_threshold_nats=thresholds, limit_bytes=0)
    assert [{"at": at, **p.to_dict()} for at, p in zip(("never", "stored"), points, strict=True)] == [never, stored]
    nats = [
        float(predicted.entropy_head_nats[batch.is_byte].double().sum())
        for batch, predicted in predictions(model, windows, math.inf)
    ]
    expected = sum(nats) / math.log(2) / never["num_bytes"]
    assert found["entropy_head_bits_per_byte"] == pytest.approx(expected, abs=TOLERANCE)
    assert found["null_context_bits_per_byte"] == null_context_bits_per_byte(model, windows)


@pytest.mark.parametrize("trigger", ["stride", "always", "random", "whitespace"])
def test_triggers_without_a_threshold_in_nats_are_measured_off_on_and_everywhere(windows, trigger):
    found = measure(model_of(trigger=trigger), windows, [0.2])
    rates = {point["at"]: point["scratchpads_per_byte"] for point in found["points"]}
    assert set(rates) == {"never", "stored", "always"}
    assert rates["never"] == 0 < rates["stored"] <= rates["always"]
    assert found["entropy_head_bits_per_byte"] is None


def test_baselines_have_one_point_and_nothing_to_take_apart(windows):
    found = measure(sharp_baseline("byte", context_bytes=40), windows, [0.2])
    assert [point["at"] for point in found["points"]] == ["stored"]
    assert {value for key, value in found.items() if key != "points"} == {None}
