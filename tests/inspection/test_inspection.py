import json
import math

import numpy as np
import pytest
import torch

import patchpad
from patchpad.data import Corpus, cut_windows
from patchpad.errors import InputError
from patchpad.evaluation.bits_per_byte import score
from patchpad.files import strict_json
from patchpad.inspection.inspection import NOT_READ, NULL_CONTEXT, SEPARATOR_SLOT, inspect
from patchpad.testing import as_row, random_documents, safe_threshold, sharp_model, tiny_model_config

CONTEXT_BYTES = 64
TEXT = random_documents(3, [3 * CONTEXT_BYTES + 17])[0]
SHORT = TEXT[:40]


def middle_threshold(model, text=TEXT):
    """A threshold in the middle of the scores, away from each of them."""
    scores = inspect(model, text, scratchpad_threshold_nats=math.inf).score
    return safe_threshold(torch.tensor(scores[~np.isnan(scores)]), 0.4)


@pytest.mark.parametrize("patchifier", ["fixed", "spacebyte"])
@pytest.mark.parametrize("trigger", ["entropy", "entropy_jump", "random", "stride", "never"])
def test_counts_and_rates_equal_those_of_evaluate(patchifier, trigger):
    model = sharp_model(tiny_model_config(patchifier, trigger, context_bytes=CONTEXT_BYTES))
    in_nats = trigger.startswith("entropy")
    windows = cut_windows(Corpus((np.frombuffer(TEXT, dtype=np.uint8),), ("text",)), CONTEXT_BYTES)
    for threshold in [middle_threshold(model) if in_nats else None, math.inf, -math.inf]:
        found = inspect(model, TEXT, scratchpad_threshold_nats=threshold)
        point = patchpad.evaluate(model, windows, scratchpad_threshold_nats=threshold, limit_bytes=0)[0]
        assert found.point == point
        assert found.num_patches == int(found.patch_end.sum()) == round(point.patches_per_byte * len(TEXT))
        at_separators = int(found.windows.scratchpad.sum())
        assert found.num_scratchpads == int(found.scratchpad.sum()) + at_separators
        assert found.num_scratchpads == round(point.scratchpads_per_byte * len(TEXT))
        assert found.trunk_calls == round(point.trunk_calls_per_byte * len(TEXT))
        in_windows = np.add.reduceat(found.patch_end, found.windows.first_byte, dtype=int)
        assert found.trunk_cache_entries == in_windows.max() < found.num_patches
        assert found.num_patches * found.trunk_cache_bytes_per_entry == pytest.approx(
            point.trunk_cache_bytes_per_byte * len(TEXT)
        )
        assert found.trunk_cache_bytes == found.trunk_cache_entries * found.trunk_cache_bytes_per_entry
        assert at_separators == (len(windows) if threshold == -math.inf else at_separators)
        assert float(found.nats.astype(float).sum()) / math.log(2) / len(TEXT) == pytest.approx(point.bits_per_byte)


def test_nats_are_those_of_score():
    model = sharp_model(tiny_model_config(context_bytes=CONTEXT_BYTES))
    threshold = middle_threshold(model)
    nats = inspect(model, TEXT, scratchpad_threshold_nats=threshold).nats
    np.testing.assert_allclose(
        nats, patchpad.score(model, TEXT, scratchpad_threshold_nats=threshold), rtol=1e-4, atol=1e-5
    )


def test_values_of_a_short_text_are_those_of_the_full_pass():
    model = sharp_model(tiny_model_config(context_bytes=CONTEXT_BYTES))
    threshold = middle_threshold(model)
    with torch.no_grad():
        output = model(torch.tensor([as_row(SHORT)]), threshold)
    found = inspect(model, SHORT, scratchpad_threshold_nats=threshold)
    layout = output.layout
    np.testing.assert_array_equal(found.entropy_nats, output.entropy_nats[0, 1:].numpy())
    np.testing.assert_array_equal(found.patch_end, layout.patch_end_mask[0, 1:].numpy())
    np.testing.assert_array_equal(found.scratchpad, layout.scratchpad_mask[0, 1:].numpy())
    np.testing.assert_array_equal(found.patch_index, layout.patch_index[0, 1:].numpy())
    np.testing.assert_array_equal(found.patch_lag, layout.patch_lag[0, 1:].numpy())
    assert found.scratchpad.any()
    assert found.windows.entropy_nats is not None
    assert float(found.windows.entropy_nats[0]) == float(output.entropy_nats[0, 0])


@pytest.mark.parametrize("dial", ["middle", "inf", "-inf"])
def test_each_byte_reads_the_newest_slot_of_its_window(dial):
    model = sharp_model(tiny_model_config("spacebyte", context_bytes=CONTEXT_BYTES))
    threshold = middle_threshold(model) if dial == "middle" else float(dial)
    found = inspect(model, TEXT, scratchpad_threshold_nats=threshold)
    kinds = found.slot_kinds()
    for window, begin in enumerate(found.windows.first_byte.tolist()):
        newest = SEPARATOR_SLOT if found.windows.scratchpad[window] else NULL_CONTEXT
        last = begin + int(found.windows.num_bytes[window]) - 1
        for place in range(begin, last + 1):
            if place == last and window < len(found.windows) - 1:
                assert (found.slot_byte[place], found.patch_lag[place]) == (NOT_READ, -1)
                assert math.isnan(found.score[place])
                assert not found.patch_end[place]
                assert kinds[place] is None
                continue
            if found.patch_end[place] or found.scratchpad[place]:
                newest = place
            assert found.slot_byte[place] == newest
            assert found.patch_lag[place] == place - (newest if newest >= 0 else begin - 1)
            names = {NULL_CONTEXT: "null_context", SEPARATOR_SLOT: "separator"}
            assert kinds[place] == names.get(
                newest, "commit" if newest >= 0 and found.patch_end[newest] else "scratchpad"
            )
    assert {"middle": "scratchpad", "inf": "null_context", "-inf": "commit"}[dial] in kinds
    assert ("separator" in kinds) == bool(found.windows.scratchpad.any() and dial != "-inf")


def test_several_batches_give_what_one_gives(monkeypatch):
    model = sharp_model(tiny_model_config(context_bytes=CONTEXT_BYTES))
    threshold = middle_threshold(model)
    together = inspect(model, TEXT, scratchpad_threshold_nats=threshold)
    monkeypatch.setattr("patchpad.evaluation.bits_per_byte.ROW_BATCH_BYTES", 2 * CONTEXT_BYTES + 2)
    apart = inspect(model, TEXT, scratchpad_threshold_nats=threshold)
    for name in ("patch_end", "scratchpad", "patch_index", "patch_lag", "slot_byte"):
        np.testing.assert_array_equal(getattr(apart, name), getattr(together, name), name)
    for name in ("entropy_nats", "score", "nats"):
        np.testing.assert_allclose(getattr(apart, name), getattr(together, name), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(apart.windows.scratchpad, together.windows.scratchpad)


def test_the_cache_of_a_trunk_with_a_window_has_no_more_entries_than_that():
    found = inspect(sharp_model(tiny_model_config(context_bytes=CONTEXT_BYTES, trunk_window_patches=4)), TEXT)
    assert found.most_patches > found.trunk_cache_entries == 4


@pytest.mark.parametrize("threshold", [None, math.inf, -math.inf])
def test_one_byte_of_text_is_enough(threshold):
    found = inspect(sharp_model(tiny_model_config()), b"a", scratchpad_threshold_nats=threshold, with_grid=True)
    assert found.num_patches == found.trunk_cache_bytes == 0
    assert found.mean_patch_size is None
    assert found.num_scratchpads == (2 if threshold == -math.inf else found.trunk_calls)
    assert found.patch_lag.tolist() == [0 if found.scratchpad[0] else 1]


def test_grid_runs_from_none_to_all_and_holds_the_chosen_and_the_stored_threshold():
    model = sharp_model(tiny_model_config(context_bytes=CONTEXT_BYTES))
    threshold = middle_threshold(model)
    grid = inspect(model, TEXT, scratchpad_threshold_nats=threshold, with_grid=True).grid
    assert grid is not None
    thresholds = [point.scratchpad_threshold_nats for point in grid]
    assert thresholds == sorted(thresholds, reverse=True)
    assert (thresholds[0], thresholds[-1]) == (math.inf, -math.inf)
    assert {threshold, float(model.scratchpad_threshold_nats)} <= set(thresholds)
    assert len({point.bits_per_byte for point in grid}) > 4
    assert inspect(model, TEXT).grid is None, "not asked for"


@pytest.mark.parametrize("trigger", ["never", "always", "random", "stride", "whitespace"])
def test_models_without_entropies_are_inspected_too(trigger):
    model = sharp_model(tiny_model_config(trigger=trigger, context_bytes=CONTEXT_BYTES))
    found = inspect(model, TEXT, with_grid=True)
    assert found.entropy_nats is found.windows.entropy_nats is found.grid is None
    assert found.to_dict()["bytes"]["entropy_nats"] is None
    assert (found.num_scratchpads == 0) == (trigger == "never")
    with pytest.raises(InputError, match=f"`{trigger}` takes no threshold in nats"):
        inspect(model, TEXT, scratchpad_threshold_nats=1.5)


def test_json_is_strict_has_a_value_for_each_byte_and_null_where_there_is_none():
    model = sharp_model(tiny_model_config(context_bytes=CONTEXT_BYTES))
    content = json.loads(strict_json(inspect(model, TEXT, scratchpad_threshold_nats=math.inf).to_dict()))
    assert content["scratchpad_threshold_nats"] == "inf"
    assert bytes(content["bytes"]["value"]) == TEXT
    assert {len(values) for values in content["bytes"].values()} == {len(TEXT)}
    assert {len(values) for values in content["windows"].values()} == {content["num_windows"]} == {4}
    unread = [CONTEXT_BYTES - 1, 2 * CONTEXT_BYTES - 1, 3 * CONTEXT_BYTES - 1]
    for key in ("entropy_nats", "score", "patch_index", "patch_lag", "slot_kind"):
        assert [place for place, value in enumerate(content["bytes"][key]) if value is None] == unread, key


def test_a_string_is_utf8_and_empty_text_is_refused():
    model = sharp_model(tiny_model_config(context_bytes=CONTEXT_BYTES))
    model.train()
    assert inspect(model, "é日").text == "é日".encode()
    assert model.training, "the mode is restored"
    with pytest.raises(InputError, match="the text is empty; allowed: at least one byte"):
        inspect(model, b"")


def test_mean_patch_size_leaves_open_patches_out():
    model = sharp_model(tiny_model_config("fixed", "entropy", patch_size=5))
    window = model.config.context_bytes
    found = inspect(model, b"a" * (window + 13))
    closed = (window - 1) // 5 + 2  # the last byte of a window that goes on is not read
    assert found.num_patches == closed
    assert found.mean_patch_size == 5.0


def test_lone_surrogates_are_text_too():
    model = sharp_model(tiny_model_config())
    assert inspect(model, "a\ud800b").text == b"a\xed\xa0\x80b"
    assert len(score(model, "a\ud800b")) == 5


@pytest.mark.unchecked
@pytest.mark.parametrize("wrong", ["abc", [1.5, 2.0], pytest.param(10**400, id="huge")])
def test_a_threshold_that_is_no_number_is_an_input_error(wrong):
    with pytest.raises(InputError, match="allowed: None, a number of nats, inf or -inf"):
        inspect(sharp_model(tiny_model_config()), b"abc", scratchpad_threshold_nats=wrong)
