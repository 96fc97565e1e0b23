"""A suite leaves whole results as it goes, goes on where it was stopped, and refuses to mix inputs."""

import json
import math

import pytest
from toy_tasks import random_examples, write_rows

from patchpad.errors import ConfigError, DataError, EvaluationError, EvaluationInterrupted, InputError
from patchpad.files import sha256_of
from patchpad.tasks import running
from patchpad.tasks.folder import RESULT, SUITE, differences, read_evaluation, read_result, require_same_tasks
from patchpad.tasks.progress import LogSuiteProgress, bytes_of
from patchpad.tasks.running import run_suite, weights_sha256
from patchpad.tasks.suite import load_suite, with_changes, with_tasks
from patchpad.testing import sharp_model, tiny_model_config

TASK = """\
kind: choices
data: {data}
context: "{{question}}:"
choices: "{{choices}}"
normalisation: sum
"""
PIQA = {"tasks": [{"name": "piqa", "task": {}}]}


@pytest.fixture(scope="module")
def model():
    return sharp_model(tiny_model_config("fixed", "entropy", context_bytes=32))


@pytest.fixture
def suite(tmp_path):
    write_rows(tmp_path, random_examples(4), "one.jsonl")
    write_rows(tmp_path, random_examples(3, seed=1), "two.jsonl")
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(TASK.format(data=f"{name}.jsonl"))
    (tmp_path / "toys.yaml").write_text("text: two toys\ntasks: [one.yaml, two.yaml]")
    return load_suite(tmp_path / "toys.yaml")


@pytest.fixture
def run(model, suite, tmp_path):
    def call(**changed):
        values = {"model": model, "suite": suite, "data": tmp_path, "out": tmp_path / "out", "run": "tiny", **changed}
        return run_suite(values.pop("model"), values.pop("suite"), **values)

    return call


def strict(path):
    return json.loads(path.read_text(), parse_constant=pytest.fail)


def test_results_say_what_they_were_made_of(run, model, tmp_path):
    evaluation = run(command=["evaluate", "/home/me/run"], scratchpad_threshold_nats=[math.inf, 1.5])
    out = tmp_path / "out"
    assert [(one.task, one.compute.scratchpad_threshold_nats) for one in evaluation.results] == [
        ("one", math.inf),
        ("one", 1.5),
        ("two", math.inf),
        ("two", 1.5),
    ]
    names = {"one@inf.json", "one@1.5.json", "two@inf.json", "two@1.5.json", "one.svg", "two.svg", SUITE, RESULT}
    assert {path.name for path in out.iterdir()} == names
    overview = strict(out / RESULT)
    assert overview["run"] == "tiny"
    assert overview["scratchpad_thresholds_nats"] == ["inf", 1.5]
    assert overview["model"]["weights_sha256"] == weights_sha256(model)
    assert overview["model"]["config"]["context_bytes"] == 32
    assert overview["tasks"][0]["data"] == {"one.jsonl": sha256_of(tmp_path / "one.jsonl")}
    assert overview["tasks"][0]["options"]["shots"] is None
    assert overview["tasks"][0]["task"]["context"] == "{question}:"
    assert {"commit", "torch_version", "package_version", "hardware"} <= set(overview["provenance"])
    assert overview["provenance"]["command"] == "patchpad evaluate run"
    assert [one["file"] for one in overview["results"]] == [
        "one@inf.json",
        "one@1.5.json",
        "two@inf.json",
        "two@1.5.json",
    ]
    assert "examples" not in overview["results"][0]
    for one in evaluation.results:
        assert one.compute.trunk_calls_per_byte > 0
        assert one.compute.flops_per_byte > 0
    assert read_evaluation(out / RESULT) == read_evaluation(out) == evaluation
    assert [one["id"] for one in evaluation.results[0].examples] == [f"one.jsonl:{number}" for number in (1, 2, 3, 4)]


def test_a_second_start_does_only_what_is_missing(run, tmp_path, monkeypatch):
    first = run()
    (path,) = (tmp_path / "out").glob("two@*.json")
    path.unlink()
    done = []
    monkeypatch.setattr(running, "run_task", lambda task, *rest: done.append(task.name) or first.results[1])
    assert run().results == first.results
    assert done == ["two"]


def test_an_interrupted_suite_keeps_what_is_done_and_says_how_to_go_on(run, tmp_path, monkeypatch):
    real = running.run_task

    def interrupted(task, *rest):
        if task.name == "two":
            raise KeyboardInterrupt
        return real(task, *rest)

    monkeypatch.setattr(running, "run_task", interrupted)
    with pytest.raises(EvaluationInterrupted) as found:
        run(command=["evaluate", "--suite", "toys.yaml"])
    assert str(found.value) == (
        "stopped at two; 1 of 2 results were made and are kept\nContinue with: patchpad evaluate --suite toys.yaml"
    )
    assert found.value.exit_code == 130
    assert [one.task for one in read_evaluation(tmp_path / "out").results] == ["one"]
    monkeypatch.setattr(running, "run_task", lambda task, *rest: real(task, *rest) if task.name == "two" else 1 / 0)
    assert [one.task for one in run().results] == ["one", "two"]


def test_a_task_that_fails_does_not_keep_others_from_being_done(run, tmp_path, monkeypatch):
    real = running.run_task

    def failing(task, *rest):
        if task.name == "one":
            raise DataError("a row is wrong", hint="Fix it.")
        return real(task, *rest)

    monkeypatch.setattr(running, "run_task", failing)
    with pytest.raises(EvaluationError, match="1 of 2 results failed; one: a row is wrong\nFix it"):
        run()
    assert [one.task for one in read_evaluation(tmp_path / "out").results] == ["two"]


@pytest.mark.parametrize("change", ["data", "weights", "task", "limit"])
def test_results_of_other_inputs_are_not_mixed(run, suite, tmp_path, change):
    run()
    changed, place = {}, ""
    if change == "data":
        write_rows(tmp_path, random_examples(4, seed=2), "one.jsonl")
        place = r"`data\.one\.jsonl` was \"[0-9a-f]+"
    elif change == "weights":
        changed, place = (
            {"model": sharp_model(tiny_model_config("fixed", "entropy", context_bytes=32), seed=1)},
            "`model",
        )
    elif change == "task":
        (tmp_path / "one.yaml").write_text(TASK.format(data="one.jsonl").replace(':"', '?"', 1))
        changed = {"suite": load_suite(tmp_path / "toys.yaml")}
        place = r"`task\.context` was \"\{question\}:\" and is \"\{question\}\?\""
    else:
        changed, place = {"suite": with_changes(suite, limit=2)}, r"`options\.limit` was null and is 2"
    with pytest.raises(ConfigError, match=rf"one@.*\.json is there already and was made of other inputs: {place}"):
        run(**changed)


def test_differences_name_the_place():
    stored, wanted = {"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1, "c": 3}, "d": [1, 2]}
    assert list(differences(stored, wanted)) == ["`a.c` was 2 and is 3", "`d` was [1] and is [1, 2]"]
    assert list(differences(stored, stored)) == []


def test_nothing_is_run_where_rows_options_or_thresholds_are_wrong(run, suite, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "run_task", lambda *rest: 1 / 0)
    (tmp_path / "two.jsonl").write_text('{"question": "x"}\n')
    with pytest.raises(DataError, match=r"two\.jsonl, line 1 has no field `choices`"):
        run()
    (tmp_path / "two.jsonl").write_text('{"question": "x", "choices": ["a", "b"], "gold": 2}\n')
    with pytest.raises(DataError, match=r"two\.jsonl, line 1: `gold` is 2; allowed: 0 to 1"):
        run()
    (tmp_path / "two.jsonl").write_text('{"question": "x", "choices": ["a", "b"], "gold": 1}\n')
    with pytest.raises(ConfigError, match=r"the task `one` is asked for 9 shots, but has 3 other rows"):
        run(suite=with_changes(suite, shots=9))
    with pytest.raises(InputError, match="threshold"):
        run(scratchpad_threshold_nats=[math.nan])
    with pytest.raises(ConfigError, match="--data is nowhere, which is not a folder"):
        run(data="nowhere")
    assert not (tmp_path / "out").exists()


def test_the_reference_has_to_have_measured_the_same_before_anything_is_run(run, suite, tmp_path, monkeypatch):
    run(out=tmp_path / "byte", run="byte model")
    run(reference=tmp_path / "byte")
    assert "byte model" in (tmp_path / "out" / "one.svg").read_text()
    monkeypatch.setattr(running, "run_task", lambda *rest: 1 / 0)
    for changes, place in (({"limit": 2}, "`num_examples` was 4 and is 2"), ({"shots": 1}, "`options.shots` was null")):
        with pytest.raises(ConfigError, match=f"reference .*byte and this suite did not measure `one` alike.*{place}"):
            run(suite=with_changes(suite, **changes), out=tmp_path / "less", reference=tmp_path / "byte")
    with pytest.raises(ConfigError, match="have no task in common: one, two; and piqa"):
        require_same_tasks({"tasks": read_evaluation(tmp_path / "byte").suite["tasks"]}, PIQA, ("a", "b"))


def test_thresholds_that_are_equal_in_fp32_are_one(run, model):
    stored = float(model.scratchpad_threshold_nats)
    found = run(scratchpad_threshold_nats=[0.5, 0.5 + 1e-12, round(stored, 8), stored])
    assert [one.compute.scratchpad_threshold_nats for one in found.results] == [0.5, stored] * 2
    assert run().results == found.results[1::2]


def test_data_may_lie_outside_the_folder_of_data(run, tmp_path):
    (tmp_path / "one.yaml").write_text(TASK.format(data=tmp_path / "one.jsonl"))
    (tmp_path / "elsewhere").mkdir()
    evaluation = run(suite=with_tasks(None, [str(tmp_path / "one.yaml")]), data=tmp_path / "elsewhere")
    assert evaluation.suite["tasks"][0]["data"] == {
        (tmp_path / "one.jsonl").as_posix(): sha256_of(tmp_path / "one.jsonl")
    }


def test_a_damaged_result_is_named(run, tmp_path):
    run()
    (path,) = (tmp_path / "out").glob("one@*.json")
    stored = read_result(path)
    assert stored.seconds > 0
    path.write_text('{"format_version": 99}')
    with pytest.raises(DataError, match=r"has the format_version 99; this version of patchpad reads 1\nMove "):
        run()
    with pytest.raises(DataError, match="holds no results of tasks"):
        read_evaluation(tmp_path)


@pytest.mark.parametrize("keys", [("run",), ("model",), ("model", "config"), ("provenance", "date")])
def test_an_overview_that_lacks_what_is_read_of_it_is_named(run, tmp_path, keys):
    run()
    overview = strict(tmp_path / "out" / SUITE)
    inside = overview
    for key in keys[:-1]:
        inside = inside[key]
    del inside[keys[-1]]
    (tmp_path / "out" / SUITE).write_text(json.dumps(overview))
    with pytest.raises(DataError, match=rf"suite\.json is not the overview of a suite: KeyError\('{keys[-1]}'\)"):
        read_evaluation(tmp_path / "out")


def test_the_checksum_of_weights_is_that_of_their_values(model):
    other = sharp_model(tiny_model_config("fixed", "entropy", context_bytes=32))
    assert weights_sha256(other) == weights_sha256(model)
    next(other.parameters()).data.view(-1)[0] += 1
    assert weights_sha256(other) != weights_sha256(model)


def test_the_time_left_goes_by_the_bytes_of_rows(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("patchpad.tasks.progress.time.monotonic", lambda: now[0])
    caplog.set_level("INFO", logger="patchpad")
    assert bytes_of({"a": ["xy", "z"], "b": "abcd", "c": 1}) == 8
    progress = LogSuiteProgress(1000)
    progress.begin("one", 10, 200)
    assert progress.seconds_left() is None
    now[0] = 40.0
    progress.advance(10)
    assert progress.seconds_left() == pytest.approx(160.0)
    progress.finish("one: accuracy 1")
    assert caplog.messages == ["one: 10 of 10 examples  3 min left for all", "one: accuracy 1"]
