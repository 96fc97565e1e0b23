r"""Measures a converted model (patchifier `tokens`) beside the model that it was made of, everything per byte.

Usage: python recipes/measure_conversion.py OUT.json --source DIR_OR_GGUF --run RUN \
    --parts bits noise cut tasks --text books=books_en_val.jsonl.xz --text new=new_text.txt --data DATA
    [--parts arms --arm NAME=RUN]

The source is run by transformers, so nothing of it is our own model. OUT.json gets a cell for each measurement as soon
as it is done, with its seconds; the same command goes on with what is missing. Parts may write to different files at
the same time. `recipes/conversion_tables.py` makes the tables of docs/conversion.md from these files.

bits    bits per byte on every --text: the source, and the model along the threshold
noise   the same on the first --text with seeded noise, at three points of the threshold
cut     prompts of the first --text that end inside a word: is the rest written?
arms    bits per byte on the first text of other trained models: each --arm
tasks   LAMBADA, HellaSwag and CUTE: --data is their folder; thresholds are those of the first --text

Thresholds are set on other windows of a text than those that `bits` measures.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from conversion_arms import measure_arm
from conversion_bits import Pair, Text, measure_bits, measure_noise
from conversion_record import Record
from conversion_source import Source
from conversion_tasks import TASKS, measure_tasks
from conversion_words import measure_words

import patchpad
from patchpad.errors import ConfigError, PatchpadError
from patchpad.tasks.running import model_facts

PARTS = ("bits", "noise", "cut", "tasks", "arms")
USUAL = PARTS[:4]


def parser() -> argparse.ArgumentParser:
    """Returns the options."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("out", type=Path)
    made.add_argument("--source", type=Path, required=True, help="folder of Hugging Face, or a .gguf file")
    made.add_argument("--run", type=Path, required=True, help="the converted and trained run")
    made.add_argument("--parts", nargs="+", choices=PARTS, default=USUAL)
    made.add_argument("--text", action="append", required=True, metavar="NAME=FILE", help="several times")
    made.add_argument("--arm", action="append", default=[], metavar="NAME=RUN", help="several times, for `arms`")
    made.add_argument("--bytes", type=int, default=100_000, help="of each text, in `bits`")
    made.add_argument("--noise-bytes", type=int, default=50_000)
    made.add_argument("--calibration-bytes", type=int, default=30_000)
    made.add_argument("--prompts", type=int, default=200, help="in `cut`")
    made.add_argument("--data", type=Path, help="folder of the tasks' files")
    made.add_argument("--tasks", nargs="+", default=TASKS)
    made.add_argument("--limit", type=int, default=200, help="examples of a task; those of CUTE share them")
    made.add_argument("--batch-rows", type=int, default=2, help="windows of a pass of the converted model")
    made.add_argument("--threads", type=int, default=1)
    return made


def main(words: Sequence[str]) -> None:
    """Measures the parts."""
    given = parser().parse_args(words)
    if "tasks" in given.parts and given.data is None:
        raise ConfigError("--data is missing, which the part `tasks` needs", hint="Give the folder of the tasks.")
    for name in ("bytes", "noise_bytes", "calibration_bytes", "prompts", "limit", "batch_rows", "threads"):
        if getattr(given, name) < 1:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} is {getattr(given, name)}; allowed: 1 or more", hint="Change it.")
    if "arms" in given.parts and not given.arm:
        raise ConfigError("--arm is missing, which the part `arms` needs", hint="Give --arm NAME=RUN for each model.")
    files, arms = named_paths("text", given.text), named_paths("arm", given.arm)
    torch.set_num_threads(given.threads)
    model = patchpad.load(given.run)
    if not model.config.patchifier.commits_tokens:
        kind = model.config.patchifier.kind
        raise ConfigError(f"{given.run} has the patchifier `{kind}`; allowed: `tokens`", hint="Give another run.")
    source = Source(given.source)
    models = {"source": source.facts(), "ours": {"run": given.run.resolve().name, **model_facts(model)}}
    pair = Pair(source, model, Record(given.out, models, words), given.batch_rows)
    for number, (name, path) in enumerate(files.items()):
        if number == 0:
            measure_parts(pair, Text.read(name, path, given.bytes, given.calibration_bytes), given, arms)
        elif "bits" in given.parts:
            measure_bits(pair, Text.read(name, path, given.bytes, given.calibration_bytes))


def named_paths(option: str, words: Sequence[str]) -> dict[str, Path]:
    """Returns the paths of NAME=PATH by their names.

    Raises:
        ConfigError: a word of another form, or a name given twice.
    """
    found: dict[str, Path] = {}
    for word in words:
        name, _, path = word.partition("=")
        if not name or not path:
            raise ConfigError(f"--{option} is {word!r}; allowed: NAME=PATH", hint=f"Give each {option} a name.")
        if name in found:
            raise ConfigError(f"--{option} names `{name}` twice; allowed: each name once", hint="Rename one of them.")
        found[name] = Path(path)
    return found


def measure_parts(pair: Pair, first: Text, given: argparse.Namespace, arms: Mapping[str, Path]) -> None:
    """Measures all that is asked for on the first text, and the tasks."""
    if "bits" in given.parts:
        measure_bits(pair, first)
    if "noise" in given.parts:
        measure_noise(pair, first, given.noise_bytes)
    if "cut" in given.parts:
        measure_words(pair, first, given.prompts)
    if "tasks" in given.parts:
        measure_tasks(pair, first, given.data, given.tasks, given.limit)
    if "arms" in given.parts:
        for name, run in arms.items():
            measure_arm(pair, first, name, run)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except PatchpadError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; what was measured is kept, and the same command goes on")
