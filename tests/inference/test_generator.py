"""Generation: rows do not depend on each other, options mean what they say, nothing is lost."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import patchpad
from patchpad.calibration_table import Calibration
from patchpad.errors import GenerationError, InputError
from patchpad.inference.sampling import FIRST_DRAWS, Draws, Sampling, choose, filtered_logits
from patchpad.testing import as_row, sharp_model, tiny_model_config
from patchpad.text import TextDecoder, decode_text


@pytest.fixture(scope="module")
def model():
    return sharp_model(tiny_model_config("spacebyte", "entropy"), seed=4)


@pytest.mark.unchecked
def test_ten_copies_of_a_prompt_give_ten_identical_outputs(model):
    for options in ({"temperature": 0.0}, {"temperature": 1.0, "seed": [5] * 10}):
        completions = patchpad.complete(model, ["It was the"] * 10, max_new_bytes=40, **options)
        assert len({completion.data for completion in completions}) == 1
        assert len({completion.trunk_calls for completion in completions}) == 1


@pytest.mark.unchecked
def test_a_row_generates_the_same_alone_and_in_a_ragged_batch(model):
    prompts = ["", "a", b"\xff\x00", "It was the best of times, it was the worst of times"]
    options = {"max_new_bytes": 30, "temperature": 0.9, "top_k": 40, "top_p": 0.95}
    together = patchpad.complete(model, prompts, seed=[4, 5, 6, 7], **options)
    for row, prompt in enumerate(prompts):
        assert patchpad.complete(model, [prompt], seed=4 + row, **options)[0] == together[row]


def test_greedy_generation_takes_the_likeliest_next_id_of_the_full_pass(model):
    completion = patchpad.complete(model, ["It was"], max_new_bytes=25, temperature=0.0)[0]
    ids = torch.tensor([as_row(b"It was" + completion.data)])
    with torch.no_grad():
        layout = model(ids).layout
        best = model(ids).logits[0, 6:-1].argmax(-1).tolist()
    assert bytes(best) == completion.data
    slots = (layout.patch_end_mask | layout.scratchpad_mask)[0, :-1]  # nothing reads the last byte
    assert completion.trunk_calls == int(slots.sum())
    assert completion.trunk_cache_entries == int(layout.patch_end_mask[0, :-1].sum())


@pytest.mark.unchecked
def test_a_row_stops_where_the_model_ends_the_document():
    model = sharp_model(tiny_model_config("fixed", "entropy"), seed=1)
    with torch.no_grad():
        model.local_decoder.lm_head.weight[256] = 0
        model.local_decoder.lm_head.weight[:256] *= 0.01
    completions = patchpad.complete(
        model, [f"row {number}" for number in range(12)], max_new_bytes=200, temperature=1.0
    )
    assert {completion.stop_reason for completion in completions} == {"end", "length"} or all(
        completion.stop_reason == "end" for completion in completions
    )
    assert all(len(completion.data) < 200 for completion in completions if completion.stop_reason == "end")


def test_no_new_byte_is_generated_when_none_is_asked_for(model):
    completion = patchpad.complete(model, ["abc"], max_new_bytes=0)[0]
    assert (completion.data, completion.stop_reason, completion.text) == (b"", "length", "")


def test_seeds_make_rows_differ_and_repeat(model):
    first = patchpad.complete(model, ["x", "x"], max_new_bytes=20, temperature=1.5, seed=1)
    again = patchpad.complete(model, ["x", "x"], max_new_bytes=20, temperature=1.5, seed=1)
    assert first == again
    assert first[0].data != first[1].data


def test_top_k_and_top_p_keep_the_likeliest_ids():
    logits = torch.tensor([[0.1, 0.5, 0.2, 0.15, 0.05]]).log()
    kept = filtered_logits(logits, [Sampling(temperature=1.0, top_k=2)]).isfinite()
    assert kept.tolist() == [[False, True, True, False, False]]
    kept = filtered_logits(logits, [Sampling(temperature=1.0, top_p=0.71)]).isfinite()
    assert kept.tolist() == [[False, True, True, True, False]]
    kept = filtered_logits(logits, [Sampling(temperature=1.0, top_p=0.01)]).isfinite()
    assert kept.tolist() == [[False, True, False, False, False]]


def test_draws_follow_the_probabilities_and_never_hit_a_filtered_id():
    logits = torch.tensor([[0.7, 0.2, 0.1, 0.0]]).log().expand(4000, -1)
    draws = [Draws(number)[0] for number in range(4000)]
    drawn = choose(logits, [Sampling(temperature=1.0)] * 4000, draws).ids
    shares = torch.bincount(drawn, minlength=4) / 4000
    assert float((shares - torch.tensor([0.7, 0.2, 0.1, 0.0])).abs().max()) < 0.03
    assert shares[3] == 0


@given(
    options=st.lists(
        st.builds(
            dict,
            temperature=st.sampled_from([0.0, 1e-6, 0.3, 0.7, 1.0, 1.3, 50.0]),
            top_k=st.sampled_from([None, 1, 3, 40, 300]),
            top_p=st.sampled_from([None, 0.2, 0.9, 0.95, 1.0]),
            logit_bias=st.sampled_from([(), ((7, 5.0),), ((0, -100.0), (256, 100.0))]),
        ),
        min_size=1,
        max_size=12,
    ),
    seed=st.integers(0, 1000),
    has_ties=st.booleans(),
)
@settings(max_examples=30)
def test_a_row_is_chosen_for_bit_by_bit_as_alone_whatever_the_others_ask_for(options, seed, has_ties):
    samplings = [Sampling(**one) for one in options]
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(samplings), 257, generator=generator) * 3
    if has_ties:
        logits = logits.round()
    draws = torch.rand(len(samplings), generator=generator, dtype=torch.float64).tolist()
    together = choose(logits, samplings, draws)
    alone = [choose(logits[row : row + 1], samplings[row : row + 1], draws[row : row + 1]) for row in range(len(draws))]
    assert together.ids.tolist() == [int(one.ids) for one in alone]
    assert all(together.is_number.tolist())
    drawn = [row for row, one in enumerate(samplings) if one.temperature > 0]
    if drawn:
        filtered = filtered_logits(logits[drawn], [samplings[row] for row in drawn])
        expected = [filtered_logits(logits[row : row + 1], [samplings[row]])[0] for row in drawn]
        assert torch.equal(filtered, torch.stack(expected))


def test_draws_are_those_of_one_stream_and_the_same_when_asked_again():
    stream = torch.Generator().manual_seed(5)
    expected = [float(torch.rand((), generator=stream, dtype=torch.float64)) for _ in range(3 * FIRST_DRAWS)]
    draws = Draws(5)
    assert [draws[index] for index in range(3 * FIRST_DRAWS)] == expected
    assert [draws[0], Draws(5)[3 * FIRST_DRAWS - 1]] == [expected[0], expected[-1]]


@pytest.mark.unchecked
def test_compute_is_translated_by_the_calibration(model):
    rows = tuple(
        {"scratchpad_threshold_nats": threshold, "trunk_calls_per_byte": calls}
        for threshold, calls in ((math.inf, 0.2), (3.0, 0.2), (1.0, 0.6), (0.0, 1.0), (-math.inf, 1.0))
    )
    model.calibration = Calibration(rows=rows, text_sha256="")
    try:
        by_compute = patchpad.complete(model, ["abc"], max_new_bytes=30, compute=0.4)
        assert by_compute == patchpad.complete(model, ["abc"], max_new_bytes=30, scratchpad_threshold_nats=2.0)
        least = patchpad.complete(model, ["abc"], max_new_bytes=30, compute=0.2)[0]
        assert least.trunk_calls == least.trunk_cache_entries
        for wrong in (0.19, 1.01, math.nan):
            with pytest.raises(GenerationError, match=r"0\.2 .* to 1"):
                patchpad.complete(model, ["abc"], compute=wrong)
        with pytest.raises(GenerationError, match="one of the two"):
            patchpad.complete(model, ["abc"], compute=0.5, scratchpad_threshold_nats=1.0)
    finally:
        model.calibration = None
    with pytest.raises(GenerationError, match="no calibration"):
        patchpad.complete(model, ["abc"], compute=0.5)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_new_bytes": -1}, "max_new_bytes"),
        ({"seed": -3}, "seed"),
        ({"seed": [1, 2]}, "seed"),
    ],
)
def test_options_out_of_range_are_named(model, options, word):
    with pytest.raises(GenerationError, match=word):
        patchpad.complete(model, ["abc"], **options)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("max_new_bytes", 10.5, "an integer of at least 0"),
        ("max_new_bytes", math.nan, "an integer of at least 0"),
        ("max_new_bytes", "9", "an integer of at least 0"),
        ("batch_rows", 2.5, "an integer of at least 1"),
        ("top_k", 2.5, "an integer of at least 1"),
        ("top_p", "0.5", "a number above 0"),
        ("temperature", "0.5", "0 (greedy)"),
        ("temperature", None, "0 (greedy)"),
        ("seed", 1.5, "an integer from 0"),
        ("seed", None, "an integer from 0"),
        ("seed", [1.5], "an integer from 0"),
        ("seed", [1, 2], "one per prompt (1)"),
        ("seed", -1, "an integer from 0"),
        ("draft", 0, "auto, off, or a number of bytes from 1 to 64"),
        ("draft", 65, "auto, off, or a number of bytes from 1 to 64"),
        ("draft", "often", "auto, off, or a number of bytes from 1 to 64"),
        ("draft", None, "auto, off, or a number of bytes from 1 to 64"),
        ("stop", 5, "text or bytes"),
        ("stop", [5], "text or bytes"),
    ],
)
def test_an_option_that_is_no_such_number_is_refused(model, option, value, allowed):
    with pytest.raises(GenerationError) as caught:
        patchpad.complete(model, ["abc"], **{option: value})
    assert repr(5 if option == "stop" else value) in caught.value.message
    assert allowed in caught.value.message


@pytest.mark.unchecked
def test_options_may_be_numbers_and_prompts_of_any_kind(model):
    options = {"max_new_bytes": 5, "top_k": 9, "batch_rows": 2, "temperature": 1.0}
    expected = patchpad.complete(model, ["abc", "d"], seed=[3, 4], **options)
    given = {name: np.int64(value) for name, value in options.items()}
    assert patchpad.complete(model, (prompt for prompt in ("abc", "d")), seed=np.int64(3), **given) == expected
    assert patchpad.complete(model, ["abc", "d"], seed=np.array([3, 4]), **given) == expected
    with pytest.raises(InputError, match="prompts is of type NoneType; allowed: a list"):
        patchpad.complete(model, None)


@pytest.mark.unchecked
def test_compute_that_no_dial_can_serve_is_refused(model):
    other = sharp_model(tiny_model_config("fixed", "stride"))
    with pytest.raises(GenerationError, match="with the trigger `stride`, which has no threshold to turn") as caught:
        patchpad.complete(other, ["abc"], compute=0.5)
    assert "calibrate" not in caught.value.hint
    patchpad.complete(other, ["abc"], max_new_bytes=1, scratchpad_threshold_nats=math.inf)
    row = {"scratchpads_per_byte": 0.1, "patches_per_byte": 0.2, "bits_per_byte": 2.0, "num_bytes": 9}
    rows = [{**row, "scratchpad_threshold_nats": at, "trunk_calls_per_byte": 0.3} for at in (math.inf, 1.0)]
    model.calibration = Calibration(rows=tuple(rows), text_sha256="")
    try:
        for wrong in ("0.3", [0.3, 0.5]):
            with pytest.raises(GenerationError, match=r"compute is .*; allowed: 0\.3"):
                patchpad.complete(model, ["abc"], compute=wrong)
    finally:
        model.calibration = None


def test_a_single_string_is_one_prompt_to_complete_and_no_batch_to_prefill(model):
    one = patchpad.complete(model, "abc", max_new_bytes=3)
    assert one == patchpad.complete(model, ["abc"], max_new_bytes=3)[0]
    with pytest.raises(InputError, match="single string"):
        patchpad.prefill(model, "abc")
    assert isinstance(patchpad.generate(model, "abc", max_new_bytes=3), str)
    assert len(patchpad.generate(model, ["abc", b"d"], max_new_bytes=3)) == 2


def test_text_never_splits_a_character():
    data = "naïve 日本 🙂".encode() + b"\xe6\x97"
    decoder = TextDecoder()
    pieces = [decoder.push(bytes([value])) for value in data]
    assert "�" not in "".join(pieces)
    assert "".join(pieces) + decoder.push(b"", final=True) == decode_text(data)


def test_a_temperature_next_to_zero_is_greedy(model):
    greedy = patchpad.complete(model, ["abc"], max_new_bytes=20, temperature=0.0)
    assert patchpad.complete(model, ["abc"], max_new_bytes=20, temperature=1e-308) == greedy


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("part", ["local_decoder.lm_head", "local_encoder", "trunk"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_an_error_at_the_first_logits_they_reach(part, value, temperature):
    model = sharp_model(tiny_model_config("fixed", "always"), seed=1)
    with torch.no_grad():
        next(model.get_submodule(part).parameters())[7] = value
    prompts = [b"\x07", b""]  # some ids are read, so that a single row of the embedding counts too
    with pytest.raises(GenerationError, match="predicts nan or inf instead of logits"):
        patchpad.complete(model, prompts, max_new_bytes=30, temperature=temperature)


def test_nan_that_only_a_later_step_reaches_is_an_error_too():
    model = sharp_model(tiny_model_config("fixed", "never", patch_size=7), seed=1)
    with torch.no_grad():
        next(model.trunk.parameters()).fill_(math.nan)
    stream = patchpad.stream(model, "abc", max_new_bytes=30, temperature=0)
    with pytest.raises(GenerationError, match="predicts nan"):
        list(stream)
    assert len(stream.completion.data) == 4  # the byte that ends the first patch is the last that was chosen


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan_for_a_single_id_is_an_error_too(temperature):
    model = sharp_model(tiny_model_config("fixed", "entropy"))
    with torch.no_grad():
        model.local_decoder.lm_head.weight[5].fill_(math.nan)
    with pytest.raises(GenerationError, match="predicts nan"):
        patchpad.complete(model, b"abc", max_new_bytes=8, temperature=temperature)
