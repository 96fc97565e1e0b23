"""Worked examples: the same before all examples, never the example itself, drawn from a seed."""

import pytest
from toy_tasks import StandIn, options_of, task_of, uniform, write_rows

from patchpad.errors import ConfigError
from patchpad.tasks.choices import run_choices

EXAMPLES = [
    {"question": f"q{number}", "choices": [f"r{number}", f"w{number}"], "gold": 0, "subject": "ab"[number % 2]}
    for number in range(8)
]


@pytest.fixture
def contexts(tmp_path):
    write_rows(tmp_path, EXAMPLES)
    write_rows(tmp_path, [{**one, "question": f"s{one['question']}"} for one in EXAMPLES], "shots.jsonl")

    def of(*, shots=None, seed=0, **keys):
        scorer = StandIn(uniform)
        task = task_of(context="{question}:", unconditional_context="", **keys)
        run_choices(task, task.rows(tmp_path), scorer, options_of(data=tmp_path, shots=shots, seed=seed))
        assert all(request.shared == len(request.context) - len(b"q0:") for request in scorer.requests)
        return [request.context.decode() for request in scorer.requests[::2]]

    return of


def test_the_first_rows_of_another_file_are_shots_in_their_order(contexts):
    found = contexts(shots_data="shots.jsonl", shots_order="first", shots=2, description="Go.\n")
    assert found == [f"Go.\nsq0: r0\n\nsq1: r1\n\nq{number}:" for number in range(8)]


def test_seeded_shots_are_the_same_for_all_examples_and_others_for_another_seed(contexts):
    found = contexts(shots_data="shots.jsonl", shots=3)
    before = {context[: -len("q0:")] for context in found}
    assert len(before) == 1
    assert before.pop().count("\n\n") == 3
    assert found == contexts(shots_data="shots.jsonl", shots=3)
    assert any(found != contexts(shots_data="shots.jsonl", shots=3, seed=seed) for seed in (1, 2))


@pytest.mark.parametrize("order", ["first", "seeded"])
def test_an_example_is_never_its_own_shot(contexts, order):
    for number, context in enumerate(contexts(shots=3, shots_order=order)):
        shots = context.split("\n\n")[:-1]
        assert len(set(shots)) == 3
        assert f"q{number}: r{number}" not in shots


def test_shots_match_the_example_in_a_field(contexts):
    for number, context in enumerate(contexts(shots_data="shots.jsonl", shots=2, shots_match="subject")):
        assert {int(shot[2]) % 2 for shot in context.split("\n\n")[:-1]} == {number % 2}


def test_options_say_how_many_shots_before_the_task_does(contexts):
    assert contexts(shots=0, shots_data="shots.jsonl") == [f"q{number}:" for number in range(8)]


def test_more_shots_than_there_are_rows_are_refused(contexts):
    with pytest.raises(ConfigError, match="asked for 8 shots, but has 7 other rows; allowed: up to 7"):
        contexts(shots=8)
    with pytest.raises(ConfigError, match="has 4 other rows with the subject 'a'"):
        contexts(shots=5, shots_data="shots.jsonl", shots_match="subject")
