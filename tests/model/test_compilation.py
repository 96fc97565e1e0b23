"""Compiled blocks give the losses and gradients of plain ones, and training goes on where nothing can be compiled."""

import logging
import os

import pytest
import torch
from torch._inductor.exc import InvalidCxxCompiler

from patchpad.model.block import Block, compile_blocks
from patchpad.model.compilation import choose_cache, first_words
from patchpad.testing import batch_of, ragged_packed_rows, sharp_model, thresholds_to_try, tiny_model_config, tolerance


def warnings_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def logits_and_gradients(model, ids, threshold):
    model.zero_grad()
    output = model(ids, threshold)
    (output.logits.float().log_softmax(-1)[..., 7].sum() + output.entropy_logits.float().square().mean()).backward()
    return output.logits.detach(), {name: part.grad.clone() for name, part in model.named_parameters()}


@pytest.mark.slow  # the default run has the traced steps and FlexAttention's traced gradients
@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own, while it traces
def test_compiled_blocks_give_the_logits_and_gradients_of_plain_ones_for_any_number_of_slots(caplog):
    config = tiny_model_config("spacebyte", "entropy", trunk_heads=6, trunk_kv_heads=2)
    plain, compiled = sharp_model(config, seed=2), sharp_model(config, seed=2)
    compile_blocks(compiled.trunk)  # whose number of slots changes with every batch
    for seed in range(3):
        ids = batch_of(ragged_packed_rows(seed, [30 * seed, 9])[0])
        threshold = thresholds_to_try(plain, ids)[0]
        expected, found = (logits_and_gradients(model, ids, threshold) for model in (plain, compiled))
        assert float((found[0] - expected[0]).abs().max()) <= tolerance(expected[0])
        for name, gradient in expected[1].items():
            assert float((found[1][name] - gradient).abs().max()) <= 10 * tolerance(gradient), name
    assert warnings_of(caplog) == []


def test_where_blocks_cannot_be_compiled_a_warning_says_so_and_plain_ones_go_on(monkeypatch, caplog):
    def fails(*arguments, **options):
        def call(*_):
            raise InvalidCxxCompiler("no compiler")

        return call

    config = tiny_model_config("fixed", "entropy")
    ids = batch_of(ragged_packed_rows(1, [40])[0])
    expected = sharp_model(config)(ids).logits
    monkeypatch.setattr(torch, "compile", fails)
    model = sharp_model(config)
    compile_blocks(model)
    assert torch.equal(model(ids).logits, expected)
    stacks = 4  # encoder, entropy head, trunk, decoder
    assert len(warnings_of(caplog)) == 2 * stacks
    assert all("training continues without" in line for line in warnings_of(caplog))
    assert Block.project.__name__ in caplog.text


def test_the_first_words_of_an_error_say_what_is_wrong():
    assert first_words(ValueError("backend='inductor' raised:\nCppCompileError: x\n\nmore")) == (
        "backend='inductor' raised: CppCompileError: x"
    )
    assert first_words(ValueError("too small\nmore")) == "too small"
    assert first_words(KeyError()) == "KeyError"


@pytest.mark.parametrize("folder", ["file/below", "sealed"])
def test_a_compile_cache_that_cannot_be_used_is_left_with_a_warning(folder, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    (tmp_path / "sealed").mkdir()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / folder))
    monkeypatch.setattr("os.access", lambda path, mode: False)  # whoever runs the tests may be allowed all
    choose_cache()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    (line,) = warnings_of(caplog)
    assert line.startswith(f"TORCHINDUCTOR_CACHE_DIR is {tmp_path / folder}, which cannot be used (")


def test_a_compile_cache_that_can_be_used_stays(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "new" / "cache"))
    choose_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "new" / "cache")
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(("xdg", "folder"), [("caches", "caches"), ("", "home/.cache"), ("relative", "home/.cache")])
def test_compiled_code_is_kept_among_the_users_caches(xdg, folder, tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / xdg) if xdg == "caches" else xdg)
    choose_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / folder / "patchpad" / "inductor")
    assert (tmp_path / folder / "patchpad" / "inductor").is_dir()
    assert warnings_of(caplog) == []


def test_without_a_place_for_the_users_caches_torch_keeps_its_default(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    choose_cache()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    assert warnings_of(caplog) == []
