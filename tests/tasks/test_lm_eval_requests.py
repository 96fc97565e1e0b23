"""What lm_eval's requests mean: without lm_eval itself."""

from dataclasses import dataclass

import pytest

from patchpad.errors import GenerationError, InputError
from patchpad.tasks.generating import prompt_room
from patchpad.tasks.lm_eval_requests import (
    generation_options,
    grouped_by_options,
    scoring_requests,
    seeds_of,
)
from patchpad.tasks.scoring import Request


@dataclass
class Asked:
    args: tuple
    idx: int = 0
    task_name: str | None = "task"
    doc_id: int | None = 0


def test_texts_become_bytes_as_they_are_and_what_a_task_repeats_is_shared():
    asked = [
        Asked(("Shots.\n\nQ: é ", " a")),
        Asked(("Shots.\n\nQ: e ", "\ud800")),
        Asked(("alone ", "b"), task_name="other"),
        Asked(("Q: a rose", "b"), task_name="third"),
        Asked(("Q: a tulip", "b"), task_name="third"),
    ]
    assert scoring_requests(asked) == [
        Request("Shots.\n\nQ: é ".encode(), b" a", shared=len(b"Shots.\n\nQ: ")),
        Request(b"Shots.\n\nQ: e ", b"\xed\xa0\x80", shared=len(b"Shots.\n\nQ: ")),
        Request(b"alone ", b"b", shared=len(b"alone ")),
        Request(b"Q: a rose", b"b", shared=len(b"Q: a ")),
        Request(b"Q: a tulip", b"b", shared=len(b"Q: a ")),
    ]
    short = [Asked((f"Q: {word}", "b")) for word in ("rose", "tulip")]
    assert [request.shared for request in scoring_requests(short)] == [0, 0]


def test_an_empty_answer_is_named_by_its_task_and_document():
    with pytest.raises(InputError, match="task quiz, document 7: an answer to score is empty"):
        scoring_requests([Asked(("Q", ""), task_name="quiz", doc_id=7)])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"until": ["\n", ""]}, {"stop": ("\n",)}),
        ({"until": "\n\n", "max_gen_toks": 5, "max_tokens": 9}, {"stop": ("\n\n",), "max_new_bytes": 5}),
        ({"until": None, "max_completion_tokens": 9}, {"max_new_bytes": 9}),
        ({"temperature": 0.7}, {"temperature": 0.7}),
        ({"temperature": 0.7, "do_sample": False}, {}),
        ({"temperature": None, "do_sample": True, "top_k": 0, "top_p": 0.9}, {"top_p": 0.9}),
        ({"temperature": 1.5, "do_sample": True, "top_k": 3}, {"temperature": 1.5, "top_k": 3}),
    ],
)
def test_generation_arguments_of_lm_eval_become_those_of_complete(given, expected):
    defaults = {"max_new_bytes": 100, "stop": (), "temperature": 0.0, "top_k": None, "top_p": None}
    assert generation_options(given, 100) == defaults | expected


def test_a_generation_argument_that_patchpad_lacks_is_told_once_and_one_that_asks_for_nothing_never(caplog):
    for _ in range(2):
        generation_options({"num_beams": 4, "repetition_penalty": None, "until": []}, 100)
    assert [record.getMessage() for record in caplog.records] == [
        "generation argument num_beams=4: patchpad has no such option, so it has no effect"
    ]


def test_a_stop_string_that_is_no_text_is_an_error():
    with pytest.raises(GenerationError, match=r"`until` holds 3; allowed: text"):
        generation_options({"until": ["a", 3]}, 100)


def test_a_length_that_is_no_number_is_an_error():
    with pytest.raises(GenerationError, match="max_gen_toks is '5'"):
        generation_options({"max_gen_toks": "5"}, 100)


@pytest.mark.parametrize(("max_new_bytes", "room"), [(0, 64), (20, 44), (32, 32), (1000, 32)])
def test_a_prompt_has_what_an_answer_leaves_and_at_least_half_of_the_context(max_new_bytes, room):
    assert prompt_room(64, max_new_bytes) == room


def test_requests_of_equal_options_are_generated_together():
    asked = [Asked(("a", {"until": ["x"]})), Asked(("b", {"until": ["y"]})), Asked(("c", {"until": ["x", ""]}))]
    assert [(options["stop"], indices) for options, indices in grouped_by_options(asked, 9)] == [
        (("x",), [0, 2]),
        (("y",), [1]),
    ]


def test_a_seed_follows_from_task_document_and_repetition_alone():
    first, second, other = Asked((), doc_id=1), Asked((), doc_id=2), Asked((), doc_id=1, task_name="other")
    seeds = seeds_of([first, first, second, other], 0)
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds_of([second, first, other, first], 0) == [seeds[2], seeds[0], seeds[3], seeds[1]]
    assert not set(seeds_of([first, second], 1)) & set(seeds)
