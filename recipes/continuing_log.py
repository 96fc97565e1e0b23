"""Prints what the study `configs/studies/continuing.yaml` has found, for docs/log.md.

Usage: python recipes/continuing_log.py RESULTS

RESULTS is the study's folder of result files, one for each arm.
"""

import json
import sys
from pathlib import Path
from typing import Any

ARMS = ("plain", "plain-longer", "scratchpads-added", "scratchpads", "scratchpads-longer")


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the result of each arm, by its name."""
    return {name: json.loads((folder / f"{name}-seed0.json").read_text(encoding="utf-8")) for name in ARMS}


def stored_point(result: dict[str, Any]) -> dict[str, Any]:
    """Returns what an arm was measured to do at its stored threshold."""
    return next(point for point in result["measured"]["points"] if point["at"] == "stored")


def table(results: dict[str, dict[str, Any]]) -> str:
    """Returns a table of all arms."""
    rows = ["| arm | bytes seen by the run | bits per byte | trunk calls per byte |", "|---|---|---|---|"]
    for name in ARMS:
        point, seen = stored_point(results[name]), results[name]["training"]["bytes_seen"]
        calls = point["trunk_calls_per_byte"]
        rows.append(f"| {name} | {seen / 1e6:.2f} MB | {point['bits_per_byte']:.4f} | {calls:.4f} |")
    return "\n".join(rows)


def finding(results: dict[str, dict[str, Any]]) -> str:
    """Returns how much of the gain is recovered, each arm after as many bytes in all."""
    plain, added, from_start = (
        stored_point(results[name])["bits_per_byte"]
        for name in ("plain-longer", "scratchpads-added", "scratchpads-longer")
    )
    gain, recovered = plain - from_start, plain - added
    share = f"{recovered / gain:.0%} of it" if gain > 0 else "there is no gain to recover"
    return (
        f"After the same bytes in all, scratchpads from the start gain {gain:.4f} bits per byte ({gain / plain:.1%}) "
        f"over plain patches; added for the last eleventh of the bytes they gain {recovered:.4f} "
        f"({recovered / plain:.1%}): {share}."
    )


if __name__ == "__main__":
    found = read(Path(sys.argv[1]))
    sys.stdout.write(f"{table(found)}\n\n{finding(found)}\n")
