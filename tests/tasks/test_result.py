import json
import math

import pytest

from patchpad.errors import DataError
from patchpad.files import strict_json
from patchpad.tasks.compute import Compute
from patchpad.tasks.result import Metric, TaskResult

COMPUTE = Compute(
    scratchpad_threshold_nats=math.inf,
    bytes_scored=10,
    bytes_in_requests=100,
    bytes_read=60,
    patches_per_byte=0.25,
    scratchpads_per_byte=0.0,
    trunk_calls_per_byte=0.25,
    flops_per_byte=1e6,
    trunk_cache_bytes_per_byte=12.0,
)


def result_with(**changed):
    values = {
        "task": "toy",
        "kind": "choices",
        "num_examples": 2,
        "metrics": {"accuracy": Metric(value=0.5, standard_error=0.5, chance=0.25), "bits": Metric(value=math.inf)},
        "main_metric": "accuracy",
        "compute": COMPUTE,
        "num_cut_examples": 1,
        "num_cut_bytes": 7,
        "examples": [{"id": "a:1", "accuracy": 1.0, "bits": math.inf}, {"id": "a:2", "accuracy": 0.0, "bits": 1.5}],
        "details": {"num_ties": 1},
    }
    return TaskResult(**{**values, **changed})


def test_a_result_survives_strict_json():
    result = result_with()
    read = TaskResult.from_dict(json.loads(strict_json(result.to_dict()), parse_constant=pytest.fail))
    assert read.to_dict() == {
        **result.to_dict(),
        "examples": [{**result.examples[0], "bits": "inf"}, result.examples[1]],
    }
    assert read.compute == COMPUTE
    assert read.values_of("bits") == {"a:1": math.inf, "a:2": 1.5}
    assert "examples" not in result.to_dict(with_examples=False)


@pytest.mark.parametrize("key", ["task", "metrics", "compute", "main_metric"])
def test_what_is_no_result_is_refused_with_its_source(key):
    values = result_with().to_dict()
    del values[key]
    with pytest.raises(DataError, match=rf"x\.json is not the result of a task: KeyError '{key}'"):
        TaskResult.from_dict(values, "x.json")


@pytest.mark.parametrize(
    ("examples", "problem"),
    [
        ([{"accuracy": 1.0}], "KeyError 'id'"),
        ([{"id": "a:1", "accuracy": "right"}], "ValueError could not convert"),
        ([{"id": "a:1", "accuracy": 1.0}, {"id": "a:1", "accuracy": 0.0}], "two examples have the id a:1"),
    ],
)
def test_examples_that_cannot_be_paired_are_no_result(examples, problem):
    with pytest.raises(DataError, match=rf"x\.json is not the result of a task: .*{problem}"):
        TaskResult.from_dict({**result_with().to_dict(), "examples": examples}, "x.json")


def test_the_main_metric_is_one_of_the_metrics():
    assert result_with().main == Metric(value=0.5, standard_error=0.5, chance=0.25)
    with pytest.raises(ValueError, match="main_metric is f1; allowed: accuracy, bits"):
        result_with(main_metric="f1")


def test_the_standard_error_is_that_of_a_sample():
    metric = Metric.mean_of([1.0, 0.0, 0.0, 1.0, 1.0], chance=0.5)
    assert metric.value == 0.6
    assert metric.standard_error == pytest.approx(math.sqrt(0.6 * 0.4 / 4))
    assert metric.chance == 0.5
    assert Metric.mean_of([0.3]) == Metric(value=0.3)


def test_the_error_of_a_ratio_is_that_of_its_mean_where_all_units_are_equal():
    amounts = [1.0, 2.0, 4.0]
    ratio, mean = Metric.ratio_of(amounts, [2, 2, 2]), Metric.mean_of([amount / 2 for amount in amounts])
    assert ratio.value == pytest.approx(mean.value)
    assert ratio.standard_error == pytest.approx(mean.standard_error)
    assert Metric.ratio_of([2.0, 4.0], [1, 2]) == Metric(value=2.0, standard_error=0.0)
