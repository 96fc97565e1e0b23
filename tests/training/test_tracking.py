"""Trackers and samples: what they are told, that none of them ends a run, and what a resumed run makes of them."""

import logging
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from patchpad.config import Config, TrainConfig
from patchpad.errors import ConfigError, MissingExtraError
from patchpad.training import trainer
from patchpad.training.metrics import read_metrics
from patchpad.training.samples import Samples, read_samples
from patchpad.training.tracking import Tracker, Trackers, service_id

PIP = 'pip install "patchpad[track]"'


class Told:
    """A tracker that keeps what it is told, and fails where it should."""

    def __init__(self, fails_at=""):
        self.fails_at, self.calls = fails_at, []

    def _note(self, what, *values):
        self.calls.append((what, *values))
        print("noise of a library")
        if what == self.fails_at:
            raise RuntimeError("the network\nis down")

    def start(self, config, run, step):
        self._note("start", run, step)

    def log(self, line, step):
        self._note("log", step, line)

    def text(self, name, text, step):
        self._note("text", step, name, text)

    def close(self):
        self._note("close")


def with_trackers(monkeypatch, **trackers):
    monkeypatch.setattr(Trackers, "of", staticmethod(lambda names, run: Trackers(dict(trackers), run)))


def test_a_tracker_is_told_every_line_and_sample_and_is_closed(tmp_path, text, tools, monkeypatch, capsys):
    told = Told()
    with_trackers(monkeypatch, told=told)
    config = tools.config(steps=5, log_every=2, validate_every=4, sample_every=3, sample_prompt="the ", sample_bytes=9)
    run = trainer.train(config, data=text, out=tmp_path / "run", progress=tools.Hook())
    assert isinstance(told, Tracker)
    assert [call[0] for call in told.calls] == ["start", "log", "text", "log", "log", "close"]
    assert told.calls[0][1:] == (tmp_path / "run", 2)
    lines = read_metrics(run.path)
    assert [line["step"] for line in lines] == [2, 4, 5]
    for (_, step, found), line in zip([call for call in told.calls if call[0] == "log"], lines, strict=True):
        assert found == {key: value for key, value in line.items() if value is not None and key != "step"}
        assert step == line["step"]
    (sample,) = read_samples(run.path / "samples.jsonl")
    assert told.calls[2][1:] == (3, "sample", sample["prompt"] + sample["text"])
    assert sample["prompt"] == "the "
    assert 0 < len(sample["text"]) <= 9
    assert sample["bytes_seen"] > 0
    assert sample["trunk_calls"] >= 1
    assert "noise" not in capsys.readouterr().out, "stdout is for results"


@pytest.mark.parametrize("fails_at", ["start", "log", "text", "close"])
def test_a_tracker_that_fails_says_so_once_and_neither_the_run_nor_another_notices(
    tmp_path, text, tools, monkeypatch, caplog, fails_at
):
    failing, other = Told(fails_at), Told()
    with_trackers(monkeypatch, failing=failing, other=other)
    config = tools.config(steps=3, sample_every=1, sample_bytes=2)
    run = trainer.train(config, data=text, out=tmp_path / "run", progress=tools.Hook())
    assert len(read_metrics(run.path)) == len(read_samples(run.path / "samples.jsonl")) == 3
    assert [call[0] for call in other.calls] == ["start", *["log", "text"] * 3, "close"]
    assert [call[0] for call in failing.calls].count(fails_at) == 1
    assert failing.calls[-1][0] == fails_at
    assert [message for message in caplog.messages if "failed" in message] == [
        "failing failed (RuntimeError: the network is down): it is told nothing more of this run; metrics.jsonl has "
        "every line"
    ]


def test_trackers_are_closed_when_a_run_is_ended_by_an_error(tmp_path, text, tools, monkeypatch):
    told = Told()
    with_trackers(monkeypatch, told=told)
    tools.train_until_error(tools.config(), tools.Hook(2, fail), RuntimeError, data=text, out=tmp_path / "run")
    assert [call[0] for call in told.calls] == ["start", "log", "log", "close"]


def fail():
    raise RuntimeError("stopped")


@pytest.mark.parametrize(("level", "shown"), [(logging.INFO, True), (logging.WARNING, False)])
def test_what_a_library_prints_is_a_log_line_and_so_not_wanted_when_quiet(tmp_path, capsys, level, shown):
    logger = logging.getLogger("patchpad")
    before = logger.level
    logger.setLevel(level)
    try:
        Trackers({"told": Told()}, tmp_path).log({"step": 1, "a": 1}, Config())
    finally:
        logger.setLevel(before)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("noise of a library" in captured.err) == shown


def test_trackers_see_finite_numbers_alone(tmp_path):
    told = Told()
    trackers = Trackers({"told": told}, tmp_path)
    trackers.log({"step": 7, "a": 1, "b": math.inf, "c": None, "d": "inf", "e": math.nan, "f": 0.5}, Config())
    assert told.calls[1] == ("log", 7, {"a": 1, "f": 0.5})


@pytest.mark.unchecked
def test_sampling_changes_no_run_and_a_resumed_one_has_each_sample_once(tmp_path, text, tools):
    plain = tools.config("entropy", steps=4, checkpoint_every=2)
    sampled = tools.replace(plain, train=tools.replace(plain.train, sample_every=1, sample_bytes=4))
    trainer.train(plain, data=text, out=tmp_path / "plain", progress=tools.Hook())
    trainer.train(sampled, data=text, out=tmp_path / "sampled", progress=tools.Hook())
    assert tools.losses(tmp_path / "sampled") == tools.losses(tmp_path / "plain")
    tools.train_until_error(sampled, tools.Hook(3, fail), RuntimeError, data=text, out=tmp_path / "run")
    with (tmp_path / "run" / "samples.jsonl").open("a") as file:
        file.write('{"step": 3, "te')  # killed while it wrote
    run = trainer.resume(tmp_path / "run", progress=tools.Hook())
    assert tools.losses(tmp_path / "run") == tools.losses(tmp_path / "plain")
    samples = [read_samples(folder / "samples.jsonl") for folder in (tmp_path / "run", tmp_path / "sampled")]
    assert [sample["step"] for sample in samples[0]] == [1, 2, 3, 4]
    assert samples[0] == samples[1]
    assert not any(parameter.is_inference() for parameter in run.model.parameters())


def test_a_sample_that_cannot_be_written_leaves_a_whole_file(tmp_path, tools, finished, monkeypatch, caplog):
    from patchpad.training import samples as module
    from patchpad.training.checkpoint import load

    model, samples = load(finished), Samples(tmp_path)
    config = tools.config(sample_bytes=3)
    samples.add(model, config, step=1, bytes_seen=10)
    monkeypatch.setattr(module, "open", lambda *_, **__: tools.FullDisk(samples.path), raising=False)
    samples.add(model, config, step=2, bytes_seen=20)
    monkeypatch.undo()
    assert "No space left" in caplog.text
    samples.add(model, config, step=3, bytes_seen=30)
    assert [line["step"] for line in read_samples(samples.path)] == [1, 3]


def test_names_of_trackers_are_checked_and_known():
    with pytest.raises(ConfigError, match="trackers names 'mlflow'; allowed: tensorboard, wandb, trackio"):
        TrainConfig(trackers=("mlflow",))


@pytest.mark.parametrize(
    ("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb"), ("trackio", "trackio")]
)
def test_a_missing_library_names_its_pip_line_before_anything_is_made(tmp_path, text, tools, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    error = tools.train_until_error(
        tools.config(trackers=(name,)), tools.Hook(), MissingExtraError, data=text, out=tmp_path / "run"
    )
    assert error.message == f"train.trackers names {name}, whose library is not installed"
    assert PIP in error.hint
    assert not (tmp_path / "run").exists()


def test_wandb_and_trackio_are_told_one_name_per_run_and_project(tmp_path, tools, monkeypatch):
    """The libraries' stand-ins take what the real ones, which the slow tests run, are given."""
    run, logged, begun = tmp_path / "my run", [], []
    run.mkdir()
    there = SimpleNamespace(log=lambda line, step: logged.append((step, line)), finish=lambda: logged.append("end"))
    fake = SimpleNamespace(
        init=lambda **options: begun.append(options) or there,
        Settings=SimpleNamespace,
        Html=lambda text: ("html", text),
        Markdown=lambda text: ("markdown", text),
        finish=lambda: logged.append("end of trackio"),
    )
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, fake)
    for _ in range(2):  # the second time as a resumed run
        trackers = Trackers.of(("wandb", "trackio"), run)
        trackers.log({"step": 3, "train/bpb": 2.0}, tools.config())
        trackers.text("sample", "a <b>\nc", 3, tools.config())
        trackers.close()
    assert begun[:2] == begun[2:]
    assert begun[0]["project"] == "mine"
    assert begun[1]["project"] == "patchpad"
    assert begun[0]["name"] == "my run"
    assert begun[1]["name"] == f"my run-{begun[0]['id']}"
    assert begun[0]["config"]["train"]["steps"] == 10
    html, markdown = ("html", "<pre>a &lt;b&gt;\nc</pre>"), ("markdown", "    a <b>\n    c")
    line = (3, {"train/bpb": 2.0})
    assert logged[:6] == [line, line, (3, {"sample": html}), (3, {"sample": markdown}), "end", "end of trackio"]
    other = tmp_path / "other"
    other.mkdir()
    assert service_id(other) != service_id(run) == begun[0]["id"]


def trained(tmp_path, text, tools, tracker):
    """A run of six steps, stopped after five and resumed from the fourth, with a real library."""
    config = tools.config(steps=6, checkpoint_every=2, sample_every=3, sample_bytes=5, trackers=(tracker,))
    tools.train_until_error(config, tools.Hook(5, fail), RuntimeError, data=text, out=tmp_path / "run")
    return trainer.resume(tmp_path / "run", progress=tools.Hook()).path


def test_tensorboard_shows_each_step_once(tmp_path, text, tools, caplog):
    pytest.importorskip("tensorboard")
    run = trained(tmp_path, text, tools, "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    lines = read_metrics(run)
    for key in ("train/bpb", "gradient_norm/trunk", "seconds"):
        found = events.Scalars(key)
        assert [event.step for event in found] == [1, 2, 3, 4, 5, 6]
        assert [event.value for event in found] == pytest.approx([line[key] for line in lines], rel=1e-6)
    texts = events.Tensors("sample/text_summary")
    assert [event.step for event in texts] == [3, 6]
    (sample,) = texts[-1].tensor_proto.string_val
    assert sample.decode() == "    " + read_samples(run / "samples.jsonl")[-1]["text"].replace("\n", "\n    ")
    assert "failed" not in caplog.text


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_wandb_writes_a_run_offline(tmp_path, text, tools, monkeypatch, caplog):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = trained(tmp_path, text, tools, "wandb")
    assert "failed" not in caplog.text
    files = list((run / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2, "one for each process"
    assert {Path(file).stem for file in files} == {f"run-{service_id(run)}"}
    assert all(file.stat().st_size > 1000 for file in files)
    assert b"gradient_norm/trunk" in files[0].read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_trackio_keeps_one_run_on_this_machine(tmp_path, text, tools, monkeypatch, caplog, capsys):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    run = trained(tmp_path, text, tools, "trackio")
    assert "failed" not in caplog.text
    name = f"run-{service_id(run)}"
    assert SQLiteStorage.get_runs("patchpad") == [name]
    logs = SQLiteStorage.get_logs("patchpad", name)
    bits = {line["step"]: line["train/bpb"] for line in logs if "train/bpb" in line}
    assert capsys.readouterr().out == ""
    assert trackio.context_vars.current_run.get() is None, "so nothing is printed when Python ends"
    assert bits == {line["step"]: line["train/bpb"] for line in read_metrics(run)}
