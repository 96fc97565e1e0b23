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


def print_task_results(results: Sequence[dict[str, Any]]) -> None:
    """Prints results of tasks, a row for each threshold, with what they took beside; and what was cut."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, justify in (("task", "left"), ("metric", "left")):
        table.add_column(heading, justify=justify, no_wrap=True)
    for heading in (
        "examples",
        "value",
        "± standard\nerror",
        "chance",
        "threshold\n(nats)",
        "scratchpads\nper byte",
        "trunk calls\nper byte",
        "FLOPs\nper byte",
        "trunk KV bytes\nper byte",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        name, compute = result["main_metric"], result["compute"]
        metric = result["metrics"][name]
        numbers = (metric["value"], metric["standard_error"], metric["chance"])
        table.add_row(
            result["task"],
            name.replace("_", " "),
            f"{result['num_examples']:,}",
            *("-" if number is None else f"{number:.4f}" for number in numbers),
            format_threshold(compute["scratchpad_threshold_nats"]),
            f"{compute['scratchpads_per_byte']:.4f}",
            f"{compute['trunk_calls_per_byte']:.4f}",
            f"{compute['flops_per_byte']:,.0f}",
            f"{compute['trunk_cache_bytes_per_byte']:,.1f}",
        )
    Console(width=150, highlight=False).print(table)
    notes = dict.fromkeys(_cut_text(result) for result in results if result["num_cut_examples"])
    if notes:
        print("\n" + "\n".join(notes))


def _cut_text(result: dict[str, Any]) -> str:
    """Returns what a model could not see at once of a task's examples."""
    count, num_bytes, of = result["num_cut_examples"], result["num_cut_bytes"], result["task"]
    if result["kind"] == "parallel":
        were = "sentence was" if count == 1 else "sentences were"
        return f"{of}: {count:,} {were} longer than the model's context; {num_bytes:,} bytes lie in further windows"
    examples = "example" if count == 1 else "examples"
    each = ", over all choices" if result["kind"] == "choices" else ""
    return f"{of}: {count:,} {examples} did not fit the model's context and lost {num_bytes:,} bytes at the left{each}"


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
        f"{cost['scratchpads_per_byte']:.4g} scratchpads; caches in {cost['cache_dtype']}. All caches of a row at the "
        f"end of its context: {cost['row_cache_bytes']:,.0f} bytes"
    )
    memory = cost["training_memory"]
    console.print(f"\n{_memory_heading(memory, cost['context_bytes'])}")
    console.print(_memory_table(memory))
    for line in memory_lines(memory):
        console.print(line)


SIZES = {
    "weights_bytes": "weights",
    "gradients_bytes": "gradients",
    "optimizer_bytes": "AdamW's moments",
    "activations_bytes": "activations",
    "gathered_bytes": "gathered and sent",
    "peak_bytes": "at most at once",
}
"""What is said of the memory of training, by its key in the JSON."""


def _memory_heading(memory: dict[str, Any], context_bytes: int) -> str:
    count, kind = memory["devices"], {"cuda": "CUDA", "cpu": "CPU"}[memory["device"]]
    rows = f"{memory['batch_rows']} rows of {context_bytes:,} bytes at a time"
    if count == 1:
        return f"Training on {kind}, {rows}:"
    shards = f", {memory['shard_ranks']} for a copy" if memory["parallel"] == "hsdp" else ""
    return (
        f"Training on {count:,} {kind} devices ({memory['parallel']}{shards}), {rows}, {memory['device_rows']} of them "
        "on a device. Each device:"
    )


def _memory_table(memory: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("GiB")
    table.add_column("without activation\ncheckpointing", justify="right")
    table.add_column("with it", justify="right")
    for key, name in SIZES.items():
        if key != "gathered_bytes" or memory["devices"] > 1:
            table.add_row(name, *(f"{case[key] / 2**30:,.2f}" for case in memory["checkpointing"]))
    return table


def memory_lines(memory: dict[str, Any]) -> list[str]:
    """Returns what is said of settings that fit."""
    gib = f"{memory['device_memory_gib']:g} GiB"
    one = memory["devices"] == 1
    what = f"one device of {gib}" if one else f"each of {memory['devices']:,} devices of {gib}"
    asked = "with train.activation_checkpointing" if memory["activation_checkpointing"] else "as configured"
    lines = [f"\nThis fits {what}, {asked}." if memory["fits"] else f"\nToo much for {what}, {asked}."]
    if memory["devices"] > memory["batch_rows"]:
        idle = memory["devices"] - memory["batch_rows"]
        lines.append(f"{idle:,} devices have no row of a pass: raise train.batch_rows.")
    settings = memory["fits_with"]
    if settings is None:
        count = memory["fewest_devices"]
        needed = "no number of them" if count is None else f"{count:,} of them, with fsdp and one row each,"
        return [*lines, f"Not even one row at a time fits; {needed} would."]
    keys = ("batch_rows", "accumulation_steps", "activation_checkpointing")
    options = " ".join(f"--train.{key} {str(settings[key]).lower()}" for key in keys)
    if settings["parallel"] != memory["parallel"]:
        options += f" --train.parallel {settings['parallel']}"
    changed = any(settings[key] != memory[key] for key in keys) or settings["parallel"] != memory["parallel"]
    if not memory["fits"] or (not one and changed):
        way = "" if one else f" ({settings['parallel']}, {settings['device_rows']} rows on a device)"
        verb = "It fits with" if not memory["fits"] else "The same rows in fewer passes fit with"
        lines.append(f"{verb} {options}{way}: {settings['peak_bytes'] / 2**30:.1f} GiB.")
    return lines
