"""Results side by side: what is paired, what is shown, what is refused."""

import random
import re

import pytest

from patchpad.errors import ConfigError, DataError
from patchpad.tasks.bootstrap import paired_difference
from patchpad.tasks.compare import Column, compare_columns, is_mean_of_examples
from patchpad.tasks.compare_page import render_comparison_page
from patchpad.tasks.compare_texts import notes, verdict
from patchpad.tasks.compute import Compute
from patchpad.tasks.result import Metric, TaskResult

NUM_EXAMPLES = 80


def compute_of(calls):
    return Compute(
        scratchpad_threshold_nats=2.0,
        bytes_scored=100,
        bytes_in_requests=1000,
        bytes_read=800,
        patches_per_byte=0.0625,
        scratchpads_per_byte=calls - 0.0625,
        trunk_calls_per_byte=calls,
        flops_per_byte=1e6 * calls,
        trunk_cache_bytes_per_byte=64.0,
    )


def choices(task="riddles", share=0.5, *, calls=0.2, seed=0, ids=range(NUM_EXAMPLES), **further):
    """Returns a result of multiple choice; the same seed makes the same examples easy."""
    ease = random.Random(seed)
    examples = [{"id": f"a.jsonl:{number}", "accuracy": float(ease.random() < share)} for number in ids]
    accuracy = Metric.mean_of([example["accuracy"] for example in examples], chance=0.25)
    return TaskResult(
        task=task,
        kind="choices",
        num_examples=len(examples),
        metrics={"accuracy": accuracy},
        main_metric="accuracy",
        compute=compute_of(calls),
        examples=examples,
        **further,
    )


def bits(task="prose", *, bits_per_byte=2.0, calls=0.2):
    """Returns a result in bits per byte, whose examples are of different lengths."""
    draw = random.Random(1)
    examples = []
    for number in range(NUM_EXAMPLES):
        num_bytes = draw.randint(5, 500)
        value = bits_per_byte + draw.random() + 20 / num_bytes
        examples.append({"id": f"b.jsonl:{number}", "bits_per_byte": value, "num_bytes": num_bytes})
    total = Metric.ratio_of(
        [example["bits_per_byte"] * example["num_bytes"] for example in examples],
        [example["num_bytes"] for example in examples],
    )
    return TaskResult(
        task=task,
        kind="continuation",
        num_examples=NUM_EXAMPLES,
        metrics={"bits_per_byte": total},
        main_metric="bits_per_byte",
        higher_is_better=False,
        compute=compute_of(calls),
        examples=examples,
    )


def column(label, *results, run=0):
    facts = {"kind": "patches", "commit": "0123abcd"}
    return Column(label=label, run=run, run_label=label, results={one.task: one for one in results}, facts=facts)


def test_examples_are_paired_by_id_in_whatever_order_they_stand():
    ours, theirs = choices(share=0.8), choices(share=0.4)
    mixed = choices(share=0.4)
    random.Random(0).shuffle(mixed.examples)
    expected = paired_difference(
        [example["accuracy"] for example in ours.examples], [example["accuracy"] for example in theirs.examples]
    )
    for reference in (theirs, mixed):
        row = compare_columns([column("a", reference), column("b", ours, run=1)]).rows[0]
        assert row.cells[0].difference is None
        assert row.cells[1].difference == expected
        assert verdict(row, expected) == "better"


def test_only_examples_that_both_have_are_compared_and_counted():
    compared = compare_columns([column("a", choices(ids=range(60))), column("b", choices(ids=range(40, 80)))])
    cell = compared.rows[0].cells[1]
    assert cell.difference.num_examples == 20
    assert cell.result.num_examples == 40
    assert any("fewer than 30 examples" in note for note in notes(compared))
    apart = compare_columns([column("a", choices(ids=range(40))), column("b", choices(ids=range(40, 80)))])
    assert apart.rows[0].cells[1].difference is None


def test_bits_per_byte_are_compared_per_byte_and_lower_is_better():
    compared = compare_columns([column("a", bits()), column("b", bits(bits_per_byte=1.9))])
    row = compared.rows[0]
    values = [cell.metric.value for cell in row.cells]
    assert row.cells[1].difference.mean == pytest.approx(values[1] - values[0])
    assert verdict(row, row.cells[1].difference) == "better"
    assert is_mean_of_examples(row.cells[0].result, "bits_per_byte")
    assert not any("not the mean" in note for note in notes(compared))


def test_a_metric_that_is_no_mean_over_examples_is_said_to_be_none():
    odd = choices(details={})
    odd = TaskResult.from_dict({**odd.to_dict(), "metrics": {"accuracy": {**odd.main.to_dict(), "value": 0.9}}})
    compared = compare_columns([column("a", odd), column("b", odd)])
    assert any("not the mean over examples" in note and "riddles" in note for note in notes(compared))


def test_a_task_that_a_result_lacks_stays_empty_and_results_without_a_common_task_are_refused():
    compared = compare_columns([column("a", choices()), column("b", choices(), bits())])
    assert [row.task for row in compared.rows] == ["riddles", "prose"]
    assert compared.rows[1].cells[0] is None
    assert compared.rows[1].cells[1].difference is None
    with pytest.raises(DataError, match="a and b have no task in common"):
        compare_columns([column("a", choices()), column("b", bits())])


def test_what_a_metric_costs_is_better_where_it_is_lower():
    examples = [{"id": f"a:{number}", "x": 1.0} for number in range(2)]
    for metric, is_higher in (
        ("bits_per_sentence", False),
        ("gold_bits_per_byte", False),
        ("trunk_calls_per_sentence", False),
        ("accuracy_per_byte", True),
        ("edit_similarity", True),
    ):
        kept = [{**example, metric: 1.0} for example in examples]
        result = TaskResult(
            **{**vars(choices()), "examples": kept, "metrics": {**choices().metrics, metric: Metric(value=1.0)}}
        )
        (row,) = compare_columns([column("a", result), column("b", result)], metric=metric).rows
        assert row.higher_is_better is is_higher


def test_a_negative_seed_is_refused_and_one_result_alone_has_no_note_on_differences():
    with pytest.raises(ConfigError, match="the seed is -1; allowed: an integer of at least 0"):
        compare_columns([column("a", choices())], seed=-1)
    (note,) = notes(compare_columns([column("a", choices())]))
    assert "Differences" not in note


def test_another_metric_can_be_asked_for_and_an_unknown_one_is_named():
    result = choices()
    examples = [{**example, "accuracy_per_byte": 1.0} for example in result.examples]
    metrics = {**result.metrics, "accuracy_per_byte": Metric(value=1.0)}
    both = TaskResult(**{**vars(result), "examples": examples, "metrics": metrics})
    columns = [column("a", both, bits()), column("b", both, bits())]
    assert [row.metric for row in compare_columns(columns, metric="accuracy_per_byte").rows] == [
        "accuracy_per_byte",
        "bits_per_byte",
    ]
    with pytest.raises(ConfigError, match=r"accuracy_per_bite[\s\S]*Did you mean `accuracy_per_byte`"):
        compare_columns(columns, metric="accuracy_per_bite")


def test_the_page_has_every_number_and_a_plot_for_each_task_and_loads_nothing():
    columns = [
        column("plain <16>", choices(share=0.4), bits()),
        column("padded", choices(share=0.6, calls=0.4), bits(bits_per_byte=1.9), run=1),
    ]
    compared = compare_columns(columns)
    page = render_comparison_page(compared)
    assert "plain &lt;16&gt;" in page
    assert page.count("<svg ") == 2
    assert "chance 0.2500" in page
    for row in compared.rows:
        for cell in row.cells:
            assert f"{cell.metric.value:.4f} ± {cell.metric.standard_error:.4f}" in page
        assert f"{row.cells[1].difference.mean:+.4f}" in page
        assert f"[{row.cells[1].difference.low:+.4f}, {row.cells[1].difference.high:+.4f}]" in page
    assert not re.search(r"(?:src|href)=|url\(|@import", page)


def test_the_json_names_reference_columns_and_paired_differences():
    compared = compare_columns([column("a", choices(share=0.4)), column("b", choices(share=0.6), run=1)])
    values = compared.to_dict()
    assert values["reference"] == "a"
    assert [one["label"] for one in values["columns"]] == ["a", "b"]
    first, second = values["tasks"][0]["results"]
    assert first["difference"] is None
    assert second["difference"]["num_examples"] == NUM_EXAMPLES
    assert second["compute"]["trunk_calls_per_byte"] == 0.2
    assert second["chance"] == 0.25


def languages(task, **bits_per_byte):
    """Returns a result in languages: an example is a language, and the metric is a mean over them."""
    shared = {"num_bytes": 9, "non_latin_share": 0.0, "bits_to_reference": 1.0, "trunk_calls_per_sentence": 2.0}
    values = list(bits_per_byte.values())
    return TaskResult(
        task=task,
        kind="parallel",
        num_examples=len(values),
        metrics={"bits_per_byte": Metric.mean_of(values)},
        main_metric="bits_per_byte",
        higher_is_better=False,
        compute=compute_of(0.2),
        examples=[{"id": name, "bits_per_byte": value} for name, value in bits_per_byte.items()],
        details={"languages": [{"language": name, "bits_per_byte": v, **shared} for name, v in bits_per_byte.items()]},
    )


def test_what_was_cut_is_told_in_the_words_of_its_kind():
    cut = [TaskResult(**{**vars(one), "num_cut_examples": 3}) for one in (choices(), languages("news", eng=2.0))]
    told = notes(compare_columns([column("a", *cut, bits())]))
    assert "The context of some examples was cut on the left to fit a model: riddles." in told
    assert "Some sentences were longer than a model's context and were read in windows: news." in told


def test_results_in_languages_are_ranked_and_paired_by_language():
    first = [languages("news", deu=2.0, eng=1.0, fra=3.0), languages("help", deu=1.0, eng=1.0, fra=1.0), choices()]
    second = [languages("news", deu=1.5, eng=1.2, fra=2.0), languages("help", deu=2.0, eng=0.5, fra=1.5), choices()]
    compared = compare_columns([column("plain", *first), column("padded", *second, run=1)])
    assert compared.rows[0].cells[1].difference.mean == pytest.approx((-0.5 + 0.2 - 1.0) / 3)
    ranks = compared.to_dict()["language_ranks"]
    assert ranks.keys() == {"news", "help"}
    assert [one["rank"] for one in ranks["news"]["languages"]] == [[2, 1], [1, 2], [2, 1]]
    page = render_comparison_page(compared)
    assert "Ranks over languages: news" in page
    frames = page.count('<div class="scroll"')
    assert frames > 1  # the keyboard reaches each of them, and a screen reader names it
    assert page.count('<div class="scroll" tabindex="0" role="group" aria-label="') == frames
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
