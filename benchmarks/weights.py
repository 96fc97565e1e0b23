"""What weights of 8 bits save where the trunk is most of the model: bytes per CPU second, and bytes of memory.

Usage: python benchmarks/weights.py [--size 100M|350m] [--batches 1 4] [--compile]

All sides have the same random weights and run on the same engine, in turns, without drafts: random weights say nothing
about how many guesses are right.
"""

from typing import Any, get_args

from measuring import arguments, as_rows, median, paired_ratio, prepare, time_interleaved, write_results
from ours import SteadyGeneration, build, config_named, ragged_lengths
from sizes import PRESET_SIZES

from patchpad.inference.draft_rule import FixedDrafts
from patchpad.model.byte_lm import ByteLM
from patchpad.model.int8 import Weights, use_int8

SHORTEST_PROMPT = 20
KINDS: tuple[Weights, ...] = get_args(Weights)


def models(size: str) -> dict[str, ByteLM]:
    """Returns the same model with each kind of weights, by its name."""
    found = {}
    for kind in KINDS:
        found[kind] = build(config_named(size)).eval()
        use_int8(found[kind], kind)
    return found


def weight_bytes(model: ByteLM) -> int:
    """Returns the bytes of a model's weights."""
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def measure(sides: dict[str, ByteLM], batch_rows: int, options: Any) -> list[dict[str, Any]]:
    """Times steady generation after prompts of different lengths."""
    lengths = ragged_lengths(batch_rows, SHORTEST_PROMPT)
    generations = {}
    for name, model in sides.items():
        generations[name] = SteadyGeneration(
            model, lengths, bytes_per_row=options.run_bytes, runs=1 + options.repeats, compile=options.compile
        )
        generations[name].engine.drafts = FixedDrafts(None)
    runs = time_interleaved({name: one.run for name, one in generations.items()}, repeats=options.repeats)
    rows = as_rows(runs, size=options.size, batch_rows=batch_rows)
    for row in rows:
        counts = generations[row["name"]].counts[1:]  # the first run was the warm-up
        row |= {key: [run[key] for run in counts] for key in counts[0]}
        row["weight_bytes"] = weight_bytes(sides[row["name"]])
        row["speed_ratio"] = paired_ratio(runs["fp32"], runs[row["name"]])
    return rows


def report(rows: list[dict[str, Any]]) -> str:
    """Returns the table of a measurement."""
    lines = ["| weights | rows | bytes per CPU second | over fp32 | MB of weights |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        speed = median(
            [count / run["cpu"] for count, run in zip(row["bytes"], row["seconds"], strict=True)],
        )
        lines.append(
            f"| {row['name']} | {row['batch_rows']} | {speed:.1f} | {row['speed_ratio']:.2f} "
            f"| {row['weight_bytes'] / 1e6:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures generation at each batch."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--size", default="100M", choices=("3M", "20M", "100M", "tiny", *PRESET_SIZES))
    parser.add_argument("--batches", nargs="+", type=int, default=(1, 4))
    parser.add_argument("--run-bytes", type=int, default=64, help="bytes per row that a run generates")
    options = parser.parse_args()
    if options.device != "cpu":
        raise SystemExit("--device cuda: int8 weights are for the CPU; allowed: cpu")
    prepare(options)
    sides = models(options.size)
    rows = [row for batch_rows in options.batches for row in measure(sides, batch_rows, options)]
    write_results(options, "weights", rows, report(rows))


if __name__ == "__main__":
    main()
