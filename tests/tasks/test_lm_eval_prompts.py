"""Tasks of the package ask what lm_eval's own tasks of the same names ask, byte for byte.

The rows here are made up; a row of lm_eval has the columns of the public data set, one of ours those of `--data`.
"""

import gzip
import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_tasks import StandIn, uniform

from patchpad.tasks.definition import TaskOptions
from patchpad.tasks.kinds import kind_of, load_task

CHOSEN = [
    {
        "id": 0,
        "question": "Which gas do plants take in? ",
        "choices": ["oxygen", "carbon  dioxide", "größte"],
        "gold": 1,
    },
    {"id": 1, "question": "What is 2\nand 2", "choices": ["5", "4 ", " 3", "2", "1"], "gold": 0},
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "hellaswag": [
        {
            "activity": "Roof [x] removal",
            "ctx_a": " A man is on a roof.",
            "ctx_b": "he Then",
            "endings": ["falls [title] Next [step] go  on", " is é.", "c", "d"],
            "gold": 0,
        },
        {
            "activity": "Home and Garden",
            "ctx_a": "How to dig [header] Find a spade. [title] Look in  the shed. ",
            "ctx_b": "",
            "endings": ["a", "b", "c", "[substeps] d"],
            "gold": 3,
        },
    ],
    "piqa": [{"goal": "ice box", "choices": ["a ", "add water to it"], "gold": 1}],
    "arc_easy": CHOSEN,
    "arc_challenge": CHOSEN,
    "openbookqa": CHOSEN,
    "commonsense_qa": [{**CHOSEN[1], "gold": 4}],
    "boolq": [{"passage": "It (Über) is. ", "question": "is it", "choices": ["no", "yes"], "gold": 1}],
    "winogrande": [
        {"sentence": "Ann beat Eve, so _ won the cup.", "options": ["Ann", "Eve"], "gold": 0},
        {"sentence": "_ lost.", "options": ["Ann", "Eve"], "gold": 1},
    ],
    "lambada": [{"id": 0, "context": 'He said: "No.\n\nWait', "continuation": "here"}],
    "mmlu": [
        {
            "subject": "high_school_physics",
            "question": " What?\nAnd how? ",
            "choices": ["1", "2 m", "3", "é"],
            "gold": 3,
        },
        {"subject": "high_school_physics", "question": "Why?", "choices": ["a", "b", "c", "d"], "gold": 0},
    ],
}


def question_of(row: dict, key: str) -> dict:
    labels = list(string.ascii_uppercase[: len(row["choices"])])
    return {
        key: row["question"],
        "choices": {"text": row["choices"], "label": labels},
        "answerKey": labels[row["gold"]],
    }


STOCK: dict[str, tuple[str, Callable[[dict], dict]]] = {
    "hellaswag": (
        "hellaswag/hellaswag.yaml",
        lambda row: {
            "activity_label": row["activity"],
            **{name: row[name] for name in ("ctx_a", "ctx_b", "endings")},
            "label": str(row["gold"]),
        },
    ),
    "piqa": (
        "piqa/piqa.yaml",
        lambda row: {"goal": row["goal"], "sol1": row["choices"][0], "sol2": row["choices"][1], "label": row["gold"]},
    ),
    "arc_easy": ("arc/arc_easy.yaml", lambda row: question_of(row, "question")),
    "arc_challenge": ("arc/arc_challenge.yaml", lambda row: question_of(row, "question")),
    "openbookqa": ("openbookqa/openbookqa.yaml", lambda row: question_of(row, "question_stem")),
    "commonsense_qa": ("commonsense_qa/default.yaml", lambda row: question_of(row, "question")),
    "boolq": (
        "super_glue/boolq/default.yaml",
        lambda row: {"passage": row["passage"], "question": row["question"], "label": row["gold"]},
    ),
    "winogrande": (
        "winogrande/default.yaml",
        lambda row: {
            "sentence": row["sentence"],
            "option1": row["options"][0],
            "option2": row["options"][1],
            "answer": str(row["gold"] + 1),
        },
    ),
    "lambada": ("lambada/lambada_openai.yaml", lambda row: {"text": f"{row['context']} {row['continuation']}"}),
    "mmlu": (
        "mmlu/default/mmlu_high_school_physics.yaml",
        lambda row: {"question": row["question"], "choices": row["choices"], "answer": row["gold"]},
    ),
}
"""Our name -> the file of lm_eval's task, and one of our rows as a row of the public data set."""


def asked_by_lm_eval(name: str, folder: Path, shots: int) -> tuple[list[list[tuple[str, str]]], list]:
    """What lm_eval's own task asks about each row, and which choices it takes for right."""
    lm_eval = pytest.importorskip("lm_eval", reason='needs the extra `eval`: pip install "patchpad[eval]"')
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._yaml_loader import load_yaml

    file, changed = STOCK[name]
    path = folder / "theirs.jsonl"
    path.write_text("".join(json.dumps(changed(row)) + "\n" for row in ROWS[name]), encoding="utf-8")
    config = load_yaml(str(Path(lm_eval.__file__).parent / "tasks" / file), resolve_func=True)
    for key in ("training_split", "validation_split", "test_split", "fewshot_split", "dataset_name"):
        config.pop(key, None)
    files = {"data_files": {"train": str(path), "dev": str(path)}, "cache_dir": str(folder / "cache")}
    config |= {"fewshot_split": "dev"} if shots else {}
    config |= {"dataset_path": "json", "dataset_kwargs": files, "test_split": "train", "num_fewshot": shots}
    (task,) = TaskManager(include_defaults=False).load([config])["tasks"].values()
    task.build_all_requests()
    asked: dict[int, list[tuple[str, str]]] = {}
    golds = []
    for instance in task.instances:
        asked.setdefault(instance.doc_id, []).append(tuple(instance.args))
    for doc in task.eval_docs:
        gold = task.doc_to_text(doc) if name == "winogrande" else task.doc_to_target(doc)
        golds.append(string.ascii_uppercase.find(gold) if name == "commonsense_qa" else gold)
    return [asked[number] for number in range(len(asked))], golds


def asked_by_us(name: str, folder: Path, shots: int) -> tuple[list[tuple[str, str]], list[dict]]:
    """What our task asks, and what its result says of each row."""
    task = load_task(name)
    for file in (*task.data, *task.shots_data):
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS[name]).encode()))
    scorer = StandIn(uniform)
    result = kind_of(task.kind).run(task, task.rows(folder), scorer, TaskOptions(data=folder, shots=shots))
    return [(request.context.decode(), request.continuation.decode()) for request in scorer.requests], result.examples


@pytest.mark.parametrize(("name", "shots"), [*((name, 0) for name in STOCK), ("mmlu", 2)])
def test_a_task_of_the_package_asks_what_lm_evals_own_asks(name, shots, tmp_path):
    theirs, golds = asked_by_lm_eval(name, tmp_path, shots)
    ours, examples = asked_by_us(name, tmp_path, shots)
    num_requests = sum(map(len, theirs))
    assert ours[:num_requests] == [pair for pairs in theirs for pair in pairs]
    assert all(context == "Answer:" for context, _ in ours[num_requests:])  # likelihoods without the question
    if name != "lambada":
        assert [example["gold"] for example in examples] == golds
