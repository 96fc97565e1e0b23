import json
import math

import pytest
import torch

from patchpad.errors import GenerationError, InputError
from patchpad.serving.playground.marks import marks
from patchpad.serving.playground.next_byte import MOST_BYTES, next_byte
from patchpad.testing import (
    as_row,
    random_documents,
    sharp_baseline,
    sharp_model,
    thresholds_to_try,
    tiny_model_config,
    tolerance,
)

TEXT = random_documents(3, [40])[0]
MODELS = [
    ("fixed", "entropy"),
    ("spacebyte", "entropy_jump"),
    ("hnet", "entropy"),
    ("entropy", "random"),
    ("fixed", "stride"),
]
pytestmark = pytest.mark.unchecked


def ids_of(text):
    return torch.tensor([as_row(text)])


def full_pass(model, threshold, place=0):
    """Returns the pass of three rows: at one place the threshold's own choice, a scratchpad, and none."""
    ids = ids_of(TEXT).expand(3, -1)
    stored = model.scratchpad_threshold_nats if threshold is None else torch.tensor(threshold)
    thresholds = stored.expand(ids.shape).clone()
    thresholds[1, place], thresholds[2, place] = -math.inf, math.inf
    with torch.no_grad():
        return model.run(ids, model.decisions_at(thresholds))


@pytest.mark.parametrize(("patchifier", "trigger"), MODELS)
def test_next_byte_with_and_without_a_scratchpad_is_that_of_the_full_pass(patchifier, trigger):
    model = sharp_model(tiny_model_config(patchifier, trigger))
    own, *_ = thresholds_to_try(model, ids_of(TEXT))
    found = marks(model, TEXT, scratchpad_threshold_nats=own)
    kinds = list(zip(found["ends_patch"], found["has_scratchpad"], strict=True))
    places = {kind: kinds.index(kind, 1) - 1 for kind in set(kinds)}
    assert set(places) == {(False, False), (False, True), (True, False)}
    for position, threshold in [*((place, own) for place in places.values()), (-1, own), (len(TEXT) - 1, -math.inf)]:
        found = next_byte(model, TEXT, position=position, scratchpad_threshold_nats=threshold)
        place = position + 1
        output = full_pass(model, threshold, place)
        layout = output.layout
        for row, key in ((1, "with"), (2, "without")):
            expected = output.logits[row, place].double().softmax(-1)
            allowed = 2 * tolerance(output.logits)
            torch.testing.assert_close(torch.tensor(found[key], dtype=torch.float64), expected, rtol=0, atol=allowed)
        assert found["patch_lag"] == int(layout.patch_lag[0, place])
        assert found["patch_lag_without"] == int(layout.patch_lag[2, place])
        assert found["ends_patch"] == bool(layout.patch_end_mask[0, place])
        assert found["has_scratchpad"] == bool(layout.scratchpad_mask[0, place])
        if output.entropy_nats is None:
            assert found["entropy_nats"] is None
        else:
            assert found["entropy_nats"] == pytest.approx(float(output.entropy_nats[0, place]), abs=1e-4)
        assert (found["position"], found["byte"]) == (position, None if position < 0 else TEXT[position])
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        is_equal = found["with"] == found["without"]
        assert is_equal == found["ends_patch"], "the commit is what a scratchpad would be"


def test_without_a_position_the_last_byte_is_read_and_what_follows_it_never_is():
    model = sharp_model(tiny_model_config())
    last = next_byte(model, TEXT[:20])
    assert last["position"] == 19
    assert last == next_byte(model, TEXT, position=19)
    assert next_byte(model, b"")["position"] == -1


@pytest.mark.parametrize("position", [-2, 3, 1.0, "1", True, 10**30])
def test_position_outside_the_text_is_refused_with_what_is_allowed(position):
    model = sharp_model(tiny_model_config())
    with pytest.raises(InputError, match=r"position is .*; allowed: -1 .* to 2"):
        next_byte(model, b"abc", position=position)


def test_a_text_that_would_keep_the_server_for_long_is_refused(monkeypatch):
    model = sharp_model(tiny_model_config())
    monkeypatch.setattr("patchpad.serving.playground.next_byte.MOST_BYTES", 5)
    assert MOST_BYTES == 4096
    assert next_byte(model, b"abcdefgh", position=4)["byte"] == ord("e")
    assert len(marks(model, b"abcde")["ends_patch"]) == 6
    for question in (next_byte, marks):
        with pytest.raises(InputError, match="has 6 bytes; allowed: 5"):
            question(model, b"abcdef")


def test_a_model_without_scratchpads_gives_one_distribution_and_no_marks():
    for kind in ("byte", "megabyte"):
        model = sharp_baseline(kind)
        found = next_byte(model, TEXT, position=7)
        with torch.no_grad():
            logits = model.run(ids_of(TEXT[:8])).logits[0, 8]
        torch.testing.assert_close(
            torch.tensor(found["without"]), logits.softmax(-1), rtol=0, atol=2 * tolerance(logits)
        )
        assert found["with"] is None
        assert found["patch_lag"] is None
        assert marks(model, TEXT) == {"ends_patch": None, "has_scratchpad": None, "entropy_nats": None}
        with pytest.raises(InputError, match="has no scratchpads"):
            marks(model, TEXT, scratchpad_threshold_nats=1.0)


def test_a_model_of_tokens_says_that_it_predicts_no_bytes():
    pytest.importorskip("tokenizers")
    with pytest.raises(GenerationError, match="predicts tokens"):
        next_byte(sharp_baseline("bpe"), TEXT)


@pytest.mark.parametrize(("patchifier", "trigger"), MODELS)
def test_marks_of_a_prompt_are_those_of_the_full_pass_at_the_threshold(patchifier, trigger):
    model = sharp_model(tiny_model_config(patchifier, trigger))
    for threshold in thresholds_to_try(model, ids_of(TEXT)):
        found = marks(model, TEXT, scratchpad_threshold_nats=threshold)
        output = full_pass(model, threshold)
        assert found["ends_patch"] == output.layout.patch_end_mask[0].tolist()
        assert found["has_scratchpad"] == output.layout.scratchpad_mask[0].tolist()
        assert len(found["ends_patch"]) == len(TEXT) + 1
        if output.entropy_nats is None:
            assert found["entropy_nats"] is None
        else:
            assert found["entropy_nats"] == pytest.approx(output.entropy_nats[0].tolist(), abs=1e-5)
        json.dumps(found, allow_nan=False)
    assert len(marks(model, b"")["ends_patch"]) == 1
