"""Compiled steps give what plain ones give."""

import logging
import math

import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor.exc import InvalidCxxCompiler

from patchpad.config import TriggerConfig
from patchpad.inference import compiled
from patchpad.inference.compiled import compiled_kernels
from patchpad.inference.engine import Engine, Request
from patchpad.inference.patch_stepper import PatchStepper
from patchpad.inference.sampling import Sampling
from patchpad.inference.steppers import stepper_for
from patchpad.model.block import Block, compile_blocks
from patchpad.patching.triggers import build_trigger, initial_threshold
from patchpad.registry import PATCHIFIERS
from patchpad.testing import (
    ALL_OPTIONS,
    as_row,
    assert_steps_equal_pass,
    batch_of,
    ragged_packed_rows,
    random_documents,
    settle_patches,
    sharp_model,
    thresholds_to_try,
    tiny_model_config,
)

TRACED = [
    pytest.param("spacebyte", "entropy_jump", ALL_OPTIONS, id="spacebyte-all options"),
    pytest.param("hnet", "random", {}, id="hnet", marks=pytest.mark.slow),
    *(
        pytest.param(patchifier, trigger, options, marks=pytest.mark.slow)
        for patchifier in PATCHIFIERS
        if patchifier != "tokens"  # which the host finds: see `test_tokens_are_stepped_without_compiled_kernels`
        for trigger in ("entropy", "never", "always", "random", "stride", "whitespace")
        for options in ({}, ALL_OPTIONS)
    ),
]
COMPILED = [
    pytest.param("fixed", "entropy", {}),
    pytest.param("spacebyte", "entropy_jump", ALL_OPTIONS, id="spacebyte-all options"),
    pytest.param("hnet", "stride", {}),
    pytest.param("entropy", "random", {}),
]


def generated(
    model, *, compile: bool, rows: int = 5, new_bytes: int = 40, draft: int | str = "off"
) -> list[tuple[bytes, int, int]]:
    engine = Engine(model, compile=compile, draft=draft)
    submitted = engine.submit(
        [
            Request(
                prompt=prompt,
                max_new_bytes=new_bytes,
                threshold=float(model.scratchpad_threshold_nats),
                sampling=Sampling(),
                seed=0,
            )
            for prompt in random_documents(1, [7 * row for row in range(rows)])
        ]
    )
    while not engine.is_done:
        engine.advance()
    return [(bytes(row.data), row.trunk_calls, row.trunk_cache_entries) for row in submitted]


def nothing_fell_back(caplog) -> bool:
    return not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.compile
@pytest.mark.parametrize(("patchifier", "trigger", "options"), TRACED)
def test_traced_steps_equal_the_full_pass(patchifier, trigger, options, caplog):
    model = sharp_model(tiny_model_config(patchifier, trigger, **options))
    stepper = PatchStepper(model, compiled_kernels("aot_eager"))
    rows, first = ragged_packed_rows(3, [40, 0])
    threshold = thresholds_to_try(model, batch_of(rows))[0]
    assert_steps_equal_pass(model, rows, [length // 2 for length in first], threshold, stepper)
    assert nothing_fell_back(caplog)


@pytest.mark.compile
def test_each_phase_is_compiled_twice_at_most_whatever_the_number_of_rows(monkeypatch, caplog):
    model = sharp_model(tiny_model_config("fixed", "entropy", patch_size=1, max_patch_size=1))
    monkeypatch.setitem(compiled._COMPILED, model, compiled_kernels("eager"))
    counters.clear()
    with caplog.at_level(logging.INFO):
        for rows in (1, 2, 3, 5, 8, 1, 7):
            new_bytes = 70 if rows in (1, 5) else 12  # past 64 patches, so that caches grow
            for draft in ("off", 6):
                fast = generated(model, compile=True, rows=rows, new_bytes=new_bytes, draft=draft)
                assert fast == generated(model, compile=False, rows=rows, new_bytes=new_bytes)
    assert counters["stats"]["unique_graphs"] == 2 * 3
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "compiling the 3 phases of a step of one row",
        "steps of one row are compiled",
        "compiling the 3 phases of a step of several rows",
        "steps of several rows are compiled",
    ]


@pytest.mark.slow
@pytest.mark.compile
def test_traced_steps_follow_changes_of_trigger_and_weights_and_belong_to_one_model(caplog):
    config = tiny_model_config("fixed", "random")
    rows, first = ragged_packed_rows(8, [50])
    others = [{"byte_heads": 4, "trunk_layers": 3, "window_bytes": 9}]
    kernels = {}
    for other in [{}, *others]:
        model = sharp_model(tiny_model_config("fixed", "random", **other), seed=1)
        kernels[model] = compiled_kernels("aot_eager")
        assert_steps_equal_pass(model, rows, first, None, PatchStepper(model, kernels[model]))
    model, own = next(iter(kernels.items()))
    trigger = TriggerConfig(kind="random", scratchpads_per_byte=0.7, seed=9)
    model.trigger = build_trigger(trigger)
    model.store_threshold(initial_threshold(trigger, config.patchifier))
    assert_steps_equal_pass(model, rows, [0, 3], None, PatchStepper(model, own))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    assert_steps_equal_pass(model, rows, [0, 3], None, PatchStepper(model, own))
    assert nothing_fell_back(caplog)


@pytest.mark.slow
@pytest.mark.compile
def test_traced_steps_follow_a_patch_threshold_and_take_in_blocks_compiled_for_training(caplog):
    model = sharp_model(tiny_model_config("entropy", "entropy"))
    compile_blocks(model)
    for module in model.modules():
        if isinstance(module, Block):
            for part in (module.parts.project, module.parts.finish):
                part.compiled = torch.compile(part.plain, backend="eager")  # quick, and compiled all the same
    rows, _ = ragged_packed_rows(8, [50])
    stepper = PatchStepper(model, compiled_kernels("aot_eager"))
    for share in (0.1, 0.5):
        settle_patches(model, batch_of(rows), share_ending=share)
        assert_steps_equal_pass(model, rows, [0, 3], math.inf, stepper)
    assert nothing_fell_back(caplog)


@pytest.mark.slow
@pytest.mark.compile
def test_compiled_steps_equal_the_full_pass(caplog):
    model = sharp_model(tiny_model_config("fixed", "entropy", patch_size=2, max_patch_size=2))
    row = as_row(*random_documents(4, [140]))  # past 64 patches, so that the cache grows
    threshold = thresholds_to_try(model, torch.tensor([row]))[0]
    assert_steps_equal_pass(model, [row], [3], threshold, stepper_for(model, compile=True))
    assert nothing_fell_back(caplog)


@pytest.mark.slow
@pytest.mark.compile
@pytest.mark.parametrize(("patchifier", "trigger", "options"), COMPILED)
def test_compiled_rows_give_what_they_give_uncompiled(patchifier, trigger, options, caplog):
    model = sharp_model(tiny_model_config(patchifier, trigger, **options))
    rows, first = ragged_packed_rows(3, [40, 0])
    stepper = stepper_for(model, compile=True)
    for threshold in thresholds_to_try(model, batch_of(rows)):
        assert_steps_equal_pass(model, rows, [length // 2 for length in first], threshold, stepper)
    assert generated(model, compile=True) == generated(model, compile=False)
    assert generated(model, compile=True, draft=6) == generated(model, compile=False)
    assert nothing_fell_back(caplog)


@pytest.mark.parametrize(
    "error", [InvalidCxxCompiler, pytest.param(PermissionError, marks=pytest.mark.unchecked)]
)  # the second: of a file of the cache
def test_where_nothing_can_be_compiled_one_warning_says_so_and_generation_goes_on(error, monkeypatch, caplog):
    def fails(*arguments, **options):
        def call(*_):
            raise error("no compiler\nmore")

        return call

    monkeypatch.setattr(torch, "compile", fails)
    model = sharp_model(tiny_model_config("fixed", "entropy"))
    with caplog.at_level(logging.INFO):
        fast = generated(model, compile=True)
    assert fast == generated(model, compile=False)
    assert "are compiled" not in caplog.text
    assert [record.getMessage().split(" (")[0] for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"cannot compile {name}" for name in ("read", "refresh", "predict")
    ]
    assert "no compiler); generation" in caplog.text


def test_a_baseline_has_no_compiled_kernels_and_says_so(caplog):
    from patchpad.testing import sharp_baseline

    stepper_for(sharp_baseline("byte"), compile=True)
    assert "only patch models have compiled kernels; `byte` runs without" in caplog.text


def test_tokens_are_stepped_without_compiled_kernels(caplog):
    model = sharp_model(tiny_model_config("tokens", "entropy"))
    model.store_threshold(thresholds_to_try(model, torch.tensor([as_row(*random_documents(1, [40]))]))[0])
    assert generated(model, compile=True, new_bytes=5) == generated(model, compile=False, new_bytes=5)
    assert [record.message for record in caplog.records] == [
        "`tokens` patches are found on the host; steps run without compiled kernels"
    ]
