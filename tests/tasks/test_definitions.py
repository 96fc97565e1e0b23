"""The tasks that ship with the package are read, and their files' mistakes are named."""

import json
from pathlib import Path

import pytest

from patchpad.errors import ConfigError, DataError
from patchpad.registry import TASK_KINDS
from patchpad.tasks.kinds import load_task, task_names

TASK = """\
kind: choices
data: a.jsonl
context: "{question}"
choices: "{choices}"
"""


@pytest.mark.parametrize("name", task_names())
def test_every_task_of_the_package_is_read_by_its_name(name):
    task = load_task(name)
    assert task.name == name
    assert task.kind in TASK_KINDS
    assert task.title
    assert task.text
    assert all(not Path(path).is_absolute() for path in task.data)


def test_a_task_is_one_file_of_yaml(file):
    task = load_task(file(TASK))
    assert (task.name, task.title, task.data) == ("mine", "mine", ("a.jsonl",))
    assert task.fields() == ("question", "choices", "gold")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TASK.replace("choices\n", "chioces\n", 1), "`kind` is 'chioces'\nDid you mean `choices`?"),
        (TASK.replace("kind: choices\n", ""), "`kind` is missing\nAllowed: "),
        (TASK + "golf: x\n", "unknown key `golf`\nDid you mean `gold`"),
        (TASK.replace("data: a.jsonl\n", ""), "the key `data` is missing"),
        (TASK.replace("a.jsonl", "[]"), "`data` is empty; allowed: at least one file"),
        (TASK.replace("{question}", "{question"), "`context`: `{` in '{question' is not a field"),
        (TASK + "shots: -1\n", "shots is -1; allowed: an integer of at least 0"),
        (TASK + "normalisation: tokens\n", "`normalisation` is 'tokens'; allowed: sum, per_byte"),
        (TASK + "replacements: [{pattern: '('}]\n", "`replacements[0]` is not a regular expression"),
        (TASK.replace('"{choices}"', "[]"), "`choices` is empty; allowed: at least one template"),
        (TASK + "normalisation: unconditional\nunconditional_context: ''\n", "`unconditional_context` is empty"),
        (TASK.replace("{question}", "{question}{choice}"), "`unconditional_context` is 'Answer:'; allowed: an empty"),
        ("[1]", "holds a list; allowed: the keys of a task"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_the_file(file, text, message):
    path = file(text)
    with pytest.raises(ConfigError) as found:
        load_task(path)
    assert str(found.value).startswith(str(path))
    assert message in str(found.value)


def test_an_unknown_name_shows_near_ones():
    with pytest.raises(ConfigError, match="'helaswag' is neither a task nor a file\nDid you mean `hellaswag`"):
        load_task("helaswag")
    with pytest.raises(ConfigError, match=r"winogrande\. A task of a plug-in needs --plugin MODULE"):
        load_task("proverbs")


def test_a_name_that_ends_like_a_file_is_a_file_beside_the_suite(file):
    path = file(TASK)
    assert load_task("mine.yaml", folder=path.parent) == load_task(path)
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_task("./hellaswag")


def test_a_file_of_data_that_is_not_there_is_named(file, tmp_path):
    with pytest.raises(
        DataError, match=r"the task `mine` needs a\.jsonl, and .*a\.jsonl is not a file\nGive the folder"
    ):
        load_task(file(TASK)).rows(tmp_path)


def test_a_limit_takes_rows_at_even_distances_over_all_files(file, tmp_path):
    for name, begin in (("a.jsonl", 0), ("b.jsonl", 6)):
        lines = (json.dumps({"question": str(n), "choices": ["x", "y"], "gold": 0}) for n in range(begin, begin + 6))
        (tmp_path / name).write_text("\n".join(lines))
    task = load_task(file(TASK.replace("a.jsonl", "[a.jsonl, b.jsonl]")))
    assert [row["question"] for row in task.rows(tmp_path, 4)] == ["0", "3", "6", "9"]
    assert len(task.rows(tmp_path, 99)) == len(task.rows(tmp_path)) == 12


def test_files_of_one_name_in_several_folders_have_examples_of_different_names(file, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jsonl").write_text('{"question": "q", "choices": ["x", "y"], "gold": 0}')
    task = load_task(file(TASK.replace("a.jsonl", "[a/x.jsonl, b/x.jsonl]")))
    assert [row.id for row in task.rows(tmp_path)] == ["a/x.jsonl:1", "b/x.jsonl:1"]
    with pytest.raises(ConfigError, match=r"`data` names a\.jsonl twice"):
        load_task(file(TASK.replace("a.jsonl", "[a.jsonl, a.jsonl]")))


def test_texts_of_rows_are_cleaned_when_they_are_read(file, tmp_path):
    row = {"question": "  a [x] b ", "choices": ["[step] c", 4], "gold": 0}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    task = load_task(file(TASK + r"replacements: [{pattern: '\[.*?\]'}, {pattern: '  ', by: ' '}]"))
    assert task.rows(tmp_path) == [{"question": "a b", "choices": [" c", 4], "gold": 0}]
