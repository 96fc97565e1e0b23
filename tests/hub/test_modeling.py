"""Logits behind the interface of transformers are ours: full passes, caches, padding on any side, dials."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import patchpad
from patchpad.calibration_table import ROW_KEYS, Calibration
from patchpad.errors import GenerationError, InputError
from patchpad.registry import PATCHIFIERS
from patchpad.testing import (
    batch_of,
    ragged_packed_rows,
    random_documents,
    sharp_model,
    thresholds_to_try,
    tiny_model_config,
    tolerance,
)

PATCH_KINDS = [f"{patchifier}-entropy" for patchifier in PATCHIFIERS]
OTHER_KINDS = [f"fixed-{trigger}" for trigger in ("never", "always", "random", "stride", "whitespace")]
NAMES = [*PATCH_KINDS, *OTHER_KINDS, "spacebyte-entropy_jump", "byte", "megabyte"]
CHECKED = ("fixed-entropy", "megabyte")
"""Kinds whose shapes are checked too."""


def marked(kinds):
    return [pytest.param(kind, marks=[] if kind in CHECKED else pytest.mark.unchecked) for kind in kinds]


EVERY_KIND = marked(NAMES)
DOCUMENTS = random_documents(5, [60, 41])
ROWS = [[256, *document] for document in DOCUMENTS]


def own_logits(model, rows, threshold=None):
    """What the model itself gives for rows that are padded at their ends."""
    ids = batch_of(rows)
    with torch.no_grad():
        output = model(ids, threshold) if model.has_scratchpads else model(ids)
    return output.logits


def left_padded(rows):
    width = max(map(len, rows))
    ids = torch.tensor([[257] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def assert_close(found, expected):
    assert float((found - expected).abs().max()) <= tolerance(expected)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_logits_of_a_pass_are_ours_and_padding_is_never_predicted(outer, kind):
    model = outer(kind)
    expected = own_logits(model.model, ROWS)
    ids, mask = left_padded(ROWS)
    with torch.no_grad():
        found = model(ids, attention_mask=mask).logits
        without_mask = model(ids).logits
    assert found.shape == (2, ids.shape[1], 258)
    assert bool((found[..., 257] == -math.inf).all())
    assert torch.equal(found, without_mask)  # 257 is padding without a mask too
    for row, length in enumerate(map(len, ROWS)):
        assert_close(found[row, -length:, :257], expected[row, :length])


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_steps_with_a_cache_are_the_full_pass_for_left_padded_rows(outer, kind):
    model = outer(kind)
    expected = own_logits(model.model, ROWS)
    ids, mask = left_padded(ROWS)
    name, split, spans = "cache", 25, [1, 1, 9, 1, 2]
    with torch.no_grad():
        output = model(ids[:, :split], attention_mask=mask[:, :split], use_cache=True)
        seen = [output.logits]
        end = split
        for span in [*spans, *[1] * (ids.shape[1] - split - sum(spans))]:
            end += span
            output = model(
                ids[:, end - span : end], attention_mask=mask[:, :end], use_cache=True, **{name: output["cache"]}
            )
            name = "past_key_values" if name == "cache" else "cache"  # the older name
            seen.append(output.logits)
        assert output.cache.get_seq_length() == ids.shape[1]
    found = torch.cat(seen, dim=1)[..., :257]
    for row, length in enumerate(map(len, ROWS)):
        assert_close(found[row, -length:], expected[row, :length])


@pytest.mark.parametrize(
    "kind",
    [
        "fixed-entropy",
        *(pytest.param(kind, marks=pytest.mark.unchecked) for kind in ("spacebyte-entropy", "hnet-random")),
    ],
)
@given(
    seed=st.integers(0, 9_999),
    lengths=st.lists(st.integers(0, 25), min_size=1, max_size=3),
    spans=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    dial=st.integers(0, 2),
)
def test_spans_of_any_length_behind_a_cache_are_the_full_pass(hub, kind, seed, lengths, spans, dial):
    patchifier, _, trigger = kind.partition("-")
    own = sharp_model(tiny_model_config(patchifier, trigger, context_bytes=96), seed=seed % 5)
    rows, _ = ragged_packed_rows(seed, lengths)
    threshold = thresholds_to_try(own, batch_of(rows))[dial]
    model = hub.of(own)
    ids, mask = left_padded(rows)
    expected, found, end, cache = own_logits(own, rows, threshold), [], 0, None
    while end < ids.shape[1]:
        begin, end = end, min(ids.shape[1], end + spans[len(found) % len(spans)])
        with torch.no_grad():
            output = model(
                ids[:, begin:end],
                attention_mask=mask[:, :end],
                cache=cache,
                use_cache=True,
                scratchpad_threshold_nats=threshold,
            )
        found.append(output.logits[..., :257])
        cache = output.cache
    joined = torch.cat(found, dim=1)
    for row, length in enumerate(map(len, rows)):
        assert_close(joined[row, -length:], expected[row, :length])


def test_a_row_without_a_separator_is_read_as_if_it_had_one(outer):
    model = outer("fixed-entropy")
    ids = torch.tensor([ROWS[0]])
    with torch.no_grad():
        expected = model(ids).logits
        found = model(ids[:, 1:])
        assert_close(found.logits[..., :257], expected[:, 1:, :257])
        cached = model(ids[:, 1:10], use_cache=True, logits_to_keep=1)
        assert_close(cached.logits[..., :257], expected[:, 9:10, :257])


@pytest.mark.parametrize("kind", ["fixed-entropy", "hnet-entropy", "byte", "megabyte"])
def test_a_separator_begins_a_document_with_and_without_a_cache(outer, kind):
    model = outer(kind)
    rows = [[*ROWS[0][:20], *ROWS[1][:15]], [*ROWS[1][:30], 256, 65, 66, 256, 67]]
    expected = own_logits(model.model, rows)
    ids = torch.tensor(rows)
    with torch.no_grad():
        output = model(ids[:, :22], use_cache=True)
        assert_close(output.logits[..., :257], expected[:, :22])
        last = model(ids[:, 22:], cache=output.cache)
        assert_close(last.logits[..., :257], expected[:, 22:])


def test_padding_behind_a_cache_leaves_a_row_where_it_is(outer):
    model = outer("fixed-entropy")
    ids = torch.tensor([[256, 65, 66, 67], [256, 70, 71, 72]])
    with torch.no_grad():
        output = model(ids, use_cache=True)
        before = output.logits[1, -1]
        for value in (257, 257):
            output = model(torch.tensor([[80], [value]]), cache=output.cache)
            assert torch.equal(output.logits[1, -1], before)
        both = model(torch.tensor([[257, 81, 257], [82, 257, 83]]), cache=output.cache)
        expected = own_logits(model.model, [[256, 65, 66, 67, 80, 80, 81], [256, 70, 71, 72, 82, 83]])
    assert_close(both.logits[0, -1, :257], expected[0, 6])
    assert_close(both.logits[1, -1, :257], expected[1, 5])
    assert_close(both.logits[1, 1, :257], expected[1, 4])


def test_logits_are_kept_at_the_last_positions_or_at_those_that_are_named(outer):
    model, ids = outer("fixed-entropy"), torch.tensor([[256, *b"It was a text."]])
    with torch.no_grad():
        every = model(ids).logits
        assert torch.equal(model(ids, logits_to_keep=3).logits, every[:, -3:])
        places = torch.tensor([0, 5, 7])
        assert torch.equal(model(ids, logits_to_keep=places).logits, every[:, places])
        assert torch.equal(model(ids, logits_to_keep=places, use_cache=True).logits, every[:, places])


def test_no_cache_comes_back_where_none_is_wanted(outer):
    model = outer("fixed-entropy")
    ids = torch.tensor([ROWS[0]])
    with torch.no_grad():
        assert model(ids, use_cache=False).cache is None
        cache = model(ids, use_cache=True).cache
        assert model(ids[:, 1:2], cache=cache, use_cache=False).cache is None
        logits, second = model(ids, use_cache=True, return_dict=False)
    assert logits.shape[-1] == 258
    assert second.get_seq_length() == ids.shape[1]


def test_a_copied_cache_goes_its_own_way(outer):
    model = outer("hnet-entropy")
    ids = torch.tensor([ROWS[0]])
    expected = own_logits(model.model, ROWS[:1])
    with torch.no_grad():
        cache = model(ids[:, :30], use_cache=True, logits_to_keep=1).cache
        kept = copy.deepcopy(cache)
        for value in b"something else":
            model(torch.tensor([[value]]), cache=cache)
        assert_close(model(ids[:, 30:], cache=kept).logits[..., :257], expected[:, 30:])


def test_dials_are_ours_for_all_rows_and_for_each(outer):
    model = outer("fixed-entropy")
    ids = batch_of([row[:41] for row in ROWS])
    plain, every = (own_logits(model.model, [row[:41] for row in ROWS], dial) for dial in (math.inf, -math.inf))
    assert not torch.allclose(plain, every, atol=1e-3)
    with torch.no_grad():
        assert_close(model(ids, scratchpad_threshold_nats=math.inf).logits[..., :257], plain)
        mixed = model(ids, scratchpad_threshold_nats=[math.inf, -math.inf], use_cache=True)
        assert_close(mixed.logits[0, :, :257], plain[0])
        assert_close(mixed.logits[1, :, :257], every[1])
        cached = model(ids[:, :9], scratchpad_threshold_nats=-math.inf, use_cache=True).cache
        stepped = model(ids[:, 9:], cache=cached, scratchpad_threshold_nats=-math.inf).logits
        assert_close(stepped[..., :257], every[:, 9:])


def with_calibration(model, hub):
    """The same model with a table whose middle is the stored threshold."""
    values = [(math.inf, 0.0), (float(model.scratchpad_threshold_nats), 0.3), (-math.inf, 0.8)]
    rows = tuple(
        dict(zip(ROW_KEYS, (nats, share, 0.2, 0.2 + share, 2.0, 1000.0), strict=True)) for nats, share in values
    )
    twin = hub.of(copy.deepcopy(model))
    twin.model.calibration = Calibration(rows=rows, text_sha256="0" * 64)
    return twin


def test_compute_is_translated_by_the_calibration(outer, hub):
    model = with_calibration(outer("fixed-entropy").model, hub)
    ids = batch_of(ROWS)
    with torch.no_grad():
        assert torch.equal(model(ids, compute=0.5).logits, model(ids).logits)
        assert torch.equal(model(ids, compute=1.0).logits, model(ids, scratchpad_threshold_nats=-math.inf).logits)
        with pytest.raises(GenerationError, match="both compute and scratchpad_threshold_nats"):
            model(ids, compute=0.5, scratchpad_threshold_nats=1.0)
    with pytest.raises(GenerationError, match="no calibration"):
        outer("fixed-entropy")(ids, compute=0.5)


BAD = {
    "input_ids holds 258": {"input_ids": torch.tensor([[256, 258]])},
    "input_ids holds -1": {"input_ids": torch.tensor([[256, -1]])},
    r"shape \[3\]": {"input_ids": torch.tensor([1, 2, 3])},
    "torch.float32": {"input_ids": torch.ones(1, 3)},
    "input_ids is needed": {"inputs_embeds": torch.ones(1, 3, 4)},
    r"has the shape \[1, 2\] with": {"input_ids": torch.ones(1, 3).long(), "attention_mask": torch.ones(1, 2)},
    "labels has the shape": {"input_ids": torch.ones(1, 3).long(), "labels": torch.ones(1, 2).long()},
    "labels holds 257; allowed": {"input_ids": torch.ones(1, 3).long(), "labels": torch.tensor([[256, 1, 257]])},
    "scratchpad_threshold_nats is nan": {"input_ids": torch.ones(1, 3).long(), "scratchpad_threshold_nats": math.nan},
    "logits_to_keep is -1": {"input_ids": torch.ones(1, 3).long(), "logits_to_keep": -1},
    "hidden states": {"input_ids": torch.ones(1, 3).long(), "output_hidden_states": True},
}


@pytest.mark.parametrize("message", BAD)
def test_what_the_model_cannot_read_is_said(outer, message):
    with pytest.raises(InputError, match=message):
        outer("fixed-entropy")(**BAD[message])


def test_a_cache_of_other_rows_or_of_another_kind_and_labels_beside_one_are_refused(outer, hub):
    model = outer("fixed-entropy")
    with torch.no_grad():
        cache = model(torch.tensor([[256, 65]]), use_cache=True).cache
    with pytest.raises(InputError, match="2 rows and the cache 1"):
        model(torch.tensor([[65], [66]]), cache=cache)
    with pytest.raises(InputError, match="cache is of type DynamicCache"):
        model(torch.tensor([[65]]), cache=hub.transformers.DynamicCache())
    with pytest.raises(InputError, match="labels and a cache"):
        model(torch.tensor([[65]]), cache=cache, labels=torch.tensor([[65]]))
    with pytest.raises(InputError, match="cannot be resized"):
        model.resize_token_embeddings(300)


def test_a_bpe_model_is_refused(hub):
    from patchpad.config import Config, ModelConfig

    config = Config(model=ModelConfig(kind="bpe"))
    with pytest.raises(GenerationError, match="`bpe` model reads tokens"):
        hub.Model(hub.Config(patchpad=config.to_dict()))


def test_the_tests_cover_every_patchifier_there_is():
    assert {kind.partition("-")[0] for kind in PATCH_KINDS} == set(PATCHIFIERS)
    assert patchpad.SEPARATOR == 256
