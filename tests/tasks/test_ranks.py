"""Ranks of models over languages: against values worked out by hand, and what must hold for any values."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchpad.errors import DataError
from patchpad.files import strict_json
from patchpad.tasks.compute import Compute
from patchpad.tasks.ranks import average_ranks, language_ranks, ranks_by_task, spearman
from patchpad.tasks.ranks_page import ranks_markdown, ranks_page, ranks_plots
from patchpad.tasks.result import Metric, TaskResult

VALUES = st.lists(st.integers(-5, 5), min_size=2, max_size=12)
LANGUAGES = ("deu", "ell", "eng", "rus")
SHARES = (0.0, 0.9, 0.0, 1.0)


def table(bits, trained=(None,) * 4, num_bytes=100):
    return [
        {
            "language": name,
            "bits_per_byte": value,
            "bits_to_reference": value / bits[0],
            "trunk_calls_per_sentence": 10 * value,
            "non_latin_share": share,
            "num_bytes": num_bytes,
        }
        | ({} if known is None else {"trained": known})
        for name, value, share, known in zip(LANGUAGES, bits, SHARES, trained, strict=True)
    ]


def three_models(trained=(None,) * 4):
    bits = {"bytes": [2.0, 1.0, 1.5, 1.2], "patches": [2.2, 1.1, 1.8, 1.2], "tokens": [1.9, 1.4, 1.7, 1.5]}
    return language_ranks({model: table(values, trained) for model, values in bits.items()})


def test_ranks_are_by_language_and_equal_models_share_the_mean_of_their_places():
    ranks = three_models()
    assert ranks.ranks.tolist() == [[2, 1, 1, 1.5], [3, 2, 3, 1.5], [1, 3, 2, 3]]
    first, patches, tokens = ranks.summary()
    assert [row["mean_rank"] for row in (first, patches, tokens)] == [5.5 / 4, 9.5 / 4, 9 / 4]
    assert first["bits_per_byte"] == pytest.approx((2.0 + 1.0 + 1.5 + 1.2) / 4)
    assert first["bits_to_reference"] == pytest.approx(5.7 / 4 / 2)
    assert first["trunk_calls_per_sentence"] == pytest.approx(57 / 4)
    assert [row["first_in"] for row in (first, patches, tokens)] == [3, 1, 1]
    assert [row["last_in"] for row in (first, patches, tokens)] == [0, 2, 2]
    # Shares rank 1.5, 3, 1.5, 4; ranks of tokens 1, 3.5, 2, 3.5: deviations -1, .5, -1, 1.5 and -1.5, 1, -.5, 1.
    assert tokens["rank_with_non_latin_share"] == pytest.approx(4 / (4.5 * 4.5) ** 0.5)


def test_models_agree_where_they_find_the_same_languages_easy():
    agreement = three_models().agreement()
    assert np.diag(agreement).tolist() == pytest.approx([1, 1, 1])
    assert agreement[0, 1] == pytest.approx(1)
    assert agreement[0, 2] == pytest.approx(1)
    assert (agreement == agreement.T).all()


def test_groups_are_ranked_apart_where_the_task_says_what_was_trained_on():
    ranks = three_models((True, False, True, False))
    assert {name: indices.tolist() for name, indices in ranks.groups.items()} == {
        "all": [0, 1, 2, 3],
        "trained": [0, 2],
        "unseen": [1, 3],
    }
    assert [row["mean_rank"] for row in ranks.summary("unseen")] == [1.25, 1.75, 3]
    assert list(ranks_plots(ranks)) == ["trained", "unseen"]
    assert list(ranks_plots(three_models())) == ["all"]


def test_tables_and_page_show_every_model_and_language():
    ranks = three_models((True, False, True, False))
    page, markdown = ranks_page(ranks), ranks_markdown(ranks, plots=["a.svg"])
    for shown in (page, markdown):
        for name in (*ranks.models, *ranks.languages, "1.2000 (1.5)"):
            assert name in shown
    assert page.count("<svg ") == 2
    assert "![rank of each model in each language](a.svg)" in markdown
    strict_json(ranks.to_dict())  # holds no nan


def test_models_of_other_languages_or_sentences_are_not_compared():
    bits = [1.0, 2.0, 3.0, 4.0]
    with pytest.raises(DataError, match="`a` and `b` were measured in different languages; one lacks rus"):
        language_ranks({"a": table(bits), "b": table(bits)[:3]})
    with pytest.raises(DataError, match="measured on 100 bytes of `deu`, `b` on 99"):
        language_ranks({"a": table(bits), "b": table(bits, num_bytes=99)})
    with pytest.raises(DataError, match="no results of a task of languages"):
        language_ranks({})


def result(task, bits, kind="parallel"):
    compute = {item.name: 1 if item.type is int else 1.0 for item in fields(Compute)}
    return TaskResult(
        task=task,
        kind=kind,
        num_examples=4,
        metrics={"bits_per_byte": Metric(value=2.0)},
        main_metric="bits_per_byte",
        compute=Compute(**compute),
        examples=[],
        details={"languages": table(bits)},
    )


def test_results_are_ranked_by_task_where_several_models_have_one():
    bits, more = [1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 5.0]
    found = ranks_by_task(
        {
            "a": [result("news", bits), result("help", bits), result("choices", bits, kind="choices")],
            "b": [result("news", more), result("choices", bits, kind="choices")],
        }
    )
    assert found.keys() == {"news"}
    assert found["news"].models == ("a", "b")
    assert found["news"].ranks.tolist() == [[1, 2, 1, 1], [2, 1, 2, 2]]


@given(VALUES)
def test_ranks_sum_to_those_without_ties_and_follow_the_order(values):
    ranks = average_ranks(np.array(values))
    assert ranks.sum() == len(values) * (len(values) + 1) / 2
    for a, one in enumerate(values):
        for b, other in enumerate(values):
            assert (one < other) == (ranks[a] < ranks[b])


@given(VALUES, st.randoms(use_true_random=False))
def test_a_correlation_is_one_with_any_rising_function_and_minus_one_with_a_falling_one(values, source):
    one = np.array(values, dtype=float)
    if len(set(values)) == 1:
        assert spearman(one, np.arange(len(one))) is None
        return
    assert spearman(one, np.exp(one)) == pytest.approx(1)
    assert spearman(one, -(one**3)) == pytest.approx(-1)
    other = np.array(source.sample(values, len(values)), dtype=float)
    both, flipped = spearman(one, other), spearman(other, one)
    assert both == pytest.approx(flipped)
    assert -1 - 1e-12 <= both <= 1 + 1e-12


def test_a_correlation_without_ties_is_that_of_the_formula_of_squared_differences():
    one, other = np.array([3.0, 1, 4, 1.5, 9]), np.array([2.0, 7, 1, 8, 2.5])
    differences = average_ranks(one) - average_ranks(other)
    assert spearman(one, other) == pytest.approx(1 - 6 * (differences**2).sum() / (5 * 24))
