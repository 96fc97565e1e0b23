"""Each kind of task says what is wrong with its rows and options before anything is measured."""

import re

import pytest
from toy_tasks import options_of, rows_of

from patchpad.errors import ConfigError, DataError
from patchpad.registry import TASK_KINDS
from patchpad.tasks.kinds import build_task, check_task, kind_of

KEYS = {
    "choices": {"choices": "{choices}", "context": "{q}"},
    "continuation": {"context": "{q}", "continuation": "{a}", "delimiter": ""},
    "generation": {"context": "{q}", "answer": "{a}"},
    "code": {"context": "{q}", "solution": "{a}", "program": "{q}{completion}", "checks": "f(1)"},
    "parallel": {"reference": "en"},
}
RIGHT = {
    "choices": {"q": "x", "choices": ["a", "b"], "gold": 0},
    "code": {"q": "def f(x):\n", "a": "    return x"},
    "parallel": {"language": "en", "sentences": [b"one", b"two"]},
}
WRONG = {
    "choices": ({"q": "x", "choices": ["a", "b"], "gold": 2}, "line 2: `gold` is 2; allowed: 0 to 1"),
    "continuation": ({"q": "x", "a": ""}, "line 2: the continuation is empty"),
    "generation": ({"q": "x", "a": " "}, "line 2 has an empty answer"),
    "code": ({"q": "def f(", "a": ""}, "line 2: the reference program is not Python"),
    "parallel": ({"language": "de", "sentences": [b"", b" "]}, "no line says something in every language"),
}


def task_of(kind):
    return build_task({"kind": kind, "data": "toy.jsonl", **KEYS[kind]}, "toy", "toy.yaml")


@pytest.mark.parametrize("kind", KEYS)
def test_a_row_that_cannot_be_asked_is_named_before_anything_is_run(kind):
    right = RIGHT.get(kind, {"q": "x", "a": "y"})
    options = options_of(sandbox="limited-process")
    check_task(task_of(kind), rows_of([right]), options)
    wrong, message = WRONG[kind]
    with pytest.raises(DataError, match=re.escape(message)):
        check_task(task_of(kind), rows_of([right, wrong]), options)


def test_a_normalisation_or_noise_that_a_task_does_not_take_is_refused_before_anything_is_run():
    with pytest.raises(ConfigError, match="the normalisation of the task `toy` is 'summ'"):
        check_task(task_of("choices"), rows_of([RIGHT["choices"]]), options_of(normalisation="summ"))
    with pytest.raises(ConfigError, match="takes no noise"):
        check_task(task_of("parallel"), rows_of([RIGHT["parallel"]]), options_of(change_context=lambda text, _: text))


def test_every_kind_but_the_one_whose_rows_are_always_right_has_a_check():
    assert {name for name in TASK_KINDS if kind_of(name).check is None} == {"completion"}
