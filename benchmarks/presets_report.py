"""Tables of `presets_gpu.py`, made from its rows alone."""

from collections.abc import Sequence

from machine import PRODUCT
from measuring import markdown_table
from rows import Row, chosen, digits, only, rate, rate_cell, rate_ratio, values

GIB = 2**30
NO_MEMORY = "out of memory"
PLAIN_ARM = "fixed1-never"


def share_of_product(rows: Sequence[Row]) -> float:
    """Returns the FLOP/s of the training step over those of the matrix product, of rows that were timed in turn."""
    (product,) = (row for row in rows if row["name"].startswith(PRODUCT))
    return rate_ratio(only(rows, name="step"), "flops", product, "flops", "wall")


def share_of_data_sheet(step: Row) -> float | None:
    """Returns the FLOP/s of the training step over the card's data sheet; None for a card that is not listed."""
    peak = step["data_sheet_flops"]
    return rate(step, "flops", "wall") / peak if peak else None


def report(rows: Sequence[Row]) -> str:
    """Returns the Markdown of both parts."""
    head = (
        "Wall time; medians, with (largest - smallest) / median in brackets. Scratchpads of `fixed16-entropy` are "
        "forced at 3/16 per byte, the entropy head runs. Arms were measured one after the other.\n\n"
    )
    return (
        head + training_table(chosen(rows, part="training")) + "\n" + generation_table(chosen(rows, part="generation"))
    )


def training_table(rows: Sequence[Row]) -> str:
    """Returns bytes/s, share of the peak FLOP/s and peak memory of training steps."""
    lines = []
    for preset in values(rows, "preset"):
        for arm in values(rows, "arm"):
            group = chosen(rows, preset=preset, arm=arm)
            if group[0].get("out_of_memory"):
                lines.append([f"{preset}-{arm}", NO_MEMORY, *[""] * 8])
                continue
            step = only(group, name="step")
            (product,) = (row for row in group if row["name"].startswith(PRODUCT))
            of_data_sheet = share_of_data_sheet(step)
            lines.append(
                [
                    f"{preset}-{arm}",
                    digits(step["num_params"] / 1e6),
                    f"{step['rows']} x {step['context_bytes']:,}",
                    rate_cell(step, "bytes", "wall"),
                    f"{step['trunk_calls_per_byte']:.3f}",
                    digits(rate(step, "flops", "wall") / 1e12),
                    digits(rate(product, "flops", "wall") / 1e12),
                    f"{share_of_product(group):.3f}",
                    "not listed" if of_data_sheet is None else f"{of_data_sheet:.3f}",
                    digits(step["peak_bytes"] / GIB),
                ]
            )
    header = ["preset", "M parameters", "rows x bytes", "bytes/s", "trunk calls per byte", "TFLOP/s"]
    header += ["product TFLOP/s", "MFU by the product", "MFU by the data sheet", "peak GiB"]
    return (
        "## Training\n\n"
        "FLOPs are 3 x the forward pass, by `patchpad.cost`. MFU is over a large matrix product in the type that the "
        "model computes in, measured in turn with the steps, and over the card's data sheet.\n\n"
        + markdown_table(header, lines)
    )


def generation_table(rows: Sequence[Row]) -> str:
    """Returns bytes/s and peak memory of generation by batch."""
    lines = []
    for row in rows:
        name = f"{row['preset']}-{row['arm']}, {row['rows']} rows"
        if row.get("out_of_memory"):
            lines.append([name, NO_MEMORY, "", "", ""])
            continue
        calls = sum(row["trunk_calls"]) / sum(row["bytes"])
        plain = only(rows, preset=row["preset"], rows=row["rows"], arm=PLAIN_ARM)
        ratio = "" if plain.get("out_of_memory") else f"{rate(row, 'bytes', 'wall') / rate(plain, 'bytes', 'wall'):.2f}"
        lines.append([name, rate_cell(row, "bytes", "wall"), f"{calls:.3f}", ratio, digits(row["peak_bytes"] / GIB)])
    header = ["preset", "bytes/s", "trunk calls per byte", "over fixed1-never", "peak GiB"]
    return (
        "## Generation\n\n"
        "Greedy, without end; prompts are 7 bytes apart in length and not timed. Bytes of all rows are counted.\n\n"
        + markdown_table(header, lines)
    )
