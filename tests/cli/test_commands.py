"""What the commands print when all is well."""

import base64
import json
import math
from dataclasses import replace

import pytest

import patchpad as package
from patchpad.cli.train import parse_fields
from patchpad.data.bundled_text import bundled_excerpt
from patchpad.errors import ConfigError
from patchpad.training.checkpoint import open_checkpoint
from patchpad.training.metrics import read_metrics

POINT_KEYS = {
    "scratchpad_threshold_nats",
    "bits_per_byte",
    "num_bytes",
    "scratchpads_per_byte",
    "patches_per_byte",
    "trunk_calls_per_byte",
    "flops_per_byte",
    "trunk_cache_bytes_per_byte",
}
COMPLETION_KEYS = {"text", "bytes_base64", "num_bytes", "trunk_calls", "trunk_cache_entries", "stop_reason"}
COST_KEYS = {"num_params", "flops_per_byte", "trunk_cache_bytes_per_byte", "local_cache_bytes"}


def strict(called) -> dict:
    """The one strict JSON object on stdout."""
    assert called.code == 0, called.err
    value = json.loads(called.out, parse_constant=pytest.fail)
    assert isinstance(value, dict)
    return value


def test_train_takes_fields_from_the_command_line_and_says_what_came_out(patchpad, tmp_path, config, text):
    out = tmp_path / "run"
    called = patchpad(
        *("train", "--config", config, "--data", text, "--out", out, "--train.steps", "3", "--train.log_every=1"),
        *("--model.patchifier.kind", "spacebyte", "--train.learning-rate", "1e-3", "--device", "cpu"),
        *("--model.trigger.scratchpad_threshold_nats", "-inf"),
    )
    assert called.code == 0
    found = open_checkpoint(out).config
    assert found.train.steps == 3
    assert found.train.learning_rate == 1e-3
    assert found.model.patchifier.kind == "spacebyte"
    assert found.model.patchifier.target_patch_size == 8, "from the file"
    assert found.model.trigger.scratchpad_threshold_nats == -math.inf
    lines = read_metrics(out)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert f"{out}: {lines[-1]['val/bpb']:.4f} bits per byte on held-out text" in called.out
    assert f"patchpad calibrate {out} --data PATH" in called.out


@pytest.mark.parametrize(
    ("trigger", "command"), [("entropy_jump", "calibrate"), ("never", "evaluate"), ("stride", "evaluate")]
)
def test_train_names_a_next_command_that_the_model_can_do(patchpad, tmp_path, config, text, trigger, command):
    out = tmp_path / "run"
    options = ("--train.steps", "1", "--model.trigger.kind", trigger, "--device", "cpu")
    said = patchpad("train", "--config", config, "--data", text, "--out", out, *options).out
    assert f"Next: patchpad {command} {out} --data PATH" in said
    assert patchpad(command, out, "--data", text, "--limit-bytes", "300").code == 0


def test_train_as_json_gives_the_last_line_of_metrics_and_resume_repeats_it(patchpad, tmp_path, config, text):
    out = tmp_path / "run"
    first = strict(patchpad("train", "--config", config, "--data", text, "--out", out, "--json"))
    assert first == {"run": str(out), **read_metrics(out)[-1]}
    assert strict(patchpad("train", "--resume", out, "--json")) == first


def test_train_takes_several_paths(patchpad, tmp_path, config, text):
    (tmp_path / "more.jsonl").write_text('{"text": "more text"}\n{"text": "and more"}\n')
    out = tmp_path / "run"
    assert patchpad("train", "--config", config, "--data", text, "--data", tmp_path / "*.jsonl", "--out", out).code == 0
    assert open_checkpoint(out).config.data.paths == (str(text), f"{tmp_path}/*.jsonl")


def test_train_takes_the_bytes_of_any_file_and_another_field(patchpad, tmp_path, config):
    (tmp_path / "page.json").write_bytes(b"\x00\xff" * 2000)
    (tmp_path / "page.jsonl").write_text('{"body": "' + "A line. " * 400 + '"}\n', encoding="utf-8")
    raw = ("--data", tmp_path / "page.json", "--format", "raw")
    field = ("--data", tmp_path / "page.jsonl", "--text-field", "body")
    for name, options in {"raw": raw, "field": field}.items():
        patchpad("train", "--config", config, *options, "--out", tmp_path / name, "--train.steps", "1")
    data = [json.loads((tmp_path / name / "config.json").read_text())["data"] for name in ("raw", "field")]
    assert [(one["format"], one["text_field"]) for one in data] == [("raw", "text"), ("auto", "body")]


def test_the_configuration_of_a_run_trains_the_same_model_without_data(patchpad, tmp_path, finished):
    out = tmp_path / "again"
    assert patchpad("train", "--config", finished / "config.json", "--out", out).code == 0
    assert (out / "config.json").read_bytes() == (finished / "config.json").read_bytes()
    assert (out / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()


def test_training_starts_from_a_run_whose_model_fills_in_what_is_not_set(patchpad, fails, tmp_path, finished, text):
    out = tmp_path / "new"
    options = ("--init-from", finished, "--data", text, "--train.device", "cpu", "--train.steps", "2")
    called = patchpad("train", *options, "--model.trigger.kind", "never", "--train.frozen", "[trunk]", "--out", out)
    assert called.code == 0
    model, new = (open_checkpoint(run).config.model for run in (finished, out))
    assert new == replace(model, trigger=replace(model.trigger, kind="never"))
    twice = ("--train.init_from", finished, "--out", tmp_path / "other")
    assert "--init-from and --train.init_from were both given" in fails(2, "train", *options, *twice)
    said = fails(2, "train", *options, "--model.trunk_dim", "64", "--out", tmp_path / "other")
    assert f"model.trunk_dim is 64, and 32 in {finished}" in said
    assert "--resume RUN alone" in fails(2, "train", "--resume", out, "--init-from", finished)
    missing = ("--init-from", tmp_path / "none", "--data", text, "--out", tmp_path / "other")
    assert f"no run is at {tmp_path / 'none'}, which" in fails(1, "train", *missing)
    assert not (tmp_path / "other").exists()


def test_data_takes_the_place_of_the_paths_of_a_configuration(patchpad, tmp_path, finished):
    (tmp_path / "other.txt").write_text("another text\n" * 20)
    options = ("--data", tmp_path / "other.txt", "--out", tmp_path / "run")
    assert patchpad("train", "--config", finished / "config.json", *options).code == 0
    assert open_checkpoint(tmp_path / "run").config.data.paths == (str(tmp_path / "other.txt"),)


def test_evaluate_as_json_has_the_keys_promised_and_infinities_as_strings(patchpad, finished, text):
    thresholds = ["--scratchpad-threshold", "inf", "--scratchpad-threshold", "1.5", "--scratchpad-threshold", "-inf"]
    called = patchpad("evaluate", finished, "--data", text, *thresholds, "--limit-bytes", "0", "--json")
    value = strict(called)
    assert set(value) == {"points"}
    assert [set(point) for point in value["points"]] == [POINT_KEYS] * 3
    assert [point["scratchpad_threshold_nats"] for point in value["points"]] == ["inf", 1.5, "-inf"]
    assert {point["num_bytes"] for point in value["points"]} == {text.stat().st_size}
    expected = package.evaluate(
        package.load(finished), text, scratchpad_threshold_nats=[math.inf, 1.5, -math.inf], limit_bytes=0
    )
    assert [point["bits_per_byte"] for point in value["points"]] == [point.bits_per_byte for point in expected]
    assert called.err == ""


def test_evaluate_without_a_threshold_uses_the_stored_one(patchpad, finished, text):
    (point,) = strict(patchpad("evaluate", finished, "--data", text, "--json"))["points"]
    assert point["scratchpad_threshold_nats"] == float(package.load(finished).scratchpad_threshold_nats)


def test_evaluate_limits_and_overlaps(patchpad, finished, text):
    limited = strict(patchpad("evaluate", finished, "--data", text, "--limit-bytes", "640", "--json"))["points"][0]
    assert abs(limited["num_bytes"] - 640) <= 64
    points = [
        strict(patchpad("evaluate", finished, "--data", text, "--overlap", overlap, "--json"))["points"][0]
        for overlap in ("0", "32")
    ]
    assert points[0]["num_bytes"] == points[1]["num_bytes"] == text.stat().st_size
    assert points[0]["bits_per_byte"] != points[1]["bits_per_byte"]


def test_evaluate_prints_a_table_with_a_row_for_each_threshold(patchpad, finished, text):
    thresholds = ["--scratchpad-threshold=-inf", "--scratchpad-threshold", "-1.5"]
    called = patchpad("evaluate", finished, "--data", text, *thresholds)
    assert called.code == 0
    rows = [line.split() for line in called.out.splitlines() if line.strip()]
    assert [row[0] for row in rows[-3:-1]] == ["-inf", "-1.500"]
    assert "bits per" in called.out


@pytest.mark.parametrize("overlap", ["0", "32"])
def test_evaluate_says_below_its_table_how_much_of_the_text_was_measured(patchpad, finished, text, overlap):
    size = text.stat().st_size
    called = patchpad("evaluate", finished, "--data", text, "--overlap", overlap)
    assert called.out.endswith(f"\n\nall {size:,} bytes measured\n")
    options = ("--data", text, "--overlap", overlap, "--limit-bytes", "640")
    (point,) = strict(patchpad("evaluate", finished, *options, "--json"))["points"]
    last = patchpad("evaluate", finished, *options).out.splitlines()[-1]
    assert last == f"{point['num_bytes']:,} of {size:,} bytes measured; --limit-bytes 0 measures all"


def test_evaluate_takes_a_step_folder(patchpad, finished, text):
    of_run = strict(patchpad("evaluate", finished, "--data", text, "--json"))
    assert strict(patchpad("evaluate", finished / "checkpoints" / "step-6", "--data", text, "--json")) == of_run


def test_calibrate_stores_a_table_that_makes_compute_work(patchpad, run, text):
    called = patchpad("calibrate", run, "--data", text, "--limit-bytes", "1000")
    assert called.code == 0
    assert f"Stored in {run}." in called.out
    table = package.load(run).calibration
    assert f"Least compute: {table.least_compute:.4f}" in called.out
    for compute in (table.least_compute, 0.3, 1):
        prompt = "the cat sat on the mat"
        arguments = ["--compute", str(compute), "--max-new-bytes", "60", "--temperature", "0", "--json"]
        value = strict(patchpad("generate", run, "--prompt", prompt, *arguments))
        (completion,) = value["completions"]
        calls = completion["trunk_calls"] / (completion["num_bytes"] + len(prompt))
        if compute == 1:
            assert calls == pytest.approx(1, abs=0.05)
        if compute == table.least_compute:
            assert completion["trunk_calls"] == completion["trunk_cache_entries"]


def test_calibrate_as_json_prints_the_stored_table(patchpad, run, text):
    value = strict(patchpad("calibrate", run, "--data", text, "--limit-bytes", "500", "--json"))
    assert value == json.loads((run / "calibration.json").read_text())
    assert value["rows"][0]["scratchpad_threshold_nats"] == "inf"


def test_calibrating_again_replaces_the_table(patchpad, run, text):
    first = strict(patchpad("calibrate", run, "--data", text, "--limit-bytes", "300", "--json"))
    second = strict(patchpad("calibrate", run, "--data", text, "--json"))
    assert first["rows"] != second["rows"]
    assert package.load(run).calibration.rows[0]["num_bytes"] == second["rows"][0]["num_bytes"]


def test_release_writes_a_folder_that_the_other_commands_take(patchpad, fails, finished, text, tmp_path):
    called = patchpad("release", finished, "--out", tmp_path / "half", "--dtype", "bfloat16")
    assert called.code == 0, called.err
    first, second = called.out.splitlines()
    assert first.startswith(f"{tmp_path / 'half'}: ")
    assert second == f"Next: patchpad calibrate {tmp_path / 'half'} --data PATH"
    assert patchpad("calibrate", tmp_path / "half", "--data", text).code == 0
    again = strict(patchpad("release", tmp_path / "half", "--out", tmp_path / "whole", "--json"))
    assert again["folder"] == str(tmp_path / "whole")
    assert again["calibrated"] is True
    assert patchpad("generate", tmp_path / "whole", "--prompt", "the", "--max-new-bytes", "3").code == 0
    assert "has no averaged weights" in fails(1, "release", finished, "--out", tmp_path / "none", "--averaged")
    assert "is not an empty folder" in fails(1, "release", finished, "--out", tmp_path)


def test_generate_as_json_has_the_keys_promised(patchpad, finished):
    prompts = ["--prompt", "the ", "--prompt", "größer", "--prompt", ""]
    called = patchpad("generate", finished, *prompts, "--max-new-bytes", "9", "--json")
    completions = strict(called)["completions"]
    assert [set(completion) for completion in completions] == [COMPLETION_KEYS] * 3
    for completion in completions:
        data = base64.b64decode(completion["bytes_base64"])
        assert len(data) == completion["num_bytes"] <= 9
        assert completion["text"] == data.decode("utf-8", "replace")
        assert completion["stop_reason"] in ("length", "end")
        assert completion["trunk_calls"] >= completion["trunk_cache_entries"]
    assert called.err == ""


def test_generate_prints_prompt_and_text_and_the_same_text_as_json(patchpad, finished):
    options = ["--prompt", "the cat", "--max-new-bytes", "20", "--seed", "3"]
    called = patchpad("generate", finished, *options)
    (completion,) = strict(patchpad("generate", finished, *options, "--json"))["completions"]
    assert called.code == 0
    assert called.out == f"the cat{completion['text']}\n"
    assert patchpad("generate", finished, *options).out == called.out


def test_generate_shows_each_prompt_of_a_batch(patchpad, finished):
    called = patchpad("generate", finished, "--prompt", "one", "--prompt", "two", "--max-new-bytes", "3")
    assert called.code == 0
    assert "--- 1\none" in called.out
    assert "--- 2\ntwo" in called.out


@pytest.mark.parametrize("threshold", ["inf", "-inf", "-1.5", "2"])
def test_generate_takes_any_threshold(patchpad, finished, threshold):
    options = ["--prompt", "the cat", "--max-new-bytes", "4", "--scratchpad-threshold", threshold, "--json"]
    (completion,) = strict(patchpad("generate", finished, *options))["completions"]
    if threshold == "inf":
        assert completion["trunk_calls"] == completion["trunk_cache_entries"]
    if threshold in ("-inf", "-1.5"):
        assert completion["trunk_calls"] == len("the cat") + 1 + completion["num_bytes"] - 1  # the last is not read


def test_cost_as_json_has_the_keys_promised_for_all_and_for_each_part(patchpad, config):
    value = strict(patchpad("cost", "--config", config, "--json"))
    assert set(value) >= COST_KEYS | {"cache_dtype", "parts"}
    assert value["cache_dtype"] == "float32"
    for part in value["parts"].values():
        assert set(part) >= COST_KEYS
    for key in COST_KEYS:
        assert value[key] == pytest.approx(sum(part[key] for part in value["parts"].values()))


def test_cost_takes_context_rates_and_dtype(patchpad, config):
    plain = strict(patchpad("cost", "--config", config, "--json"))
    options = ["--context", "4096", "--mean-patch-size", "4", "--scratchpads-per-byte", "0.5", "--dtype", "bfloat16"]
    value = strict(patchpad("cost", "--config", config, *options, "--json"))
    assert (value["context_bytes"], value["patches_per_byte"], value["scratchpads_per_byte"]) == (4096, 0.25, 0.5)
    assert (
        value["trunk_cache_bytes_per_byte"] == plain["trunk_cache_bytes_per_byte"]
    )  # twice the patches, half the bytes
    assert value["num_params"] == plain["num_params"]
    assert value["flops_per_byte"] > plain["flops_per_byte"]


def test_cost_counts_the_parameters_of_a_trained_model(patchpad, config, finished):
    value = strict(patchpad("cost", "--config", config, "--json"))
    assert value["num_params"] == sum(parameter.numel() for parameter in package.load(finished).parameters())


def test_cost_prints_a_row_for_each_part(patchpad, config):
    called = patchpad("cost", "--config", config)
    assert called.code == 0
    for part in ("local_encoder", "entropy_head", "patch_pooling", "trunk", "local_decoder", "all"):
        assert any(line.startswith(part) for line in called.out.splitlines())


def test_version_and_help_go_to_stdout(patchpad):
    assert patchpad("--version").out.strip() == package.__version__
    for arguments in ([], ["--help"], ["-h"]):
        called = patchpad(*arguments)
        assert called.code == 0
        assert "Usage: patchpad COMMAND" in called.out
        assert called.err == ""


def test_without_text_evaluate_and_calibrate_measure_the_excerpt(patchpad, run, tmp_path, caplog):
    excerpt = bundled_excerpt()
    file = tmp_path / "excerpt.txt"
    file.write_bytes(excerpt.text)
    (point,) = strict(patchpad("evaluate", run, "--json"))["points"]
    assert f"no --data: measured on {len(excerpt.text):,} bytes of {excerpt.source}" in caplog.text
    assert point == strict(patchpad("evaluate", run, "--data", file, "--json"))["points"][0]
    table = strict(patchpad("calibrate", run, "--json"))
    assert table == strict(patchpad("calibrate", run, "--data", file, "--json"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["--config", "--data", "--out", "--resume", "--device", "--train.steps 2000"]),
        ("evaluate", ["RUN", "--data", "--scratchpad-threshold", "--limit-bytes", "--overlap", "--json"]),
        ("calibrate", ["RUN", "--data", "--limit-bytes", "--json"]),
        ("generate", ["RUN", "--prompt", "--compute", "--scratchpad-threshold", "--seed", "--json"]),
        ("cost", ["--config", "--context", "--mean-patch-size", "--scratchpads-per-byte", "--json"]),
    ],
)
def test_help_of_a_command_names_its_options(patchpad, command, words):
    called = patchpad(command, "--help")
    assert called.code == 0
    assert all(word in called.out for word in words)


def test_fields_are_read_with_a_space_or_an_equals_sign():
    assert parse_fields(("--train.steps", "3", "--model.trigger.kind=never")) == {
        "train.steps": "3",
        "model.trigger.kind": "never",
    }
    assert parse_fields(("--train.learning-rate", "-1", "--data.paths=a=b")) == {
        "train.learning_rate": "-1",
        "data.paths": "a=b",
    }
    with pytest.raises(ConfigError, match=r"--train\.steps has no value"):
        parse_fields(("--train.steps", "--train.seed", "3"))
