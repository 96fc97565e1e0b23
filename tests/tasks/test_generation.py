"""Texts that a model writes: right answers, valid UTF-8, cut prompts, samples, and the tasks of CUTE."""

import math
import random

import pytest

import patchpad
from patchpad.errors import ConfigError, DataError
from patchpad.tasks.compute import Compute
from patchpad.tasks.definition import TaskOptions
from patchpad.tasks.generating import sample_seed
from patchpad.tasks.generation import is_valid_utf8
from patchpad.tasks.kinds import build_task, load_task, run_task, task_names
from patchpad.tasks.noise import Noise
from patchpad.testing.models import sharp_model, tiny_model_config

CUTE = [name for name in task_names() if name.startswith("cute_")]
MAX_NEW_BYTES = 6


@pytest.fixture(scope="module")
def model():
    return sharp_model(tiny_model_config(context_bytes=40), seed=5)


def prompt_of(number):
    return f"q{number} {'ab' * (number % 3)}="


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    """Rows of which every other one has the label that the model writes."""
    folder = tmp_path_factory.mktemp("data")
    lines = []
    for number in range(10):
        written = patchpad.complete(model, prompt_of(number), max_new_bytes=MAX_NEW_BYTES, temperature=0).data
        label = ascii_json(written if number % 2 else b"wrong")
        lines.append(f'{{"input1": "{prompt_of(number)}", "label": {label}}}')
    (folder / "a.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def ascii_json(data):
    """Returns bytes as a string of JSON, what is no text in them as lone surrogates."""
    return '"' + "".join(f"\\u{ord(one):04x}" for one in data.decode("utf-8", "surrogateescape")) + '"'


def task(**further):
    values = {
        "kind": "generation",
        "data": "a.jsonl",
        "context": "{input1}",
        "delimiter": "",
        "answer": "{label}",
        "max_new_bytes": MAX_NEW_BYTES,
    }
    return build_task({**values, **further}, "mine", "mine.yaml")


def run(one, model, folder, rows=None, **options):
    return run_task(one, model, TaskOptions(data=folder, **options), rows)


def test_what_a_model_writes_for_a_task_does_not_depend_on_seconds(model, folder, monkeypatch):
    monkeypatch.setattr("patchpad.inference.draft_rule.LEAST_TRUNK_PARAMETERS", 0)
    monkeypatch.setattr("patchpad.inference.draft_rule.MeasuredDrafts", None)  # fails where it is asked for
    assert len(run(task(), model, folder).examples) == 10
    with pytest.raises(TypeError):
        patchpad.complete(model, "a", max_new_bytes=1)


def test_answers_are_what_the_model_writes_for_each_row_alone(model, folder):
    done = []
    result = run(task(), model, folder, progress=done.append)
    rows = task().rows(folder)
    alone = [
        patchpad.complete(model, prompt_of(number), max_new_bytes=MAX_NEW_BYTES, temperature=0) for number in range(10)
    ]
    right = [number % 2 for number in range(10)]
    assert [example["exact_match"] for example in result.examples] == right
    assert [example["text"] for example in result.examples] == [one.text for one in alone]
    assert result.main_metric == "exact_match"
    assert result.main.value == 0.5
    assert result.compute == Compute.of_completions(model, [row["input1"].encode() for row in rows], alone)
    assert sum(done) == 10
    nats = patchpad.score(model, rows[1]["input1"].encode() + alone[1].data)[-len(alone[1].data) :]
    bits = float(nats.sum()) / math.log(2) / len(alone[1].data)
    assert result.examples[1]["answer_bits_per_byte"] == pytest.approx(bits, abs=1e-4)
    assert result.metrics["answer_bits_per_byte"].value == pytest.approx(
        sum(example["answer_bits_per_byte"] for example in result.examples) / 10
    )
    backwards = run(task(), model, folder, rows[::-1])
    for one, other in zip(backwards.examples, result.examples[::-1], strict=True):
        assert one == {**other, "answer_bits_per_byte": pytest.approx(other["answer_bits_per_byte"], abs=1e-4)}


def test_capitals_count_unless_the_task_says_otherwise(model, folder, tmp_path):
    written = patchpad.complete(model, "ab", max_new_bytes=40, temperature=0).data
    letter = next(number for number, byte in enumerate(written) if bytes([byte]).isalpha() and byte < 128)
    prompt = b"ab" + written[:letter]
    assert b"\t" not in prompt
    label = chr(written[letter]).swapcase()
    (tmp_path / "a.jsonl").write_text(f'{{"input1": {ascii_json(prompt)}, "label": "{label}"}}\n')
    further = {"max_new_bytes": 1}
    assert run(task(**further), model, tmp_path).main.value == 0
    assert run(task(**further, ignores_case=True), model, tmp_path).main.value == 1


@pytest.mark.parametrize(
    ("data", "is_valid", "is_valid_whole"),
    [
        (b"", True, True),
        ("naïve 你好".encode(), True, True),
        ("你".encode()[:2], True, False),
        ("a😀".encode()[:4], True, False),
        (b"\x80", False, False),
        (b"a\xe4b", False, False),
        (b"\xc0\x80", False, False),
        (b"\xed\xa0\x80", False, False),
        (b"\xf5", False, False),
    ],
)
def test_a_character_that_the_end_cuts_is_no_fault_and_everything_else_is(data, is_valid, is_valid_whole):
    assert is_valid_utf8(data) == is_valid
    assert is_valid_utf8(data, may_be_cut=False) == is_valid_whole


def test_prompts_that_do_not_fit_lose_bytes_on_the_left_and_are_counted(model, tmp_path):
    (tmp_path / "a.tsv").write_text("input1\tlabel\n" + "x" * 30 + "yz\tno\nshort\t" + "long " * 8 + "\n")
    short = task(data="a.tsv", max_new_bytes=10)  # 40 - 10 leave 30 for the prompt
    result = run(short, model, tmp_path)
    assert (result.num_cut_examples, result.num_cut_bytes) == (1, 2)
    cut = patchpad.complete(model, "x" * 28 + "yz", max_new_bytes=10, temperature=0)
    assert result.examples[0]["text"] == cut.text
    answers = result.details["answers"]  # "long long ..." has 40 bytes, so nothing of its prompt fits beside it
    assert (answers["num_cut_examples"], answers["num_cut_bytes"]) == (1, len("short"))
    assert answers["compute"]["bytes_scored"] == len("no") + 40


def test_samples_are_drawn_for_each_example_by_itself(model, tmp_path):
    sampled = task(data=[], prompts=["", "ab"], context="{prompt}", answer="", temperature=1.0, samples=6)
    result = run(sampled, model, tmp_path)
    assert result.main_metric == "valid_utf8"
    assert result.num_examples == 12
    assert [example["id"] for example in result.examples[5:7]] == ["prompts:1#6", "prompts:2#1"]
    assert len({example["text"] for example in result.examples}) > 6
    few = run(sampled, model, tmp_path, limit=4)
    whole = {example["id"]: example for example in result.examples}
    assert all(example == whole[example["id"]] for example in few.examples)
    other = run(sampled, model, tmp_path, seed=1)
    assert [example["text"] for example in other.examples] != [example["text"] for example in result.examples]
    seed = sample_seed(0, "prompts:1#2", 0)
    alone = patchpad.complete(model, "", max_new_bytes=MAX_NEW_BYTES, temperature=1.0, seed=seed)
    assert result.examples[1]["text"] == alone.text


def test_noise_is_in_the_prompt_and_not_in_the_answer(model, folder):
    noise = Noise(kind="uppercase")
    noised = run(task(), model, folder, change_context=noise.change, limit=1)
    loud = patchpad.complete(model, prompt_of(0).upper(), max_new_bytes=MAX_NEW_BYTES, temperature=0)
    assert noised.examples[0]["text"] == loud.text


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"data": []}, "neither `data` nor `prompts` is given"),
        ({"prompts": ["a"]}, "both `data` and `prompts` are given"),
        ({"stop": ["x", ""]}, "`stop` has an empty string"),
        ({"samples": 2}, "`samples` is 2 at the temperature 0"),
        ({"temperature": -1.0}, "temperature is -1.0; allowed: a number of at least 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"chance": 2.0}, "`chance` is 2.0"),
        ({"answer": "{label"}, "`answer`: `{` in '{label' is not a field"),
    ],
)
def test_a_file_that_cannot_work_is_refused(further, message):
    with pytest.raises(ConfigError) as found:
        task(**further)
    assert message in str(found.value)


def test_shots_need_answers_and_answers_need_text(model, folder, tmp_path):
    sampled = task(answer="")
    with pytest.raises(ConfigError, match="has no `answer`, so it has no shots"):
        run(sampled, model, folder, shots=1)
    (tmp_path / "a.tsv").write_text("input1\tlabel\nq\t \n")
    with pytest.raises(DataError, match=r"a\.tsv, line 2 has an empty answer"):
        run(task(data="a.tsv"), model, tmp_path)


def test_every_task_of_cute_asks_its_question_after_four_worked_examples():
    assert len(CUTE) == 21
    draw = random.Random(0)
    for name in CUTE:
        one = load_task(name)
        row = {f"input{number}": "".join(draw.sample("uvwxyz", 3)) for number in (1, 2, 3)}
        question = one.template("context").render(row) + one.delimiter
        assert one.data == (f"cute/data/{name.removeprefix('cute_')}.tsv",)
        assert one.description.count(one.delimiter) == 4
        assert one.description.endswith('"\n')
        assert question.endswith('. Answer: "') or question.endswith('? Answer: "')
        assert all(row[key] in question for key in one.fields() if key != "label")
        assert one.stop == ('"',)
        asked = question.split('"')[0]
        assert one.description.count(f"\n{asked}") == 4
