"""What the reports of a study say beside their tables and plots. Torch-free."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from patchpad.pages.numbers import compact_number
from patchpad.study.results import Results
from patchpad.study.summary import Comparison

PLOT_TEXTS = {
    "flops": "bits per byte against FLOPs per byte",
    "cache": "bits per byte against trunk KV bytes per byte",
    "threshold": "bits per byte along the threshold",
    "positions": "bits per byte by position inside the patch",
    "letters": "bits per byte by letter of the word, against the first arm",
    "classes": "scratchpads by class of byte",
    "training": "bits per byte while training",
}
COMMIT_DIGITS = 10
"""Of a commit's name, which has 40 in the result files."""


def missing_line(planned: Iterable[Mapping[str, Any]], comparisons: Sequence[Comparison]) -> str:
    """Returns which of the study's arms, or which seeds of them, have no result yet; "" if all have."""
    done = {arm.name: arm.seeds for comparison in comparisons for arm in comparison.arms}
    missing = []
    for arm in planned:
        seeds = [str(seed) for seed in arm["seeds"] if seed not in done.get(arm["name"], ())]
        if arm["name"] not in done:
            missing.append(arm["name"])
        elif seeds:
            missing.append(f"{arm['name']} (seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)})")
    return f"No result yet of: {', '.join(missing)}." if missing else ""


def provenance_line(results: Results) -> str:
    """Returns machine, versions and commits of the results, each once."""

    def each(key: str) -> str:
        return ", ".join(sorted({str(run["provenance"][key]) for run in results.runs}))

    commits = {run["provenance"]["commit"] for run in results.runs}
    commits.update(*(run["training"].get("commits", ()) for run in results.runs))
    dates = sorted({run["provenance"]["date"][:10] for run in results.runs})
    days = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    threads = each("threads")
    spread = "± is the standard deviation over seeds; one seed has none. It is a hint, not a claim."
    return (
        f"{len(results.runs)} run{'s' * (len(results.runs) > 1)}, {days}, "
        f"on {each('hardware')} with {threads} thread{'s' * (threads != '1')}, "
        f"patchpad {each('package_version')}, torch {each('torch_version')}, "
        f"commit {', '.join(sorted(str(one)[:COMMIT_DIGITS] for one in commits))}. {spread}"
    )


def heading(comparison: Comparison) -> str:
    """Returns what the arms have in common: their text, and how much of it they saw."""
    return f"Text: {comparison.text}, {compact_number(comparison.bytes_seen, digits=3)} bytes seen"


def text_line(comparison: Comparison) -> str:
    """Returns what the arms were trained and measured on."""
    runs = [run for arm in comparison.arms for run in arm.results]
    data: dict[str, Any] = runs[0]["data"]
    line = (
        f"{data['training']['num_bytes']:,} bytes of {data['training']['num_documents']:,} documents to train on; "
        f"measured on {data['evaluated']['num_bytes']:,} of {data['validation']['num_bytes']:,} held-out bytes. "
        "Numbers are at the stored threshold. FLOPs are calculated, for the forward pass. The compressors read the "
        "measured windows as one file. In plots, * marks exploratory arms."
    )
    windows = {run["data"]["evaluated"]["sha256"] for run in runs}
    return line + (
        f" **The arms were measured on {len(windows)} different sets of windows** (their `context_bytes` differ), so "
        "small differences between them mean nothing."
        if len(windows) > 1
        else ""
    )
