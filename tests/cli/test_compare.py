"""`patchpad compare`, on results that `patchpad evaluate` wrote."""

import json
import shutil

import pytest

TASK = "{kind: choices, data: toy.jsonl, context: '{question}', choices: '{choices}', normalisation: sum}"


@pytest.fixture
def evaluated(patchpad, finished, tmp_path, monkeypatch):
    """The working folder with results in `a` (two thresholds) and `b` (one)."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path, ("cat", "mat", "日本", "dog"))
    (tmp_path / "toy.yaml").write_text(TASK)
    for out, thresholds in (("a", "inf,1"), ("b", "0.5")):
        assert measure(patchpad, finished, out, "--scratchpad-threshold", thresholds).code == 0
    return tmp_path


def write_rows(folder, words):
    rows = [{"question": f"the {word} sat", "choices": ["on", "größer"], "gold": 0} for word in words]
    (folder / "toy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def measure(patchpad, finished, out, *further):
    return patchpad("evaluate", finished, "--task", "./toy.yaml", "--data", ".", "--out", out, *further)


def test_results_stand_side_by_side_on_the_terminal_in_json_and_on_a_page(patchpad, evaluated, finished):
    called = patchpad("compare", "a", "b/result.json", "--html", "page.html")
    assert called.code == 0, called.err
    assert "a at inf" in called.out
    assert "a at 1.000" in called.out
    assert "n = 4" in called.out
    assert "fewer than 30 examples" in called.out
    assert "trunk calls" in called.out
    page = (evaluated / "page.html").read_text()
    assert page.count("<svg ") == 1
    assert "<script" not in page
    values = json.loads(patchpad("compare", "a", "b", "--json").out)
    assert values["reference"] == "a at inf"
    assert [column["result"] for column in values["columns"]] == ["a", "a", "b"]
    (task,) = values["tasks"]
    assert task["metric"] == "accuracy"
    assert task["results"][0]["difference"] is None
    assert [cell["difference"]["num_examples"] for cell in task["results"][1:]] == [4, 4]
    other = json.loads(patchpad("compare", "a", "b", "--json", "--metric", "gold_bits_per_byte").out)["tasks"][0]
    assert other["metric"] == "gold_bits_per_byte"
    assert not other["higher_is_better"]
    one = patchpad("compare", "b")
    assert one.code == 0, one.err

    shutil.rmtree("b")  # the same name, other inputs
    assert measure(patchpad, finished, "b", "--shots", "1").code == 0
    refused = patchpad("compare", "a", "b")
    assert refused.code == 2
    assert "a and b did not measure `toy` alike" in refused.err
    assert "`options.shots` was null and is 1" in refused.err
    write_rows(evaluated, ("cat", "mat", "日本", "pig"))
    assert measure(patchpad, finished, "c").code == 0
    refused = patchpad("compare", "a", "c")
    assert refused.code == 2
    assert "`data.toy.jsonl` was" in refused.err


def test_what_is_no_result_is_named(fails, tmp_path):
    assert "no RESULT is given" in fails(2, "compare")
    assert "holds no results of tasks" in fails(1, "compare", tmp_path)
