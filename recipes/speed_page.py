"""Writes the tables of docs/speed.md and of the README from the newest result files in benchmarks/results.

Usage: python recipes/speed_page.py
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import batches  # noqa: E402
import step_profile  # noqa: E402
from limits_report import best_product, bytes_read, context_ratios, share_of_memory, share_of_product  # noqa: E402
from measured_blocks import fill_block  # noqa: E402
from measuring import markdown_table  # noqa: E402
from peer_report import ratio  # noqa: E402
from rows import chosen, only, rate, values  # noqa: E402
from savings_report import speed_ratio  # noqa: E402
from sm90_report import decoding_table, training_table  # noqa: E402

from patchpad.files import write_atomically  # noqa: E402

BEGIN = "<!-- measured: written by recipes/speed_page.py -->"
ESTIMATED = "<!-- estimated: written by recipes/speed_page.py -->"
SHARES = "<!-- measured: shares of the machine (written by recipes/speed_page.py) -->"
PHASES = "<!-- measured: phases of a step (written by recipes/speed_page.py) -->"
BATCHES = "<!-- measured: batches (written by recipes/speed_page.py) -->"
DRAFTS = "<!-- measured: drafts (written by recipes/speed_page.py) -->"
SCRATCHPADS, PLAIN = "scratchpads at 16-byte patches", "fixed(1)"
TRAINED = {"6.6M": "", "4.2M": ", without embeddings"}
"""Peers of the shipped model: with as many parameters, and with as many as it has without embeddings."""
SHORT_DRAFTS = ((16, 2), (24, 3))
"""Limits of bytes and slots that are never the best; their results are in the files."""
SHAPES = ("4 x 1,024", "1 x 4,096")
Rows = list[dict[str, Any]]


def newest(what: str) -> Rows:
    """Returns the rows of the newest result file of a benchmark."""
    files = sorted((ROOT / "benchmarks" / "results").glob(f"{what}_cpu_*.json"), key=lambda file: file.name)
    return json.loads(files[-1].read_text(encoding="utf-8"))["rows"]


def over_peer(size: str, kind: str, at: str, ours: str, peer: str) -> float | None:
    """Returns bytes per second of one of our models over a peer's, or another of ours."""
    rows = chosen(newest(f"peers-{size}"), size=size, kind=kind, at=at)
    by_name = {row["name"]: row for row in rows}
    return ratio(by_name.get(ours), by_name.get(peer), "cpu")


def over_itself(size: str, ours: str, at: str, first: str) -> float | None:
    """Returns bytes per second of a generation after one prompt over that after another."""
    rows = chosen(newest(f"peers-{size}"), size=size, kind="generation", name=ours)
    by_prompt = {row["at"]: row for row in rows}
    return ratio(by_prompt.get(at), by_prompt.get(first), "cpu")


def of_product(what: str, size: str, rows_of_text: int) -> float:
    """Returns training FLOP/s over those of the best matrix product."""
    rows = chosen(newest(what), part="training", size=size, rows=rows_of_text)
    return share_of_product(rows, "step", "cpu")


def of_context(place: int) -> float:
    """Returns time (0) or memory of the step (1) per byte at 32k bytes of context over those at 2k."""
    rows = chosen(newest("limits"), part="contexts")
    longest = max(values(rows, "context_bytes"))
    return context_ratios(rows, only(rows, context_bytes=longest), "cpu")[place]


def of_savings(what: str, part: str, batch_rows: int) -> float:
    """Returns wall-clock bytes per second with scratchpads over those of fixed(1)."""
    return speed_ratio(newest(what), part, batch_rows, (SCRATCHPADS, PLAIN), "wall")


def cache_ratio() -> float:
    """Returns keys and values per byte of context in the trunk's cache of fixed(1) over those with scratchpads."""
    rows = chosen(newest("savings"), part="prefill", batch_rows=1)
    plain, scratchpads = (only(rows, name=name)["trunk_cache_bytes_per_byte"] for name in (PLAIN, SCRATCHPADS))
    return plain / scratchpads


def goals() -> list[tuple[str, str, str, float | None]]:
    """Returns what is measured, the goal, the goal beyond it, and the ratio; None where it was not run."""
    found: list[tuple[str, str, str, float | None]] = []
    for size, counted in TRAINED.items():
        for ours in ("patchpad compiled", "patchpad"):
            words = f"{counted}, compiled" if ours == "patchpad compiled" else counted
            for peer, name, must, beyond in (
                ("HF Llama", "HF Llama", "4x", "8x"),
                ("h-net as it comes", "h-net as it comes", "10x", "20x"),
                ("h-net tuned", "h-net-dynamic-chunking", "10x", "20x"),
            ):
                value = over_peer(size, "generation", "960", ours, name)
                found.append((f"generation after 960 bytes{words}, over {peer}", must, beyond, value))
    for ours, words in (("patchpad compiled", ", compiled"), ("patchpad", "")):
        value = over_itself("6.6M", ours, "8,000", "128")
        found.append((f"generation after 8,000 bytes over 128{words}", "0.9x", "1.0x", value))
    for size, counted in TRAINED.items():
        for ours, words in (("patchpad-plain4", "without the entropy head"), ("patchpad", "with the entropy head")):
            for at in SHAPES:
                value = over_peer(size, "training", at, ours, "MEGABYTE-pytorch")
                goal = ("0.9x", "1.3x") if ours == "patchpad-plain4" else ("", "")
                found.append((f"training step{counted}, {at} bytes, {words}, over MEGABYTE-pytorch", *goal, value))
    for size, counted in TRAINED.items():
        for ours in ("patchpad", "patchpad compiled"):
            words = f"{counted}, compiled" if ours == "patchpad compiled" else counted
            value = over_peer(size, "training", SHAPES[0], ours, "HF Llama")
            found.append((f"training step{words}, {SHAPES[0]} bytes, over HF Llama", "2x", "3x", value))
    for words, what in (("", "limits"), (", compiled", "limits-compiled")):
        value = of_product(what, "20M", 4)
        found.append((f"training, 20M{words}: FLOP/s over those of matrix products", "0.6", "0.75", value))
    for place, what, must, beyond in ((0, "time", "at most 1.6x", "1.3x"), (1, "memory", "at most 1.3x", "1.1x")):
        words = f"{what} per byte of a training step, 32k over 2k bytes of context"
        found.append((words, must, beyond, of_context(place)))
    for words, what in (("", "savings"), (", compiled", "savings-compiled")):
        for batch_rows, must, beyond in ((1, "3.0x", "3.5x"), (8, "2.5x", "3.2x")):
            value = of_savings(what, "generation", batch_rows)
            found.append((f"generation, trunk of 100M, batch {batch_rows}{words}, over fixed(1)", must, beyond, value))
    found.append(("trunk cache per byte of context, fixed(1) over 16-byte patches", "16x", "16x", cache_ratio()))
    return found


def table() -> str:
    """Returns the table of goals, misses marked."""
    lines = ["| what is measured | goal | higher goal | measured | |", "|---|---:|---:|---:|---|"]
    for what, must, beyond, value in goals():
        verdict = "" if value is None else judge(value, must, beyond)
        lines.append(f"| {what} | {must} | {beyond} | {'not run' if value is None else f'{value:.2f}'} | {verdict} |")
    return "\n".join(lines) + "\n"


def judge(value: float, must: str, beyond: str) -> str:
    """Returns whether a value reaches its goal, or the one beyond it."""
    if not must:
        return ""
    is_limit = must.startswith("at most ")
    goals = [float(goal.removeprefix("at most ").rstrip("x")) for goal in (must, beyond)]
    reached = [value <= goal if is_limit else value >= goal for goal in goals]
    return "higher goal reached" if reached[1] else "reached" if reached[0] else "**missed**"


def short_table() -> str:
    """Returns what the front page shows."""
    llama, hnet = "Hugging Face's Llama on bytes", "h-net-dynamic-chunking"

    def both(kind: str, at: str, ours: str, peer: str) -> dict[str, float | None]:
        return {
            f"equal{counted.removeprefix(',')}": over_peer(size, kind, at, ours, peer)
            for size, counted in TRAINED.items()
        }

    lines = [
        ("training step", llama, both("training", SHAPES[0], "patchpad", "HF Llama")),
        ("generation after 960 bytes, compiled", f"{llama} with its cache",
         both("generation", "960", "patchpad compiled", "HF Llama")),
        ("generation after 8,000 bytes, compiled", f"{llama} with its cache",
         both("generation", "8,000", "patchpad compiled", "HF Llama")),
        ("generation after 960 bytes, compiled", f"{hnet}, tuned",
         both("generation", "960", "patchpad compiled", hnet)),
        ("training step, 4-byte patches without scratchpads", "MEGABYTE-pytorch, equal trunk calls",
         both("training", SHAPES[0], "patchpad-plain4", "MEGABYTE-pytorch")),
        ("generation, 16-byte patches with scratchpads", "a trunk call at every byte, trunk of 100M parameters", {
            f"batch {batch_rows}": of_savings("savings", "generation", batch_rows) for batch_rows in (1, 8)
        }),
    ]  # fmt: skip
    rows = [
        f"| {what} | {peer} | {', '.join(f'{times(value)} ({where})' for where, value in found.items())} |"
        for what, peer, found in lines
    ]
    return "\n".join(["| patchpad | compared with | times as fast |", "|---|---|---|", *rows]) + "\n"


def times(value: float | None) -> str:
    """Returns a ratio for the front page."""
    return "not run" if value is None else f"{value:.2f}x"


def machine_shares() -> str:
    """Returns what each kind of work reaches of what the machine can do."""
    rows, lines = newest("limits"), []
    for part, name, words in (("training", "step", "training step"), ("prefill", "prefill", "reading a prompt")):
        for size in values(chosen(rows, part=part), "size"):
            of_size = chosen(rows, part=part, size=size)
            group = chosen(of_size, rows=4) if part == "training" else of_size
            work, best = only(group, name=name), best_product(group, "cpu")
            reached, limit = (rate(row, "flops", "cpu") / 1e9 for row in (work, best))
            cells = [f"{limit:.0f} GFLOP/s", f"{reached:.0f} GFLOP/s", f"{share_of_product(group, name, 'cpu'):.2f}"]
            lines.append([f"{words}, {size}", "products", *cells])
    for size in values(chosen(rows, part="generation"), "size"):
        group = chosen(rows, part="generation", size=size)
        generated, copied = rate(only(group, name="generation"), "bytes", "cpu"), only(group, name="copy")
        limit = rate(copied, "moved_bytes", "cpu") / bytes_read(only(group, name="generation"))
        cells = [f"{limit:,.0f} bytes/s", f"{generated:.0f} bytes/s", f"{share_of_memory(group, 'cpu'):.2f}"]
        lines.append([f"generation of one row, {size}", "memory", *cells])
    return markdown_table(["work", "what limits it", "the machine could", "measured", "share"], lines)


def phases() -> str:
    """Returns where the time of a generated byte goes."""
    return step_profile.report(newest("step-profile-6.6M"))


def of_batches() -> str:
    """Returns speed and memory of batches."""
    rows = newest("batches")
    return batches.report(rows, values(rows, "batch_rows"))


def of_drafts() -> str:
    """Returns bytes per second of steps and of drafts, by rows, limits and kind of steps."""
    lines, head = [], []
    for ending, words in (("", "plain"), ("-compiled", "compiled")):
        newest_file = sorted((ROOT / "docs" / "results").glob(f"*-drafts-speed{ending}.json"))[-1]
        results = json.loads(newest_file.read_text(encoding="utf-8"))["results"]
        rows = [row for row in results if (row["most_bytes"], row["most_slots"]) not in SHORT_DRAFTS]
        head = [limits_in_words(row) for row in chosen(rows, rows=rows[0]["rows"])]
        for num_rows in values(rows, "rows"):
            speeds = [row["bytes_per_second"] for row in chosen(rows, rows=num_rows)]
            lines.append(
                [words, f"{num_rows}", *(f"{speed:.1f}" for speed in speeds), f"{max(speeds) / speeds[0]:.2f}"]
            )
    return markdown_table(["steps are", "rows", *head, "best over steps"], lines)


def limits_in_words(row: dict[str, Any]) -> str:
    """Returns how far a row's drafts go."""
    if row["most_bytes"] is None:
        return "steps"
    slots = "" if row["most_slots"] is None else f", {row['most_slots']} slots"
    return f"{row['most_bytes']} bytes{slots}"


def estimates() -> str:
    """Returns what was compiled for a GPU without one."""
    rows = newest("sm90-estimates")
    tables = (training_table(chosen(rows, part="training")), decoding_table(chosen(rows, part="decoding")))
    return "\n".join(tables)


def filled(page: Path) -> str:
    """Returns a page with its tables made anew."""
    content = page.read_text(encoding="utf-8")
    for begin, make in TABLES[page].items():
        content = fill_block(content, begin, make())
    return content


TABLES = {
    ROOT / "docs" / "speed.md": {BEGIN: table, SHARES: machine_shares, PHASES: phases, ESTIMATED: estimates},
    ROOT / "docs" / "generation.md": {BATCHES: of_batches, DRAFTS: of_drafts},
    ROOT / "README.md": {BEGIN: short_table},
}
"""What stands behind which line of a page."""


def main() -> None:
    """Puts the tables into their pages."""
    for page in TABLES:
        write_atomically(page, filled(page))


if __name__ == "__main__":
    main()
