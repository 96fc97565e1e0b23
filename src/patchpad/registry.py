"""Names of what can be chosen in a configuration: those that are built in, and those that plug-ins register.

Torch-free: a built-in target is text, `module:attribute`, and is imported when it is asked for. Installed plug-ins are
imported when a name is asked for that nothing else knows. Which plug-ins these are is decided by what is installed, and
never by a configuration or a checkpoint.
"""

import contextlib
import importlib
import logging
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import resources
from typing import Any

from patchpad.errors import ConfigError, MissingPluginError, PluginError, near_matches

logger = logging.getLogger(__name__)

GROUP = "patchpad.plugins"
"""The group of entry points by which an installed package offers plug-ins."""
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
WORDS_OF_YAML = ("null", "true", "false", "inf", "nan")
"""Names that a configuration would not read as text."""
CHANGE_IT = "Change the value where it is set: in the file, on the command line or in Python."


@dataclass(frozen=True)
class Registered:
    """What a plug-in has registered under a name."""

    target: Any
    plugin: str
    """What `--plugin` takes to load it: a module, or the name of a file."""


class Registry:
    """One table of names.

    Args:
        what: is registered, for messages: `patchifier`.
        built_in: name -> `module:attribute`, or the path of a file, or what gives that when it is called.
    """

    def __init__(self, what: str, built_in: Mapping[str, str] | Callable[[], Mapping[str, str]]) -> None:
        self.what = what
        self._built_in = built_in
        self.registered: dict[str, Registered] = {}
        """What plug-ins have registered, by its name."""
        REGISTRIES.append(self)

    @property
    def built_in(self) -> Mapping[str, str]:
        """The names that are built in, with where each target is."""
        return self._built_in() if callable(self._built_in) else self._built_in

    def names(self) -> list[str]:
        """Returns the names that are built in, and then those of the plug-ins that are loaded."""
        return [*self.built_in, *sorted(self.registered)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.built_in or name in self.registered

    def knows(self, name: str) -> bool:
        """Whether a name can be used; installed plug-ins are loaded to find out, if no other one has it."""
        if name not in self:
            load_installed()
        return name in self

    def get(self, name: str) -> Any:
        """Returns what a name stands for. For a task, that is the path of its file.

        Raises:
            ConfigError: the name is unknown.
        """
        if not self.knows(name):
            raise ConfigError(f"there is no {self.what} `{name}`", hint=near_matches(name, self))
        if name in self.registered:
            return self.registered[name].target
        place = self.built_in[name]
        module, _, attribute = place.partition(":")
        return place if self is TASKS else getattr(importlib.import_module(module), attribute)

    def of_plugin(self, name: str) -> Registered | None:
        """Returns what a plug-in has registered under a name; None for a name that is built in, or that none has."""
        return None if name in self.built_in else self.registered.get(name)

    def require(self, name: str, where: str, plugin: str | None = None) -> None:
        """Requires that a name is known.

        Args:
            name: as a configuration has it.
            where: it stands: `model.patchifier.kind`.
            plugin: that it came from when the configuration was saved; it is named in the error, and never imported.

        Raises:
            MissingPluginError: it is not known, and came from a plug-in.
            ConfigError: it is not known.
        """
        if self.knows(name):
            return
        if plugin is not None:
            raise MissingPluginError(
                f"`{where}` is {name!r}, a {self.what} of the plug-in {plugin!r}, which is not loaded", plugin=plugin
            )
        close = near_matches(name, self)
        raise ConfigError(
            f"`{where}` is {name!r}; allowed: {', '.join(self)}",
            hint=f"{close if close.startswith('Did') else CHANGE_IT} A name of a plug-in needs --plugin MODULE.",
        )

    def add(self, name: str, target: Any, *, plugin: str) -> None:
        """Takes in what a plug-in registers.

        The same class may come again, as when a cell of a notebook or a module is run once more.

        Args:
            name: by which a configuration names it.
            target: what it stands for.
            plugin: that registers it.

        Raises:
            PluginError: a name that cannot be one, is built in, or is another plug-in's.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name) or name.lower() in WORDS_OF_YAML:
            raise PluginError(
                f"{plugin} registers a {self.what} as {name!r}; allowed: letters, digits, - and _, a letter first",
                hint="Give it another name.",
            )
        if name in self.built_in:
            raise PluginError(
                f"{plugin} registers the {self.what} `{name}`, and that name is built in", hint="Give it another name."
            )
        before = self.registered.get(name)
        if before is not None and _place(before.target) != _place(target):
            raise PluginError(
                f"the {self.what} `{name}` is registered twice: by {before.plugin} as {_shown(before.target)}, and by "
                f"{plugin} as {_shown(target)}",
                hint="Load one of the two, or rename one of them.",
            )
        self.registered[name] = Registered(target, plugin)


REGISTRIES: list[Registry] = []
"""All of them."""

_PATCHING = "patchpad.patching"
PATCHIFIERS = Registry(
    "patchifier",
    {
        "fixed": f"{_PATCHING}.patchifiers:FixedPatchifier",
        "spacebyte": f"{_PATCHING}.patchifiers:SpaceBytePatchifier",
        "entropy": f"{_PATCHING}.patchifiers:EntropyPatchifier",
        "hnet": f"{_PATCHING}.patchifiers:HNetPatchifier",
        "tokens": f"{_PATCHING}.patchifiers:TokensPatchifier",
    },
)
"""What `model.patchifier.kind` may be."""
TRIGGERS = Registry(
    "trigger",
    {
        "entropy": f"{_PATCHING}.triggers:EntropyTrigger",
        "never": f"{_PATCHING}.triggers:ConstantTrigger",
        "always": f"{_PATCHING}.triggers:ConstantTrigger",
        "random": f"{_PATCHING}.triggers:RandomTrigger",
        "stride": f"{_PATCHING}.triggers:StrideTrigger",
        "whitespace": f"{_PATCHING}.triggers:WhitespaceTrigger",
        "entropy_jump": f"{_PATCHING}.triggers:EntropyJumpTrigger",
        "ending_entropy": f"{_PATCHING}.triggers:EndingEntropyTrigger",
    },
)
"""What `model.trigger.kind` may be."""
TRACKERS = Registry(
    "tracker",
    {
        "tensorboard": "patchpad.training.tracking:TensorBoardTracker",
        "wandb": "patchpad.training.tracking:WandbTracker",
        "trackio": "patchpad.training.tracking:TrackioTracker",
    },
)
"""What `train.trackers` may name."""
TASK_KINDS = Registry(
    "kind of task",
    {
        name: f"patchpad.tasks.{name}:KIND"
        for name in ("choices", "code", "completion", "continuation", "parallel", "generation")
    },
)
"""What `kind` in the file of a task may be."""


def _definitions() -> dict[str, str]:
    """Returns the files of the tasks that ship with the package."""
    folder = resources.files("patchpad").joinpath("tasks", "definitions")
    files = (entry for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {entry.name.removesuffix(".yaml"): str(entry) for entry in sorted(files, key=lambda entry: entry.name)}


TASKS = Registry("task", _definitions)
"""What `--task` and suites may name; all stand for files."""


def _place(target: Any) -> Any:
    """Returns what tells a target that is registered again from another one."""
    function = target if isinstance(target, type) or callable(target) else getattr(target, "run", None)
    return target if function is None else (function.__module__, function.__qualname__)


def _shown(target: Any) -> str:
    place = _place(target)
    return place[1] if isinstance(place, tuple) else str(place)


given_plugins: list[str] = []
"""Modules that `--plugin` or `patchpad.plugins.load` was given, as they were written."""
_loading: ContextVar[str | None] = ContextVar("loading", default=None)
_installed_state = {"is_loaded": False}


def plugin_of(module: str, file: str | None = None) -> str:
    """Returns the plug-in that registers something now: the one that is being loaded, else the module itself.

    Args:
        module: that the target is defined in.
        file: of that module, for a script, whose module is `__main__`.
    """
    loading = _loading.get()
    if loading is not None:
        return loading
    return re.split(r"[/\\]", file)[-1] if module == "__main__" and file else module


@contextlib.contextmanager
def loading(plugin: str) -> Iterator[None]:
    """While this lasts, what is registered is the plug-in's. If it fails, nothing of the plug-in stays registered."""
    before = [(registry, dict(registry.registered)) for registry in REGISTRIES]
    token = _loading.set(plugin)
    try:
        yield
    except BaseException:
        for registry, registered in before:
            registry.registered = registered
        raise
    finally:
        _loading.reset(token)


def command_line(words: Sequence[str]) -> str:
    """Returns a command of patchpad as a shell reads it, with the plug-ins that were loaded for this one.

    Args:
        words: the command and what follows it.
    """
    options = [word for module in given_plugins for word in ("--plugin", module)]
    return shlex.join(["patchpad", *words[:1], *options, *words[1:]])


def registered_by(plugin: str) -> list[Registered]:
    """Returns all that a plug-in has registered."""
    return [one for registry in REGISTRIES for one in registry.registered.values() if one.plugin == plugin]


def installed() -> dict[str, str]:
    """Returns module -> package of the installed plug-ins. Nothing of them is imported."""
    from importlib.metadata import entry_points

    found = sorted(entry_points(group=GROUP), key=lambda point: (point.value, point.name))
    return {point.module: point.dist.name if point.dist else "?" for point in found}


def load_installed() -> None:
    """Imports the installed plug-ins, once. One that fails is named in a warning, and does no more harm."""
    if _installed_state["is_loaded"]:
        return
    _installed_state["is_loaded"] = True
    for module, package in installed().items():
        try:
            with loading(module):
                importlib.import_module(module)
        except (Exception, SystemExit) as error:
            reason = " ".join(str(error).split()) or "it has no message"
            logger.warning(
                "the plug-in %s of the installed package %s cannot be loaded (%s: %s); continuing without it",
                *(module, package, type(error).__name__, reason),
            )


__all__ = [
    "GROUP",
    "PATCHIFIERS",
    "REGISTRIES",
    "TASKS",
    "TASK_KINDS",
    "TRACKERS",
    "TRIGGERS",
    "Registered",
    "Registry",
    "command_line",
    "given_plugins",
    "installed",
    "load_installed",
    "loading",
    "plugin_of",
    "registered_by",
]
