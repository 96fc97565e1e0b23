"""Suites are read, the ones that ship with the package and those in configs/, and their mistakes are named."""

from pathlib import Path

import pytest

from patchpad.errors import ConfigError
from patchpad.tasks.suite import load_suite, suite_names, with_changes, with_tasks

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_of_the_package_is_read_by_its_name_and_from_configs(name):
    suite = load_suite(name)
    assert suite.name == name
    assert suite.text
    assert load_suite(ROOT / "configs" / "suites" / f"{name}.yaml") == suite


def test_every_suite_in_configs_is_one_of_the_package():
    assert sorted(path.stem for path in (ROOT / "configs" / "suites").glob("*.yaml")) == suite_names()


def test_a_suite_is_a_list_of_names_or_of_tasks_with_options(file):
    suite = load_suite(
        file("""
seed: 3
tasks:
  - piqa
  - {task: piqa, shots: 2, limit: 10, noise: {kind: typo, rate: 0.1}, normalisation: sum}
  - {task: lambada, name: last, noise: {kind: case, seed: 4}}
""")
    )
    assert suite.name == "mine"
    assert [entry.label for entry in suite.entries] == ["piqa", "piqa-typo", "last"]
    plain, noisy, last = (entry.options(Path("data")) for entry in suite.entries)
    assert (plain.label, plain.seed, plain.shots, plain.limit) == ("piqa", 3, None, None)
    assert plain.change_context is plain.change_choices is None
    assert (noisy.shots, noisy.limit, noisy.normalisation) == (2, 10, "sum")
    text = "some words of a text " * 5
    assert noisy.change_context(text, "a:1") == noisy.change_choices(text, "a:1") != text
    assert last.change_context(text, "a:1") != text
    assert last.change_choices is None, "what a model should write stays as it is"
    assert suite.entries[1].to_dict()["options"]["noise"]["rate"] == 0.1


def test_an_entry_may_change_keys_of_its_task(file):
    text = "tasks: [{task: ntrex, changes: {trained: [eng, deu], sentences: 20}}, {task: ntrex, name: plain}]"
    changed, plain = load_suite(file(text)).entries
    assert (changed.task.trained, changed.task.sentences) == (("eng", "deu"), 20)
    assert plain.task.trained == ()
    assert changed.task.file_names == plain.task.file_names
    assert changed.to_dict()["task"]["trained"] == ("eng", "deu")
    assert changed.to_dict()["options"] == plain.to_dict()["options"]
    with pytest.raises(ConfigError, match="unknown key `traind`\nDid you mean `trained`"):
        load_suite(file("tasks: [{task: ntrex, changes: {traind: [eng]}}]"))


def test_a_task_of_a_suite_may_be_a_file_beside_it(file, tmp_path):
    (tmp_path / "own.yaml").write_text("{kind: choices, data: a.jsonl, context: '{q}', choices: '{c}'}")
    assert load_suite(file("tasks: [own.yaml]")).entries[0].task.name == "own"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: []", "`tasks` is empty"),
        ("name: x", "the key `tasks` is missing"),
        ("tasks: [piqqa]", "tasks[0]: 'piqqa' is neither a task nor a file\nDid you mean `piqa`"),
        ("tasks: [piqa, piqa]", "tasks[1]: the name `piqa` is used twice"),
        ("tasks: [{task: piqa, name: ../x}]", "tasks[0]: the name '../x' cannot name a file"),
        ("tasks: [{task: piqa, shot: 1}]", "unknown key `tasks[0].shot`\nDid you mean `shots`"),
        ("tasks: [{task: piqa, limit: 0}]", "tasks[0].limit is 0; allowed: an integer of at least 1"),
        ("tasks: [{task: piqa, noise: {kind: tpyo}}]", "noise.kind is 'tpyo'\nDid you mean `typo`"),
        ("tasks: [{task: piqa, noise: {kind: typo, where: here}}]", "`tasks[0].noise.where` is 'here'"),
        (
            "tasks: [{task: piqa, samples: 2}]",
            "tasks[0]: `samples` is 2, and the task `piqa` of kind `choices` has none",
        ),
        ("tasks: [{task: ntrex, shots: 2}]", "`shots` is 2, and the task `ntrex` of kind `parallel` has none"),
        ("tasks: [{task: valid_utf8, shots: 2}]", "`shots` is 2, and the task `valid_utf8` of kind `generation`"),
        ("tasks: [{task: lambada, normalisation: sum}]", "`normalisation` is sum, and the task `lambada`"),
        ("tasks: [{task: cute_spell, samples: 2}]", "`samples` is 2 at the temperature 0"),
        (
            "tasks: [{task: mbpp, noise: {kind: typo, where: both}}]",
            "`mbpp` of kind `code` takes noise in contexts only",
        ),
        ("{seed: -1, tasks: [ntrex]}", "seed is -1; allowed: an integer of at least 0"),
        ("{name: ../../x, tasks: [piqa]}", "the name '../../x' cannot name a file"),
        ("tasks: [3]", "`tasks[0]` is 3; allowed: keys and values"),
    ],
)
def test_a_mistake_in_a_suite_is_named_with_the_file(file, text, message):
    path = file(text)
    with pytest.raises(ConfigError) as found:
        load_suite(path)
    assert str(found.value).startswith(str(path))
    assert message in str(found.value)


def test_samples_and_the_sandbox_reach_the_options_of_a_task(file, tmp_path):
    suite = load_suite(file("tasks: [{task: mbpp, samples: 5, temperature: 0.6}, humaneval]"))
    first, second = (entry.options(tmp_path) for entry in with_changes(suite, sandbox="limited-process").entries)
    assert (first.samples, first.temperature, first.sandbox) == (5, 0.6, "limited-process")
    assert (second.samples, second.temperature) == (None, None)
    assert suite.entries[0].options(tmp_path).sandbox == "bubblewrap"


def test_samples_of_a_task_whose_rows_they_are_are_drawn(file, tmp_path):
    text = "tasks: [{task: valid_utf8, samples: 3, temperature: 0.5}]"
    (entry,) = load_suite(file(text)).entries
    assert len(entry.task.rows(tmp_path)) == 3 * len(entry.task.prompts)
    assert entry.task.temperature == 0.5


def test_an_unknown_suite_shows_near_ones():
    with pytest.raises(ConfigError, match="'nlp' is neither a suite nor a file\nDid you mean `nlu`"):
        load_suite("nlp")


def test_the_command_line_adds_tasks_and_sets_limit_and_shots(file):
    suite = load_suite(file("tasks: [{task: piqa, limit: 10, shots: 1}, {task: boolq, limit: 30}, arc_easy]"))
    changed = with_changes(with_tasks(suite, ["lambada"]), limit=20, shots=2)
    assert [entry.label for entry in changed.entries] == ["piqa", "boolq", "arc_easy", "lambada"]
    assert [entry.fields.limit for entry in changed.entries] == [10, 20, 20, 20]
    assert {entry.fields.shots for entry in changed.entries} == {2}
    assert with_tasks(None, ["piqa", "boolq"]).name == "piqa-boolq"
    assert with_tasks(None, ["piqa", "boolq", "mmlu", "lambada"]).name == "piqa-and-3-more"
    with pytest.raises(ConfigError, match="--task piqa: the name `piqa` is used twice"):
        with_tasks(suite, ["piqa"])
    mixed = with_changes(with_tasks(None, ["piqa", "ntrex", "valid_utf8", "last_line"]), shots=2)
    assert [entry.fields.shots for entry in mixed.entries] == [2, None, None, None]
    with pytest.raises(ConfigError, match="--shots is 2, and no task of these has shots"):
        with_changes(with_tasks(None, ["ntrex"]), shots=2)
    for changes in ({"limit": 0}, {"shots": -1}):
        with pytest.raises(ConfigError, match="allowed: an integer of at least"):
            with_changes(suite, **changes)
