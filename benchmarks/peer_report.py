"""The report of `peers.py`: tables and ratios from its raw rows."""

from collections.abc import Sequence
from typing import Any

from measuring import Seconds, markdown_table, median, paired_ratio, spread

Row = dict[str, Any]
YARDSTICK = "HF Llama"
OURS = ("patchpad", "patchpad compiled", "patchpad-plain4")
TITLES = {
    "forward": "forward pass, no gradients",
    "training": "training step: forward, backward, AdamW",
    "generation": "generation, batch 1, after prompts of so many bytes",
}
NOTES = """\
`patchpad`, at sizes 6.6M and 4.2M: the model that comes with the package, trained, at its own threshold, so that the
text decides where scratchpads are. It generates at a temperature of 0.8, and never ends. It has 6.6M parameters, and
4.2M without its embeddings of bytes and n-grams: peers have as many as the size says. `patchpad`, at other sizes:
random weights, 16-byte patches, scratchpads forced to 3/16 per byte by the random trigger while the entropy head runs,
and in training is trained; `patchpad compiled`: the same with compiled blocks and steps, timed once they are compiled;
`patchpad-plain4`: the same sizes with 4-byte patches, without scratchpads and entropy head. Trunk calls per byte are
measured, padding of rows to the longest included; in generation with a cache, over the timed bytes. BLT and
h-net-dynamic-chunking have random weights like all the others, so their thresholds are set before each measurement
where a patch has 5 and 6 bytes of the text at hand, in the row with the most. `h-net as it comes` keeps the threshold
of its package, 0.5, and the attention that x-transformers has by default, which is not fused. All read held-out English
fiction, all are stepped by torch's AdamW with its defaults.

Generation leaves out the reading of the prompt where a model has a cache; the others run a full pass per byte. HF Llama
is called in a bare loop with a DynamicCache; ours runs through the engine behind `patchpad.generate`. With random
weights it is greedy, with the end of the document given the mean logit of all bytes, so that it is never the likeliest.
The peers compute an argmax for each byte, and go on with the text's own next byte, so that learned patches stay those
of text. MEGABYTE-pytorch and mblm have no weights that depend on the length of the context, so one build serves all.
MEGABYTE-pytorch and h-net-dynamic-chunking have no positions, as they come, and run faster for it; all but `h-net as
it comes` attend by torch's fused attention.

A ratio is the median over turns of bytes per second over the other's in the same turn. Spread is (largest - smallest) /
median over the repeats.
"""

CUDA_NOTES = """\
Ratios are of wall time. All compute in fp32 but the engine behind `patchpad.generate`, which computes in bf16 on CUDA.
"""


def report(rows: Sequence[Row], clock: str) -> str:
    """Returns the Markdown report.

    Args:
        rows: raw rows.
        clock: "cpu" or "wall": what ratios are made of.
    """
    parts = [NOTES, "Ratios are of CPU time, of all threads.\n" if clock == "cpu" else CUDA_NOTES]
    for size in dict.fromkeys(row["size"] for row in rows):
        of_size = [row for row in rows if row["size"] == size]
        for kind, title in TITLES.items():
            chosen = [row for row in of_size if row["kind"] == kind]
            if chosen:
                parts.append(f"## {size}: {title}\n\n{_table(chosen, kind, clock)}")
        for ours in OURS:
            if any(row["name"] == ours for row in of_size):
                parts.append(
                    f"## {size}: bytes per second of `{ours}` over those of each\n\n{_ratios(of_size, ours, clock)}"
                )
        absent = [f"- {row['name']}: {row['reason']}\n" for row in of_size if row["kind"] == "all"]
        if absent:
            parts.append(f"## {size}: left out\n\n{''.join(absent)}")
    return "\n".join(parts)


def ratio(top: Row | None, bottom: Row | None, clock: str) -> float | None:
    """Returns bytes per second of one row over another's; None where one was not run.

    Rows may have other numbers of repeats and of bytes: the turns that both took part in count, per byte.
    """
    if top is None or bottom is None or "seconds" not in top or "seconds" not in bottom:
        return None
    ours, others = _seconds(top), _seconds(bottom)
    turns = min(len(ours), len(others))
    return paired_ratio(others[:turns], ours[:turns], clock) * top["num_bytes"] / bottom["num_bytes"]


def _table(rows: Sequence[Row], kind: str, clock: str) -> str:
    is_generation = kind == "generation"
    unit = "bytes/s" if is_generation else "ms"
    header = ["model", "parameters", "prompt bytes" if is_generation else "rows x bytes", "trunk calls per byte"]
    header += [f"{unit} (CPU)", "spread", f"{unit} (wall)", "spread", f"bytes/s over {YARDSTICK}"]
    lines = []
    for row in rows:
        calls = row.get("trunk_calls_per_byte")
        start = [row["name"], f"{row['num_params']:,}", row["at"], "" if calls is None else f"{calls:.3f}"]
        if "seconds" not in row:
            lines.append([*start, row["reason"], "", "", "", ""])
            continue
        cells = []
        for name in ("cpu", "wall"):
            values = [getattr(run, name) for run in _seconds(row)]
            middle = median(values)
            cells.append(_short(row["num_bytes"] / middle if is_generation else 1000 * middle))
            cells.append(f"{100 * spread(values):.0f} %")
        lines.append([*start, *cells, _times(ratio(row, _find(rows, YARDSTICK, row["at"]), clock))])
    return markdown_table(header, lines)


def _ratios(rows: Sequence[Row], ours: str, clock: str) -> str:
    """Returns a table of ratios: kinds of work down, peers across, and the same model at the first length."""
    rows = [row for row in rows if row["kind"] != "all"]
    others = [name for name in dict.fromkeys(row["name"] for row in rows) if name != ours]
    lines = []
    for kind, at in dict.fromkeys((row["kind"], row["at"]) for row in rows):
        of_kind = [row for row in rows if row["kind"] == kind]
        mine, first = _find(of_kind, ours, at), of_kind[0]["at"]
        itself = _times(ratio(mine, _find(of_kind, ours, first), clock))
        lines.append(
            [f"{kind}, {at}", *(_times(ratio(mine, _find(of_kind, name, at), clock)) for name in others), itself]
        )
    return markdown_table(["", *others, "itself at the first shape or prompt"], lines)


def _find(rows: Sequence[Row], name: str, at: str) -> Row | None:
    return next((row for row in rows if row["name"] == name and row["at"] == at), None)


def _seconds(row: Row) -> list[Seconds]:
    return [Seconds(**run) for run in row["seconds"]]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{_short(value)}x"
