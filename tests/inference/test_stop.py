"""Stop strings end a generation wherever they are split, and no byte is lost or shown too early."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import patchpad
from patchpad.errors import GenerationError
from patchpad.inference.stop import encode_stop, num_held_back, stop_begins_at
from patchpad.testing import sharp_model, tiny_model_config


@pytest.fixture(scope="module")
def model():
    model = sharp_model(tiny_model_config("spacebyte", "entropy"), seed=3)
    with torch.no_grad():
        model.local_decoder.lm_head.weight[256] = 0  # documents hardly end
    return model


@given(data=st.binary(max_size=40), stop=st.lists(st.binary(min_size=1, max_size=4), max_size=3))
def test_released_bytes_never_hold_a_stop_string_nor_its_beginning(data, stop):
    stops = tuple(stop)
    released = 0
    for length in range(1, len(data) + 1):
        begins = stop_begins_at(data[:length], stops)
        if begins is not None:
            assert released <= begins
            assert any(data[begins:length] == one for one in stops)
            return
        held = num_held_back(data[:length], stops)
        assert all(
            not one.startswith(data[length - more : length])
            for more in range(held + 1, length + 1)
            for one in stops
            if more < len(one)
        )
        assert held == 0 or any(one.startswith(data[length - held : length]) for one in stops)
        released = length - held
    assert not any(one in data for one in stops)


def test_the_longest_of_several_stop_strings_is_cut_off():
    assert stop_begins_at(b"a END", (b"END", b" END", b"ND")) == 1
    assert stop_begins_at(b"a EN", (b"END",)) is None


@pytest.mark.unchecked
def test_a_generation_ends_at_any_part_of_its_own_text(model):
    options = {"temperature": 1.0, "max_new_bytes": 70, "seed": 5}
    (whole,) = patchpad.complete(model, ["It was"], **options)
    assert len(whole.data) == 70
    for begin, size in ((0, 1), (17, 2), (30, 9), (68, 2)):  # across patch ends and inside characters
        stop = whole.data[begin : begin + size]
        (cut,) = patchpad.complete(model, ["It was"], stop=stop, **options)
        assert cut.stop_reason == "stop"
        assert cut.data == whole.data[: whole.data.index(stop)]
        pieces = list(patchpad.stream(model, "It was", stop=stop, **options))
        assert "".join(pieces) == cut.text
        assert patchpad.complete(model, ["It was"], stop=stop, draft=7, **options) == [cut]


@pytest.mark.unchecked
def test_a_stop_string_ends_its_own_row_only(model):
    options = {"temperature": 1.0, "max_new_bytes": 80, "seed": 5}
    wholes = patchpad.complete(model, ["a", "b", "c"], **options)
    stop = wholes[1].data[30:34]
    cut = patchpad.complete(model, ["a", "b", "c"], stop=[stop, b"never to be seen, so long it is"], **options)
    for one, whole in zip(cut, wholes, strict=True):
        assert one.data == (whole.data[: whole.data.index(stop)] if stop in whole.data else whole.data)
    assert cut[1].stop_reason == "stop"


@pytest.mark.unchecked
def test_held_back_bytes_come_when_the_generation_ends_without_a_stop(model):
    options = {"temperature": 1.0, "max_new_bytes": 50, "seed": 5}
    (whole,) = patchpad.complete(model, ["It was"], **options)
    stop = whole.data[-3:] + b"\x00and more"
    generation = patchpad.Generation(model, ["It was"], stop=stop, **options)
    released = [new.data for new in generation]
    assert b"".join(released) == whole.data
    assert len(released[-1]) >= 3


def test_a_text_stop_is_utf_8_and_an_empty_one_is_refused():
    assert encode_stop("é") == ("é".encode(),)
    assert encode_stop(["a", b"\xff"]) == (b"a", b"\xff")
    assert encode_stop(None) == ()
    for wrong in ("", [b""], ["a", ""]):
        with pytest.raises(GenerationError, match="at least one byte"):
            encode_stop(wrong)
