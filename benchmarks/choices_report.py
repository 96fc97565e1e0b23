"""The table of `choices_speed.py`, made from its rows alone."""

from collections.abc import Sequence

from measuring import Seconds, markdown_table, median, paired_ratio
from rows import Row, chosen, only

SHARED, FULL = "shared contexts", "full passes"


def report(rows: Sequence[Row]) -> str:
    """Returns the Markdown."""
    head = (
        f"Preset {rows[0]['preset']} with random weights. Examples per CPU second, medians; the speed-up is the median "
        "of the ratios within a turn. Bytes saved: those that full passes read over those that were read. "
        "Cut: requests that did not fit the context.\n\n"
    )
    header = ["task", "shots", "examples", "cut", SHARED, FULL, "speed-up", "bytes saved", "speed-up / bytes saved"]
    cases = dict.fromkeys((row["task"], row["shots"]) for row in rows)
    return head + markdown_table(header, [_line(chosen(rows, task=task, shots=shots)) for task, shots in cases])


def _line(case: Sequence[Row]) -> list[str]:
    shared, full = only(case, name=SHARED), only(case, name=FULL)
    runs = {name: [Seconds(**run) for run in row["seconds"]] for name, row in ((SHARED, shared), (FULL, full))}
    speedup = paired_ratio(runs[FULL], runs[SHARED])
    saved = shared["bytes_in_requests"] / shared["bytes_read"]
    rates = [f"{shared['examples'] / median([run.cpu for run in runs[name]]):,.1f}" for name in (SHARED, FULL)]
    return [
        shared["task"],
        str(shared["shots"]),
        str(shared["examples"]),
        str(shared["cut"]),
        *rates,
        f"{speedup:.2f}",
        f"{saved:.2f}",
        f"{speedup / saved:.2f}",
    ]
