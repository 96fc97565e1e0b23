"""Models that torch has wrapped, copied or pickled work as the models they were."""

import copy
import io
import multiprocessing
import pickle

import pytest
import torch

import patchpad
from patchpad.errors import InputError
from patchpad.model.block import compile_blocks
from patchpad.model.wrapped import unwrapped
from patchpad.testing import BASELINE_KINDS, sharp_baseline, sharp_model, tiny_model_config

WRAPPERS = {
    "torch.compile": lambda model: torch.compile(model, backend="eager"),
    "DataParallel": torch.nn.DataParallel,
    "AveragedModel": torch.optim.swa_utils.AveragedModel,
    "two": lambda model: torch.nn.DataParallel(torch.compile(model, backend="eager")),
}


def saved_and_loaded(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "deepcopy": copy.deepcopy,
    "torch.save": saved_and_loaded,
}


@pytest.fixture(scope="module")
def model():
    return sharp_model(tiny_model_config("entropy", "entropy"), seed=3)


def text_of(model) -> str:
    return patchpad.generate(model, "It was", max_new_bytes=8, temperature=0)


@pytest.mark.unchecked  # annotations name the model inside
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_every_public_function_takes_a_wrapped_model(model, wrap, tmp_path):
    (tmp_path / "text").write_bytes(b"It was the best of times. " * 9)
    wrapped = wrap(model)
    given = unwrapped(wrapped)
    assert text_of(wrapped) == text_of(given)
    assert "".join(patchpad.stream(wrapped, "x", max_new_bytes=5)) == patchpad.generate(given, "x", max_new_bytes=5)
    assert patchpad.complete(wrapped, ["x"], max_new_bytes=3) == patchpad.complete(given, ["x"], max_new_bytes=3)
    logits, state = patchpad.prefill(wrapped, [b"ab"])
    expected, other = patchpad.prefill(given, [b"ab"])
    assert torch.equal(logits, expected)
    assert torch.equal(patchpad.step(wrapped, [1], state)[0], patchpad.step(given, [1], other)[0])
    assert (patchpad.score(wrapped, b"abc") == patchpad.score(given, b"abc")).all()
    assert patchpad.inspect(wrapped, "abc").point == patchpad.inspect(given, "abc").point
    assert patchpad.evaluate(wrapped, tmp_path) == patchpad.evaluate(given, tmp_path)
    assert patchpad.calibrate(wrapped, tmp_path) == patchpad.calibrate(given, tmp_path)


@pytest.mark.unchecked
@pytest.mark.parametrize("wrong", [None, "runs/x", torch.nn.Linear(2, 2), torch.nn.DataParallel(torch.nn.Linear(2, 2))])
def test_what_is_not_a_model_is_refused_by_name(wrong):
    for function in (patchpad.generate, patchpad.stream, patchpad.score, patchpad.inspect):
        with pytest.raises(InputError, match=f"model is of type {type(wrong).__name__}; allowed: a patchpad model"):
            function(wrong, "abc")
    with pytest.raises(InputError, match="model is of type"):
        patchpad.prefill(wrong, ["abc"])


def test_hints_say_where_the_model_is(model):
    class Run:
        pass

    run = Run()
    run.model = model
    with pytest.raises(InputError) as caught:
        unwrapped(run)
    assert caught.value.hint == "Give the `model` of this Run."
    with pytest.raises(InputError, match="model is a class"):
        unwrapped(patchpad.ByteLM)


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copied_model_decides_and_generates_as_before_and_keeps_thresholds_of_its_own(model, copied):
    model.store_threshold(1.25)
    twin = copied(model)
    assert text_of(twin) == text_of(model)
    assert float(twin.scratchpad_threshold_nats) == 1.25
    twin.load_state_dict({**model.state_dict(), "scratchpad_threshold_nats": torch.tensor(2.5)})
    assert float(twin.scratchpad_threshold_nats) == 2.5
    assert float(model.scratchpad_threshold_nats) == 1.25


@pytest.mark.parametrize("kind", BASELINE_KINDS)
def test_a_pickled_baseline_generates_as_before(kind):
    model = sharp_baseline(kind)
    assert text_of(pickle.loads(pickle.dumps(model))) == text_of(model)


def test_what_was_compiled_stays_behind_when_a_model_is_pickled():
    model = sharp_model(tiny_model_config())
    compile_blocks(model)
    twin = pickle.loads(pickle.dumps(model))
    assert "Compiled" in repr(model.trunk.stack.blocks[0].parts)
    assert "Compiled" not in repr(twin.trunk.stack.blocks[0].parts)


@pytest.mark.slow
def test_a_model_goes_to_a_spawned_worker(model):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(text_of, (model,)) == text_of(model)
