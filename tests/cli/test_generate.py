"""`patchpad generate` as people use it: files of prompts, stop strings, pipes, other locales, interruption."""

import base64
import io
import json
import os
import signal
import sys
import time

import pytest


def completions(called) -> list[dict]:
    assert called.code == 0, called.err
    return json.loads(called.out)["completions"]


def test_prompts_from_a_file_are_one_batch_in_their_order(patchpad, finished, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes("the cat\r\n\r\ngrößer\r\nsat on the mat, and\r\n".encode())
    options = ["--max-new-bytes", "12", "--seed", "4", "--json"]
    from_file = completions(patchpad("generate", finished, "--prompts", file, *options))
    prompts = ["the cat", "", "größer", "sat on the mat, and"]
    given = completions(
        patchpad("generate", finished, *(part for prompt in prompts for part in ("--prompt", prompt)), *options)
    )
    assert from_file == given
    assert from_file == completions(patchpad("generate", finished, "--prompts", file, "--batch-rows", "2", *options))
    assert from_file == completions(
        patchpad("generate", finished, "--prompts", file, "--batch-rows", str(2**70), *options)
    )
    shown = patchpad("generate", finished, "--prompts", file, *options[:-1]).out
    assert shown == "".join(
        f"--- {number}\n{prompt}{one['text']}\n"
        for number, (prompt, one) in enumerate(zip(prompts, from_file, strict=True), start=1)
    )


def test_stop_ends_a_generation_and_is_cut_off(patchpad, finished):
    options = ["--prompt", "the cat", "--max-new-bytes", "40", "--seed", "3"]
    (whole,) = completions(patchpad("generate", finished, *options, "--json"))
    stop = next(letter for letter in whole["text"][7:] if letter.isascii() and letter.isprintable())
    (cut,) = completions(patchpad("generate", finished, *options, "--stop", stop, "--stop", "unseen", "--json"))
    assert cut["stop_reason"] == "stop"
    assert cut["text"] == whole["text"][: whole["text"].index(stop)]
    assert patchpad("generate", finished, *options, "--stop", stop).out == f"the cat{cut['text']}\n"


def test_prompts_and_stops_may_begin_with_a_hyphen(patchpad, finished, monkeypatch):
    options = ["--max-new-bytes", "5", "--temperature", "0", "--json"]
    texts = ("- item", "-- x", "-")
    alone = [completions(patchpad("generate", finished, "--prompt", text, *options)) for text in texts]
    assert alone == [completions(patchpad("generate", finished, f"--prompt={text}", *options)) for text in texts]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(texts).encode())))
    together = completions(patchpad("generate", finished, "--prompts", "-", *options))
    assert together == [one for (one,) in alone]
    assert patchpad("generate", finished, "--prompt", "a", "--stop", "---", "--stop", "-", *options).code == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "neither --prompt nor --prompts was given"),
        (["--prompt", "a", "--prompts", "b"], "both --prompt and --prompts were given"),
        (["--prompt", "a", "--stop", ""], "a stop string is b''; allowed: text or bytes of at least one byte"),
        (["--prompt", "a", "--batch-rows", "0"], "batch_rows is 0; allowed: an integer of at least 1"),
        pytest.param(
            ["--prompt", "a", "--draft", "x"],
            "draft is 'x'; allowed: auto, off, or a number of bytes from 1 to 64",
            marks=pytest.mark.unchecked,
        ),
        (["--prompt", "a", "--draft", "99"], "draft is 99; allowed: auto, off, or a number of bytes from 1 to 64"),
        (["--prompt", "a", "--seed", str(2**63)], "seed is 9223372036854775808; allowed"),
    ],
)
def test_wrong_options_are_named(fails, finished, options, expected):
    assert expected in fails(2, "generate", finished, *options)


def test_drafts_change_the_passes_of_the_trunk_and_not_the_text(patchpad, finished):
    options = ["--prompt", "the cat", "--max-new-bytes", "30", "--seed", "4", "--json"]
    auto, off, drafted = (
        json.loads(patchpad("generate", finished, *options, *more).out)
        for more in ([], ["--draft", "off"], ["--draft", "8"])
    )
    assert auto == off  # the trunk is small
    assert drafted["completions"] == off["completions"]
    assert (off["drafts"], off["drafted_bytes"], off["kept_bytes"]) == (0, 0, 0)
    assert 0 < drafted["drafts"] <= drafted["kept_bytes"] <= drafted["drafted_bytes"]
    assert 0 < drafted["trunk_passes"] <= off["trunk_passes"]


def test_a_missing_file_of_prompts_is_named(fails, finished):
    assert "cannot read prompts from C:\\texts\\p.txt" in fails(
        1, "generate", finished, "--prompts", "C:\\texts\\p.txt"
    )


def test_the_small_model_is_used_without_a_run(patchpad):
    called = patchpad("generate", "--prompt", "It was", "--max-new-bytes", "40", "--compute", "0.3")
    assert called.code == 0, called.err
    assert called.out.startswith("It was")
    assert len(called.out.encode()) >= 40


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("cp1252", marks=pytest.mark.slow)])
def test_a_pipe_gets_the_exact_bytes_whatever_its_encoding(command, patchpad, finished, encoding):
    prompt = "größer 日".encode() + b"\xff\x1b[2J"
    arguments = ["generate", finished, "--prompt", prompt, "--max-new-bytes", "9"]
    environment = {**command.environment, "PYTHONIOENCODING": encoding}
    done = command.run(*arguments, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    here = patchpad(*arguments[:3], os.fsdecode(prompt), *arguments[4:], "--json")
    assert here.out.isascii()
    (one,) = completions(here)
    assert done.stdout == prompt + base64.b64decode(one["bytes_base64"]) + b"\n"


@pytest.mark.slow
def test_a_locale_that_is_not_utf_8_works(command, patchpad, finished):
    environment = {**command.environment, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    arguments = ["generate", finished, "--prompt", "größer".encode(), "--max-new-bytes", "9", "--json"]
    done = command.run(*arguments, env=environment, check=True)
    here = patchpad(*arguments[:3], "größer", *arguments[4:])
    assert json.loads(done.stdout) == json.loads(here.out)  # the prompt's bytes are the same


@pytest.mark.parametrize("prompts", [1, 3])
def test_a_reader_that_goes_away_ends_the_generation_quietly(command, finished, prompts):
    length = "1000000" if prompts == 1 else "50"  # a stream stops at once, a batch when it next prints
    arguments = [*["--prompt", "the"] * prompts, "--max-new-bytes", length, "--temperature", "0", "--batch-rows", "1"]
    with command.start("generate", finished, *arguments) as process:
        try:
            if prompts == 1:
                assert process.stdout.read(3) == b"the"
            process.stdout.close()
            assert process.wait(timeout=60) == 0
            assert process.stderr.read() == b""
        finally:
            process.kill()


@pytest.mark.slow
def test_a_slow_reader_gets_every_byte(command, patchpad, finished):
    options = ["--prompt", "the", "--max-new-bytes", "300", "--seed", "1"]
    with command.start("generate", finished, *options) as process:
        time.sleep(0.3)
        read = b""
        while piece := process.stdout.read(50):
            read += piece
            time.sleep(0.02)
        assert process.wait(timeout=60) == 0
    (whole,) = completions(patchpad("generate", finished, *options, "--json"))
    assert read == b"the" + base64.b64decode(whole["bytes_base64"]) + b"\n"


@pytest.mark.slow
def test_ctrl_c_prints_what_there_is(command):
    options = ["--prompt", "the", "--max-new-bytes", "1000000", "--json", "--temperature", "0"]
    with command.start("generate", *options) as process:  # the model that ships: it knows of no end
        try:
            assert b"0 of 1 prompts done" in process.stderr.readline()  # it runs, however slow the machine is
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert err.splitlines()[-1] == b"patchpad: interrupted"
    (completion,) = json.loads(out)["completions"]
    assert completion["stop_reason"] is None
    assert len(base64.b64decode(completion["bytes_base64"])) == completion["num_bytes"] > 0
