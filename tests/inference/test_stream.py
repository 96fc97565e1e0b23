"""Generation and streams for any prompt: nothing fails, nothing is lost, nothing is left running."""

import gc
import random
import threading
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import patchpad
from patchpad.calibration_table import Calibration
from patchpad.errors import GenerationError, InputError
from patchpad.inference.cache import GROWTH
from patchpad.inference.sampling import Chosen
from patchpad.testing import sharp_model, state_bytes, tiny_model_config

PROMPTS_AT_ONCE = 20


@pytest.fixture(scope="module")
def model():
    model = sharp_model(tiny_model_config("spacebyte", "entropy"), seed=3)
    with torch.no_grad():
        model.local_decoder.lm_head.weight[256] *= 0.3
    return model


def prompt_of(length: int, kind: int, seed: int) -> bytes:
    source = random.Random(seed)
    if kind == 0:
        return source.randbytes(length)
    if kind == 1:
        return bytes([source.randrange(256)]) * length
    return "".join(source.choice("ab \n.é日🙂") for _ in range(length)).encode()[:length]


ANY_PROMPT = st.one_of(
    st.binary(max_size=50), st.builds(prompt_of, st.integers(0, 4000), st.integers(0, 2), st.integers(0, 2**32))
)
ANY_PROMPTS = st.lists(ANY_PROMPT, min_size=PROMPTS_AT_ONCE, max_size=PROMPTS_AT_ONCE)


@pytest.mark.unchecked
@settings(max_examples=60 // PROMPTS_AT_ONCE)
@given(ANY_PROMPTS, st.integers(0, 1000))
def test_prompts_of_any_bytes_generate_and_stream_without_an_error(model, prompts, seed):
    check_any_prompts(model, prompts, seed)


@pytest.mark.slow
@settings(max_examples=1000 // PROMPTS_AT_ONCE)
@given(ANY_PROMPTS, st.integers(0, 1000))
def test_a_thousand_prompts_of_any_bytes_generate_and_stream_without_an_error(model, prompts, seed):
    check_any_prompts(model, prompts, seed)


def check_any_prompts(model, prompts, seed):
    options = {"max_new_bytes": 6, "temperature": 1.2, "stop": ["e", "\n\n"]}
    together = patchpad.complete(model, prompts, seed=seed, **options)
    for row, (prompt, completion) in enumerate(zip(prompts, together, strict=True)):
        assert len(completion.data) <= 6
        assert completion.stop_reason in {"length", "end", "stop"}
        stream = patchpad.stream(model, prompt, seed=seed + row, **options)
        pieces = list(stream)
        assert all(pieces)
        assert "".join(pieces) == stream.completion.text == stream.completion.data.decode("utf-8", "replace")
        assert stream.completion == completion


def chosen(values) -> Chosen:
    ids = torch.tensor(list(values))
    return Chosen(ids, torch.ones_like(ids, dtype=torch.bool))


def test_a_stream_gives_whole_characters_only():
    model = sharp_model(tiny_model_config("fixed", "entropy"), seed=3)
    text = "naïve 日本 🙂 שלום"

    stream = patchpad.stream(model, "x", max_new_bytes=len(text.encode()), temperature=0.0)
    values = iter(text.encode())
    stream._generation.engine._choose = lambda batch: chosen(next(values) for _ in batch.ready)
    assert list(stream) == list(text)
    assert stream.completion.data == text.encode()


def test_a_character_cut_off_by_the_limit_keeps_its_bytes_and_shows_as_replacement():
    model = sharp_model(tiny_model_config("fixed", "entropy"), seed=3)
    data = "ab🙂".encode()[:4]
    stream = patchpad.stream(model, "x", max_new_bytes=4)
    values = iter(data)
    stream._generation.engine._choose = lambda batch: chosen(next(values) for _ in batch.ready)
    assert "".join(stream) == "ab�" == stream.completion.text
    assert stream.completion.data == data


@pytest.mark.unchecked
def test_the_dial_may_be_turned_while_streaming(model):
    rows = tuple(
        {"scratchpad_threshold_nats": threshold, "trunk_calls_per_byte": calls}
        for threshold, calls in ((float("inf"), 0.2), (3.0, 0.2), (0.0, 1.0), (-float("inf"), 1.0))
    )
    options = {"temperature": 1.0, "max_new_bytes": 300, "seed": 1}
    with patchpad.stream(model, "It was", scratchpad_threshold_nats=float("inf"), **options) as stream:
        for _ in range(40):
            next(stream)
        before = stream.completion
        assert before.trunk_calls == before.trunk_cache_entries
        stream.set_dial(scratchpad_threshold_nats=-float("inf"))
        for _ in range(20):
            next(stream)
        after = stream.completion
        assert after.trunk_calls - before.trunk_calls == len(after.data) - len(before.data)
        with pytest.raises(GenerationError, match="no calibration"):
            stream.set_dial(compute=0.5)
        with pytest.raises(InputError, match="nan"):
            stream.set_dial(scratchpad_threshold_nats=float("nan"))
        model.calibration = Calibration(rows=rows, text_sha256="")
        try:
            stream.set_dial(compute=0.2)
            for _ in range(20):
                next(stream)
            last = stream.completion
            assert (
                last.trunk_calls - after.trunk_calls <= last.trunk_cache_entries - after.trunk_cache_entries + 1
            )  # no scratchpad but the one that may have been due
        finally:
            model.calibration = None
    assert stream.completion.stop_reason is None


@pytest.mark.unchecked
def test_a_closed_stream_leaves_nothing_running_and_frees_its_caches(model):
    threads = threading.active_count()
    stream = patchpad.stream(model, "It was", max_new_bytes=10_000)
    for _ in range(20):
        next(stream)
    state = weakref.ref(stream._generation.engine.batch.state)
    stream.close()
    gc.collect()
    assert state() is None
    assert list(stream) == []
    same = patchpad.stream(model, "It was", max_new_bytes=10_000)
    for _ in range(20):
        next(same)
    assert stream.completion == same.completion
    assert stream.completion.trunk_calls > 0
    assert threading.active_count() == threads


def test_a_stream_that_is_left_is_collected(model):
    stream = patchpad.stream(model, "It was", max_new_bytes=10_000)
    for _ in stream:
        break
    state = weakref.ref(stream._generation.engine.batch.state)
    del stream
    gc.collect()
    assert state() is None


def test_an_error_in_the_middle_keeps_what_was_generated(model, monkeypatch):
    stream = patchpad.stream(model, "It was", max_new_bytes=100, temperature=1.0, seed=4)
    pieces = [next(stream) for _ in range(10)]
    monkeypatch.setattr(model.local_decoder, "forward", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pieces.extend(stream)
    assert stream.completion.text.startswith("".join(pieces))


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.unchecked
def test_memory_grows_by_trunk_cache_entries_alone():
    model = sharp_model(tiny_model_config("fixed", "entropy", patch_size=2), seed=3)
    with torch.no_grad():
        model.local_decoder.lm_head.weight[256] = 0
    config = model.config
    bytes_per_entry = 2 * config.trunk_layers * config.trunk_dim * 4
    generation = patchpad.Generation(model, ["It was"], max_new_bytes=400, temperature=1.0)
    sizes = []
    for _ in generation:
        state = generation.engine.batch.state
        if state is not None:
            trunk, others = state_bytes(state)
            entries = int(state.num_patches)
            assert trunk <= (entries // GROWTH + 1) * GROWTH * bytes_per_entry
            sizes.append(others)
    assert len(generation.rows[0].data) == 400
    assert len(set(sizes)) == 1
