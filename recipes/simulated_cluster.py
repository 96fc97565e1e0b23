"""Fills the block of docs/training.md about a cluster that was simulated, from the newest result file.

Usage: python recipes/simulated_cluster.py [PAGE]
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from cluster_report import communication_table, memory_table  # noqa: E402
from measured_blocks import fill_block  # noqa: E402

from patchpad.files import write_atomically  # noqa: E402

BEGIN = "<!-- simulated: written by recipes/simulated_cluster.py -->"
PAGE = ROOT / "docs" / "training.md"


def block() -> str:
    """Returns the tables of the newest result file, and where they come from."""
    files = sorted((ROOT / "benchmarks" / "results").glob("simulated-cluster_*.json"), key=lambda file: file.name)
    rows = json.loads(files[-1].read_text(encoding="utf-8"))["rows"]
    return (
        "**Simulated: nothing ran on a GPU, and nothing was timed.** GiB on each rank at the peak of a training step, "
        "by PyTorch's fake process group on tensors that have shapes alone; the last column is what `patchpad cost` "
        f"counts:\n\n{memory_table(rows)}\n"
        f"What a rank exchanges with the others in such a step:\n\n{communication_table(rows)}"
        f"\nFrom `benchmarks/results/{files[-1].with_suffix('.md').name}`, made by `benchmarks/simulate_cluster.py`."
    )


def filled(page: str) -> str:
    """Returns a page with the block made anew."""
    return fill_block(page, BEGIN, block())


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    write_atomically(target, filled(target.read_text(encoding="utf-8")))
