"""Tables of `savings.py`, made from its rows alone."""

from collections.abc import Sequence

from measuring import markdown_table
from rows import Row, chosen, digits, only, rate_cell, rate_ratio, values


def speed_ratio(rows: Sequence[Row], part: str, batch_rows: int, names: tuple[str, str], clock: str) -> float:
    """Returns the bytes/s of the first name over those of the second."""
    top, bottom = (only(rows, part=part, batch_rows=batch_rows, name=name) for name in names)
    return rate_ratio(top, "bytes", bottom, "bytes", clock)


def trunk_calls_per_byte(row: Row) -> float:
    """Returns the trunk calls per byte that was read, or really generated."""
    if row["part"] == "prefill":
        return row["trunk_calls_per_byte"]
    return sum(row["trunk_calls"]) / sum(row["bytes"])


def report(rows: Sequence[Row], scratchpads: str, plain: str) -> str:
    """Returns the Markdown.

    Args:
        rows: of `savings.py`.
        scratchpads: name of the side that the ratios are about.
        plain: name of the side that they are over.
    """
    head = (
        f"Size {rows[0]['size']}: {scratchpads} ({digits(only_params(rows, scratchpads))} M parameters, entropy head "
        f"running, scratchpads forced at 3/16 per byte) against {plain} ({digits(only_params(rows, plain))} M), on the "
        "same engine, in turn. Medians, with (largest - smallest) / median in brackets; ratios are medians over the "
        "turns. CPU seconds are those of all threads.\n\n"
    )
    return head + "\n".join(
        (
            speed_table(rows, "prefill", scratchpads, plain),
            speed_table(rows, "generation", scratchpads, plain),
            cost_table(rows, scratchpads, plain),
        )
    )


def only_params(rows: Sequence[Row], name: str) -> float:
    """Returns the parameters of a side, in millions."""
    return chosen(rows, name=name)[0]["num_params"] / 1e6


def speed_table(rows: Sequence[Row], part: str, scratchpads: str, plain: str) -> str:
    """Returns bytes/s by batch and their ratios."""
    lines = []
    for batch_rows in values(chosen(rows, part=part), "batch_rows"):
        ours, other = (only(rows, part=part, batch_rows=batch_rows, name=name) for name in (scratchpads, plain))
        lines.append(
            [
                str(batch_rows),
                *(rate_cell(row, "bytes", clock) for clock in ("cpu", "wall") for row in (ours, other)),
                *(
                    f"{speed_ratio(rows, part, batch_rows, (scratchpads, plain), clock):.2f}"
                    for clock in ("cpu", "wall")
                ),
                f"{trunk_calls_per_byte(ours):.3f}",
                f"{trunk_calls_per_byte(other):.3f}",
            ]
        )
    header = ["rows", f"{scratchpads}: bytes/s (CPU)", f"{plain}: bytes/s (CPU)"]
    header += [f"{scratchpads}: bytes/s (wall)", f"{plain}: bytes/s (wall)"]
    header += ["ratio (CPU)", "ratio (wall)", "trunk calls per byte", f"of {plain}"]
    return f"## {part.capitalize()}\n\n{_note(rows, part)}\n\n" + markdown_table(header, lines)


def _note(rows: Sequence[Row], part: str) -> str:
    """Returns what a table's numbers are of."""
    first = {row["batch_rows"]: row for row in chosen(rows, part=part)}
    if part == "prefill":
        shapes = ", ".join(f"{batch_rows} x {row['context_bytes']:,} bytes" for batch_rows, row in first.items())
        return f"Prompts of equal length, by batch: {shapes}."
    lengths = "; ".join(
        f"{batch_rows} of {' to '.join(map(str, dict.fromkeys(row['prompt_bytes'])))} bytes, {row['bytes'][0]} new "
        "bytes a run"
        for batch_rows, row in first.items()
    )
    return (
        f"Prompts of different lengths, so that rows need the trunk at different steps: {lengths}. Reading them is not "
        "timed, and each run goes on where the one before stopped. Greedy; the end of a document has the mean of the "
        "bytes' output weights, so it is never chosen. Bytes are counted as they come out of the engine."
    )


def cost_table(rows: Sequence[Row], scratchpads: str, plain: str) -> str:
    """Returns FLOPs and trunk cache per byte of context, by `patchpad.cost` and as found in the engine's cache."""
    lines = []
    for batch_rows in values(rows, "batch_rows"):
        lines += [_cost_line(rows, part, batch_rows, scratchpads, plain) for part in ("prefill", "generation")]
    header = ["batch and source", f"{scratchpads}: FLOPs per byte", f"{plain}: FLOPs per byte", "ratio"]
    header += [f"{scratchpads}: trunk KV bytes per byte", f"{plain}: trunk KV bytes per byte", "ratio"]
    return (
        "## Cost\n\n"
        "FLOPs: forward, by `patchpad.cost` at the patches, scratchpads and visible pairs of the prefill. Trunk keys "
        "and values per byte of context: by `patchpad.cost`, and as found in the engine after the generation. An open "
        "patch has no entry yet.\n\n" + markdown_table(header, lines)
    )


def _cost_line(rows: Sequence[Row], part: str, batch_rows: int, scratchpads: str, plain: str) -> list[str]:
    ours, other = (only(rows, part=part, batch_rows=batch_rows, name=name) for name in (scratchpads, plain))
    cells = [f"{batch_rows}, {'cost of the prefill' if part == 'prefill' else 'cache after generation'}"]
    for key in ("flops_per_byte", "trunk_cache_bytes_per_byte"):
        if key in ours:
            cells += [digits(ours[key]), digits(other[key]), f"{other[key] / ours[key]:.2f}"]
        else:
            cells += ["", "", ""]
    return cells
