"""The tables of `simulate_cluster.py`, for its result file and for the documentation."""

from collections.abc import Mapping, Sequence
from typing import Any

from measuring import markdown_table

Row = Mapping[str, Any]
GIB = 2**30
KINDS = ("all-gather", "reduce-scatter", "all-reduce")


def report(rows: Sequence[Row]) -> str:
    """Returns all tables."""
    return (
        "**Simulated: nothing ran on a GPU, and nothing was timed.** One rank of the cluster is run with PyTorch's "
        "fake process group on tensors that have shapes alone, through `fully_shard` as training calls it: a step of "
        "one pass, with the rows that the preset has on one GPU on every rank. Fused attention and norms are stand-ins "
        "that keep what the kernels keep; the FLOPs of attention are counted analytically.\n\n"
        f"## Memory of a rank\n\nGiB at the peak of a step.\n\n{memory_table(rows)}\n"
        "Shards: weights, gradients and moments in fp32. On the way: weights gathered and gradients being reduced. "
        "`cost`: the peak by `patchpad cost`, which counts from the configuration.\n\n"
        f"## Communication of a step\n\n{communication_table(rows)}\n"
        "GB are those of whole tensors, as many as a rank receives of all-gathers or gives to reductions, but for the "
        "part that is its own. Sums of the losses and the scores for the thresholds, under 1 MB a pass, are not in "
        "it.\n\n"
        f"## Work of a rank\n\n{work_table(rows)}"
    )


def name(row: Row) -> str:
    """Returns what a line is about."""
    again = ", checkpointing" if row["activation_checkpointing"] else ""
    return f"{row['preset']}{again}"


def way(row: Row) -> str:
    """Returns how the ranks share the model."""
    copies = row["ranks"] // row["shard_ranks"]
    return f"{row['ranks']}, fsdp" if copies == 1 else f"{row['ranks']}, hsdp {copies} x {row['shard_ranks']}"


def memory_table(rows: Sequence[Row]) -> str:
    """Returns the memory of a rank at its peak, in GiB."""
    header = ("preset", "ranks", "rows x bytes on each", "shards", "on the way", "activations", "peak", "`cost`")
    return markdown_table(header, [_memory_line(row) for row in rows])


def _memory_line(row: Row) -> list[str]:
    peak = row["peak_bytes"]
    shards, moving = (
        sum(peak.get(label, 0) for label in labels)
        for labels in (("weights", "gradients", "moments"), ("gathered", "reduced"))
    )
    numbers = (shards, moving, peak["activations"], sum(peak.values()), row["counted_peak_bytes"])
    rows = f"{row['rank_rows']} x {row['context_bytes']:,}"
    return [name(row), way(row), rows, *(f"{number / GIB:.2f}" for number in numbers)]


def communication_table(rows: Sequence[Row]) -> str:
    """Returns how many collectives there are in a step, and how many bytes they move."""
    header = ("preset", "ranks", *(f"{kind}s: number, GB" for kind in KINDS))
    lines = [
        [
            name(row),
            way(row),
            *(f"{row['collectives'].get(kind, 0)}, {row['collective_bytes'].get(kind, 0) / 1e9:.2f}" for kind in KINDS),
        ]
        for row in rows
    ]
    return markdown_table(header, lines)


def work_table(rows: Sequence[Row]) -> str:
    """Returns the FLOPs of a step on a rank."""
    header = ("preset", "ranks", "TFLOP", "of attention", "FLOP per byte sent or received")
    lines = [
        [
            name(row),
            way(row),
            f"{row['training_flops'] / 1e12:.1f}",
            f"{row['attention_flops'] / 1e12:.1f}",
            f"{row['training_flops'] / sum(row['collective_bytes'].values()):,.0f}",
        ]
        for row in rows
    ]
    return markdown_table(header, lines)
