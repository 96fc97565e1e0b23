"""`generate` of transformers on an exported folder, against patchpad's own, greedy, in turn.

Usage: python benchmarks/hugging_face.py [--run bundled] [--rows 1 8] [--new-bytes 200] [--repeats 5]
Both generate the same bytes with the same model; that is checked.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported

from measuring import Seconds, arguments, as_rows, markdown_table, median, paired_ratio, prepare, time_interleaved
from measuring import write_results as write
from rows import Row, chosen, only

import patchpad
from patchpad.hub.exporting import export
from patchpad.hub.modeling import PatchpadForCausalLM
from patchpad.hub.tokenizer import PatchpadTokenizer

THEIRS, OWN = "transformers", "patchpad"
PROMPT = "It was a truth that nobody in the whole neighbourhood had ever thought of doubting, "


def measure(model: PatchpadForCausalLM, num_rows: int, new_bytes: int, repeats: int, device: str) -> list[Row]:
    """Times both ways for a batch."""
    tokenizer = PatchpadTokenizer()
    prompts = [PROMPT] * num_rows
    inputs = dict(tokenizer(prompts, return_tensors="pt", padding=True).to(device))
    begin = inputs["input_ids"].shape[1]

    def theirs() -> list[bytes]:
        ids = model.generate(**inputs, max_new_tokens=new_bytes, min_new_tokens=new_bytes)
        return [tokenizer.decode_bytes(row) for row in ids[:, begin:].tolist()]

    def own() -> list[bytes]:
        return [found.data for found in patchpad.complete(model.model, prompts, max_new_bytes=new_bytes, temperature=0)]

    assert theirs() == own()
    timed = time_interleaved({THEIRS: theirs, OWN: own}, repeats=repeats, device=device)
    return as_rows(timed, rows=num_rows, new_bytes=new_bytes)


def report(rows: Sequence[Row]) -> str:
    """Returns the Markdown."""
    lines = []
    for num_rows in dict.fromkeys(row["rows"] for row in rows):
        case = chosen(rows, rows=num_rows)
        runs = {name: [Seconds(**run) for run in only(case, name=name)["seconds"]] for name in (THEIRS, OWN)}
        num_bytes = num_rows * case[0]["new_bytes"]
        rates = [f"{num_bytes / median([run.cpu for run in runs[name]]):,.0f}" for name in (THEIRS, OWN)]
        lines.append([str(num_rows), *rates, f"{paired_ratio(runs[THEIRS], runs[OWN]):.2f}"])
    head = "Bytes per CPU second, medians; the last column is the median of the ratios of times within a turn.\n\n"
    return head + markdown_table(["rows", THEIRS, OWN, "time of transformers over patchpad"], lines)


def main() -> None:
    """Measures each number of rows."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--run", default="bundled")
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--new-bytes", type=int, default=200)
    options = parser.parse_args()
    prepare(options)
    with tempfile.TemporaryDirectory() as folder:
        export(options.run, Path(folder) / "exported")
        model = PatchpadForCausalLM.from_pretrained(Path(folder) / "exported").to(options.device)
        rows = [
            row
            for num_rows in options.rows
            for row in measure(model, num_rows, options.new_bytes, options.repeats, options.device)
        ]
    write(options, "hugging-face", rows, report(rows))


if __name__ == "__main__":
    main()
