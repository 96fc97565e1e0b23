"""Tables of `cross_compile.py`, made from its rows alone. All times in them are estimates."""

from collections.abc import Sequence

from measuring import markdown_table
from rows import Row, chosen, digits, only, values
from sm90_roofline import ATTENTION, GENERATED, LIBRARY, PRODUCT

EVERY_BYTE = ("read", "predict")
"""Phases of a decoding step that come with every byte."""
TRUNK_CALL = "refresh"
NAME_LENGTH = 60
HEAD = (
    "Estimates: compiled for an H100 (sm_90) on a CPU, and never run. Kernels are Inductor's `generated_kernel_count`, "
    "FlexAttention's among them; matrix products and other library calls come beside. Bytes are its "
    "`num_bytes_accessed`. Milliseconds are a roofline: 650 TFLOP/s for bf16 products, 50 for fp32 ones, 400 and 300 "
    "for FlexAttention forward and backward, 2.85 TB/s, at least 2 us a launch. MFU is of 989 TFLOP/s, over the bytes "
    "and slots that are there, padding not counted.\n\n"
)


def report(rows: Sequence[Row]) -> str:
    """Returns the Markdown of all parts that were asked for."""
    training, decoding, cubins = (chosen(rows, part=part) for part in ("training", "decoding", "cubins"))
    parts = [
        f"## Training\n\n{training_table(training)}" if training else "",
        f"## Decoding\n\n{decoding_table(decoding)}" if decoding else "",
        f"## Machine code\n\n{cubin_table(cubins)}" if cubins else "",
    ]
    return HEAD + "\n".join(part for part in parts if part)


def training_table(rows: Sequence[Row]) -> str:
    """Returns kernels, bytes, FLOPs, the estimated time and the share of the peak of a training pass."""
    lines = []
    for row in chosen(rows, graph="both"):
        forward, backward = (only(rows, preset=row["preset"], graph=graph) for graph in ("forward", "backward"))
        used = row["num_commits"] + row["num_scratchpads"]
        lines.append(
            [
                f"{row['preset']}, {row['rows']} x {row['context_bytes']:,} bytes",
                f"{used:,} of {row['room']['commits'] + row['room']['scratchpads']:,}",
                f"{forward['generated_kernels']} + {backward['generated_kernels']}",
                f"{row['launches'][PRODUCT]} + {row['launches'][LIBRARY]}",
                digits(row["bytes_accessed"] / 1e9),
                digits(sum(row["flops"].values()) / 1e12),
                *(milliseconds(row, *kinds) for kinds in ((PRODUCT,), (ATTENTION,), (GENERATED, LIBRARY))),
                milliseconds(row, *row["estimated_seconds"]),
                f"{row['mfu']:.3f}",
            ]
        )
    header = ["pass", "slots in use", "kernels, forward + backward", "products + library calls", "GB", "TFLOP"]
    header += ["ms of products", "of attention", "of the rest", "ms", "MFU"]
    return markdown_table(header, lines)


def milliseconds(row: Row, *kinds: str) -> str:
    """Returns the estimated time of some kinds of launches, for a table."""
    return digits(1e3 * sum(row["estimated_seconds"][kind] for kind in kinds))


def decoding_table(rows: Sequence[Row]) -> str:
    """Returns kernels, bytes and the estimated time per byte and per trunk call."""
    lines = []
    for batch_rows in values(rows, "rows"):
        for what, phases in (("a byte", EVERY_BYTE), ("a trunk call", (TRUNK_CALL,))):
            found = [only(rows, rows=batch_rows, phase=phase) for phase in phases]
            lines.append(
                [
                    f"{found[0]['preset']}, {batch_rows} row{'' if batch_rows == 1 else 's'}: {what}",
                    str(sum(row["generated_kernels"] for row in found)),
                    str(sum(row["launches"][PRODUCT] for row in found)),
                    str(sum(row["launches"][LIBRARY] for row in found)),
                    digits(sum(row["bytes_accessed"] for row in found) / 1e6),
                    digits(1e6 * sum(sum(row["estimated_seconds"].values()) for row in found)),
                ]
            )
    return markdown_table(["step", "kernels", "products", "library calls", "MB", "us"], lines)


def cubin_table(rows: Sequence[Row]) -> str:
    """Returns what ptxas made of the kernels of one trunk layer."""
    lines = [
        [
            f"`{row['name'][:NAME_LENGTH]}`",
            f"{row['num_bytes']:,}",
            str(row["num_warps"]),
            f"{row['shared_bytes']:,}",
            "yes" if row["has_tensor_cores"] else "",
            str(row["num_local_stores"]),
        ]
        for row in rows
    ]
    header = [
        "kernel of one trunk layer",
        "bytes of machine code",
        "warps",
        "shared bytes",
        "tensor cores",
        "stores to local memory",
    ]
    return markdown_table(header, lines)
