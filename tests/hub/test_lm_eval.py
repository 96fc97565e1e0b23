"""lm_eval's own `hf` model on an exported folder finds what `patchpad lm-eval` finds on the run."""

import math
from functools import partial
from types import SimpleNamespace

import pytest

import patchpad
from patchpad.config import Config
from patchpad.testing.lm_eval_tasks import local_task
from patchpad.training import release

CONTEXT = 96
NATS_TOLERANCE = 1e-4
"""Of one sum of nats, on which other requests of a batch have an effect by rounding."""
CHOICES = [
    {"question": "Where is the café?", "choices": ["à côté", "in the house", "no"], "gold": 0},
    {"question": "Two and two", "choices": ["four", "日本語 four of them", "a"], "gold": 1},
    {"question": "It was a very long question, " * 5, "choices": ["yes", "no, it was not"], "gold": 1},
]
TEXTS = ["short", "größer als 日本", "x" * (CONTEXT - 1), "a text of several words, and then it ends"]
PROMPTS = ["It was", "größer"]


@pytest.fixture(scope="module")
def harness():
    lm_eval = pytest.importorskip("lm_eval", reason='needs the extra `eval`: pip install "patchpad[eval]"')
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from patchpad.tasks.lm_eval_adapter import PatchpadLM

    return SimpleNamespace(
        evaluate=lambda model, tasks: lm_eval.simple_evaluate(
            model, tasks=tasks, task_manager=TaskManager(include_defaults=False), bootstrap_iters=0
        ),
        HF=HFLM,
        Own=PatchpadLM,
    )


@pytest.fixture(scope="module")
def run(outer, tmp_path_factory):
    model = outer("fixed-entropy").model
    folder = tmp_path_factory.mktemp("runs") / "run"
    release.save(model, Config(model=model.config), folder)
    return folder


@pytest.fixture(scope="module")
def exported(hub, run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    hub.export(run, folder)
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    task = partial(local_task, tmp_path_factory.mktemp("tasks"))
    return [
        task(
            "choosing",
            CHOICES,
            {"acc": "mean", "acc_bytes": "mean"},
            output_type="multiple_choice",
            doc_to_text="Question: {{question}}\nAnswer:",
            doc_to_choice="{{choices}}",
            doc_to_target="gold",
        ),
        task(
            "reading",
            [{"text": text} for text in TEXTS],
            {"bits_per_byte": "bits_per_byte"},
            output_type="loglikelihood_rolling",
            doc_to_text="",
            doc_to_target="{{text}}",
        ),
        task(
            "writing",
            [{"prompt": prompt} for prompt in PROMPTS],
            {"exact_match": "mean"},
            output_type="generate_until",
            doc_to_text="{{prompt}}",
            doc_to_target="{{prompt}}",
            generation_kwargs={"until": ["\n", "zz"], "max_gen_toks": 20},
        ),
    ]


def responses(found, task: str) -> list[list]:
    samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
    return [[response[0] for response in sample["resps"]] for sample in samples]


def test_the_hf_model_of_lm_eval_finds_our_scores_on_an_exported_folder(harness, run, exported, tasks, said):
    theirs = harness.evaluate(
        harness.HF(
            pretrained=str(exported),
            trust_remote_code=True,
            device="cpu",
            batch_size=2,
            add_bos_token=False,
            max_length=CONTEXT - 1,
        ),
        tasks,
    )
    assert all("longer than the specified maximum" in text for text in said)  # of a question that is, and is cut
    said.clear()
    own = harness.evaluate(harness.Own(patchpad.load(run)), tasks)
    for expected, found in zip(responses(own, "choosing"), responses(theirs, "choosing"), strict=True):
        nats = [nats for nats, _ in expected]
        assert [nats for nats, _ in found] == pytest.approx(nats, rel=1e-6, abs=NATS_TOLERANCE)
        assert [is_greedy for _, is_greedy in found] == [is_greedy for _, is_greedy in expected]
    for metric in ("acc,none", "acc_bytes,none"):
        assert theirs["results"]["choosing"][metric] == own["results"]["choosing"][metric]
    expected = [nats for (nats,) in responses(own, "reading")]
    assert [nats for (nats,) in responses(theirs, "reading")] == pytest.approx(expected, rel=1e-6, abs=NATS_TOLERANCE)
    bits = own["results"]["reading"]["bits_per_byte,none"]
    assert theirs["results"]["reading"]["bits_per_byte,none"] == pytest.approx(bits, rel=1e-5)
    assert math.isfinite(bits)
    assert responses(theirs, "writing") == responses(own, "writing")
