"""What bytes cost along the threshold, and the likeliest next bytes, against full passes."""

import math

import numpy as np
import pytest
import torch

import patchpad
from patchpad.data import Corpus, cut_windows
from patchpad.errors import TrainingError
from patchpad.evaluation.bits_per_byte import score
from patchpad.inspection import along_threshold
from patchpad.inspection.inspection import inspect
from patchpad.inspection.shared_trunk import SharedTrunk
from patchpad.testing import as_row, random_documents, sharp_model, tiny_model_config

CONTEXT_BYTES = 64
TEXT = random_documents(3, [3 * CONTEXT_BYTES + 17])[0]
ROUNDING = {"rtol": 1e-4, "atol": 2e-5}
KINDS = ["fixed", "spacebyte", "hnet", "tokens"]


def model_of(patchifier, trigger="entropy", **options):
    return sharp_model(tiny_model_config(patchifier, trigger, context_bytes=CONTEXT_BYTES, **options))


def windows_of(text):
    return cut_windows(Corpus((np.frombuffer(text, dtype=np.uint8),), ("text",)), CONTEXT_BYTES)


@pytest.mark.parametrize("patchifier", KINDS)
def test_points_and_nats_at_each_threshold_are_those_of_evaluate_and_score(patchifier):
    model, text = model_of(patchifier), TEXT[: CONTEXT_BYTES + 30]
    along = inspect(model, text, scratchpad_threshold_nats=1.25, with_grid=True).along
    thresholds = [point.scratchpad_threshold_nats for point in along.points]
    expected = patchpad.evaluate(model, windows_of(text), scratchpad_threshold_nats=thresholds, limit_bytes=0)
    assert len(thresholds) > 5
    for place, (point, other) in enumerate(zip(along.points, expected, strict=True)):
        assert point.bits_per_byte == pytest.approx(other.bits_per_byte, abs=1e-5)
        for rate in ("trunk_calls_per_byte", "flops_per_byte", "trunk_cache_bytes_per_byte", "num_bytes"):
            assert getattr(point, rate) == pytest.approx(getattr(other, rate), rel=1e-9), rate
        if place % 3 == 0 or math.isinf(thresholds[place]):
            found = score(model, text, scratchpad_threshold_nats=thresholds[place])
            np.testing.assert_allclose(along.nats[place], found, **ROUNDING)


@pytest.mark.parametrize("patchifier", KINDS)
def test_an_inspection_with_the_grid_shows_what_one_without_it_does(patchifier):
    model = model_of(patchifier)
    plain, found = (inspect(model, TEXT, scratchpad_threshold_nats=1.25, with_grid=grid) for grid in (False, True))
    for name in ("patch_end", "scratchpad", "patch_index", "patch_lag", "open_bytes", "slot_byte"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name), name)
    for name in ("entropy_nats", "score", "nats"):
        np.testing.assert_allclose(getattr(found, name), getattr(plain, name), **ROUNDING)
    assert (found.num_patches, found.num_scratchpads) == (plain.num_patches, plain.num_scratchpads)


@pytest.mark.parametrize("patchifier", KINDS)
def test_without_the_newest_scratchpad_is_a_pass_in_which_it_and_no_other_is_missing(patchifier):
    model = model_of(patchifier)
    ids = torch.tensor([as_row(TEXT[:45])])
    with torch.no_grad():
        everything = model.run(ids, model.decisions(-math.inf, batch=1), keep_activations=True)
        layout = model.decisions(1.25, batch=1).layout(everything.facts, everything.layout.documents)
        output, without, reads = SharedTrunk(model, everything).read_with_and_without(layout)
        assert 5 < int(reads.sum()) < reads.numel()
        fires = layout.scratchpad_mask[0].nonzero()[:, 0].tolist()
        differ = 0
        for place in range(ids.shape[1]):
            if not reads[0, place]:
                torch.testing.assert_close(without[0, place], output.logits[0, place], rtol=1e-4, atol=2e-5)
                continue
            thresholds = torch.full(ids.shape, 1.25)
            thresholds[0, max(one for one in fires if one <= place)] = math.inf
            expected = model(ids, thresholds).logits[0, place]
            torch.testing.assert_close(without[0, place], expected, rtol=1e-4, atol=2e-5)
            differ += bool((expected - output.logits[0, place]).abs().max() > 1e-3)
        assert differ > 5


def test_the_likeliest_next_bytes_are_those_of_the_full_pass():
    model = model_of("spacebyte")
    text = TEXT[:50]
    along = inspect(model, text, scratchpad_threshold_nats=1.25, with_grid=True).along
    found = along.next_bytes
    for at, point in enumerate(along.points):
        with torch.no_grad():
            output = model(torch.tensor([as_row(text)]), point.scratchpad_threshold_nats)
        probabilities = output.logits[0].softmax(-1)
        expected = probabilities[:, :256].topk(5)
        np.testing.assert_allclose(found.with_probability[at], expected.values, rtol=1e-3, atol=1e-5)
        chosen = torch.from_numpy(found.with_ids[at]).long()
        torch.testing.assert_close(probabilities.gather(1, chosen), expected.values, rtol=1e-3, atol=1e-5)
        is_scratchpad = output.layout.newest_slot[0] > output.layout.room.commits
        np.testing.assert_array_equal(found.reads_scratchpad[at], is_scratchpad)
    equal = found.with_ids == found.without_ids
    assert equal[~found.reads_scratchpad].all()
    assert not equal[found.reads_scratchpad].all()


def test_the_trunk_reads_each_position_once_however_many_thresholds_there_are(monkeypatch):
    model = model_of("fixed")
    windows = windows_of(TEXT)
    slots = []
    model.trunk.register_forward_hook(lambda module, arguments, output: slots.append(len(output)))
    thresholds = [math.inf, 2.0, 1.5, 1.25, 1.0, -math.inf]
    along_threshold.measure(model, windows, thresholds, 1.25, take_output=lambda batch, output: None)
    assert sum(slots) == len(TEXT) + 1


def test_gains_are_none_without_scratchpads_and_add_up_to_the_difference_in_bits():
    along = inspect(model_of("fixed"), TEXT, with_grid=True).along
    assert not along.bits_saved[0].any()
    for point, saved in zip(along.points, along.bits_saved, strict=True):
        difference = along.points[0].bits_per_byte - point.bits_per_byte
        assert saved.mean() == pytest.approx(difference, abs=1e-4)
    assert (along.bits_saved < -0.01).any()
    assert (along.bits_saved > 0.01).any()


def test_longer_texts_have_fewer_thresholds_and_likeliest_bytes_of_their_beginning_alone(monkeypatch):
    model = model_of("fixed")
    short = inspect(model, TEXT, with_grid=True).along
    monkeypatch.setattr(along_threshold, "SHORT_BYTES", 100)
    monkeypatch.setattr(along_threshold, "LIKELIEST_BYTES", CONTEXT_BYTES)
    monkeypatch.setattr(along_threshold, "PASS_BYTES", CONTEXT_BYTES)
    long = inspect(model, TEXT, with_grid=True).along
    assert 4 <= len(long.points) < len(short.points)
    assert short.next_bytes.with_ids.shape[1] == len(TEXT) + 1
    assert long.next_bytes.with_ids.shape[1] == CONTEXT_BYTES


@pytest.mark.parametrize("trigger", ["stride", "random", "never"])
def test_a_model_without_a_threshold_in_nats_is_measured_with_its_scratchpads_and_without(trigger):
    model = model_of("fixed", trigger)
    found = inspect(model, TEXT, with_grid=True)
    assert found.grid is None
    assert len(found.along.points) == (1 if trigger == "never" else 2)
    np.testing.assert_allclose(found.along.nats[-1], score(model, TEXT), **ROUNDING)
    np.testing.assert_allclose(found.along.nats[0], score(model, TEXT, scratchpad_threshold_nats=math.inf), **ROUNDING)


def test_a_model_whose_source_speaks_too_is_measured_by_passes_of_their_own():
    model = model_of("tokens", source_head="tied")
    along = inspect(model, TEXT, with_grid=True).along
    assert along.next_bytes is None
    for point, nats in zip(along.points, along.nats, strict=True):
        found = score(model, TEXT, scratchpad_threshold_nats=point.scratchpad_threshold_nats)
        np.testing.assert_allclose(nats, found, **ROUNDING)


@pytest.mark.parametrize("grid", [False, True])
def test_progress_is_told_in_bytes_up_to_the_end(monkeypatch, grid):
    monkeypatch.setattr(along_threshold, "PASS_BYTES", CONTEXT_BYTES)
    monkeypatch.setattr("patchpad.evaluation.bits_per_byte.ROW_BATCH_BYTES", CONTEXT_BYTES)
    told = []
    inspect(model_of("fixed"), TEXT, with_grid=grid, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(min(len(TEXT), end), len(TEXT)) for end in range(64, len(TEXT) + 64, 64)]


def test_a_model_that_predicts_no_numbers_is_an_error_and_its_mode_is_restored():
    model = model_of("fixed")
    model.train()
    inspect(model, TEXT[:20], with_grid=True)
    assert model.training
    with torch.no_grad():
        model.local_decoder.lm_head.weight.fill_(math.nan)
    with pytest.raises(TrainingError, match="nan or inf"):
        inspect(model, TEXT[:20], with_grid=True)
    assert model.training
