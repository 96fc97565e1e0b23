"""Every wrong input gives one or two lines on stderr, no traceback, and the exit code that fits."""

import gzip
import json
import os
import shutil

import pytest

from patchpad.errors import PatchpadError
from patchpad.files import sha256_of


@pytest.mark.parametrize("command", ["train", "evaluate", "calibrate"])
class TestWrongText:
    @pytest.fixture
    def with_data(self, command, finished, config, tmp_path):
        if command == "train":
            return lambda data: ["train", "--config", config, "--out", tmp_path / "new", "--data", data]
        return lambda data: [command, finished, "--data", data]

    def test_missing_file(self, fails, with_data, tmp_path):
        assert f"no file is at {tmp_path}/missing.txt" in fails(1, *with_data(tmp_path / "missing.txt"))

    def test_path_that_is_empty_or_too_long(self, fails, with_data):
        assert "the path of a text is empty; allowed: a file, glob or directory" in fails(1, *with_data(""))
        assert "File name too long" in fails(1, *with_data("a" * 5000))

    def test_pipe(self, fails, with_data, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        assert "is not a regular file but a pipe" in fails(1, *with_data(tmp_path / "pipe"))

    def test_empty_corpus(self, fails, with_data, tmp_path):
        (tmp_path / "empty.txt").write_bytes(b"")
        assert "no text, only 1 empty document" in fails(1, *with_data(tmp_path / "empty.txt"))

    def test_directory_without_readable_files(self, fails, with_data, tmp_path):
        (tmp_path / "folder" / "sub").mkdir(parents=True)
        (tmp_path / "folder" / ".hidden").write_bytes(b"x")
        assert "holds no readable file" in fails(1, *with_data(tmp_path / "folder"))

    def test_truncated_archive(self, fails, with_data, tmp_path):
        (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(range(256)))[:-20])
        assert "cannot read" in fails(1, *with_data(tmp_path / "a.gz"))

    def test_other_packing(self, fails, with_data, tmp_path):
        (tmp_path / "a.zst").write_bytes(b"x")
        assert "Unpack it first: zstd -d" in fails(1, *with_data(tmp_path / "a.zst"))

    def test_broken_line_of_jsonl(self, fails, with_data, tmp_path):
        (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"body": "b"}\n')
        assert "line 2 has no string field `text`, nor `prompt` and `completion`; it has body (str)" in fails(
            1, *with_data(tmp_path / "a.jsonl")
        )


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("train: {stepz: 5}", ("wrong.yaml: unknown key `train.stepz`", "Did you mean `steps`?")),
        ("train: {steps: many}", ("wrong.yaml: `train.steps` is 'many'; allowed: an integer",)),
        ("model: {byte_dim: 15}", ("byte_dim is 15 with byte_heads 2; allowed: ",)),
        ("model: {trunk_layers: 0}", ("trunk_layers is 0; allowed: an integer of at least 1",)),
        ("model: {trigger: {scratchpad_threshold_nats: .nan}}", ("scratchpad_threshold_nats is nan",)),
        ("model: {trigger: {kind: entropi}}", ("`model.trigger.kind` is 'entropi'", "Did you mean `entropy`")),
        ("format_version: 9", ("format_version is 9; allowed: 3",)),
        ("model: {", ("wrong.yaml is not valid YAML",)),
        ("- 1", ("wrong.yaml holds a list; allowed: sections",)),
    ],
)
@pytest.mark.parametrize("command", ["train", "cost"])
def test_wrong_configuration(fails, tmp_path, text, command, yaml, expected):
    (tmp_path / "wrong.yaml").write_text(yaml)
    more = ["--data", text, "--out", tmp_path / "new"] if command == "train" else []
    message = fails(2, command, "--config", tmp_path / "wrong.yaml", *more)
    assert all(part in message for part in expected)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["--train.stepz", "5"],
            ("tiny.yaml and the command line: unknown key `train.stepz`", "Did you mean `steps`?"),
        ),
        (["--train.steps", "many"], ("`train.steps` is 'many'",)),
        (["--train.steps=0"], ("steps is 0",)),
        (["--train.steps"], ("--train.steps has no value", "Write --train.steps VALUE.")),
        (["--train.seed", "9" * 30], ("seed is 999",)),
        (["--trian.steps", "5"], ("unknown option --trian.steps",)),
        (["--outt", "x"], ("unknown option --outt", "Did you mean `--out`")),
        (["stray.txt"], ("unexpected argument 'stray.txt'", "--data before each path")),
        (["--device", "tpu"], ("device is 'tpu'; allowed: auto, cpu, cuda",)),
        (["--device", "cuda:77"], ("device is 'cuda:77', but this machine has none",)),
        (["--resume", "runs/x"], ("--resume was given with other options",)),
    ],
)
def test_wrong_options_of_train(fails, tmp_path, config, text, options, expected):
    message = fails(2, "train", "--config", config, "--data", text, "--out", tmp_path / "new", *options)
    assert all(part in message for part in expected)


def test_training_that_diverges_has_failed(fails, tmp_path, config, text):
    options = ("--config", config, "--data", text, "--out", tmp_path / "new", "--train.learning_rate", "1e30")
    message = fails(1, "train", *options)
    assert "training has diverged" in message
    assert "learning_rate below 1e+30" in message


@pytest.mark.parametrize(
    "field",
    ["train.patch_threshold_nats", "model.trigger.scratchpad_threshold_nats", "train.scratchpad_threshold_nats"],
)
def test_a_finite_threshold_that_cannot_be_stored_is_refused_before_training(fails, tmp_path, config, text, field):
    follows_no_rate = ["--train.scratchpads_per_byte", "null"] if field == "train.scratchpad_threshold_nats" else []
    options = ["--config", config, "--data", text, "--out", tmp_path / "new", *follows_no_rate]
    message = fails(2, "train", *options, f"--{field}=1e39")
    assert "threshold_nats is 1e+39; allowed: a number from -3.402823e+38 to 3.402823e+38, inf or -inf" in message
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "--data and --out is missing"),
        (["--data", "x.txt"], "--out is missing"),
        (["--out", "runs/x"], "--data is missing"),
        (["--data"], "--data"),
        (["--config", "missing.yaml", "--data", "x", "--out", "y"], "cannot read the configuration missing.yaml"),
    ],
)
def test_missing_options_of_train(fails, options, expected):
    assert expected in fails(2, "train", *options)


def test_a_run_inside_the_folder_of_its_text_is_refused_before_it_spoils_that(fails, config, text, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_bytes(text.read_bytes())
    message = fails(2, "train", "--config", config, "--data", folder, "--out", folder / "runs" / "x")
    assert f"{folder / 'runs' / 'x'} lies inside {folder}, whose files are all read as text" in message
    assert [path.name for path in folder.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(("glob", "name"), [("**", "config.json"), ("*/*.jsonl", "metrics.jsonl")])
def test_a_run_where_the_glob_of_its_text_looks_is_refused_too(fails, config, text, tmp_path, glob, name):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_bytes(text.read_bytes())
    message = fails(2, "train", "--config", config, "--data", folder / glob, "--out", folder / "run")
    assert f"{folder / 'run'} lies where {folder / glob} finds text: the run's own {name} would be" in message
    assert "Choose an --out outside of it, or a narrower glob" in message
    assert [path.name for path in folder.iterdir()] == ["a.txt"]


def test_a_run_that_stopped_before_its_first_checkpoint_leaves_room_for_another(patchpad, config, text, tmp_path):
    (tmp_path / "new" / "checkpoints").mkdir(parents=True)
    assert patchpad("train", "--config", config, "--data", text, "--out", tmp_path / "new").code == 0


def test_output_folder_that_is_not_empty(fails, config, text, run):
    message = fails(2, "train", "--config", config, "--data", text, "--out", run)
    assert "exists and is not empty" in message
    assert f"patchpad train --resume {run}" in message


@pytest.mark.parametrize("option", [[], ["--debug"]])
def test_full_disk(patchpad, config, text, tmp_path, monkeypatch, option):
    import safetensors.torch

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save", full)
    called = patchpad("train", "--config", config, "--data", text, "--out", tmp_path / "new", *option)
    assert called.code == 1
    assert "No space left on device" in called.err
    assert ("Traceback" in called.err) == bool(option)


@pytest.mark.parametrize("command", ["evaluate", "calibrate", "generate", "train"])
class TestWrongRun:
    @pytest.fixture
    def with_run(self, command, text):
        if command == "train":
            return lambda run: ["train", "--resume", run]
        more = ["--prompt", "the"] if command == "generate" else ["--data", text]
        return lambda run: [command, run, *more]

    def test_missing(self, fails, with_run, tmp_path):
        message = fails(1, *with_run(tmp_path / "missing"))
        assert f"no run is at {tmp_path}/missing" in message

    def test_foreign(self, fails, with_run, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "llama"}')
        (tmp_path / "model.safetensors").write_bytes(b"\x00" * 20)
        assert "is not a patchpad checkpoint" in fails(1, *with_run(tmp_path))

    def test_corrupt(self, fails, with_run, run):
        for file in run.rglob("model.safetensors"):
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.write_bytes(content)
        message = fails(1, *with_run(run))
        assert "was altered or is incomplete" in message
        assert ("Use another checkpoint" in message) or ("there is no earlier checkpoint" in message)

    def test_truncated_with_a_fitting_checksum(self, fails, with_run, run):
        for file in run.rglob("model.safetensors"):
            file.write_bytes(file.read_bytes()[:-50])
            manifest = json.loads(file.with_name("manifest.json").read_text())
            manifest["files"][file.name] = sha256_of(file)
            file.with_name("manifest.json").write_text(json.dumps(manifest))
        assert "cannot load" in fails(1, *with_run(run))

    def test_file_missing(self, fails, with_run, run):
        for file in run.rglob("config.json"):
            file.unlink()
        assert "config.json is missing" in fails(1, *with_run(run))

    def test_another_format(self, fails, with_run, run):
        for file in run.rglob("config.json"):
            file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": 99}))
            manifest = json.loads(file.with_name("manifest.json").read_text())
            manifest["files"][file.name] = sha256_of(file)
            file.with_name("manifest.json").write_text(json.dumps(manifest))
        assert "is of another version of patchpad: format_version is 99" in fails(1, *with_run(run))

    def test_no_checkpoint_yet(self, fails, with_run, run):
        shutil.rmtree(run)
        (run / "checkpoints").mkdir(parents=True)
        assert "does not hold a checkpoint yet" in fails(1, *with_run(run))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--scratchpad-threshold", "nan"], "scratchpad_threshold_nats is nan; allowed: a number of nats"),
        (["--scratchpad-threshold", "1.5", "--scratchpad-threshold", "nan"], "scratchpad_threshold_nats is nan"),
        (["--scratchpad-threshold", "much"], "--scratchpad-threshold: 'much' is not a number; allowed: numbers, inf"),
        (["--scratchpad-threshold", "1,,2"], "--scratchpad-threshold: '' is not a number"),
        (["--limit-bytes", "-1"], "limit_bytes is -1; allowed: 0 for all"),
        (["--limit-bytes", "x"], 'unable to convert "x" into int'),
        (["--overlap", "64"], "overlap is 64 with windows of 64 bytes"),
        (["--device", "tpu"], "device is 'tpu'"),
        (["--frobnicate", "3"], "Unknown option: --frobnicate"),
        (["stray"], "stray"),
        (["stray"], "Write an option before each value: --data A --data B."),
    ],
)
def test_wrong_options_of_evaluate(fails, finished, text, options, expected):
    assert expected in fails(2, "evaluate", finished, "--data", text, *options)


def test_wrong_options_of_calibrate(fails, finished, text):
    assert "limit_bytes is -5" in fails(2, "calibrate", finished, "--data", text, "--limit-bytes", "-5")
    assert not (finished / "calibration.json").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--compute", "0.5"], ("the model has no calibration", "Run `patchpad calibrate RUN --data PATH`")),
        (["--compute", "0.5", "--scratchpad-threshold", "1"], ("both compute and scratchpad_threshold_nats",)),
        (["--scratchpad-threshold", "nan"], ("scratchpad_threshold_nats is nan",)),
        (["--max-new-bytes", "-1"], ("max_new_bytes is -1",)),
        (["--max-new-bytes", "x"], ('unable to convert "x" into int',)),
        (["--temperature", "-1"], ("temperature is -1",)),
        (["--top-k", "0"], ("top_k is 0",)),
        (["--top-p", "1.5"], ("top_p is 1.5",)),
        (["--seed", "-1"], ("seed is -1",)),
    ],
)
def test_wrong_options_of_generate(fails, finished, options, expected):
    message = fails(2, "generate", finished, "--prompt", "the", *options)
    assert all(part in message for part in expected)


@pytest.mark.parametrize("compute", ["0.001", "1.5", "nan", "-1"])
def test_compute_out_of_range(patchpad, fails, run, text, compute):
    assert patchpad("calibrate", run, "--data", text, "--limit-bytes", "500").code == 0
    message = fails(2, "generate", run, "--prompt", "the", "--compute", compute)
    assert f"compute is {float(compute)}; allowed: 0.1" in message
    assert "(patches alone) to 1 (the trunk at every byte)" in message


@pytest.mark.parametrize(("command", "wanted"), [("calibrate", "RUN"), ("cost", "--config")])
def test_missing_options_and_arguments(fails, command, wanted):
    message = fails(2, command)
    assert f"{wanted} requires an argument" in message
    assert f"See: patchpad {command} --help" in message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--context", "0"], "context_bytes is 0; allowed: an integer of at least 1"),
        (["--context", "9" * 400], f"context_bytes is {'9' * 400}; allowed: an integer of at least 1, below 2^63"),
        (["--mean-patch-size", "0.5"], "--mean-patch-size is 0.5; allowed: a number of at least 1"),
        (["--mean-patch-size", "nan"], "--mean-patch-size is nan"),
        (["--scratchpads-per-byte", "1"], "scratchpads_per_byte is 1.0 with 0.125 patches per byte"),
        (["--dtype", "int8"], "the cache's dtype is 'int8'; allowed: float32, bfloat16, float16"),
    ],
)
def test_wrong_options_of_cost(fails, config, options, expected):
    assert expected in fails(2, "cost", "--config", config, *options)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["inspect", "--text", "-"], "Name a file with --text, or give the text itself with --words."),
        (["generate", "--prompts", "-"], "Name a file with --prompts."),
    ],
)
def test_closed_stdin_is_said_to_be_closed(fails, monkeypatch, options, hint):
    monkeypatch.setattr("sys.stdin", None)  # what Python makes of `<&-`
    assert fails(1, *options) == f"patchpad: stdin is closed; allowed: a file, or bytes on stdin\n{hint}\n"


def test_unknown_command_and_unknown_option_of_the_program(fails):
    assert "evalute" in fails(2, "evalute")
    assert "See: patchpad --help" in fails(2, "evalute")
    assert "--frobnicate" in fails(2, "--frobnicate")


def test_debug_shows_the_traceback_above_the_same_lines(patchpad, fails, tmp_path, finished):
    arguments = ["evaluate", finished, "--data", tmp_path / "missing"]
    plain = fails(1, *arguments)
    called = patchpad(*arguments, "--debug")
    assert called.code == 1
    assert called.err.startswith("Traceback (most recent call last):")
    assert "patchpad.errors.DataError" in called.err
    assert called.err.endswith(plain)


def test_errors_of_the_system_are_shown_in_two_lines(fails, finished, text, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "model.safetensors")

    monkeypatch.setattr("patchpad.training.manifest.sha256_of", refuse)
    message = fails(1, "evaluate", finished, "--data", text)
    assert "Permission denied: 'model.safetensors'" in message
    assert "permissions" in message


def test_interruption_is_one_line_and_130(fails, finished, text, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("patchpad.training.manifest.sha256_of", interrupt)
    assert fails(130, "evaluate", finished, "--data", text) == "patchpad: interrupted\n"


def test_every_kind_of_error_has_an_exit_code_that_is_documented():
    kinds = [PatchpadError, *PatchpadError.__subclasses__()]
    assert {kind.exit_code for kind in kinds} == {1, 2, 130}
