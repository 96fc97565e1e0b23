"""Which documents `evaluate` and `calibrate` measure, by their options."""

import json

import pytest

RECORDS = [{"content": "It was a dark night.", "text": "no"}, {"content": "She said nothing.", "text": "no"}]


@pytest.fixture
def records(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return path


@pytest.mark.parametrize(
    ("options", "num_bytes"),
    [
        ([], 4),
        (["--text-field", "content"], sum(len(record["content"]) for record in RECORDS)),
        (["--format", "raw"], None),
    ],
)
def test_format_and_field_say_which_bytes_are_measured(patchpad, finished, records, options, num_bytes):
    called = patchpad("evaluate", finished, "--data", records, "--json", *options)
    assert called.code == 0
    (point,) = json.loads(called.out)["points"]
    assert point["num_bytes"] == (num_bytes or records.stat().st_size)


@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
def test_an_unknown_format_is_an_error_that_names_the_allowed_ones(fails, run, records, command):
    message = fails(2, command, run, "--data", records, "--format", "parquet")
    assert "parquet" in message
    assert "raw" in message
