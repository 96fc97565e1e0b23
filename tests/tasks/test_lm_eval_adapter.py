"""What lm_eval finds on tasks that lie on this machine is what patchpad finds."""

import json
import math
import sys
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import patchpad
from patchpad.errors import CheckpointError, ConfigError, GenerationError, MissingExtraError
from patchpad.tasks.definition import TaskOptions
from patchpad.tasks.kinds import build_task, run_task
from patchpad.testing import sharp_model, tiny_model_config
from patchpad.testing.lm_eval_tasks import local_task

CONTEXT = 96
THRESHOLD = -math.inf
RELATIVE_TOLERANCE = 1e-6
NATS_TOLERANCE = 1e-4
"""Of one sum of nats, on which other requests of a batch have an effect by rounding."""

CHOICES = [
    {"question": "Where is the café?", "choices": ["à côté", "in the house", "no"], "gold": 0},
    {"question": "Two and two", "choices": ["four", "日本語 four of them", "a"], "gold": 1},
    {"question": "Say a letter", "choices": ["b", "bb", "bbbbbbbbbb"], "gold": 2},
    {"question": "It was a very long question, " * 5, "choices": ["yes", "no, it was not"], "gold": 1},
    {"question": "Colour", "choices": ["red", "größer", "x y z"], "gold": 0},
]
TEXTS = ["short", "größer als 日本", "a longer text that goes on and on, word after word " * 9, "x" * CONTEXT, ""]
SENTENCES = ["the cat sat on the mat", "il était une fois", "one two three four"]
PROMPTS = ["It was", "größer", "w " * CONTEXT]
STOP, MAX_GEN_TOKS = ["\n", "aa"], 20


@pytest.fixture(scope="module")
def harness():
    """lm_eval and our module of it, imported when a test runs: without the extra, all tests are skipped."""
    lm_eval = pytest.importorskip("lm_eval", reason='needs the extra `eval`: pip install "patchpad[eval]"')
    from lm_eval.tasks import TaskManager

    from patchpad.tasks import lm_eval_adapter

    return SimpleNamespace(
        evaluate=lambda model, tasks, **options: lm_eval.simple_evaluate(
            model, tasks=tasks, task_manager=TaskManager(include_defaults=False), bootstrap_iters=0, **options
        ),
        LM=lm_eval_adapter.PatchpadLM,
        models=lm_eval_adapter.model_registry,
    )


@pytest.fixture(scope="module")
def model():
    return sharp_model(tiny_model_config(context_bytes=CONTEXT))


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> list[dict]:
    """Tasks as YAML files hold them; their rows are in files, so that nothing is fetched."""
    task = partial(local_task, tmp_path_factory.mktemp("tasks"))
    return [
        task(
            "choosing",
            CHOICES,
            {"acc": "mean", "acc_norm": "mean", "acc_bytes": "mean"},
            output_type="multiple_choice",
            doc_to_text="Question: {{question}}\nAnswer:",
            doc_to_choice="{{choices}}",
            doc_to_target="gold",
        ),
        task(
            "choosing_led",
            [{**row, "choices": [f" {choice}" for choice in row["choices"]]} for row in CHOICES],
            {"acc_bytes": "mean"},
            output_type="multiple_choice",
            doc_to_text="Question: {{question}}\nAnswer:",
            doc_to_choice="{{choices}}",
            doc_to_target="gold",
            target_delimiter="",
        ),
        task(
            "reading",
            [{"text": text} for text in TEXTS],
            {"bits_per_byte": "bits_per_byte", "byte_perplexity": "weighted_perplexity"},
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
            generation_kwargs={"until": STOP, "max_gen_toks": MAX_GEN_TOKS},
        ),
    ]


@pytest.fixture(scope="module")
def found(harness, model, tasks):
    """What lm_eval finds on all tasks."""
    return harness.evaluate(harness.LM(model, scratchpad_threshold=THRESHOLD), tasks)


def own_nats(model, context: str, continuation: str) -> float:
    """ln p of a continuation by `patchpad.score`, which knows neither requests nor choices."""
    text, length = (context + continuation).encode(), len(continuation.encode())
    kept = text[max(0, len(text) - CONTEXT) :]
    return -float(patchpad.score(model, kept, scratchpad_threshold_nats=THRESHOLD)[-length:].astype(np.float64).sum())


def responses(found, task: str) -> list[list]:
    """The model's answers to the requests of each document."""
    samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
    return [[response[0] for response in sample["resps"]] for sample in samples]


def test_choices_have_the_likelihoods_and_accuracies_of_our_own_sums(found, model):
    hits = {"acc": 0, "acc_norm": 0, "acc_bytes": 0}
    for row, answers in zip(CHOICES, responses(found, "choosing"), strict=True):
        context = f"Question: {row['question']}\nAnswer:"
        nats = np.array([own_nats(model, context, f" {choice}") for choice in row["choices"]])
        assert [answer[0] for answer in answers] == pytest.approx(nats.tolist(), abs=NATS_TOLERANCE)
        lengths = {
            "acc": 1,
            "acc_norm": np.array([len(choice) for choice in row["choices"]]),
            "acc_bytes": np.array([len(choice.encode()) for choice in row["choices"]]),
        }
        for name, length in lengths.items():
            hits[name] += int((nats / length).argmax()) == row["gold"]
    assert len(set(hits.values())) == 3  # so none stands for another
    for name, count in hits.items():
        assert found["results"]["choosing"][f"{name},none"] == count / len(CHOICES)


def own_result(model, folder, rows: list[dict], **values):
    """What `patchpad evaluate --suite` finds on a task of ours."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = build_task({"data": "rows.jsonl", **values}, "own", "a test")
    return run_task(task, model, TaskOptions(data=folder, scratchpad_threshold_nats=THRESHOLD))


def test_choices_of_a_suite_have_the_numbers_of_lm_eval(found, model, tmp_path):
    own = own_result(
        model, tmp_path, CHOICES, kind="choices", context="Question: {question}\nAnswer:", choices="{choices}"
    )
    for example, answers in zip(own.examples, responses(found, "choosing"), strict=True):
        assert example["log_likelihoods_nats"] == pytest.approx([nats for nats, _ in answers], abs=NATS_TOLERANCE)
    theirs = found["results"]["choosing"]
    assert own.metrics["accuracy"].value == pytest.approx(theirs["acc,none"], rel=RELATIVE_TOLERANCE)
    assert own.metrics["accuracy_per_character"].value == pytest.approx(theirs["acc_norm,none"], rel=RELATIVE_TOLERANCE)
    led = found["results"]["choosing_led"]["acc_bytes,none"]  # where the space before a choice counts as in a suite
    assert own.metrics["accuracy_per_byte"].value == pytest.approx(led, rel=RELATIVE_TOLERANCE)


def test_continuations_of_a_suite_have_the_numbers_of_lm_eval(found, model, tmp_path):
    rows = [dict(zip(("before", "word"), sentence.rsplit(" ", 1), strict=True)) for sentence in SENTENCES]
    own = own_result(model, tmp_path, rows, kind="continuation", context="{before}", continuation="{word}")
    theirs = found["results"]["last_word"]
    assert own.metrics["accuracy"].value == theirs["acc,none"]
    bits = math.log2(theirs["perplexity,none"])
    assert own.details["bits_per_continuation"] == pytest.approx(bits, rel=RELATIVE_TOLERANCE)
    num_bytes = sum(len(f" {row['word']}".encode()) for row in rows)
    assert own.metrics["bits_per_byte"].value == pytest.approx(bits * len(rows) / num_bytes, rel=RELATIVE_TOLERANCE)


def test_texts_of_a_suite_are_those_that_lm_eval_gets(found, model, tmp_path):
    rows = [{"prompt": prompt, "answer": "?"} for prompt in PROMPTS]
    own = own_result(
        model,
        tmp_path,
        rows,
        kind="generation",
        context="{prompt}",
        answer="{answer}",
        delimiter="",
        stop=STOP,
        max_new_bytes=MAX_GEN_TOKS,
    )
    assert [[example["text"]] for example in own.examples] == responses(found, "writing")
    assert own.num_cut_bytes == len(PROMPTS[2]) - (CONTEXT - MAX_GEN_TOKS)


def test_bits_per_byte_of_texts_of_any_length_are_those_of_evaluate(found, model, tmp_path):
    for number, text in enumerate(TEXTS):
        (tmp_path / f"{number}.txt").write_bytes(text.encode())
    files = [tmp_path / f"{number}.txt" for number, text in enumerate(TEXTS) if text]
    (point,) = patchpad.evaluate(model, files, scratchpad_threshold_nats=THRESHOLD)
    result = found["results"]["reading"]
    assert point.num_bytes == sum(len(text.encode()) for text in TEXTS)
    assert result["bits_per_byte,none"] == pytest.approx(point.bits_per_byte, rel=RELATIVE_TOLERANCE)
    assert math.log2(result["byte_perplexity,none"]) == pytest.approx(point.bits_per_byte, rel=RELATIVE_TOLERANCE)


def test_perplexity_of_a_last_word_is_that_of_our_own_sums(found, model):
    pairs = [sentence.rsplit(" ", 1) for sentence in SENTENCES]
    mean = np.mean([own_nats(model, context, f" {word}") for context, word in pairs])
    assert math.log(found["results"]["last_word"]["perplexity,none"]) == pytest.approx(-mean, rel=RELATIVE_TOLERANCE)
    assert found["results"]["last_word"]["acc,none"] == 0


def test_what_greedy_choice_writes_is_found_to_be_greedy(harness, model):
    lm = harness.LM(model, scratchpad_threshold=THRESHOLD)
    (text,) = lm.generate_until([Asked(("It was", {"max_gen_toks": 12}))])
    while "\ufffd" in text:
        text = text[: text.index("\ufffd")]
    assert text
    answers = lm.loglikelihood([Asked(("It was", text)), Asked(("It was", text + "\x01"))])
    assert [is_greedy for _, is_greedy in answers] == [True, False]


def test_generated_text_is_that_of_complete(found, model):
    expected = patchpad.complete(
        model,
        [prompt.encode()[-(CONTEXT - MAX_GEN_TOKS) :] for prompt in PROMPTS],
        stop=STOP,
        max_new_bytes=MAX_GEN_TOKS,
        temperature=0,
        scratchpad_threshold_nats=THRESHOLD,
    )
    assert responses(found, "writing") == [[completion.text] for completion in expected]


def test_results_carry_compute_and_what_was_cut(found):
    info = found["config"]["patchpad"]
    assert info["version"] == patchpad.__version__
    asked = [f"Question: {row['question']}\nAnswer: {choice}" for row in CHOICES for choice in row["choices"]]
    cut = [max(0, len(text.encode()) - CONTEXT) for text in asked]
    cut.append(len(PROMPTS[2]) - (CONTEXT - MAX_GEN_TOKS))
    cut += cut[:-1]  # of choosing_led
    assert info["num_cut_requests"] == sum(map(bool, cut)) == 5
    assert info["num_cut_bytes"] == sum(cut)
    assert set(info["compute"]) == {"scoring", "generation"}
    for part in info["compute"].values():
        assert part["scratchpad_threshold_nats"] == "-inf"
        assert part["trunk_calls_per_byte"] == pytest.approx(1.0)
        assert part["flops_per_byte"] > 0
    assert info["compute"]["generation"]["bytes_scored"] == MAX_GEN_TOKS * len(PROMPTS)


@dataclass
class Asked:
    """A request, without the rest of lm_eval's."""

    args: tuple
    doc_id: int = 0
    idx: int = 0
    task_name: str = "task"


def test_neither_batch_size_nor_order_matters(harness, model, caplog):
    asked = [Asked((f"Question: {row['question']}", choice)) for row in CHOICES for choice in row["choices"]]
    asked += [Asked(("", choice)) for choice in CHOICES[0]["choices"]]
    every = harness.LM(model, batch_size="auto:4").loglikelihood(asked)
    assert "2 of 17 requests do not fit the model's context of 96 bytes" in caplog.text
    backwards = harness.LM(model, batch_size=1).loglikelihood(asked[::-1])[::-1]
    assert [nats for nats, _ in backwards] == pytest.approx([nats for nats, _ in every], abs=NATS_TOLERANCE)
    assert [is_greedy for _, is_greedy in backwards] == [is_greedy for _, is_greedy in every]


def test_a_threshold_and_compute_reach_the_model(harness, model):
    asked = [Asked(("It was ", "a good day"))]
    plain, everywhere = (harness.LM(model, scratchpad_threshold=value) for value in (math.inf, -math.inf))
    assert plain.loglikelihood(asked) != everywhere.loglikelihood(asked)
    assert plain.compute()["scoring"].scratchpads_per_byte == 0
    with pytest.raises(GenerationError, match="no calibration"):
        harness.LM(model, compute=0.5)


def test_sampled_answers_depend_on_seed_document_and_repetition_alone(harness, model):
    import torch

    def answers(asked, **options):
        return harness.LM(model, **options).generate_until(asked)

    arguments = {"temperature": 1.0, "do_sample": True, "max_gen_toks": 6}
    asked = [Asked(("It was", arguments), doc_id=number) for number in (0, 0, 1)]
    torch.manual_seed(5)  # as lm_eval does from --seed
    first = answers(asked)
    assert len(set(first)) == 3
    assert answers(asked[::-1], batch_size=1) == [first[2], first[0], first[1]]
    assert answers(asked, seed=5) == first
    torch.manual_seed(6)
    assert not set(answers(asked)) & set(first)


def test_length_of_an_answer_counts_bytes_and_has_a_default(harness, model):
    lm = harness.LM(model, max_gen_toks=7)
    lm.generate_until([Asked(("a", {}))])
    lm.generate_until([Asked(("a", {"max_tokens": 3}))])
    assert lm.compute()["generation"].bytes_scored == 10


def test_answers_are_kept_in_the_cache_of_lm_eval(harness, model, tmp_path, monkeypatch):
    from lm_eval.api.model import CachingLM

    asked = {
        "loglikelihood": [Asked(("a", "b")), Asked(("c", "d"))],
        "loglikelihood_rolling": [Asked(("text",))],
        "generate_until": [Asked(("a", {"max_gen_toks": 2}))],
    }

    def answers() -> dict[str, list]:
        cached = CachingLM(harness.LM(model), str(tmp_path / "answers.db"))
        return {name: getattr(cached, name)(requests) for name, requests in asked.items()}

    first = answers()
    for name in asked:
        monkeypatch.delattr(harness.LM, name)
        monkeypatch.setattr(harness.LM, "__abstractmethods__", frozenset())
    assert answers() == first


def test_models_of_lm_eval_stay_beside_ours(harness):
    assert {"patchpad", "hf", "local-completions"} <= set(harness.models)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scratchpad_treshold": 1}, ConfigError, "Did you mean `scratchpad_threshold`"),
        (
            {"pretrained": "runs/mine"},
            ConfigError,
            "`pretrained` is not an argument of the model `patchpad`\nAllowed: batch",
        ),
        ({"scratchpad_threshold": 1.0, "compute": 0.5}, GenerationError, "both compute and scratchpad_threshold"),
        ({"batch_size": 0}, ConfigError, "batch_size is 0; allowed: auto, or an integer of at least 1"),
        ({"batch_size": "many"}, ConfigError, "batch_size is 'many'"),
        ({"max_gen_toks": 0}, GenerationError, "max_gen_toks is 0"),
        ({"device": "tpu"}, ConfigError, "device is 'tpu'"),
    ],
)
def test_a_wrong_argument_is_named(harness, options, error, message):
    with pytest.raises(error, match=message):
        harness.LM(**options)


def test_a_run_is_loaded_by_its_path_or_the_one_that_ships_with_patchpad(harness, model, tmp_path):
    assert harness.LM.create_from_arg_string("scratchpad_threshold=1.5").threshold == 1.5
    with pytest.raises(CheckpointError, match="no run is at"):
        harness.LM.create_from_arg_obj({"run": str(tmp_path / "none")}, {"batch_size": 1, "device": None})
    with pytest.raises(ConfigError, match="both a model and a run"):
        harness.LM(model, run=tmp_path)


def test_several_processes_are_refused(harness, model, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ConfigError, match="started 2 processes; allowed: one"):
        harness.LM(model)


def test_without_lm_eval_the_error_names_the_pip_line(monkeypatch):
    monkeypatch.delitem(sys.modules, "patchpad.tasks.lm_eval_adapter", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingExtraError) as caught:
        __import__("patchpad.tasks.lm_eval_adapter")
    assert caught.value.hint == 'Install it with: pip install "patchpad[eval]"'
