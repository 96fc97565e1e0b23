"""`--weights` of the commands that only read a model."""

import json

import pytest

from patchpad import complete, load


@pytest.mark.parametrize("kind", ["int8", "int8-all"])
def test_commands_take_int8_weights(patchpad, finished, kind):
    options = ["--prompt", "the cat", "--max-new-bytes", "8", "--temperature", "0", "--json", "--weights", kind]
    called = patchpad("generate", finished, *options)
    assert called.code == 0, called.err
    (completion,) = json.loads(called.out)["completions"]
    assert completion["text"] == complete(load(finished, weights=kind), "the cat", max_new_bytes=8, temperature=0).text
    measured = patchpad("evaluate", finished, "--limit-bytes", "500", "--json", "--weights", kind)
    assert measured.code == 0, measured.err
    plain = patchpad("evaluate", finished, "--limit-bytes", "500", "--json")
    both = [json.loads(one.out)["points"][0]["bits_per_byte"] for one in (measured, plain)]
    assert both[0] == pytest.approx(both[1], rel=0.01)
    assert both[0] != both[1]
    assert patchpad("inspect", finished, "--words", "the cat", "--weights", kind).code == 0


def test_weights_that_are_unknown_are_refused(patchpad, finished):
    called = patchpad("generate", finished, "--prompt", "a", "--weights", "int4")
    assert called.code != 0
    assert "int8-all" in called.err
