"""A study's YAML file: arms, each a configuration, trained from several seeds on the same bytes. Torch-free."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from patchpad.config import Config, DataConfig, build_section, read_preset_or_file, read_yaml
from patchpad.config.run import merged
from patchpad.errors import ConfigError, MissingPluginError, near_matches, quoted

BUNDLED = "bundled"
"""As the only path of a text: the novels that ship with the package, one of them held out."""
ARM_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True, kw_only=True)
class TextFields:
    """A text to train and measure on."""

    paths: tuple[str, ...] = ()
    """Files, globs or directories to train on, from the working folder; empty: to be given with --data."""
    validation_paths: tuple[str, ...] = ()
    """Held-out files; empty: a part of `paths`, see `split_corpus`."""
    references: tuple[str, ...] = ()
    """Arms that the others on this text are compared with, seed by seed; empty: its first arm."""


@dataclass(frozen=True, kw_only=True)
class BaseFields:
    """What arms start from."""

    config: str = ""
    """Name of a preset, or a file, relative to the study's own; empty: the defaults."""
    model: dict[str, Any] = field(default_factory=dict)
    """What differs from it in the model."""
    train: dict[str, Any] = field(default_factory=dict)
    """What differs from it in training."""


@dataclass(frozen=True, kw_only=True)
class EvaluationFields:
    """What every arm is measured on."""

    bytes: int = 1_000_000
    """About how many held-out bytes, in windows spread over all documents; 0: all."""
    scratchpads_per_byte: tuple[float, ...] = (1 / 16, 1 / 8, 3 / 16, 1 / 4, 1 / 2)
    """Rates at which arms are measured whose trigger has a threshold in nats."""


@dataclass(frozen=True, kw_only=True)
class ArmFields:
    """One arm."""

    name: str
    """Also names its folders and files."""
    text: str = ""
    """One of the study's texts; empty: the first."""
    seeds: tuple[int, ...] = ()
    """Its own seeds; empty: the study's."""
    bytes_seen: int | None = None
    """Its own budget; None: the study's."""
    tier: int = 1
    """Arms of tier 1 are trained before those of tier 2."""
    exploratory: bool = False
    """Marked in every table: a hint, no claim."""
    base: BaseFields | None = None
    """Replaces the study's base."""
    model: dict[str, Any] = field(default_factory=dict)
    """What differs from the base in the model."""
    train: dict[str, Any] = field(default_factory=dict)
    """What differs from the base in training."""


@dataclass(frozen=True, kw_only=True)
class StudyFields:
    """The keys of a study's file."""

    name: str
    """Heads the report."""
    text: str = ""
    """What the study asks; opens the report."""
    bytes_seen: int
    """Bytes of training that each arm sees; the steps follow from it."""
    seeds: tuple[int, ...] = (0,)
    """Each sets initialisation and data order; arms share the order of a seed."""
    data: dict[str, TextFields]
    """Named texts; the first is the default."""
    base: BaseFields = field(default_factory=BaseFields)
    """What arms start from."""
    evaluation: EvaluationFields = field(default_factory=EvaluationFields)
    """What every arm is measured on."""
    arms: tuple[ArmFields, ...]
    """In the order of the tables."""


@dataclass(frozen=True, kw_only=True)
class ArmRun:
    """An arm with a seed: one training run."""

    arm: ArmFields
    seed: int
    text: str
    """Name of its text."""
    config: Config
    """Complete but for the data."""

    @property
    def name(self) -> str:
        """Names its run folder and its result file."""
        return f"{self.arm.name}-seed{self.seed}"

    @property
    def bytes_seen(self) -> int:
        """Bytes that its steps hold when all rows are full."""
        return self.config.train.steps * bytes_per_step(self.config)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A checked study."""

    path: Path
    fields: StudyFields
    runs: tuple[ArmRun, ...]
    """In the order of training: by tier, then seed after seed, so that a stopped study has whole comparisons."""

    def references(self, text: str) -> tuple[str, ...]:
        """Returns the arms that the others on a text are compared with."""
        on_text = tuple(arm.name for arm in self.fields.arms if self.text_of(arm) == text)
        return self.fields.data[text].references or on_text[:1]

    def text_of(self, arm: ArmFields) -> str:
        """Returns the name of an arm's text."""
        return arm.text or next(iter(self.fields.data))


def bytes_per_step(config: Config) -> int:
    """Returns the bytes of an optimizer step whose rows are full."""
    return config.train.batch_rows * config.train.accumulation_steps * config.model.context_bytes


def load_study(path: str | Path) -> Study:
    """Reads a study's file.

    Raises:
        ConfigError: the file is missing or no YAML, a key or value is wrong, or names do not fit.
    """
    path = Path(path)
    values = read_yaml(path, allowed="the keys of a study", hint="Give a file as those in configs/studies/.")
    fields = build_section(StudyFields, values, str(path))
    _check_names(fields, str(path))
    runs = []
    for arm in fields.arms:
        config = _arm_config(fields, arm, path)
        for seed in arm.seeds or fields.seeds:
            seeded = replace(config, train=replace(config.train, seed=seed))
            runs.append(ArmRun(arm=arm, seed=seed, text=arm.text or next(iter(fields.data)), config=seeded))
    order = {arm.name: number for number, arm in enumerate(fields.arms)}
    runs.sort(key=lambda run: (run.arm.tier, run.seed, order[run.arm.name]))
    return Study(path=path, fields=fields, runs=tuple(runs))


def _check_names(fields: StudyFields, source: str) -> None:
    if not fields.data or not fields.arms or not fields.seeds:
        raise ConfigError(f"{source}: `data`, `arms` or `seeds` is empty; allowed: at least one each", hint="Add one.")
    _require_at_least(f"{source}: `evaluation.bytes`", fields.evaluation.bytes, 0)
    for rate in fields.evaluation.scratchpads_per_byte:
        if not 0 < rate < 1:
            where = f"{source}: `evaluation.scratchpads_per_byte` holds {rate}"
            raise ConfigError(f"{where}; allowed: numbers above 0 and below 1", hint="Change it.")
    names = [arm.name for arm in fields.arms]
    for arm in fields.arms:
        where = f"{source}: arm `{arm.name}`"
        if not ARM_NAME.fullmatch(arm.name):
            raise ConfigError(
                f"{where} cannot name a folder; allowed: small letters, digits, dots, dashes", hint="Rename it."
            )
        if names.count(arm.name) > 1:
            raise ConfigError(f"{where} is used twice; allowed: each name once", hint="Rename one of them.")
        if arm.text and arm.text not in fields.data:
            raise ConfigError(f"{where}: unknown text `{arm.text}`", hint=near_matches(arm.text, fields.data))
        seeds = arm.seeds or fields.seeds
        if len(set(seeds)) < len(seeds):
            raise ConfigError(f"{where} has the seeds {list(seeds)}; allowed: each once", hint="Leave one out.")
        _require_at_least(f"{where}: a seed", min(seeds), 0)
        _require_at_least(f"{where}: `bytes_seen`", fields.bytes_seen if arm.bytes_seen is None else arm.bytes_seen, 1)
    for name, text in fields.data.items():
        on_text = [arm.name for arm in fields.arms if (arm.text or next(iter(fields.data))) == name]
        for reference in text.references:
            if reference not in on_text:
                where = f"{source}: `data.{name}.references`"
                raise ConfigError(
                    f"{where} names no arm on that text: `{reference}`", hint=near_matches(reference, on_text)
                )


def _require_at_least(where: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{where} is {value}; allowed: an integer of at least {least}", hint="Change it.")


def _arm_config(fields: StudyFields, arm: ArmFields, path: Path) -> Config:
    """Merges base and arm, and derives the steps from the bytes."""
    base = arm.base or fields.base
    layers: list[Mapping[str, Any]] = []
    if base.config:
        hint = f"Change `base.config` in {quoted(path)}: a preset's name, or a file relative to the study's own."
        given = read_preset_or_file(base.config, folder=path.parent, hint=hint)
        layers.append({key: value for key, value in given.items() if key != "data"})
    layers += [{"model": base.model, "train": base.train}, {"model": arm.model, "train": arm.train}]
    values: dict[str, Any] = {}
    source = f"{path}: arm `{arm.name}`"
    for layer in layers:
        values = merged(values, layer)
    for key, reason in (("seed", "seeds"), ("steps", "bytes_seen")):
        if key in {**base.train, **arm.train}:
            raise ConfigError(f"{source}: `train.{key}` is set", hint=f"Leave it out: it follows from `{reason}`.")
    try:
        config = Config.from_dict(values, source=source)
    except MissingPluginError:
        raise
    except ConfigError as error:
        named = error.message if error.message.startswith(source) else f"{source}: {error.message}"
        raise ConfigError(named, hint=error.hint) from error
    num_bytes = fields.bytes_seen if arm.bytes_seen is None else arm.bytes_seen
    return replace(config, train=replace(config.train, steps=math.ceil(num_bytes / bytes_per_step(config))))


def choose_runs(study: Study, arms: Sequence[str] = (), seeds: Sequence[int] = ()) -> tuple[ArmRun, ...]:
    """Returns the runs of some arms and seeds; without any, all.

    Raises:
        ConfigError: an unknown arm, or a seed that none of them has.
    """
    names = [arm.name for arm in study.fields.arms]
    for name in arms:
        if name not in names:
            raise ConfigError(f"{study.path} has no arm `{name}`", hint=near_matches(name, names))
    of_arms = [run for run in study.runs if not arms or run.arm.name in arms]
    known = {run.seed for run in of_arms}
    for seed in seeds:
        if seed not in known:
            allowed = " ".join(map(str, sorted(known)))
            raise ConfigError(f"no arm has the seed {seed}; allowed: {allowed}", hint="Change --seeds.")
    return tuple(run for run in of_arms if not seeds or run.seed in seeds)


def with_data(study: Study, data: Sequence[str], validation_data: Sequence[str]) -> dict[str, DataConfig]:
    """Returns the files of each text: those of the study, or those given on the command line.

    Args:
        study: its texts may name files.
        data: `PATH` for the first text, `NAME=PATH` for another.
        validation_data: the same, held out.
    """
    names = list(study.fields.data)
    given: dict[str, dict[str, list[str]]] = {name: {} for name in names}
    for key, paths in (("paths", data), ("validation_paths", validation_data)):
        for path in paths:
            name, has_name, rest = path.partition("=")
            text, place = (name, rest) if has_name and name in names else (names[0], path)
            given[text].setdefault(key, []).append(place)
    found = {}
    for name, text in study.fields.data.items():
        paths, held_out = text.paths, text.validation_paths
        if given[name]:  # files of the command line never mix with those of the study
            paths, held_out = (tuple(given[name].get(key, ())) for key in ("paths", "validation_paths"))
        found[name] = DataConfig(paths=paths, validation_paths=held_out)
    return found
