"""Multiple choice: what is scored, what counts as chosen, and what must hold of any scorer."""

import math

import pytest
import torch
from toy_tasks import COMPUTE, StandIn, at_random, options_of, random_examples, rows_of, task_of, uniform, write_rows

from patchpad.config import load_config
from patchpad.errors import ConfigError, DataError
from patchpad.tasks import choices as choices_module
from patchpad.tasks.choices import METRICS, first_best, run_choices
from patchpad.tasks.kinds import run_task
from patchpad.tasks.scoring import Request, Scorer
from patchpad.testing import sharp_model, tiny_model_config
from patchpad.training import trainer
from patchpad.training.checkpoint import load

EXAMPLE = {"question": "why", "choices": ["so", "because", "no"], "gold": 1}
WITHIN_NATS = 1e-4
ONE = [1.0, 1.0, 1.0]


def run(task, examples, nats, **options):
    scorer = StandIn(nats)
    return run_choices(task, rows_of(examples), scorer, options_of(**options)), scorer.requests


def test_each_choice_is_scored_after_the_context_and_the_delimiter():
    result, requests = run(task_of(unconditional_context=""), [EXAMPLE], uniform)
    context = b"Question: why\nAnswer:"
    assert requests == [Request(context, b" so"), Request(context, b" because"), Request(context, b" no")]
    assert result.compute == COMPUTE
    assert result.examples[0]["log_likelihoods_nats"] == [uniform(request) for request in requests]


def test_the_choice_may_stand_in_the_context_and_the_same_text_be_scored_after_each():
    task = task_of(
        context="{sentence:before=_}{choice}",
        continuation="{sentence:after=_:stripped}",
        choices="{options}",
        unconditional_context="",
    )
    row = {"sentence": "Ann thanked Eve, for _ had helped.", "options": ["Ann", "Eve"], "gold": 1}
    _, requests = run(task, [row], uniform)
    assert requests == [
        Request(b"Ann thanked Eve, for Ann", b" had helped."),
        Request(b"Ann thanked Eve, for Eve", b" had helped."),
    ]


def test_what_decides_is_the_sum_or_the_mean_of_bytes_or_characters_or_the_gain_over_no_context():
    nats = {
        b" a": -4.0,  # the best sum
        b" much longer": -8.0,  # the best per byte
        "  äääääää".encode(): -6.2,  # per character: 8 of them, one a space, in 16 bytes
        b" bb": -7.0,  # gains most by the context
    }
    alone = {b" a": -4.0, b" much longer": -8.0, "  äääääää".encode(): -6.2, b" bb": -12.0}
    choices = ["a", "much longer", " äääääää", "bb"]

    def score(request):
        return (alone if request.context == b"Answer:" else nats)[request.continuation]

    def chosen(normalisation):
        result, _ = run(
            task_of(), [{"question": "", "choices": choices, "gold": 0}], score, normalisation=normalisation
        )
        assert result.main_metric == METRICS[normalisation]
        return choices[result.examples[0]["chosen"]]

    per_byte = {choice: nats[f" {choice}".encode()] / len(f" {choice}".encode()) for choice in choices}
    per_character = {choice: nats[f" {choice}".encode()] / len(choice) for choice in choices}
    assert chosen("sum") == "a"
    assert chosen("per_byte") == max(choices, key=per_byte.get) == " äääääää"
    assert chosen("per_character") == max(choices, key=per_character.get) == "much longer"
    assert chosen("unconditional") == "bb"


def test_a_normalisation_that_the_task_does_not_have_is_refused():
    with pytest.raises(ConfigError, match="is 'unconditional'; allowed: sum, per_byte, per_character"):
        run(task_of(unconditional_context=""), [EXAMPLE], uniform, normalisation="unconditional")


def test_of_choices_that_tie_the_first_is_taken_and_ties_are_counted():
    assert first_best([-3.0, -2.0, -2.0], ONE) == (1, True)
    assert first_best([-3.0, -2.00005, -2.0], ONE) == (1, True), "rounding could order them either way"
    assert first_best([-3.0, -2.0002, -2.0], ONE) == (2, False)
    assert first_best([-200.0, -100.0], [1 / 100, 1 / 50]) == (0, True), "equal per byte"
    assert first_best([-200.001, -100.0], [1 / 100, 1 / 50]) == (1, False)
    twice = {"question": "", "choices": ["x", "x", "y"], "gold": 0}
    assert run(task_of(), [twice, EXAMPLE], at_random, normalisation="sum")[0].details["num_ties"] in (0, 1)
    assert run(task_of(), [twice], uniform, normalisation="sum")[0].details["num_ties"] == 1


def test_a_uniform_model_takes_the_shortest_choice_by_sum_and_gives_chance_per_byte():
    examples = [one for one in random_examples(300) if len(one["choices"]) == 3]
    examples = [{**one, "gold": number % 3} for number, one in enumerate(examples[: len(examples) // 3 * 3])]
    result, _ = run(task_of(), examples, uniform)

    def is_shortest_first(example):
        lengths = [len(choice.encode()) for choice in example["choices"]]
        return lengths.index(min(lengths)) == example["gold"]

    expected = sum(map(is_shortest_first, examples)) / len(examples)
    assert result.metrics["accuracy"].value == pytest.approx(expected, abs=1e-12)
    assert result.main_metric == "accuracy_per_byte"
    assert result.main.value == pytest.approx(result.main.chance, abs=1e-12) == pytest.approx(1 / 3, abs=1e-12)
    assert result.details["num_ties"] == len(examples)
    assert result.metrics["gold_bits_per_byte"].value == pytest.approx(8.0, abs=1e-12)


@pytest.mark.unchecked  # many passes
def test_a_model_whose_logits_are_all_equal_is_uniform_through_every_layer():
    model = sharp_model(tiny_model_config("fixed", "entropy", context_bytes=96))
    with torch.no_grad():
        model.local_decoder.lm_head.weight.zero_()
    examples = random_examples(12)
    expected, _ = run(task_of(), examples, uniform)
    found = run_task(task_of(), model, options_of(), rows_of(examples))
    for one, other in zip(found.examples, expected.examples, strict=True):
        assert [one[name] for name in METRICS.values()] == [other[name] for name in METRICS.values()]
    assert found.details["num_ties"] == len(examples)
    nats = [value for one in found.examples for value in one["log_likelihoods_nats"]]
    num_bytes = [len(f" {choice}".encode()) for one in examples for choice in one["choices"]]
    assert nats == pytest.approx([-size * math.log(257) for size in num_bytes], abs=WITHIN_NATS)


@pytest.mark.unchecked  # thousands of requests
@pytest.mark.parametrize("seed", range(5))
def test_a_random_scorer_gives_chance_within_three_standard_errors(seed):
    examples = random_examples(250, seed)
    result, _ = run(task_of(), examples, lambda request: at_random(request, seed))
    chance = sum(1 / len(example["choices"]) for example in examples) / len(examples)
    for name in METRICS.values():
        metric = result.metrics[name]
        assert metric.chance == pytest.approx(chance)
        assert abs(metric.value - chance) < 3 * metric.standard_error, name


@pytest.mark.unchecked  # thousands of requests
def test_right_choices_that_are_drawn_at_random_give_chance_to_any_scorer():
    def likes_long_words_without_e(request):
        return len(request.continuation) - 5.0 * request.continuation.count(b"e")

    for seed in range(3):
        result, _ = run(task_of(), random_examples(250, seed), likes_long_words_without_e)
        for name in METRICS.values():
            metric = result.metrics[name]
            assert abs(metric.value - metric.chance) < 3 * metric.standard_error, name


@pytest.mark.parametrize(("limit", "most"), [("REQUESTS_AT_ONCE", 7), ("BYTES_AT_ONCE", 200)])
def test_results_do_not_depend_on_how_many_requests_are_scored_at_once(monkeypatch, limit, most):
    examples, done = random_examples(20), []
    whole, _ = run(task_of(), examples, at_random)
    monkeypatch.setattr(choices_module, limit, most)
    parts, _ = run(task_of(), examples, at_random, progress=done.append)
    assert parts == whole
    assert sum(done) == 20
    assert len(done) > 5


@pytest.fixture(scope="module")
def model():
    return sharp_model(tiny_model_config("fixed", "entropy", context_bytes=96))


@pytest.mark.unchecked  # many passes
@pytest.mark.parametrize(("batch_positions", "threads"), [(100, 1), (100_000, 2)])
def test_results_depend_on_neither_batch_size_nor_order_nor_threads(model, batch_positions, threads, tmp_path):
    examples = random_examples(8)
    write_rows(tmp_path, random_examples(3, seed=1), "shots.jsonl")
    task, rows = task_of(shots_data="shots.jsonl", shots=2), rows_of(examples)
    options = options_of(data=tmp_path)
    expected = {one["id"]: one for one in run_task(task, model, options, rows).examples}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        scorer = Scorer(model, batch_positions=batch_positions)
        found = run_choices(task, list(reversed(rows)), scorer, options).examples
    finally:
        torch.set_num_threads(before)
    assert [one["id"] for one in found] == [row.id for row in reversed(rows)]
    for one in found:
        other = expected[one["id"]]
        assert one["log_likelihoods_nats"] == pytest.approx(other["log_likelihoods_nats"], abs=WITHIN_NATS)
        assert [one[name] for name in METRICS.values()] == [other[name] for name in METRICS.values()]


@pytest.mark.unchecked  # it trains
def test_a_model_trained_on_two_patterns_gets_all_right(tmp_path):
    answers = {"the sky is": "blue", "the grass is": "green"}
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{start} {answers[start]}.\n" for start in [*answers] * 600))
    config = load_config(
        "tiny-fixed16-entropy", {"train.steps": "50", "train.learning_rate": "1e-2", "model.context_bytes": "128"}
    )
    trained = load(trainer.train(config, data=text, out=tmp_path / "run").path)
    examples = [{"question": start, "choices": ["blue", "green"], "gold": place} for place, start in enumerate(answers)]
    result = run_task(task_of(context="{question}"), trained, options_of(), rows_of(examples * 2))
    assert {name: result.metrics[name].value for name in METRICS.values()} == dict.fromkeys(METRICS.values(), 1.0)
    for one in result.examples:
        right, wrong = one["log_likelihoods_nats"][one["gold"]], one["log_likelihoods_nats"][1 - one["gold"]]
        assert right > wrong + 1, "no accident"


@pytest.mark.parametrize(
    ("gold_is", "value", "right"),
    [("index", 2, 2), ("index", "2", 2), ("number", "2", 1), ("letter", "c", 2), ("text", "because", 1)],
)
def test_the_right_choice_may_be_given_in_several_ways(gold_is, value, right):
    result, _ = run(task_of(gold_is=gold_is), [{**EXAMPLE, "gold": value}], uniform)
    assert result.examples[0]["gold"] == right


@pytest.mark.parametrize(
    ("changed", "gold_is", "message"),
    [
        ({"gold": 3}, "index", "`gold` is 3; allowed: 0 to 2"),
        ({"gold": -1}, "index", "`gold` is -1; allowed: 0 to 2"),
        ({"gold": True}, "index", "`gold` is True; allowed: 0 to 2"),
        ({"gold": 0}, "number", "`gold` is 0; allowed: 1 to 3"),
        ({"gold": "D"}, "letter", "`gold` is 'D'; allowed: A to C"),
        ({"gold": "sometimes"}, "text", "`gold` is 'sometimes'; allowed: one of the choices"),
        ({"choices": ["so"]}, "index", "has 1 choices; allowed: two or more"),
        ({"choices": "so"}, "index", "has 1 choices; allowed: two or more"),
        ({"choices": [None, "b"]}, "index", "holds None; allowed: text"),
    ],
)
def test_a_row_that_cannot_be_scored_is_named(changed, gold_is, message):
    good = EXAMPLE | {"gold": {"letter": "A", "text": "so"}.get(gold_is, 1)}
    with pytest.raises(DataError) as found:
        run(task_of(gold_is=gold_is), [good, good | changed], uniform)
    assert str(found.value).startswith("toy.jsonl, line 2")
    assert message in str(found.value)


def test_an_empty_choice_without_a_delimiter_is_named():
    with pytest.raises(DataError, match=r"toy\.jsonl, line 1: the continuation is empty"):
        run(task_of(delimiter=""), [EXAMPLE | {"choices": ["", "b"]}], uniform)


def test_noise_reaches_context_choices_or_both():
    def loud(text, example):
        assert example == "toy.jsonl:1"
        return text.upper()

    task = task_of(choices=["{choices[0]}", "Other"], context="Q: {question} {choices:lettered}")
    _, requests = run(task, [EXAMPLE], uniform, change_context=loud)
    assert requests[:2] == [
        Request(b"Q: WHY A. SO\nB. BECAUSE\nC. NO", b" so"),
        Request(b"Q: WHY A. SO\nB. BECAUSE\nC. NO", b" Other"),
    ]
    _, requests = run(task_of(), [EXAMPLE], uniform, change_choices=loud)
    assert [request.continuation for request in requests[:3]] == [b" SO", b" BECAUSE", b" NO"]
    assert requests[0].context == b"Question: why\nAnswer:"


def test_examples_that_were_cut_are_counted():
    scorer = StandIn(uniform, num_cut_bytes=5)
    result = run_choices(task_of(unconditional_context=""), rows_of([EXAMPLE, EXAMPLE]), scorer, options_of())
    assert (result.num_cut_examples, result.num_cut_bytes) == (2, 30)


def test_groups_have_a_table_of_the_main_metric():
    examples = [EXAMPLE | {"subject": "b"}, EXAMPLE | {"subject": "a"}, EXAMPLE | {"subject": "b", "gold": 0}]
    result, _ = run(task_of(group_by="subject", normalisation="sum"), examples, uniform)
    groups = result.details["by_group"]
    assert list(groups) == ["a", "b"]
    assert groups["b"]["num_examples"] == 2
    assert math.isclose(sum(g["value"] * g["num_examples"] for g in groups.values()) / 3, result.main.value)
