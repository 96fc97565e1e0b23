"""The same commands and keys for every kind of model; dials that a baseline lacks are refused in two lines."""

import json
import sys

import pytest

from patchpad.testing import BASELINE_KINDS

TINY = {kind: f"tiny-{kind}{'4' if kind == 'megabyte' else ''}" for kind in BASELINE_KINDS}
POINT_KEYS = {
    "scratchpad_threshold_nats", "bits_per_byte", "num_bytes", "scratchpads_per_byte", "patches_per_byte",
    "trunk_calls_per_byte", "flops_per_byte", "trunk_cache_bytes_per_byte",
}  # fmt: skip
COMPLETION_KEYS = {"text", "bytes_base64", "num_bytes", "trunk_calls", "trunk_cache_entries", "stop_reason"}


def strict(called) -> dict:
    assert called.code == 0, called.err
    return json.loads(called.out, parse_constant=pytest.fail)


@pytest.fixture(scope="module", params=BASELINE_KINDS)
def trained(request, tmp_path_factory, text):
    from patchpad.cli.app import main

    out = tmp_path_factory.mktemp("runs") / request.param
    assert (
        main(["train", "--config", str(TINY[request.param]), "--data", str(text), "--out", str(out), "--device", "cpu"])
        == 0
    )
    return request.param, out


def test_the_run_improves_on_equal_odds_and_names_the_next_command(patchpad, trained, text, tmp_path):
    _, out = trained
    line = strict(patchpad("train", "--resume", out, "--json"))
    assert line["val/bpb"] < 6.5
    assert line["run"] == str(out)
    said = patchpad("train", "--resume", out).out
    assert f"Next: patchpad evaluate {out} --data PATH" in said


def test_evaluate_has_the_keys_promised_and_counts_the_file(patchpad, trained, text):
    _, out = trained
    (point,) = strict(patchpad("evaluate", out, "--data", text, "--limit-bytes", "0", "--json"))["points"]
    assert set(point) == POINT_KEYS
    assert point["num_bytes"] == text.stat().st_size
    assert point["scratchpad_threshold_nats"] == "inf"
    table = patchpad("evaluate", out, "--data", text)
    assert table.code == 0
    assert f"{point['bits_per_byte']:.4f}" in table.out
    points = strict(patchpad("evaluate", out, "--data", text, *("--scratchpad-threshold", "-inf"), "--json"))["points"]
    assert points[0]["bits_per_byte"] == point["bits_per_byte"]


def test_generate_has_the_keys_promised_and_the_bytes_asked_for(patchpad, trained):
    _, out = trained
    arguments = ("generate", out, "--prompt", "the cat", "--prompt", "", "--max-new-bytes", "23")
    for completion in strict(patchpad(*arguments, "--json"))["completions"]:
        assert set(completion) == COMPLETION_KEYS
        assert completion["num_bytes"] == 23 or completion["stop_reason"] == "end"
    plain = patchpad("generate", out, "--prompt", "the cat", "--max-new-bytes", "23")
    assert plain.code == 0
    assert plain.out.startswith("the cat")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("evaluate", ("--scratchpad-threshold", "1.5")),
        ("generate", ("--scratchpad-threshold", "1.5")),
        ("generate", ("--compute", "0.5")),
        ("calibrate", ()),
        ("inspect", ()),
    ],
)
def test_dials_are_refused_in_two_lines(fails, trained, text, command, options):
    kind, out = trained
    data = {"generate": ("--prompt", "x"), "inspect": ("--text", text)}.get(command, ("--data", text))
    said = fails(2, command, out, *data, *options)
    assert f"a `{kind}` model has no scratchpads" in said
    assert len(said.splitlines()) == 2


@pytest.mark.parametrize("kind", BASELINE_KINDS)
def test_cost_has_the_keys_of_the_patch_model(patchpad, fails, kind):
    patch = strict(patchpad("cost", "--config", "tiny-spacebyte-entropy", "--json"))
    given = ("--mean-patch-size", "3.5") if kind == "bpe" else ()
    found = strict(patchpad("cost", "--config", TINY[kind], *given, "--json"))
    assert set(found) == set(patch)
    assert set(next(iter(found["parts"].values()))) == set(patch["parts"]["trunk"])
    assert found["trunk_calls_per_byte"] == pytest.approx({"byte": 1, "bpe": 1 / 3.5, "megabyte": 1 / 4}[kind])
    assert patchpad("cost", "--config", TINY[kind], *given).code == 0
    said = fails(2, "cost", "--config", TINY[kind], *given, "--scratchpads-per-byte", "0.1")
    assert "has no scratchpads" in said


def test_cost_of_bpe_asks_for_the_bytes_per_token(fails):
    assert "--mean-patch-size" in fails(2, "cost", "--config", TINY["bpe"])


def test_training_bpe_without_the_library_names_the_pip_line(fails, text, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    said = fails(1, "train", "--config", TINY["bpe"], "--data", text, "--out", tmp_path / "run")
    assert 'pip install "patchpad[bpe]"' in said


def test_generate_stops_inside_a_token(patchpad, trained):
    _, out = trained
    completion = strict(patchpad("generate", out, "--prompt", "the", "--stop", "a", "--max-new-bytes", "400", "--json"))
    (row,) = completion["completions"]
    assert row["stop_reason"] in ("stop", "end", "length")
    assert "a" not in row["text"]
