"""lm_eval's `local-completions` through the server gives the scores of patchpad's own model in lm_eval."""

import math
from functools import partial
from types import SimpleNamespace

import pytest

from patchpad.testing import sharp_model, tiny_model_config
from patchpad.testing.lm_eval_tasks import local_task

CONTEXT = 96
TOLERANCE = 1e-6
NATS_TOLERANCE = 1e-4
"""Of one sum of nats, on which other requests of a batch have an effect by rounding."""
CHOICES = [
    {"question": "Where is the café?", "choices": ["à côté", "in the house", "no"], "gold": 0},
    {"question": "Two and two", "choices": ["four", "日本語 four of them", "a"], "gold": 1},
    {"question": "It was a very long question, " * 5, "choices": ["yes", "no, it was not"], "gold": 1},
    {"question": "Colour", "choices": ["red", "größer", "x y z"], "gold": 0},
]
TEXTS = ["short", "größer als 日本", "a text that fills the context as far as the two agree" * 2]
SENTENCES = ["the cat sat on the mat", "il était une fois", "one two three four"]
PROMPTS = ["It was", "größer", "w " * CONTEXT]


@pytest.fixture(scope="module")
def harness():
    """lm_eval with its model that asks a server."""
    reason = 'needs the extra `eval` and lm_eval\'s own: pip install "patchpad[eval]" "lm-eval[api]"'
    lm_eval = pytest.importorskip("lm_eval", reason=reason)
    for name in ("aiohttp", "requests", "tenacity"):
        pytest.importorskip(name, reason=reason)
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    from lm_eval.tasks import TaskManager

    from patchpad.tasks import lm_eval_adapter

    return SimpleNamespace(
        evaluate=lambda model, tasks: lm_eval.simple_evaluate(
            model, tasks=tasks, task_manager=TaskManager(include_defaults=False), bootstrap_iters=0
        ),
        Own=lm_eval_adapter.PatchpadLM,
        Remote=LocalCompletionsAPI,
    )


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> list[dict]:
    task = partial(local_task, tmp_path_factory.mktemp("tasks"))
    return [
        task(
            "choosing",
            CHOICES,
            {"acc": "mean", "acc_norm": "mean"},
            output_type="multiple_choice",
            doc_to_text="Question: {{question}}\nAnswer:",
            doc_to_choice="{{choices}}",
            doc_to_target="gold",
        ),
        task(
            "reading",
            [{"text": text[: CONTEXT - 1]} for text in TEXTS],
            {"bits_per_byte": "bits_per_byte"},
            output_type="loglikelihood_rolling",
            doc_to_text="",
            doc_to_target="{{text}}",
        ),
        task(
            "last_word",
            [{"text": text} for text in SENTENCES],
            {"perplexity": "perplexity", "acc": "mean"},
            output_type="loglikelihood",
            doc_to_text="{{text.split(' ')[:-1]|join(' ')}}",
            doc_to_target="{{' '+text.split(' ')[-1]}}",
        ),
        task(
            "writing",
            [{"prompt": prompt} for prompt in PROMPTS],
            {"exact_match": "mean"},
            output_type="generate_until",
            doc_to_text="{{prompt}}",
            doc_to_target="{{prompt}}",
            generation_kwargs={"until": ["\n", "aa"], "max_gen_toks": 20},
        ),
    ]


def answers(found, name: str) -> list:
    """What the model said to the requests of each document."""
    samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
    return [response[0] for sample in samples for response in sample["resps"]]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_scores_through_the_server_are_those_of_the_direct_way(harness, tasks, serve, batch_size):
    model = sharp_model(tiny_model_config(context_bytes=CONTEXT))
    direct = harness.evaluate(harness.Own(model, scratchpad_threshold=-math.inf), tasks)
    with serve(model=model, scratchpad_threshold_nats=-math.inf) as server:
        remote = harness.Remote(
            model="tiny",
            base_url=f"{server.url}/v1/completions",
            max_length=CONTEXT + 1,
            max_gen_toks=20,
            batch_size=batch_size,
            max_retries=1,
        )
        assert remote.tokenizer_backend == "remote"
        assert remote.eot_token_id == remote.prefix_token_id == 256
        found = harness.evaluate(remote, tasks)
    for name in ("choosing", "last_word"):
        for (nats, is_greedy), (own_nats, own_is_greedy) in zip(
            answers(found, name), answers(direct, name), strict=True
        ):
            assert nats == pytest.approx(own_nats, abs=NATS_TOLERANCE)
            assert is_greedy == own_is_greedy
    assert answers(found, "reading") == pytest.approx(answers(direct, "reading"), abs=NATS_TOLERANCE)
    assert answers(found, "writing")[:2] == answers(direct, "writing")[:2]
    for name, metrics in direct["results"].items():
        for metric, value in metrics.items():
            if isinstance(value, float):
                theirs = found["results"][name][metric]
                if metric.startswith("perplexity"):  # the exponential of a mean of nats
                    value, theirs = math.log(value), math.log(theirs)
                assert theirs == pytest.approx(value, rel=TOLERANCE), (name, metric)
