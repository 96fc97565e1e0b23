"""A step happens or does not: whatever line an exception comes at, going on gives what would have come without it."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import patchpad
from patchpad.config import SEPARATOR
from patchpad.testing import BASELINE_KINDS, sharp_baseline, sharp_model, tiny_model_config

pytestmark = pytest.mark.unchecked  # lines are counted: those of the checks would be most of them

HOME = str(Path(patchpad.__file__).parent)
MODELS = {
    "fixed-entropy": lambda: sharp_model(tiny_model_config("fixed", "entropy"), seed=3),
    "spacebyte-entropy_jump": lambda: sharp_model(tiny_model_config("spacebyte", "entropy_jump"), seed=3),
    "hnet-random": lambda: sharp_model(tiny_model_config("hnet", "random", patch_size=3, max_patch_size=4), seed=3),
    "tokens-entropy": lambda: sharp_model(tiny_model_config("tokens", "entropy", source_head="tied"), seed=3),
    "byte": lambda: sharp_baseline("byte", seed=3),
    "bpe": lambda: sharp_baseline("bpe", seed=3),
    "megabyte": lambda: sharp_baseline("megabyte", seed=3),
}


class Stop(KeyboardInterrupt):
    """Comes where a test wants it."""


@contextmanager
def stopped_at(line: int, *, and_after: str = "") -> Iterator[None]:
    """Raises `Stop` at the given line, counted from 1, of those of the package that run inside.

    Args:
        line: 0 for none.
        and_after: name of a function; also raises where it is about to return.
    """
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if not frame.f_code.co_filename.startswith(HOME):
            return None
        if event == "line":
            count += 1
            if count == line:
                raise Stop
        if event == "return" and frame.f_code.co_name == and_after:
            raise Stop
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def model(request):
    return request.param()


@pytest.mark.parametrize(
    ("model", "draft"),
    [
        pytest.param(build, draft, id=f"{name}-{draft}")
        for name, build in MODELS.items()
        for draft in ("off", 4)
        if draft == "off" or name not in BASELINE_KINDS  # which have no drafts
    ],
    indirect=["model"],
)
def test_rows_that_are_interrupted_anywhere_generate_what_they_generate_otherwise(model, draft):
    options = {"max_new_bytes": 25, "temperature": 1.0, "stop": ["e ", "zz"], "batch_rows": 3, "seed": 1}
    prompts = ["It was", "x", "", "abc defg"]
    expected = patchpad.complete(model, prompts, **options)
    source, num_stops = random.Random(1), 0
    generation = patchpad.Generation(model, prompts, draft=draft, **options)
    pieces = [b""] * len(prompts)
    while True:
        try:
            # Further each time, so that the longest step is made in the end.
            with stopped_at(source.randrange(1, (300 if draft == "off" else 2000) + 80 * num_stops)):
                new = next(generation, None)
        except Stop:
            num_stops += 1
            continue
        if new is None:
            break
        pieces[new.row] += new.data
    assert generation.completions() == expected
    assert num_stops > 10
    # Only what was on its way to the caller when the exception came may be missing.
    assert all(len(piece) <= len(one.data) for piece, one in zip(pieces, expected, strict=True))


def test_a_stream_that_is_interrupted_anywhere_goes_on_with_the_same_text(model):
    options = {"max_new_bytes": 30, "temperature": 1.0, "seed": 5}
    expected = "".join(patchpad.stream(model, "It was", **options))
    source, num_stops = random.Random(1), 0
    stream, text = patchpad.stream(model, "It was", **options), ""
    while True:
        try:
            with stopped_at(source.randrange(1, 300 + 40 * num_stops)):
                piece = next(stream, None)
        except Stop:
            num_stops += 1
            continue
        if piece is None:
            break
        text += piece
    assert stream.completion.text == expected
    assert num_stops > 5
    assert len(text) >= len(expected) - 2


def test_a_stop_inside_every_step_loses_no_piece_of_the_text(model):
    expected = patchpad.generate(model, "It was", max_new_bytes=30, temperature=0)
    stream, text = patchpad.stream(model, "It was", max_new_bytes=30, temperature=0), ""
    piece: str | None = ""
    while piece is not None:
        text += piece
        try:
            with stopped_at(0, and_after="predict"):
                piece = next(stream, None)
        except Stop:
            piece = next(stream, None)
    assert text == expected


def test_a_step_that_is_broken_off_leaves_the_state_to_any_other_step(model):
    source = random.Random(7)
    _, state = patchpad.prefill(model, [b"It was the", b"", b"abc"])
    _, other = patchpad.prefill(model, [b"It was the", b"", b"abc"])
    for number in range(24):
        for _ in range(2):
            wrong = [source.choice([*b"abc .", SEPARATOR]) for _ in range(3)]
            with pytest.raises(Stop), stopped_at(source.randrange(1, 2500), and_after="step_all"):
                patchpad.step(model, wrong, state)
        ids = [source.choice(b"ab .") for _ in range(3)]
        if number % 9 == 5:
            ids[source.randrange(3)] = SEPARATOR
        logits, state = patchpad.step(model, ids, state)
        expected, other = patchpad.step(model, ids, other)
        assert torch.equal(logits, expected), number
    assert state.trunk_calls.tolist() == other.trunk_calls.tolist()


def test_out_of_memory_in_a_trunk_that_grows_is_made_good(monkeypatch):
    model = sharp_model(tiny_model_config("fixed", "never", patch_size=1, max_patch_size=1), seed=3)
    expected = patchpad.complete(model, ["x" * 60], max_new_bytes=20, temperature=1.0)
    stream = patchpad.stream(model, "x" * 60, max_new_bytes=20, temperature=1.0)
    forward, failures = model.trunk.forward, 0

    def fails_once(*inputs):
        nonlocal failures
        result = forward(*inputs)
        if len(stream.completion.data) == 3 and failures == 0:
            failures += 1
            raise torch.OutOfMemoryError("no memory")
        return result

    monkeypatch.setattr(model.trunk, "forward", fails_once)
    with pytest.raises(torch.OutOfMemoryError):
        list(stream)
    list(stream)
    assert (stream.completion, failures) == (expected[0], 1)
