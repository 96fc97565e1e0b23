"""Lines of metrics: what they say of gradients, arithmetic, memory and time, and how they get to disk."""

import math
import os

import pytest
import torch

from patchpad.config import DataConfig, load_config
from patchpad.cost import cost
from patchpad.cost.peak_flops import PEAK_FLOPS_PER_SECOND, peak_flops_per_second
from patchpad.errors import CheckpointError
from patchpad.training import metrics as module
from patchpad.training import trainer, usage
from patchpad.training.gradient_norms import part_names, part_norms, tensor_norms
from patchpad.training.metrics import MetricsFile, read_metrics
from patchpad.training.sums import StepSums
from patchpad.training.text import RunText
from patchpad.training.trainer import Trainer


def test_norms_are_those_of_torch_and_the_squares_of_the_parts_add_up(tmp_path, text, tools, monkeypatch):
    run = Trainer(tools.config(max_grad_norm=1e9), tmp_path / "run", RunText.open(DataConfig(paths=(str(text),))))
    run.train_step(StepSums())
    named = {name: weights.grad for name, weights in run.model.named_parameters()}
    found = run.readings.part_gradient_norms
    assert list(found) == [name for name, part in run.model.named_children() if list(part.parameters())]
    for part, norm in found.items():
        whole = torch.cat([grad.flatten() for name, grad in named.items() if name.startswith(f"{part}.")])
        assert norm == pytest.approx(float(whole.norm()), rel=1e-5)
    assert math.hypot(*found.values()) == pytest.approx(run.readings.gradient_norm, rel=1e-6)
    expected = torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1e9)
    assert float(expected) == run.readings.gradient_norm, "to the bit, so that clipping does not change"


def test_gradients_are_clipped_as_torch_does_and_parameters_without_one_are_left_out(tmp_path, text, tools):
    options = {"max_grad_norm": 0.01, "entropy_head_weight": 0.0}
    run, other = (
        Trainer(tools.config("entropy", **options), tmp_path / "run", RunText.open(DataConfig(paths=(str(text),))))
        for _ in range(2)
    )
    other._clip_gradients = lambda: torch.nn.utils.clip_grad_norm_(other.model.parameters(), 0.01)
    other.read = lambda sums: None
    for one in (run, other):
        one.model.context_to_bytes.requires_grad_(False)
        one.train_step(StepSums())
    for (name, found), expected in zip(run.model.named_parameters(), other.model.parameters(), strict=True):
        assert (found.grad is None) == (expected.grad is None) == (name.startswith("context_to_bytes"))
        assert found.grad is None or torch.equal(found.grad, expected.grad)
    assert "context_to_bytes" not in run.readings.part_gradient_norms


def test_norms_of_parts_come_from_names_and_the_norms_of_tensors_alone():
    names, tensors = ["a.x", "a.y.z", "b", "c.x"], [torch.tensor(values) for values in ([3.0], [4.0], [1, 1.0], [0.0])]
    norms = tensor_norms(tensors)
    assert part_names(names) == ["a", "b", "c"]
    assert part_norms(names, norms).tolist() == pytest.approx([5.0, math.sqrt(2), 0.0])


def test_lines_tell_patch_size_arithmetic_memory_and_time(finished, tools):
    lines = read_metrics(finished)
    model = tools.config().model
    for line in lines:
        assert line["mean_patch_size"] * line["patches_per_byte"] == pytest.approx(1)
        rates = {key: line[key] for key in ("patches_per_byte", "scratchpads_per_byte")}
        at_rates = cost(model, context_bytes=64, positions_per_byte=1.1, **rates)
        without = cost(model, context_bytes=64, **rates)
        least, most = (point.training_flops_per_byte * line["bytes_per_second"] for point in (without, at_rates))
        assert least <= line["flops_per_second"] <= most
        assert line["mfu"] is None, "the peak of a CPU is not known"
        assert line["host_memory_bytes"] > 50e6
        assert "device_memory_bytes" not in line
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    sizes = [lines[0]["bytes_seen"], lines[1]["bytes_seen"] - lines[0]["bytes_seen"]]
    assert seconds[1] == pytest.approx(sum(n / line["bytes_per_second"] for n, line in zip(sizes, lines, strict=False)))
    assert lines[0]["seconds_left"] > 0
    assert lines[-1]["seconds_left"] == 0


def test_seconds_go_on_where_a_resumed_run_left_off(tmp_path, text, tools):
    tools.train_until_error(
        tools.config(checkpoint_every=2), tools.Hook(3, fail), RuntimeError, data=text, out=tmp_path / "run"
    )
    before = read_metrics(tmp_path / "run")
    assert [line["step"] for line in before] == [1, 2, 3]
    trainer.resume(tmp_path / "run", progress=tools.Hook())
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert lines[:2] == before[:2]
    assert lines[2]["seconds"] > lines[1]["seconds"]
    assert lines[2]["seconds_left"] > 0


def fail():
    raise RuntimeError("stopped")


def test_mfu_is_the_share_of_the_peak_of_all_devices(monkeypatch, tools):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 123)
    line = {"patches_per_byte": 1 / 16, "scratchpads_per_byte": 0.2, "bytes_per_second": 1e6}
    config = load_config("2b-fixed16-entropy")
    one, eight = (usage.usage(config, line, torch.device("cuda"), count) for count in (1, 8))
    assert one["device_memory_bytes"] == 123
    assert one["mfu"] == pytest.approx(one["flops_per_second"] / 989.4e12)
    assert eight["mfu"] == pytest.approx(one["mfu"] / 8)
    assert usage.usage(config, line | {"patches_per_byte": 0.0}, torch.device("cuda"))["mfu"] is None
    crowded = usage.training_flops_per_byte(config, 0.2, 0.9)  # separators are positions beside the bytes
    assert crowded > one["flops_per_second"] / 1e6


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA A10", 125),
        ("NVIDIA A10G", None),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA GeForce RTX 4090", None),
        ("Pretended", None),
    ],
)
def test_peaks_are_known_by_the_whole_name_of_a_device(name, tera):
    assert peak_flops_per_second(name) == (None if tera is None else tera * 1e12)
    assert all(1e14 < peak < 1e16 for peak in PEAK_FLOPS_PER_SECOND.values())


def test_lines_are_appended_and_what_could_not_be_written_follows_later(tmp_path, tools, caplog, monkeypatch):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.add({"step": 1, "x": math.nan, "y": math.inf})
    node = os.stat(file.path).st_ino
    file.add({"step": 2})
    assert os.stat(file.path).st_ino == node, "appended, not written anew"
    assert read_metrics(tmp_path) == [{"step": 1, "x": None, "y": "inf"}, {"step": 2}]
    monkeypatch.setattr(module, "open", lambda *_, **__: tools.FullDisk(file.path), raising=False)
    file.add({"step": 3})
    monkeypatch.undo()
    assert "No space left" in caplog.text
    assert file.path.read_text().endswith('{"st'), "half a line is in the file"
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]
    file.add({"step": 4})
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert file.path.read_text() == file.text


def test_restored_lines_replace_those_that_were_written_later(tmp_path):
    saved = tmp_path / "step-2"
    saved.mkdir()
    (saved / "metrics.jsonl").write_text('{"step":2,"seconds":1.5}\n')
    file = MetricsFile(tmp_path / "metrics.jsonl")
    for step in (2, 4):
        file.add({"step": step})
    file.restore(saved)
    assert file.newest["seconds"] == 1.5
    file.add({"step": 3})
    assert [line["step"] for line in read_metrics(tmp_path)] == [2, 3]


@pytest.mark.parametrize("last", ["", '{"step": 3, "tra', '{"step": 3}'])
def test_a_last_line_that_is_half_written_is_left_out(tmp_path, last):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n' + last)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3][: 3 if last.endswith("}") else 2]


def test_files_that_are_no_metrics_are_refused_by_line(tmp_path):
    with pytest.raises(CheckpointError, match=f"cannot read {tmp_path}.*No such file"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n[1]\n{"step": 3}\n')
    with pytest.raises(CheckpointError, match=r"line 2 of .* is not a line of metrics"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    assert read_metrics(tmp_path) == []
