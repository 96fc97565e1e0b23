"""What CUDA graphs need: kernels for all rows of buffers that are kept give what plain kernels give.

On a CPU the same kernels run uncaptured, in fp32. Those marked `gpu` capture them.
"""

import gc
import logging
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchpad.config import TriggerConfig
from patchpad.inference import cuda_graphs, whole_batch
from patchpad.inference.buffers import MOST_BUFFERS, rounded_capacity, rounded_rows
from patchpad.inference.cuda_graphs import CapturedSteps, captured_kernels
from patchpad.inference.engine import Engine, Request
from patchpad.inference.half_precision import HalfPrecisionCopy
from patchpad.inference.kernels import Kernels
from patchpad.inference.patch_stepper import PatchStepper
from patchpad.inference.sampling import Sampling
from patchpad.patching.triggers import build_trigger
from patchpad.testing import (
    ALL_OPTIONS,
    assert_steps_equal_pass,
    batch_of,
    ragged_packed_rows,
    random_documents,
    sharp_model,
    thresholds_to_try,
    tiny_model_config,
)

MODELS = [
    pytest.param("entropy", "entropy", ALL_OPTIONS, id="entropy-all options"),
    pytest.param("hnet", "random", {}),
    pytest.param("fixed", "always", {}),
]


def on_buffers(model) -> CapturedSteps:
    """Returns the steps of a model on a CPU: uncaptured, uncompiled and with the weights as they are."""
    steps = CapturedSteps(model)
    steps.half.model, steps.captures = model, False
    steps.run_one = {
        "read": whole_batch.read_all,
        "refresh": whole_batch.refresh_all,
        "predict": whole_batch.predict_all,
    }
    return steps


def stepper_on(model, steps: CapturedSteps) -> PatchStepper:
    return PatchStepper(model, Kernels(read=steps.read, refresh=steps.refresh, predict=steps.predict))


def submitted(
    model, *, steps: CapturedSteps | None = None, rows: int = 5, prompt: int = 0, new_bytes: int = 15, seed: int = 0
):
    """Returns an engine with rows of different lengths, and the rows."""
    engine = Engine(model, batch_rows=3)
    if steps is not None:
        engine.stepper = stepper_on(model, steps)
    requests = [
        Request(
            prompt=prompt,
            max_new_bytes=new_bytes + 7 * number,
            threshold=float(model.scratchpad_threshold_nats),
            sampling=Sampling(temperature=number % 2),
            seed=seed + number,
        )
        for number, prompt in enumerate(random_documents(seed, [prompt + 9 * row for row in range(rows)]))
    ]
    return engine, engine.submit(requests)


def reports_of(engine: Engine) -> list[tuple]:
    """Returns what all rows report, row by row."""
    found: dict[int, list] = {}
    while not engine.is_done:
        for new in engine.advance():
            found.setdefault(new.row, []).extend(new.reports)
    return [report for _, reports in sorted(found.items()) for report in reports]


def finished(engine: Engine, rows) -> list[tuple[bytes, int, int]]:
    while not engine.is_done:
        engine.advance()
    return [(row.data, row.trunk_calls, row.trunk_cache_entries) for row in rows]


@pytest.fixture(scope="module")
def model():
    model = sharp_model(tiny_model_config("fixed", "entropy", patch_size=2, max_patch_size=2), seed=3)
    with torch.no_grad():
        model.local_decoder.lm_head.weight[256] = 0  # documents hardly end
    return model


@pytest.mark.unchecked
@settings(max_examples=3)
@given(seed=st.integers(0, 99), lengths=st.lists(st.integers(0, 30), min_size=2, max_size=4))
@pytest.mark.parametrize(("patchifier", "trigger", "options"), MODELS)
def test_kernels_for_all_rows_equal_the_full_pass(patchifier, trigger, options, seed, lengths):
    model = sharp_model(tiny_model_config(patchifier, trigger, **options))
    rows, first = ragged_packed_rows(seed, lengths)
    stepper = stepper_on(model, on_buffers(model))
    for threshold in thresholds_to_try(model, batch_of(rows)):
        assert_steps_equal_pass(model, rows, [length // 2 for length in first], threshold, stepper)


@pytest.mark.unchecked
@pytest.mark.parametrize(("patchifier", "trigger", "options"), MODELS)
def test_rows_that_join_and_leave_on_buffers_give_what_they_give_otherwise(patchifier, trigger, options):
    model = sharp_model(tiny_model_config(patchifier, trigger, **options), seed=3)
    assert finished(*submitted(model, steps=on_buffers(model))) == finished(*submitted(model))


def test_generations_at_once_do_not_disturb_each_other_and_a_cache_may_outgrow_its_buffers(model):
    steps = on_buffers(model)
    pairs = [
        submitted(model, steps=steps, rows=2, prompt=110, new_bytes=12, seed=seed) for seed in (1, 2)
    ]  # past 64 patches
    while not all(engine.is_done for engine, _ in pairs):
        for engine, _ in pairs:
            engine.advance()
    for (engine, rows), seed in zip(pairs, (1, 2), strict=True):
        assert finished(engine, rows) == finished(*submitted(model, rows=2, prompt=110, new_bytes=12, seed=seed))
    assert {buffers.capacity for buffers in steps.pool.sets} == {64, 128}


def test_buffers_serve_the_next_generation_and_are_few(model):
    steps = on_buffers(model)
    for seed in range(3):
        finished(*submitted(model, steps=steps, rows=1, new_bytes=5, seed=seed))
    assert [(buffers.rows, buffers.capacity) for buffers in steps.pool.sets] == [(1, 64)]
    assert all(buffers.is_free for buffers in steps.pool.sets)
    engine, rows = submitted(model, steps=steps, rows=1)
    engine.advance()
    assert not steps.pool.sets[-1].is_free
    copies = [engine.batch.state.clone() for _ in range(MOST_BUFFERS + 2)]
    assert all(copy.lease is None for copy in copies)
    for copy in copies:
        steps.pool.buffers_of(copy)
    assert len({id(copy.lease.buffers) for copy in copies}) == len(copies)
    del copies, copy
    finished(engine, rows)
    for _ in range(2):
        finished(*submitted(model, steps=steps, rows=1, new_bytes=5))
    assert len(steps.pool.sets) <= MOST_BUFFERS
    assert all(buffers.is_free for buffers in steps.pool.sets)


def test_what_a_mask_hides_in_buffers_is_finite(model):
    steps = on_buffers(model)
    engine, rows = submitted(model, steps=steps, rows=1)
    engine.advance()
    with torch.inference_mode():
        for tensor in steps.pool.sets[-1].state.cache_tensors():
            tensor.fill_(torch.nan)
    engine.cancel(rows[0])
    assert finished(*submitted(model, steps=steps, rows=1)) == finished(*submitted(model, rows=1))
    assert len(steps.pool.sets) == 1


@pytest.mark.unchecked
def test_a_step_that_is_broken_off_is_made_again_from_its_values(model, monkeypatch):
    engine, rows = submitted(model, steps=on_buffers(model))
    refresh, num_failures = engine.stepper.refresh, 0

    def breaks_off(state, places):
        nonlocal num_failures
        refresh(state, places)
        if num_failures < 5:
            num_failures += 1
            raise KeyboardInterrupt

    monkeypatch.setattr(engine.stepper, "refresh", breaks_off)
    while num_failures < 5:
        try:
            engine.advance()
        except KeyboardInterrupt:
            continue
    assert finished(engine, rows) == finished(*submitted(model))


def test_sizes_of_buffers_are_few():
    assert [rounded_rows(rows) for rows in (1, 2, 3, 4, 5, 8, 9)] == [1, 2, 4, 4, 8, 8, 16]
    capacities = sorted({rounded_capacity(64 * blocks) for blocks in range(1, 17)})
    assert capacities == [64, 128, 192, 256, 384, 512, 768, 1024]
    assert all(rounded_capacity(places) >= places for places in range(64, 2000, 64))


def test_half_precision_copy_shares_all_but_the_linear_layers_and_follows_them():
    model = sharp_model(tiny_model_config("hnet", "entropy"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    half = HalfPrecisionCopy(model)
    fast = half.model
    assert fast.trunk.stack.blocks[0].ffn_down.weight.dtype == torch.bfloat16
    assert fast.trunk.norm.weight is model.trunk.norm.weight
    assert fast.scratchpad_threshold_nats is model.scratchpad_threshold_nats
    assert fast.local_decoder.lm_head.weight is model.local_decoder.lm_head.weight
    assert fast.routing.query.weight is model.routing.query.weight
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    assert half.shares_tensors_with(model)
    half.refresh(model)
    weight = model.trunk.stack.blocks[0].ffn_down.weight
    assert torch.equal(fast.trunk.stack.blocks[0].ffn_down.weight, weight.to(torch.bfloat16))
    model.trunk.norm.weight.data = model.trunk.norm.weight.data.clone()
    assert not half.shares_tensors_with(model)


def test_what_is_kept_for_a_model_goes_with_it():
    model = sharp_model(tiny_model_config("fixed", "entropy"))
    steps = on_buffers(model)
    steps.half.model = HalfPrecisionCopy(model).model
    kept = captured_kernels(model).read.__self__
    assert captured_kernels(model).read.__self__ is kept
    gone, kept_gone = weakref.ref(model), weakref.ref(kept)
    del model, steps, kept
    gc.collect()
    assert gone() is None
    assert kept_gone() is None


@pytest.mark.unchecked
def test_a_graph_that_cannot_be_captured_is_an_error_in_tests_and_one_warning_otherwise(model, monkeypatch, caplog):
    def fails(*_):
        raise RuntimeError("no graphs here\nmore")

    monkeypatch.setattr(torch.cuda, "Stream", fails)
    steps = on_buffers(model)
    steps.captures = True
    with pytest.raises(RuntimeError, match="no graphs here"):
        finished(*submitted(model, steps=steps))
    monkeypatch.setattr(cuda_graphs, "FAILURES_ARE_ERRORS", False)
    with caplog.at_level(logging.WARNING):
        assert finished(*submitted(model, steps=steps)) == finished(*submitted(model))
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "cannot capture a CUDA graph (no graphs here)" in warning
    assert "bf16" in warning


def captured(model) -> CapturedSteps:
    return captured_kernels(model).read.__self__


def generated(model, *, compile: bool) -> list[bytes]:
    engine = Engine(model, batch_rows=3, compile=compile)
    prompts = random_documents(1, [0, 9, 30, 4])
    rows = engine.submit(
        [
            Request(
                prompt=prompt,
                max_new_bytes=12 + 3 * number,
                threshold=float(model.scratchpad_threshold_nats),
                sampling=Sampling(),
                seed=0,
            )
            for number, prompt in enumerate(prompts)
        ]
    )
    return [data for data, _, _ in finished(engine, rows)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(
    ("patchifier", "trigger", "options"), [*MODELS, pytest.param("spacebyte", "entropy_jump", ALL_OPTIONS)]
)
def test_captured_graphs_give_what_plain_kernels_give_on_cuda(patchifier, trigger, options):
    model = sharp_model(tiny_model_config(patchifier, trigger, **options)).cuda()
    plain = generated(model, compile=False)
    assert generated(model, compile=True) == plain
    kept = captured(model)
    assert kept.captures
    # A set of buffers whose rows all left before they read a byte has a graph of `predict` alone.
    assert all("predict" in buffers.graphs for buffers in kept.pool.sets)
    assert any(set(buffers.graphs) == {"read", "refresh", "predict"} for buffers in kept.pool.sets)
    graphs = {id(graph) for buffers in kept.pool.sets for graph, _ in buffers.graphs.values()}
    assert generated(model, compile=True) == plain
    assert captured(model) is kept
    assert graphs >= {id(graph) for buffers in kept.pool.sets for graph, _ in buffers.graphs.values()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_captured_graphs_follow_new_weights_and_another_trigger_on_cuda():
    model = sharp_model(tiny_model_config("fixed", "random")).cuda()
    assert generated(model, compile=True) == generated(model, compile=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    assert generated(model, compile=True) == generated(model, compile=False)
    model.trigger = build_trigger(TriggerConfig(kind="random", seed=9))
    assert generated(model, compile=True) == generated(model, compile=False)


@pytest.mark.parametrize(("patchifier", "trigger", "options"), MODELS)
def test_rows_on_buffers_report_what_they_report_with_plain_steps(patchifier, trigger, options):
    model = sharp_model(tiny_model_config(patchifier, trigger, **options), seed=3)
    values = {"max_new_bytes": 12, "threshold": float(model.scratchpad_threshold_nats), "sampling": Sampling()}
    requests = [
        Request(prompt=prompt, seed=0, num_logprobs=number, details=number != 1, **values)
        for number, prompt in enumerate(random_documents(2, [0, 17, 40, 5]))
    ]
    found = []
    for stepper in (None, stepper_on(model, on_buffers(model))):
        engine = Engine(model, batch_rows=3)
        engine.stepper = stepper or engine.stepper
        engine.submit(requests)
        found.append(reports_of(engine))
    assert len(found[0]) == len(found[1]) > 12
    for plain, own in zip(*found, strict=True):
        assert own._replace(logprob=None, top=(), entropy_nats=None) == plain._replace(
            logprob=None, top=(), entropy_nats=None
        )
        assert own.logprob == pytest.approx(plain.logprob, abs=1e-4)
        assert own.entropy_nats == pytest.approx(plain.entropy_nats, abs=1e-4)
        assert [one for one, _ in own.top] == [one for one, _ in plain.top]
