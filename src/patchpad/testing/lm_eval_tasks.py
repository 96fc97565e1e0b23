"""Tasks of lm_eval whose rows are in local files, so that its tests fetch nothing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def local_task(
    folder: Path, name: str, rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, str], **values: Any
) -> dict[str, Any]:
    """Writes the rows of a task into a file; returns the task as a YAML file would hold it.

    Args:
        folder: where the file goes, and what lm_eval caches of it.
        name: of the task.
        rows: its examples.
        metrics: name of a metric -> how it is taken over examples, such as `mean`.
        values: the other keys of the task.
    """
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": str(file), "cache_dir": str(folder / "cache")},
        "test_split": "train",
        "metric_list": [
            {"metric": metric, "aggregation": how, "higher_is_better": how == "mean"} for metric, how in metrics.items()
        ],
        **values,
    }


__all__ = ["local_task"]
