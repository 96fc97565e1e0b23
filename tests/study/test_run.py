"""A study end to end: order, resuming, what is refused, and what a result says."""

import json
import os
import shlex
import shutil
import signal

import pytest

from patchpad.cli.app import main
from patchpad.errors import ConfigError, DataError, StudyError, TrainingInterrupted
from patchpad.files import write_atomically
from patchpad.study import arm_training
from patchpad.study import progress as study_progress
from patchpad.study import run as job
from patchpad.study.definition import choose_runs
from patchpad.study.progress import LogStudyProgress, TableStudyProgress
from patchpad.study.run import open_texts, run_study
from patchpad.training.checkpoint import load

POINT_KEYS = {
    "at",
    "scratchpad_threshold_nats",
    "bits_per_byte",
    "num_bytes",
    "scratchpads_per_byte",
    "patches_per_byte",
    "trunk_calls_per_byte",
    "flops_per_byte",
    "trunk_cache_bytes_per_byte",
}


def read(folder, name):
    return json.loads((folder / "results" / f"{name}.json").read_text(), parse_constant=pytest.fail)


class Stopping(LogStudyProgress):
    """Stops at a step of the first run: by a signal, or by a fault that saves nothing."""

    def __init__(self, runs, step, stop):
        super().__init__(runs)
        self.step, self.stop = step, stop

    def trained(self, name, metrics):
        super().trained(name, metrics)
        if metrics["step"] == self.step:
            self.stop()


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def crash():
    raise RuntimeError("as good as killed")


def test_every_arm_and_seed_leaves_a_result_and_a_model_without_checkpoints(finished):
    names = {path.stem for path in (finished / "results").glob("*.json")}
    runs = {"plain-seed0", "plain-seed1", "entropy-seed0", "entropy-seed1", "random-seed0", "byte-seed0"}
    assert names == {"study", *runs}
    for name in runs:
        result = read(finished, name)
        assert load(finished / "runs" / name).config.kind == result["config"]["model"]["kind"]
        assert not (finished / "runs" / name / "checkpoints").exists()
        assert result["training"]["steps"] == 13
        assert result["training"]["bytes_seen"] == pytest.approx(1600, abs=128)
        assert result["training"]["wall_seconds"] > 0
        assert result["provenance"]["torch_version"]
        assert "paths" not in json.dumps(result), "no path of this machine"
        assert all(point.keys() == POINT_KEYS for point in result["measured"]["points"])


def test_all_arms_see_the_same_bytes_and_are_measured_on_the_same(finished):
    results = [read(finished, f"{arm}-seed0") for arm in ("plain", "entropy", "random", "byte")]
    assert len({result["training"]["bytes_seen"] for result in results}) == 1
    assert len({result["data"]["evaluated"]["sha256"] for result in results}) == 1
    assert len({point["num_bytes"] for result in results for point in result["measured"]["points"]}) == 1


def test_points_lie_at_the_given_rates_and_what_does_not_apply_is_null(finished):
    points = {point["at"]: point for point in read(finished, "entropy-seed0")["measured"]["points"]}
    assert set(points) == {"never", "0.1", "0.3", "stored", "always"}
    assert points["never"]["scratchpads_per_byte"] == 0
    assert points["0.1"]["scratchpads_per_byte"] == pytest.approx(0.1, abs=0.01)
    assert points["0.3"]["scratchpads_per_byte"] == pytest.approx(0.3, abs=0.01)
    assert [point["at"] for point in read(finished, "plain-seed0")["measured"]["points"]] == ["stored"]
    random = read(finished, "random-seed0")["measured"]
    assert {point["at"] for point in random["points"]} == {"never", "stored", "always"}
    assert random["entropy_head_bits_per_byte"] is None
    assert random["null_context_bits_per_byte"] > 0
    baseline = read(finished, "byte-seed0")["measured"]
    assert [key for key, value in baseline.items() if value is not None] == ["points"]


def test_runs_are_ordered_by_tier_then_seed(write_study, tmp_path):
    assert [run.name for run in write_study(tmp_path).runs] == [
        *("plain-seed0", "entropy-seed0", "plain-seed1", "entropy-seed1", "random-seed0", "byte-seed0")
    ]


@pytest.mark.parametrize(("stop", "error"), [(interrupt, TrainingInterrupted), (crash, RuntimeError)])
def test_a_stopped_arm_ends_as_if_it_had_never_stopped(finished, write_study, tmp_path, stop, error):
    study, out = write_study(tmp_path), tmp_path / "out"
    options = {"out": out, "arms": ["entropy"], "seeds": [0]}
    with pytest.raises(error) as raised:
        run_study(study, **options, progress=Stopping(study.runs, 6, stop))
    if error is TrainingInterrupted:
        assert raised.value.hint == f"Continue with: patchpad study {study.path} --out {out}"
    assert not list((out / "results").glob("*-seed*"))
    seen = []
    progress = LogStudyProgress(study.runs)
    progress.trained = lambda name, metrics: seen.append(metrics["step"])  # type: ignore[method-assign]
    run_study(study, **options, progress=progress)
    assert seen[0] == (7 if error is TrainingInterrupted else 5), "from its newest checkpoint"
    resumed, whole = read(out, "entropy-seed0"), read(finished, "entropy-seed0")
    assert resumed["measured"] == whole["measured"]
    assert resumed["training"]["curve"] == whole["training"]["curve"]


def test_a_signal_in_the_last_step_stops_the_study_before_the_arm_is_measured(finished, write_study, tmp_path):
    study, out = write_study(tmp_path), tmp_path / "out"
    with pytest.raises(TrainingInterrupted, match="trained but not yet measured"):
        run_study(study, out=out, arms=["plain"], progress=Stopping(study.runs, 13, interrupt))
    assert [path.name for path in (out / "results").iterdir()] == ["study.json"]
    assert load(out / "runs" / "plain-seed0")


def test_an_arm_that_was_trained_but_not_measured_is_measured_alone(finished, write_study, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    (out / "results" / "entropy-seed0.json").unlink()
    monkeypatch.setattr(arm_training, "Trainer", None)
    run_study(write_study(tmp_path), out=out)
    assert read(out, "entropy-seed0")["measured"] == read(finished, "entropy-seed0")["measured"]


def test_finished_arms_are_skipped(finished, write_study, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(job, "train_arm", None)
    before = {path: path.stat().st_mtime_ns for path in (finished / "results").glob("*-seed*")}
    study = write_study(tmp_path)
    with caplog.at_level("INFO"):
        assert sorted(run_study(study, out=finished, device="cpu")) == sorted(before)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert [line.split("  ")[0] for line in caplog.messages] == [
        f"{run.arm.name}{' (exploratory)' if run.arm.exploratory else ''} seed {run.seed}: done" for run in study.runs
    ]


def test_a_changed_arm_beside_a_result_is_refused_with_both_named_and_the_next_command(finished, write_study, tmp_path):
    study = write_study(tmp_path, ("{name: entropy}", "{name: entropy, model: {trunk_layers: 2}}"))
    with pytest.raises(ConfigError) as raised:
        run_study(study, out=finished)
    result = finished / "results" / "entropy-seed0.json"
    assert raised.value.message == f"arm `entropy` has changed since {result} was made: model.trunk_layers 1, now 2"
    away = f"move {result} and {finished / 'runs' / 'entropy-seed0'} away and run: patchpad study"
    assert away in raised.value.hint


def test_a_changed_text_or_evaluation_beside_a_result_is_refused(finished, write_study, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("another text\n" * 200)
    with pytest.raises(ConfigError, match="other training texts"):
        run_study(write_study(tmp_path), out=finished, data=[str(other)])
    with pytest.raises(ConfigError, match=r"evaluation.bytes 400, now 500"):
        run_study(write_study(tmp_path, ("bytes: 400", "bytes: 500")), out=finished)


def test_results_that_were_measured_on_other_windows_are_refused(finished, write_study, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished / "results", out / "results")
    path = out / "results" / "plain-seed0.json"
    result = json.loads(path.read_text())
    result["data"]["evaluated"]["sha256"] = "those of another version"
    path.write_text(json.dumps(result))
    with pytest.raises(ConfigError, match=r"arm `plain` has changed .*: other measured windows") as raised:
        run_study(write_study(tmp_path), out=out, arms=["random"])
    assert f"or move {path} away and run: patchpad study" in raised.value.hint


def test_a_folder_of_another_study_is_refused_and_kept(finished, write_study, tmp_path):
    before = {path: path.read_bytes() for path in finished.glob("*/*.json")}
    with pytest.raises(ConfigError, match="holds the study `small`; this one is `other`") as raised:
        run_study(write_study(tmp_path, ("name: small", "name: other")), out=finished)
    assert raised.value.hint.startswith("Choose another --out.")
    assert {path: path.read_bytes() for path in finished.glob("*/*.json")} == before


def test_a_study_inside_its_own_text_is_refused_before_anything_is_written(write_study, words, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    shutil.copy(words, texts)
    with pytest.raises(ConfigError, match=f"lies inside {texts}, whose files are all read as text"):
        run_study(write_study(tmp_path), out=texts / "study", data=[str(texts)])
    assert [path.name for path in texts.iterdir()] == [words.name]


def test_bundled_text_is_held_out_by_what_is_given_for_it(write_study, words, tmp_path):
    study = write_study(tmp_path, (f"[{words}]", f"[bundled], validation_paths: [{words}]"))
    text = open_texts(study, study.runs, (), ())["words"].opened
    assert text.validation.num_bytes == words.stat().st_size
    assert len(text.training.documents) == 5
    given = open_texts(study, study.runs, ["bundled"], ())["words"].opened
    assert len(given.validation.documents) == 1
    assert given.validation.num_bytes > text.validation.num_bytes
    with pytest.raises(ConfigError, match=r"`words` is \['bundled', 'x'\]; allowed: `bundled` alone, or files"):
        open_texts(study, study.runs, ["bundled", "x"], ())


def test_a_change_beside_results_of_arms_that_are_not_asked_for_is_refused_too(finished, write_study, tmp_path):
    study = write_study(tmp_path, ("warmup_steps: 2", "warmup_steps: 3"))
    out = tmp_path / "out"
    shutil.copytree(finished / "results", out / "results")
    (out / "results" / "random-seed0.json").unlink()
    with pytest.raises(ConfigError, match=r"arm `plain` has changed .*: train.warmup_steps 2, now 3"):
        run_study(study, out=out, arms=["random"])
    assert not (out / "runs").exists()


def test_an_arm_that_was_trained_on_another_text_is_not_measured_as_if_on_this(
    finished, write_study, tmp_path, monkeypatch
):
    out, other = tmp_path / "out", tmp_path / "other.txt"
    other.write_text("another text\n" * 200)
    shutil.copytree(finished / "runs", out / "runs")
    monkeypatch.setattr(arm_training, "Trainer", None)
    with pytest.raises(ConfigError, match=r"arm `plain` has changed .*: other training texts"):
        run_study(write_study(tmp_path), out=out, arms=["plain"], data=[str(other)])
    assert not (out / "results").exists()


def test_a_record_that_cannot_be_written_ends_no_training(finished, write_study, tmp_path, monkeypatch, caplog):
    failures = iter([OSError("disk full")])

    def write(path, content):
        for failure in failures:
            raise failure
        write_atomically(path, content)

    monkeypatch.setattr(arm_training, "write_atomically", write)
    run_study(write_study(tmp_path), out=tmp_path / "out", arms=["plain"], seeds=[0])
    assert any("disk full" in message for message in caplog.messages)
    assert read(tmp_path / "out", "plain-seed0")["training"]["wall_seconds"] > 0


def test_every_commit_that_a_run_was_trained_at_is_kept(write_study, tmp_path, monkeypatch):
    study, out = write_study(tmp_path), tmp_path / "out"
    monkeypatch.setattr(arm_training, "commit", lambda: "first")
    with pytest.raises(TrainingInterrupted):
        run_study(study, out=out, arms=["plain"], progress=Stopping(study.runs, 2, interrupt))
    monkeypatch.setattr(arm_training, "commit", lambda: "second")
    run_study(study, out=out, arms=["plain"], seeds=[0])
    assert read(out, "plain-seed0")["training"]["commits"] == ["first", "second"]


def test_a_changed_arm_that_is_half_trained_is_refused(write_study, tmp_path):
    study, out = write_study(tmp_path), tmp_path / "out"
    with pytest.raises(TrainingInterrupted):
        run_study(study, out=out, arms=["plain"], progress=Stopping(study.runs, 2, interrupt))
    changed = write_study(tmp_path, ("warmup_steps: 2", "warmup_steps: 3"))
    with pytest.raises(ConfigError, match=r"train.warmup_steps 2, now 3"):
        run_study(changed, out=out, arms=["plain"])


GARBAGE = [
    "",
    "not json",
    "[1, 2]",
    "3",
    '"words"',
    "{}",
    '{"format_version": 1}',
    '{"model": 3}',
    '{"train": {"steps": []}}',
]


@pytest.mark.parametrize("content", GARBAGE)
def test_a_spoilt_file_in_a_studys_folder_is_an_error_that_says_what_to_do(write_study, tmp_path, capsys, content):
    study, out = write_study(tmp_path), tmp_path / "my study"
    command = ["study", str(study.path), "--out", str(out), "--arms", "plain", "--seeds", "0"]
    for spoilt in (out / "runs" / "plain-seed0" / "config.json", out / "results" / "plain-seed0.json"):
        spoilt.parent.mkdir(parents=True, exist_ok=True)
        spoilt.write_text(content)
        assert main(command) in (1, 2)
        *_, message, hint = capsys.readouterr().err.splitlines()
        assert str(spoilt.parent) in message
        assert "away" in hint
        assert "rm " not in hint
        spoilt.unlink()


def test_every_hint_of_a_changed_study_quotes_its_paths_and_deletes_nothing(write_study, tmp_path):
    out = tmp_path / "my study"
    run_study(write_study(tmp_path), out=out, arms=["plain"], seeds=[0])
    changed = write_study(tmp_path, ("warmup_steps: 2", "warmup_steps: 3"))
    with pytest.raises(ConfigError) as raised:
        run_study(changed, out=out, arms=["plain"], seeds=[0])
    words = shlex.split(raised.value.hint)
    assert str(out / "results" / "plain-seed0.json") in words
    assert str(out / "runs" / "plain-seed0") in words
    assert not {"rm", "-r"} & set(words)


def test_an_arm_that_fails_does_not_keep_the_others_from_being_trained(write_study, tmp_path):
    study = write_study(tmp_path, ("{name: entropy}", "{name: entropy, train: {learning_rate: 1e30}}"))
    with pytest.raises(StudyError, match=r"1 of 2 runs failed; entropy-seed0: training has diverged"):
        run_study(study, out=tmp_path / "out", arms=["entropy", "random"], seeds=[0])
    assert [path.stem for path in (tmp_path / "out" / "results").glob("*-seed*")] == ["random-seed0"]


def test_the_command_reports_what_is_done_though_arms_failed(write_study, tmp_path, capsys):
    study = write_study(tmp_path, ("{name: entropy}", "{name: entropy, train: {learning_rate: 1e30}}"))
    out = tmp_path / "out"
    arguments = ["study", str(study.path), "--out", str(out), "--seeds", "0"]
    assert main([*arguments, "--arms", "entropy"]) == 1
    assert not (out / "report.md").exists()
    assert main([*arguments, "--arms", "entropy", "--arms", "plain"]) == 1
    assert "1 of 2 runs failed" in capsys.readouterr().err
    assert "| plain | 1 |" in (out / "report.md").read_text()


def test_the_command_says_that_other_processes_are_at_all_runs(write_study, tmp_path, capsys):
    pytest.importorskip("fcntl")
    study, out = write_study(tmp_path), tmp_path / "out"
    (out / "runs").mkdir(parents=True)
    with job._claimed(out / "runs" / "plain-seed0"):
        assert main(["study", str(study.path), "--out", str(out), "--arms", "plain", "--seeds", "0"]) == 0
    assert capsys.readouterr().out == "0 of 1 runs are done: other processes are at them. No report yet.\n"


def test_a_run_that_another_process_is_at_is_left_to_it(write_study, tmp_path):
    pytest.importorskip("fcntl")
    study, out = write_study(tmp_path), tmp_path / "out"
    (out / "runs").mkdir(parents=True)
    with job._claimed(out / "runs" / "plain-seed0") as is_mine:
        assert is_mine
        progress = LogStudyProgress(study.runs)
        assert run_study(study, out=out, arms=["plain"], seeds=[0], progress=progress) == []
    assert progress.rows["plain-seed0"].state == "elsewhere"


def test_a_text_without_files_names_the_option(write_study, tmp_path, words):
    study = write_study(tmp_path, (f"paths: [{words}], ", ""))
    with pytest.raises(ConfigError, match="the study's text `words` has no files") as raised:
        run_study(study, out=tmp_path / "out")
    assert raised.value.hint == "Give them: --data PATH --validation-data PATH"
    with pytest.raises(DataError, match=r"missing.txt"):
        run_study(study, out=tmp_path / "out", data=["words=missing.txt"])


def test_the_command_ends_with_130_when_interrupted_and_goes_on_when_called_again(
    finished, write_study, tmp_path, monkeypatch, capsys
):
    study, out = write_study(tmp_path), tmp_path / "out"
    command = ["study", str(study.path), "--out", str(out), "--arms", "plain", "--seeds", "1", "--device", "cpu"]
    with monkeypatch.context() as patched:
        patched.setattr(study_progress, "study_progress_for_stderr", lambda runs: Stopping(runs, 5, interrupt))
        assert main(command) == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert f"Continue with: patchpad {' '.join(command)}" in said.err
    assert main([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"results": [str(out / "results" / "plain-seed1.json")], "report": str(out / "report.md")}
    assert read(out, "plain-seed1")["measured"] == read(finished, "plain-seed1")["measured"]
    assert read(out, "plain-seed1")["provenance"]["command"].startswith(
        "patchpad study study.yaml --out out --arms plain"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.yaml", "--out", "x"), "cannot read the configuration missing.yaml"),
        (("STUDY", "--out", "x", "--arms", "plane"), "has no arm `plane`"),
        (("report", "nowhere"), "nowhere holds no results of a study"),
        (("STUDY",), "--out"),
    ],
)
def test_wrong_usage_is_said_in_two_lines(write_study, tmp_path, capsys, arguments, message):
    study = write_study(tmp_path)
    assert main(["study", *(str(study.path) if word == "STUDY" else word for word in arguments)]) in (1, 2)
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 2


def test_the_live_table_shows_each_run_with_state_and_time_left(write_study, tmp_path, capsys):
    study = write_study(tmp_path)
    progress = TableStudyProgress(choose_runs(study))
    training = {"wall_seconds": 16.0, "bytes_seen": 1600}
    measured = {"points": [{"at": "stored", "bits_per_byte": 2.5}]}
    progress.finished("plain-seed0", {"training": training, "measured": measured})
    progress.trained("entropy-seed0", {"bytes_seen": 800, "train/bpb": 7.25})
    progress.console.width = 100
    progress.console.print(progress.table())
    shown = capsys.readouterr().err
    lines = {tuple(line.split()[:3]): line for line in shown.splitlines()}
    assert "2.5000" in lines[("plain", "0", "done")]
    assert "7.2500" in lines[("entropy", "0", "training")]
    assert "9 s" in lines[("entropy", "0", "training")]
    assert "17 s" in lines[("plain", "1", "waiting")]
    assert "1 of 6 done, 1 min left" in shown
