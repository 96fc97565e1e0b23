"""Writes the measured tables of docs/conversion.md from files of recipes/measure_conversion.py.

Usage: python recipes/conversion_tables.py [RESULT.json...]
Without files it takes docs/results/conversion/*.json. Several files are one measurement of the same two models.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conversion_differences import difference, mean_difference, per_byte, sign_test, signed, with_error
from conversion_record import read_record
from measured_blocks import fill_block

from patchpad.errors import DataError, PatchpadError
from patchpad.files import write_atomically
from patchpad.pages.markdown import markdown_table
from patchpad.pages.numbers import compact_number
from patchpad.tasks.result import Metric
from patchpad.training.progress import duration

ROOT = Path(__file__).resolve().parent.parent
PAGE, RESULTS = ROOT / "docs" / "conversion.md", ROOT / "docs" / "results" / "conversion"
BEGIN = "<!-- measured: conversion (written by recipes/conversion_tables.py) -->"
SOURCE, TAKEN_BACK, PLAIN, MAIN, EVERYWHERE = "source", "source taken back", "plain", "0.12", "everywhere"
THREE = (PLAIN, MAIN, EVERYWHERE)
CUTE = "cute_"
NAMES = {
    SOURCE: "the source",
    TAKEN_BACK: "the source, end of the prompt taken back",
    PLAIN: "converted, no scratchpads",
    EVERYWHERE: "converted, scratchpads everywhere",
}
NOISE_WORDS = {
    "clean": "none",
    "typo": "typing errors, 5 % of letters",
    "case": "case, every letter's by chance",
    "repeat": "repeated characters, 20 %",
    "drop": "dropped characters, 10 %",
    "homoglyph": "homoglyphs, 10 % of those that have one",
}
BITS_TEXT = """\
**Bits per byte.** Source and converted model read the same windows, and each window begins a document. The difference
is that to the source, with its standard error over windows: below 0, the converted model predicts better. A window may
end inside a token. There the source's bits count all tokens that begin with what is left, as a byte model's bits do.
FLOPs and cache are counted for both as `patchpad cost` counts them, the cache in fp32. xz and bz2 compressed the same
windows, joined. The books are held out from the converted model, but probably not from the source, which has read much
of the web."""
NEW, NEW_TEXT = (
    "new",
    """\
The source cannot have read `new`: notes on releases that are dated after its training (`recipes/new_text.py`).""",
)
NOISE_TEXT = """\
**Noise.** Bits per byte of the text with noise, and how much more that is than without noise. The text is books, which
are held out from the converted model, but probably not from the source. {main} is the rate of scratchpads on clean
text; noise raises it. The difference is that between the converted model at this threshold and the source, with its
standard error over windows."""
CUT_TEXT = """\
**Prompts that end inside a word.** A prompt is about 300 bytes of a book and the first part of a word of six letters or
more. A word is right if greedy writing gives the rest of it and ends it there; the next column asks for the same byte
behind it too. The source reads the tokens that its tokenizer makes of the cut prompt. "End of the prompt taken back" is
the known repair: of all tokens that begin with the bytes of one or some of the last tokens, the likeliest takes their
place, and the source goes on from there. Bits are those of the rest and the ending byte together, and tokens that go on
beyond them count. p is that of an exact sign test (McNemar's) on whether words are right, and bits have their
difference with its standard error: first against the source as it is, then against it with the end of the prompt taken
back. The books are held out from the converted model, but probably not from the source."""
ARMS_TEXT = """\
**Other ways.** The same windows of {text}, read by other models. Each was trained on so many bytes of the same texts as
the table says. Thresholds are each model's own."""
TASKS_TEXT = """\
**Tasks.** Prompts, answers and metrics are the same for both (`patchpad.tasks`), without a chat template. The source's
tokens are split between prompt and answer as lm-eval does it, and its accuracy is that of these tokens. Bits per byte
are those of the right answer; for the source, tokens that go on beyond it count. The difference is that to the source
in these bits, with its standard error over examples. `cute` is all tasks of CUTE together. The source may have read the
tasks, and the books that LAMBADA is made of."""


class Cells:
    """The cells of all files, by name.

    Raises:
        DataError: files about different models, or results of one name that differ.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.models: dict[str, Any] = {}
        self.cells: dict[str, dict[str, Any]] = {}
        for path in paths:
            found = read_record(path)
            if self.models and self.models != found["models"]:
                raise DataError(f"{path} is about other models than {paths[0]}", hint="Give files about the same two.")
            self.models = found["models"]
            for name, cell in found["cells"].items():
                there = self.cells.setdefault(name, cell)
                same = (there["inputs"], there["values"]) == (cell["inputs"], cell["values"])
                if not same and not name.startswith("calibration/"):  # threads round thresholds differently
                    raise DataError(f"{path} has another `{name}` than a file before it", hint="Leave one out.")

    def of(self, *words: str) -> dict[str, Any] | None:
        """Returns the values of a cell, None where it was not measured."""
        cell = self.cells.get("/".join(words))
        return None if cell is None else cell["values"]

    def second(self, part: str) -> list[str]:
        """Returns what was measured in a part, such as the texts of `bits`, in order."""
        return list(dict.fromkeys(name.split("/")[1] for name in self.cells if name.startswith(f"{part}/")))


def shown_name(point: str) -> str:
    """Returns what tables call a source or a point of the converted model."""
    return NAMES.get(point) or f"converted, {point} scratchpads per byte"


def bits_table(cells: Cells) -> str:
    """Returns the table of a row for each text and point; empty where nothing was measured."""
    rows = []
    for text in cells.second("bits"):
        source = cells.of("bits", text, SOURCE)
        for name in [name.split("/")[2] for name in cells.cells if name.startswith(f"bits/{text}/")]:
            values = cells.of("bits", text, name)
            assert values is not None
            if name == "compressors":
                rows += [[text, label, f"{bits:.3f}", "", "", "", "", ""] for label, bits in values.items()]
                continue
            rows.append(
                [
                    text,
                    shown_name(name),
                    f"{per_byte(values).value:.3f}",
                    "" if source is None or name == SOURCE else signed(difference(values, source)),
                    f"{values['scratchpads_per_byte']:.3f}",
                    f"{values['trunk_calls_per_byte']:.3f}",
                    compact_number(values["flops_per_byte"]),
                    compact_number(values["trunk_cache_bytes_per_byte"]),
                ]
            )
    headings = ["text", "model", "bits per byte", "difference", "scratchpads per byte", "trunk calls per byte"]
    text = f"{BITS_TEXT}\n{NEW_TEXT}" if NEW in cells.second("bits") else BITS_TEXT
    return _part(text, [*headings, "FLOPs per byte", "cache bytes per byte"], rows)


def arms_table(cells: Cells) -> str:
    """Returns the table of a row for each arm and point; empty where none was measured."""
    rows = []
    for arm in cells.second("arms"):
        facts = cells.of("arms", arm, "facts")
        assert facts is not None
        for point in (PLAIN, MAIN):
            values = cells.of("arms", arm, point)
            if values is not None:
                rows.append(
                    [
                        arm,
                        f"{facts['trained_bytes'] / 1e6:.2f}",
                        f"{per_byte(values).value:.3f}",
                        f"{values['scratchpads_per_byte']:.3f}",
                        f"{values['trunk_calls_per_byte']:.3f}",
                        compact_number(values["flops_per_byte"]),
                        compact_number(values["trunk_cache_bytes_per_byte"]),
                    ]
                )
    headings = ["model", "MB trained on", "bits per byte", "scratchpads per byte", "trunk calls per byte"]
    first = next(iter(cells.second("calibration")), "the text")
    return _part(ARMS_TEXT.format(text=first), [*headings, "FLOPs per byte", "cache bytes per byte"], rows)


def noise_table(cells: Cells) -> str:
    """Returns the table of a row for each kind of noise; empty where nothing was measured."""
    rows, models = [], (SOURCE, *THREE)
    for kind in cells.second("noise"):
        row = [NOISE_WORDS.get(kind, kind)]
        for model in models:
            values, clean = cells.of("noise", kind, model), cells.of("noise", "clean", model)
            if values is None or clean is None:
                row.append("-")
                continue
            bits, before = per_byte(values).value, per_byte(clean).value
            row.append(f"{bits:.3f}" + ("" if kind == "clean" else f" ({100 * (bits / before - 1):+.0f} %)"))
        ours, source = cells.of("noise", kind, MAIN), cells.of("noise", kind, SOURCE)
        row.append("-" if ours is None or source is None else signed(difference(ours, source)))
        rows.append(row)
    return _part(NOISE_TEXT.format(main=MAIN), ["noise", *map(shown_name, models), "difference"], rows)


def cut_table(cells: Cells) -> str:
    """Returns the table of a row for each model; empty where nothing was measured."""
    rows, references = [], [cells.of("cut", name) for name in (SOURCE, TAKEN_BACK)]
    for place, name in enumerate((SOURCE, TAKEN_BACK, *THREE)):
        values = cells.of("cut", name)
        if values is None:
            continue
        compared = [None if place <= number else other for number, other in enumerate(references)]
        rows.append(
            [
                shown_name(name),
                f"{sum(values['word_right'])} of {len(values['word_right'])}",
                *(
                    "" if other is None else f"{sign_test(values['word_right'], other['word_right']):.2g}"
                    for other in compared
                ),
                with_error(Metric.mean_of(values["right"])),
                with_error(Metric.mean_of(values["bits"])),
                *(
                    "" if other is None else signed(mean_difference(values["bits"], other["bits"]))
                    for other in compared
                ),
            ]
        )
    headings = [
        "model",
        "words right",
        "p",
        "p, taken back",
        "right with the byte behind",
        "bits of the rest of a word",
    ]
    return _part(CUT_TEXT, [*headings, "difference", "difference, taken back"], rows)


def tasks_table(cells: Cells) -> str:
    """Returns the table of a row for each task and model, CUTE's as one task; empty where nothing was measured."""
    found = cells.second("tasks")
    groups = {name: [name] for name in found if not name.startswith(CUTE)}
    if len(groups) < len(found):
        groups["cute"] = [name for name in found if name.startswith(CUTE)]
    rows, models = [], (SOURCE, *THREE)
    for label, names in groups.items():
        results = {model: [cells.of("tasks", name, model) for name in names] for model in models}
        first = next((values for several in results.values() for values in several if values is not None), None)
        if first is None:
            continue
        known = {model: [one for one in several if one is not None] for model, several in results.items()}
        whole = {model: several if len(several) == len(names) else [] for model, several in known.items()}
        sizes = [len(one["ids"]) for one in known[SOURCE]]
        chances = [one["chance"] or 0.0 for one in known[SOURCE] for _ in one["ids"]]
        chance = f"{math.fsum(chances) / len(chances):.3f}" if any(chances) else "-"
        gold = {model: _gold([one.get("open", one) for one in several]) for model, several in whole.items()}
        theirs = gold[SOURCE]
        for model in models:
            ours = gold[model]
            cells_of_model = [
                _scores(whole[model]),
                "-" if ours is None else f"{per_byte(ours).value:.3f}",
                ""
                if model == SOURCE or ours is None or theirs is None
                else signed(difference(ours, theirs, of="examples")),
            ]
            of_task = [label, first["metric"].replace("_", " "), f"{sum(sizes):,}", chance]
            rows.append([*(of_task if model == SOURCE else [""] * len(of_task)), shown_name(model), *cells_of_model])
    headings = ["task", "metric", "examples", "chance", "model", "score", "bits per byte", "difference"]
    return _part(TASKS_TEXT, headings, rows)


def _scores(results: Sequence[Mapping[str, Any]]) -> str:
    values = [score for one in results for score in one["scores"]]
    return with_error(Metric.mean_of(values)) if values else "-"


def _gold(results: Sequence[Mapping[str, Any]]) -> dict[str, list[float]] | None:
    """Returns bits and bytes of right answers, whose ratio is what the task gives; None without results.

    Where a task takes the mean over examples of bits per byte, each counts as one byte.
    """
    costs = [bits for one in results for bits in one["bits_per_byte"]]
    sizes = [size for one in results for size in one["num_bytes"] or [1] * len(one["ids"])]
    return (
        {"bits": [cost * size for cost, size in zip(costs, sizes, strict=True)], "num_bytes": sizes} if costs else None
    )


def _part(text: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"{text}\n\n{markdown_table(headings, rows)}" if rows else ""


def origin_lines(cells: Cells) -> str:
    """Returns what was measured, by which commits, when and how long."""
    source, ours = cells.models["source"], cells.models["ours"]
    origins = [cell["provenance"] for cell in cells.cells.values()]
    seconds = math.fsum(cell["cpu_seconds"] for cell in cells.cells.values())
    several = {
        key: ", ".join(sorted({str(one[key])[:9] if key == "commit" else str(one[key])[:10] for one in origins}))
        for key in ("commit", "date", "threads", "torch_version")
    }
    return (
        f"- the source: {source['name']}, {source['num_params'] / 1e6:.1f}M parameters, licence {source['licence']}\n"
        f"- converted: {ours['num_params'] / 1e6:.1f}M parameters, weights "
        f"{ours['weights_sha256'][:12]}\n"
        f"- `recipes/measure_conversion.py`, {origins[0]['hardware']}, threads {several['threads']}, torch "
        f"{several['torch_version']}, commit {several['commit']}, {several['date']}, {duration(seconds)} of a "
        "processor in all. Raw values: `docs/results/conversion`"
    )


def content(cells: Cells) -> str:
    """Returns what stands between the markers of the page."""
    parts = [bits_table(cells), arms_table(cells), noise_table(cells), cut_table(cells), tasks_table(cells)]
    return "\n\n".join(part for part in [*parts, origin_lines(cells)] if part)


def main(paths: Sequence[Path]) -> None:
    """Fills the block of the page.

    Raises:
        DataError: no files, or they do not fit each other.
    """
    found = list(paths) or sorted(RESULTS.glob("*.json"))
    if not found:
        raise DataError(f"{RESULTS} has no results", hint="Make some with recipes/measure_conversion.py.")
    page = PAGE.read_text(encoding="utf-8")
    write_atomically(PAGE, fill_block(page, BEGIN, content(Cells(found))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=Path)
    try:
        main(parser.parse_args().results)
    except PatchpadError as error:
        sys.exit(f"error: {error}")
