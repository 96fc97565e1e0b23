"""Tables on the terminal."""

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from patchpad.pages.numbers import compact_number


def print_points(points: Sequence[dict[str, Any]], *, stored_threshold_nats: float | None = None) -> None:
    """Prints evaluation points; the row at the stored threshold is marked with an asterisk."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in (
        "threshold\n(nats)",
        "bits per\nbyte",
        "scratchpads\nper byte",
        "trunk calls\nper byte",
        "FLOPs\nper byte",
        "trunk KV bytes\nper byte",
    ):
        table.add_column(heading, justify="right")
    for point in points:
        threshold = point["scratchpad_threshold_nats"]
        mark = " *" if stored_threshold_nats is not None and threshold == stored_threshold_nats else ""
        table.add_row(
            format_threshold(threshold) + mark,
            f"{point['bits_per_byte']:.4f}",
            f"{point['scratchpads_per_byte']:.4f}",
            f"{point['trunk_calls_per_byte']:.4f}",
            f"{point['flops_per_byte']:,.0f}",
            f"{point['trunk_cache_bytes_per_byte']:,.1f}",
        )
    Console(width=100, highlight=False).print(table)


def print_measured(num_bytes: int, all_bytes: int) -> None:
    """Prints how much of a text the points stand for."""
    if num_bytes < all_bytes:
        print(f"\n{num_bytes:,} of {all_bytes:,} bytes measured; --limit-bytes 0 measures all")
    else:
        print(f"\nall {num_bytes:,} bytes measured")


def format_threshold(threshold: float) -> str:
    """Returns nats with three decimals, or inf and -inf."""
    return str(threshold) if math.isinf(threshold) else f"{threshold:.3f}"


def print_calibration(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the rows of a calibration table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("threshold\n(nats)", "scratchpads\nper byte", "trunk calls\nper byte", "bits per\nbyte"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            format_threshold(row["scratchpad_threshold_nats"]),
            f"{row['scratchpads_per_byte']:.4f}",
            f"{row['trunk_calls_per_byte']:.4f}",
            f"{row['bits_per_byte']:.4f}",
        )
    Console(width=100, highlight=False).print(table)


def print_presets(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the presets in at most 80 columns."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("preset", "kind", "patches", "trigger"):
        table.add_column(heading, no_wrap=True)
    for heading in ("para-\nmeters", "FLOPs\nper byte"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["name"],
            row["kind"],
            f"{row['patchifier']} {row['target_patch_size']}" if row["patchifier"] else "-",
            row["trigger"] or "-",
            compact_number(row["num_params"], digits=3).replace("G", "B"),
            "-" if row["flops_per_byte"] is None else compact_number(row["flops_per_byte"], digits=3),
        )
    console = Console(width=80, highlight=False)
    console.print(table)
    console.print("\n-: the model has no such part, or its FLOPs depend on the text")
    console.print("To print a preset: patchpad configs NAME")


def print_cost(cost: dict[str, Any]) -> None:
    """Prints the cost of a configuration, part by part."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("part")
    for heading in ("parameters", "FLOPs\nper byte", "trunk KV bytes\nper byte", "local cache\nbytes"):
        table.add_column(heading, justify="right")
    for name, part in {**cost["parts"], "all": cost}.items():
        table.add_row(
            name,
            f"{part['num_params']:,}",
            f"{part['flops_per_byte']:,.0f}",
            f"{part['trunk_cache_bytes_per_byte']:,.1f}",
            f"{part['local_cache_bytes']:,}",
        )
    console = Console(width=100, highlight=False)
    console.print(table)
    console.print(
        f"\nper byte of a {cost['context_bytes']:,}-byte context, {cost['patches_per_byte']:.4g} patches and "
        f"{cost['scratchpads_per_byte']:.4g} scratchpads; caches in {cost['cache_dtype']}"
    )
    for line in memory_lines(cost["training_memory"], cost["context_bytes"]):
        console.print(line)


def memory_lines(memory: dict[str, Any], context_bytes: int) -> list[str]:
    """Returns what is said of the memory of training."""

    def gib(key: str) -> str:
        return f"{memory[key] / 2**30:.2f}"

    recomputed = ", trunk blocks computed again" if memory["activation_checkpointing"] else ""
    lines = [
        f"\nTraining on CUDA, {memory['batch_rows']} rows of {context_bytes:,} bytes at a time{recomputed}: "
        f"{gib('peak_bytes')} GiB at most; weights {gib('weights_bytes')}, gradients {gib('gradients_bytes')}, "
        f"AdamW {gib('optimizer_bytes')}, activations {gib('activations_bytes')}"
    ]
    if memory["fits"]:
        return lines
    settings = memory["fits_with"]
    if settings is None:
        return [*lines, f"Too much for a GPU of {memory['gpu_gib']:g} GiB, even one row at a time."]
    options = " ".join(f"--train.{key} {str(value).lower()}" for key, value in settings.items())
    return [*lines, f"Too much for a GPU of {memory['gpu_gib']:g} GiB; it fits with {options}"]
