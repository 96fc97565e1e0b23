"""Writes the card of the shipped model beside its weights, out of what was measured.

Usage: python recipes/shipped_card.py MODEL MEASURED.json NAME TRAINED

MEASURED.json comes from recipes/measure_shipped_model.py, where NAME is the model; TRAINED says in words how long it
was trained on what.
"""

import json
import sys
from pathlib import Path

import patchpad

TEMPLATE = Path(__file__).with_name("shipped_card.md")
SETS = ("books", "code", "encyclopedia", "random bytes")


def row(measured: dict, name: str) -> str:
    """Returns a set's line of the table."""
    points = measured["models"][name]
    without = next(point for point in points if point["scratchpad_threshold_nats"] == "inf")
    cells = [
        measured["set"],
        f"{measured['bytes']:,}",
        *(f"{measured['compressors'][key]:.3f}" for key in ("xz", "bz2")),
        f"**{points[0]['bits_per_byte']:.3f}**",
        f"{without['bits_per_byte']:.3f}",
        f"{points[0]['trunk_calls_per_byte']:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def main(folder: str, results: str, name: str, trained: str) -> None:
    """Writes CARD.md."""
    measured = json.loads(Path(results).read_text(encoding="utf-8"))
    sets = {one["set"]: one for one in measured["sets"]}
    languages = {key: one["models"][name][0]["bits_per_byte"] for key, one in sets.items() if key.startswith("ntrex")}
    highest = max(languages, key=languages.__getitem__)
    card = TEMPLATE.read_text(encoding="utf-8").format(
        parameters=sum(parameter.numel() for parameter in patchpad.load(folder).parameters()),
        megabytes=(Path(folder) / "model.safetensors").stat().st_size / 1e6,
        trained=trained,
        results=results,
        rows="\n".join(row(sets[key], name) for key in SETS),
        languages=len(languages),
        highest=languages[highest],
        highest_name=highest.removeprefix("ntrex "),
    )
    (Path(folder) / "CARD.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
