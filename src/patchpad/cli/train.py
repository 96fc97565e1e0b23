"""`patchpad train`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from patchpad.cli.options import Json, TextField, TextFormat
from patchpad.cli.streams import print_json, print_text, refuse_stdin
from patchpad.config import Config, ModelConfig, load_config
from patchpad.errors import ConfigError, near_matches
from patchpad.files import strict_json
from patchpad.launcher import launched_place, told_once
from patchpad.registry import command_line

if TYPE_CHECKING:
    from patchpad.training.init_from import Source

SECTIONS = ("model", "data", "train")
OWN_OPTIONS = (
    *("--config", "--data", "--format", "--text-field", "--out", "--init-from", "--resume", "--device"),
    *("--json", "--help"),
)


def train(
    *fields: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[
        str | None,
        Parameter(help="Name of a preset (see `patchpad configs`) or a YAML file. Default: default values only."),
    ] = None,
    data: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            allow_leading_hyphen=True,
            help="File, glob or directory to train on. May be repeated. Default: the configuration's paths.",
        ),
    ] = None,
    format: TextFormat | None = None,
    text_field: TextField | None = None,
    out: Annotated[Path | None, Parameter(help="Run directory to make. It must be absent or empty.")] = None,
    init_from: Annotated[
        str | None,
        Parameter(
            help="Run, step folder, or `bundled` (the model that ships with patchpad) whose weights to start from. "
            "Keys of the model that are not set are that run's."
        ),
    ] = None,
    resume: Annotated[Path | None, Parameter(help="Run to continue. Needs no other options.")] = None,
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda, cuda:N or mps.")] = None,
    json: Json = False,
) -> None:
    """Train a model on text as it is: plain files, JSONL, .gz, .bz2, .xz, or a directory.

    Any key of the configuration can be set: --train.steps 2000 --model.patchifier.kind spacebyte. All keys are below.

    Ctrl-C saves and says how to continue. Several ranks: torchrun --nproc-per-node N -m patchpad train ...
    """
    place = launched_place()
    settings = source = None
    with told_once(place):
        overrides = parse_fields(fields)
        refuse_stdin(data)
        if resume is None:
            options = {
                "--data": ("data.paths", data),
                "--format": ("data.format", format),
                "--text-field": ("data.text_field", text_field),
                "--init-from": ("train.init_from", init_from),
                "--device": ("train.device", device),
            }
            settings, source = new_settings(config, with_options(overrides, options), data, out)
        elif any((config, data, format, text_field, out, init_from, overrides, device)):
            raise ConfigError(
                "--resume was given with other options; allowed: --resume RUN alone", hint="Leave them out."
            )

    from patchpad.training import trainer
    from patchpad.training.metrics import read_metrics
    from patchpad.training.progress import progress_for_stderr

    with progress_for_stderr() as progress:
        if settings is None:
            assert resume is not None
            run = trainer.resume(resume, progress=progress)
        else:
            assert out is not None
            run = trainer.train(settings, data=data or None, out=out, init_from=source, progress=progress)
    if not place.is_main:
        return
    last = read_metrics(run.path)[-1]
    if json:
        print_json({"run": str(run.path), **last})
    else:
        print_text(
            f"{run.path}: {last['val/bpb']:.4f} bits per byte on held-out text after {last['bytes_seen']:,} bytes"
        )
        command = "calibrate" if run.config.model.trigger.threshold_in_nats else "evaluate"
        first, second = (command_line([word, str(run.path)]) for word in (command, "generate"))
        print_text(f"Next: {first} --data PATH, or {second} --prompt TEXT")


def with_options(overrides: dict[str, str], options: Mapping[str, tuple[str, Any]]) -> dict[str, str]:
    """Returns the keys that are set, those by an option of their own among them.

    Args:
        overrides: values by key.
        options: for each option its key and its value; None where it was not given. The paths of `--data` are left to
            the trainer.

    Raises:
        ConfigError: a key was set in both ways.
    """
    found = dict(overrides)
    for option, (key, value) in options.items():
        if value is None:
            continue
        if key in overrides:
            raise ConfigError(f"{option} and --{key} were both given; they set the same", hint="Leave one of them out.")
        if option != "--data":
            found[key] = strict_json(value)
    return found


def new_settings(
    config: str | None, overrides: dict[str, str], data: list[str] | None, out: Path | None
) -> "tuple[Config, Source | None]":
    """Returns the configuration of a new run, and the model that it starts from.

    Raises:
        ConfigError: it is wrong, has no text to train on where `data` names none, or `out` is missing.
        CheckpointError: no model is where it is to start from.
    """
    sources = []

    def model_of(name: str) -> ModelConfig:
        from patchpad.training.init_from import Source

        sources.append(Source.open(name))
        return sources[0].model_config

    settings = load_config(config, overrides, model_of=model_of)
    needed = (("--data", data or settings.data.all_paths), ("--out", out))
    missing = " and ".join(name for name, value in needed if not value)
    if missing:
        raise ConfigError(f"{missing} is missing", hint="Write: patchpad train --config FILE --data PATH --out RUN")
    return settings, sources[0] if sources else None


def parse_fields(tokens: tuple[str, ...]) -> dict[str, str]:
    """Reads `--section.field VALUE` and `--section.field=VALUE`.

    Raises:
        ConfigError: anything else.
    """
    overrides: dict[str, str] = {}
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        name, has_value, value = token.partition("=")
        key = name.removeprefix("--").replace("-", "_")
        if not name.startswith("--") or key.partition(".")[0] not in SECTIONS or "." not in key:
            if name.startswith("--"):
                raise ConfigError(f"unknown option {name}", hint=near_matches(name, OWN_OPTIONS))
            raise ConfigError(f"unexpected argument {token!r}", hint="Write --data before each path, and quote globs.")
        if not has_value:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"{name} has no value", hint=f"Write {name} VALUE.")
            value = rest.pop(0)
        if key in overrides:
            raise ConfigError(
                f"--{key} was given twice: {overrides[key]!r} and {value!r}", hint="Leave one of them out."
            )
        overrides[key] = value
    return overrides
