"""`patchpad train`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from patchpad.cli.options import Json
from patchpad.cli.streams import print_json, print_text, refuse_stdin
from patchpad.config import Config, load_config
from patchpad.config.model import NATS_TRIGGERS
from patchpad.errors import ConfigError, near_matches, quoted

SECTIONS = ("model", "data", "train")
OWN_OPTIONS = ("--config", "--data", "--out", "--resume", "--device", "--json", "--help")


def train(
    *fields: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[
        str | None,
        Parameter(help="Name of a preset (see `patchpad configs`) or a YAML file. Default: the defaults."),
    ] = None,
    data: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            allow_leading_hyphen=True,
            help="File, glob or directory to train on; may be repeated. Default: the configuration's paths.",
        ),
    ] = None,
    out: Annotated[Path | None, Parameter(help="Run directory to make; must be absent or empty.")] = None,
    resume: Annotated[Path | None, Parameter(help="Run to go on with; needs nothing else.")] = None,
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda, cuda:N or mps.")] = None,
    json: Json = False,
) -> None:
    """Train a model on text as it is: plain files, JSONL, .gz, .bz2, .xz, or a directory.

    Any key of the configuration can be set: --train.steps 2000 --model.patchifier.kind spacebyte. All keys are below.

    Ctrl-C saves and says how to go on.
    """
    overrides = parse_fields(fields)
    settings = None
    refuse_stdin(data)
    if resume is None:
        settings = new_settings(config, overrides, data, out, device)
    elif config or data or out or overrides or device:
        raise ConfigError("--resume was given with other options; allowed: --resume RUN alone", hint="Leave them out.")

    from patchpad.training import trainer
    from patchpad.training.metrics import read_metrics
    from patchpad.training.progress import progress_for_stderr

    with progress_for_stderr() as progress:
        if settings is None:
            assert resume is not None
            run = trainer.resume(resume, progress=progress)
        else:
            assert out is not None
            run = trainer.train(settings, data=data or None, out=out, progress=progress)
    last = read_metrics(run.path)[-1]
    if json:
        print_json({"run": str(run.path), **last})
    else:
        print_text(
            f"{run.path}: {last['val/bpb']:.4f} bits per byte on held-out text after {last['bytes_seen']:,} bytes"
        )
        command = "calibrate" if run.config.model.trigger.kind in NATS_TRIGGERS else "evaluate"
        shown = quoted(run.path)
        print_text(f"Next: patchpad {command} {shown} --data PATH, or patchpad generate {shown} --prompt TEXT")


def new_settings(
    config: str | None, overrides: dict[str, str], data: list[str] | None, out: Path | None, device: str | None
) -> Config:
    """Returns the configuration of a new run.

    Raises:
        ConfigError: it is wrong, has no text to train on where `data` names none, or `out` is missing.
    """
    for option, key, value in (("--device", "train.device", device), ("--data", "data.paths", data)):
        if value and key in overrides:
            raise ConfigError(f"{option} and --{key} were both given; they set the same", hint="Leave one of them out.")
    if device is not None:
        overrides = {**overrides, "train.device": device}
    settings = load_config(config, overrides)
    given = (("--data", data or settings.data.paths), ("--out", out))
    missing = " and ".join(name for name, value in given if not value)
    if missing:
        raise ConfigError(f"{missing} is missing", hint="Write: patchpad train --config FILE --data PATH --out RUN")
    return settings


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
