"""Saving in the background, which steps stay, and averaged weights."""

import errno
import os
import threading
from pathlib import Path

import pytest
import safetensors.torch
import torch

from patchpad.errors import CheckpointError, ConfigError
from patchpad.training import saver, trainer
from patchpad.training.averaging import AveragedWeights
from patchpad.training.checkpoint import list_steps, load, open_checkpoint
from patchpad.training.saver import StepSaver
from patchpad.training.step_folders import StepContent

CPU = torch.device("cpu")


def content(step: int, tensor: torch.Tensor) -> StepContent:
    return StepContent(step=step, tensors={"weights": {"a": tensor}}, files={"config.json": "{}"})


def saved(run, step: int) -> torch.Tensor:
    (file,) = (run / "checkpoints" / f"step-{step}" / "weights").iterdir()
    return safetensors.torch.load_file(file)["a"]


@pytest.fixture
def held(monkeypatch):
    """Holds every save until it is set."""
    may_go, original = threading.Event(), saver.save_step

    def wait(*given, **named):
        assert may_go.wait(60)
        return original(*given, **named)

    monkeypatch.setattr(saver, "save_step", wait)
    yield may_go
    may_go.set()


def test_what_changes_after_a_save_began_is_not_in_it_and_the_next_save_waits(tmp_path, tools, held):
    tensor = torch.arange(4.0)
    with StepSaver(tmp_path, tools.config().train, CPU) as saving:
        saving.save(content(1, tensor))
        tensor += 10
        assert not list_steps(tmp_path)
        second = threading.Thread(target=saving.save, args=(content(2, tensor),))
        second.start()
        second.join(0.1)
        assert second.is_alive()
        held.set()
        second.join(60)
        saving.wait()
    assert torch.equal(saved(tmp_path, 1), torch.arange(4.0))
    assert torch.equal(saved(tmp_path, 2), torch.arange(4.0) + 10)


def test_without_a_background_a_step_is_on_the_disk_when_save_returns(tmp_path, tools):
    with StepSaver(tmp_path, tools.config(checkpoint_async=False).train, CPU) as saving:
        saving.save(content(1, torch.ones(2)))
        assert [step.name for step in list_steps(tmp_path)] == ["step-1"]


def test_leaving_waits_for_the_save_under_way_and_says_what_it_failed_with(tmp_path, tools, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    def leave_while_saving(run, error=None):
        with StepSaver(run, tools.config().train, CPU) as saving:
            saving.save(content(1, torch.ones(2)))
            if error is not None:
                raise error

    leave_while_saving(tmp_path / "well")
    assert len(list_steps(tmp_path / "well")) == 1
    monkeypatch.setattr(safetensors.torch, "save", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        leave_while_saving(tmp_path / "full")
    with pytest.raises(KeyError, match="first"):
        leave_while_saving(tmp_path / "full", KeyError("first"))
    assert "No space left on device" in caplog.text
    assert list((tmp_path / "full" / "checkpoints").iterdir()) == []


def test_memory_for_copies_is_used_again(tmp_path, tools):
    tensors = {"weights": {"a": torch.ones(1000), "step": torch.tensor(3.0)}}
    copies = saver._HostCopies(CPU)
    first = copies.take(tensors)
    tensors["weights"]["a"] += 1
    second = copies.take(tensors)
    assert second["weights"]["a"].data_ptr() == first["weights"]["a"].data_ptr()
    assert second["weights"]["a"].data_ptr() != tensors["weights"]["a"].data_ptr()
    assert torch.equal(second["weights"]["a"], torch.full((1000,), 2.0))
    assert second["weights"]["step"].shape == ()


def test_multiples_of_keep_every_stay_beside_the_newest(tmp_path, text, tools):
    config = tools.config(steps=11, checkpoint_every=2, keep_checkpoints=1, keep_every=4)
    trainer.train(config, data=text, out=tmp_path / "run", progress=tools.Hook())
    assert [step.name for step in list_steps(tmp_path / "run")] == ["step-4", "step-8", "step-11"]


@pytest.mark.parametrize(("every", "kept"), [(0, 4), (3, 4), (8, 4)])
def test_steps_that_are_kept_must_be_saved(tools, every, kept):
    message = f"keep_every is {kept} and train.checkpoint_every is {every}; allowed: 0, or a multiple"
    with pytest.raises(ConfigError, match=message):
        tools.config(checkpoint_every=every, keep_every=kept)


def test_average_follows_its_formula():
    model = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    average, expected = AveragedWeights(model, 0.5), 1.0
    for step in range(12):
        with torch.no_grad():
            model.weight.fill_(step)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(average.tensors["weight"], torch.full((1, 2), expected))


@pytest.mark.unchecked
def test_averaged_weights_are_saved_beside_the_weights_and_go_on_to_the_same_bits(tmp_path, text, tools):
    config = tools.config(averaged_decay=0.9, steps=6, checkpoint_every=3)

    def die():
        raise RuntimeError("killed")

    trainer.train(config, data=text, out=tmp_path / "straight", progress=tools.Hook())
    tools.train_until_error(config, tools.Hook(5, die), RuntimeError, data=text, out=tmp_path / "killed")
    trainer.resume(tmp_path / "killed", progress=tools.Hook())
    averages = []
    for run in (tmp_path / "straight", tmp_path / "killed"):
        model = open_checkpoint(list_steps(run)[-1]).model(averaged=True)
        averages.append(dict(model.named_parameters()))
        plain = dict(load(run).named_parameters())
        assert not any(torch.equal(plain[name], value) for name, value in averages[-1].items() if value.dim() > 1)
        assert torch.equal(model.scratchpad_threshold_nats, load(run).scratchpad_threshold_nats)
    assert all(torch.equal(averages[0][name], averages[1][name]) for name in averages[0])


def test_memory_does_not_grow_by_saving_in_the_background(tmp_path, tools):
    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not Path("/proc/self/statm").exists():
        pytest.skip("resident memory is read from /proc")
    tensor = torch.zeros(500_000)
    with StepSaver(tmp_path, tools.config(keep_checkpoints=1).train, CPU) as saving:
        for step in range(10):
            saving.save(content(step, tensor))
        before = resident_bytes()
        for step in range(10, 40):
            saving.save(content(step, tensor))
        saving.wait()
        grown = resident_bytes() - before
    assert grown < 10 * tensor.nbytes, "of thirty saves"
    assert len(list_steps(tmp_path)) == 1
