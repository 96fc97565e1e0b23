"""Tables of `presets_gpu.py`, made from its rows alone."""

from collections.abc import Callable, Sequence

from gpu_estimates import estimated_generation, estimated_pass
from machine import PRODUCT
from measuring import markdown_table, median
from rows import Row, chosen, digits, rate, rate_cell, rate_ratio, values

GIB = 2**30
NO_MEMORY = "out of memory"
PLAIN_ARM = "fixed1-never"


def report(rows: Sequence[Row]) -> str:
    """Returns the Markdown of the parts that there are rows of."""
    head = "Wall time; medians, with (largest - smallest) / median in brackets. Arms were measured one by one.\n\n"
    tables: dict[str, Callable[[Sequence[Row]], str]] = {
        "training": training_table,
        "generation": generation_table,
        "memory": memory_table,
    }
    found = [table(chosen(rows, part=part)) for part, table in tables.items() if chosen(rows, part=part)]
    return head + "\n".join(found)


def share_of_product(rows: Sequence[Row]) -> float:
    """Returns the FLOP/s of the training step over those of the matrix product, of rows that were timed in turn."""
    product = next(row for row in rows if row["name"].startswith(PRODUCT))
    return rate_ratio(next(row for row in rows if row["name"] == "step"), "flops", product, "flops", "wall")


def share_of_data_sheet(step: Row) -> float | None:
    """Returns the FLOP/s of the training step over the card's data sheet; None for a card that is not listed."""
    peak = step["data_sheet_flops"]
    return rate(step, "flops", "wall") / peak if peak else None


def training_table(rows: Sequence[Row]) -> str:
    """Returns bytes/s, share of the peak FLOP/s and peak memory of training steps."""
    lines = [
        _training_line(chosen(rows, preset=preset, arm=arm, compiled=compiled))
        for preset in values(rows, "preset")
        for arm in values(rows, "arm")
        for compiled in (True, False)
        if chosen(rows, preset=preset, arm=arm, compiled=compiled)
    ]
    header = ["preset", "M parameters", "rows x bytes", "bytes/s", "trunk calls per byte", "TFLOP/s"]
    header += ["product TFLOP/s", "MFU by the product", "MFU by the data sheet", "peak GiB", "kernels", "busy", "waits"]
    header += ["first step, s", "MFU estimated", "time over the estimate"]
    return (
        "## Training\n\n"
        "Whole steps of the trainer: loader, one pass, clipping, AdamW. FLOPs are 3 x the forward pass, by "
        "`patchpad.cost`. MFU is over a large matrix product in the type that the model computes in, measured in turn "
        "with the steps, and over the card's data sheet. The last columns are of one step more: its kernels, the share "
        "of the median step in which they ran, and how often the host waited for the device. Estimates are those of "
        "docs/speed.md, of a pass alone, without AdamW.\n\n" + markdown_table(header, lines)
    )


def _training_line(group: Sequence[Row]) -> list[str]:
    row = group[-1]
    name = f"{row['preset']}-{row['arm']}{'' if row['compiled'] else ', not compiled'}"
    if row.get("out_of_memory"):
        return [name, NO_MEMORY, *[""] * 14]
    product, step = group[-1], group[-2]  # of the newest run
    of_data_sheet = share_of_data_sheet(step)
    profile = step["profile"]
    seconds = median([run["wall"] for run in step["seconds"]])
    busy = profile and profile["seconds"] / seconds
    is_estimated = step["compiled"] and step["arm"] != PLAIN_ARM
    estimate = estimated_pass(step["preset"], step["rows"]) if is_estimated else None
    return [
        name,
        digits(step["num_params"] / 1e6),
        f"{step['rows']} x {step['context_bytes']:,}",
        rate_cell(step, "bytes", "wall"),
        f"{step['trunk_calls_per_byte']:.3f}",
        digits(rate(step, "flops", "wall") / 1e12),
        digits(rate(product, "flops", "wall") / 1e12),
        f"{share_of_product(group[-2:]):.3f}",
        "not listed" if of_data_sheet is None else f"{of_data_sheet:.3f}",
        digits(step["peak_bytes"] / GIB),
        _or_unknown(profile and str(profile["kernels"])),
        _or_unknown(busy and f"{busy:.0%}"),
        _or_unknown(step["syncs_per_step"]),
        f"{step['first_step_seconds']:.0f}",
        *(("", "") if estimate is None else (f"{estimate[1]:.3f}", f"{seconds / step['passes'] / estimate[0]:.2f}")),
    ]


def generation_table(rows: Sequence[Row]) -> str:
    """Returns bytes/s, kernels and peak memory of generation by batch."""
    lines = []
    for row in rows:
        name = f"{row['preset']}-{row['arm']}, {row['rows']} rows{', compiled' if row['compiled'] else ''}"
        if row.get("out_of_memory"):
            lines.append([name, NO_MEMORY, *[""] * 7])
            continue
        counted, profiled = row["counts_after"]
        profile, syncs = row["profile"], row["syncs"]
        estimate = estimated_generation(row) if row["compiled"] and row["arm"] != PLAIN_ARM else None
        lines.append(
            [
                name,
                rate_cell(row, "bytes", "wall"),
                f"{sum(row['trunk_calls']) / sum(row['bytes']):.3f}",
                _over(row, chosen(rows, preset=row["preset"], rows=row["rows"], arm=row["arm"], compiled=False)),
                _over(
                    row, chosen(rows, preset=row["preset"], rows=row["rows"], arm=PLAIN_ARM, compiled=row["compiled"])
                ),
                _or_unknown(profile and digits(profile["kernels"] / profiled["bytes"] * row["rows"])),
                _or_unknown(syncs is not None and digits(syncs / counted["bytes"] * row["rows"])),
                digits(row["peak_bytes"] / GIB),
                "" if estimate is None else f"{sum(run['wall'] for run in row['seconds']) / estimate:.2f}",
            ]
        )
    header = ["preset", "bytes/s", "trunk calls per byte", "over not compiled", f"over {PLAIN_ARM}"]
    header += ["kernels per step", "waits per step", "peak GiB", "time over the estimate"]
    return (
        "## Generation\n\n"
        "Greedy, without end; prompts are 7 bytes apart in length and not timed. Bytes of all rows are counted. "
        "Scratchpads are forced at 3/16 per byte, the entropy head runs. Kernels and waits are of a step in which each "
        "row gets a byte. Estimates are those of docs/speed.md.\n\n" + markdown_table(header, lines)
    )


def _over(row: Row, others: Sequence[Row]) -> str:
    """Returns a row's bytes/s over another's, where that was measured."""
    measured = [other for other in others if not other.get("out_of_memory")]
    return f"{rate(row, 'bytes', 'wall') / rate(measured[-1], 'bytes', 'wall'):.2f}" if measured else ""


def memory_table(rows: Sequence[Row]) -> str:
    """Returns the peak memory of uncompiled training beside the estimate."""
    lines = []
    for row in rows:
        peak = NO_MEMORY if row.get("out_of_memory") else digits(row["peak_bytes"] / GIB)
        lines.append([f"{row['preset']}-{row['arm']}", str(row["rows"]), peak])
    return "## Memory of training\n\nNot compiled, at the preset's own rows.\n\n" + markdown_table(
        ["preset", "rows", "peak GiB"], lines
    )


def _or_unknown(value: object) -> str:
    return "unknown" if value in (None, False) else str(value)
