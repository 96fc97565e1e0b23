"""Plug-ins: patchifiers, triggers, tasks and trackers from your own modules. Does not import torch.

    from patchpad.patching import Patchifier
    from patchpad.plugins import register_patchifier

    @register_patchifier("sentences")
    class SentencePatchifier(Patchifier):
        ...

Such a module is loaded by `--plugin MODULE`, by `patchpad.plugins.load("MODULE")`, by a plain import, or as an entry
point of an installed package. A checkpoint has only the names, and never imports anything.
"""

import dataclasses
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from patchpad.errors import PluginError
from patchpad.plugin_loading import load
from patchpad.registry import PATCHIFIERS, TASK_KINDS, TASKS, TRACKERS, TRIGGERS, Registry, installed, plugin_of

_Target = TypeVar("_Target")


def register_patchifier(name: str) -> Callable[[type[_Target]], type[_Target]]:
    """Registers a class derived from `patchpad.patching.Patchifier`, which `model.patchifier.kind` may then name."""
    return _registering(PATCHIFIERS, name, "patchpad.patching:Patchifier", ("natural_ends",))


def register_trigger(name: str) -> Callable[[type[_Target]], type[_Target]]:
    """Registers a class derived from `patchpad.patching.Trigger`, which `model.trigger.kind` may then name."""
    return _registering(TRIGGERS, name, "patchpad.patching:Trigger", ("scores",))


def register_tracker(name: str) -> Callable[[type[_Target]], type[_Target]]:
    """Registers a class with the methods of `patchpad.training.tracking.Tracker`, for `train.trackers`."""

    def register(target: type[_Target]) -> type[_Target]:
        plugin = _plugin_of(target)
        _require_class(target, name, "tracker", plugin)
        methods = ("start", "log", "text", "close")
        lacking = [method for method in methods if not callable(getattr(target, method, None))]
        if lacking:
            raise PluginError(
                f"{plugin} registers {target.__qualname__} as the tracker `{name}`, which lacks {', '.join(lacking)}",
                hint="Write the methods of patchpad.training.tracking.Tracker.",
            )
        TRACKERS.add(name, target, plugin=plugin)
        return target

    return register


def register_task_kind(
    name: str,
    definition: type,
    *,
    takes: Literal["scorer", "model"] = "scorer",
    check: Callable[..., None] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function that runs tasks of a kind, which `kind` in the file of a task may then name.

    Args:
        name: of the kind.
        definition: a dataclass derived from `patchpad.tasks.definition.Task`: the keys of the files.
        takes: what the function is called with after the task and its rows: a `Scorer` or the model itself.
        check: called with the task, its rows and the options; raises what is wrong with them before anything is run.
    """

    def register(run: Callable[..., Any]) -> Callable[..., Any]:
        plugin = _plugin_of(run)
        base, kind = (getattr(importlib.import_module("patchpad.tasks.definition"), name) for name in ("Task", "Kind"))
        is_task = isinstance(definition, type) and issubclass(definition, base) and dataclasses.is_dataclass(definition)
        if not is_task or "__dataclass_fields__" not in vars(definition):
            raise PluginError(
                f"{plugin} registers the kind of task `{name}` with the definition {definition!r}; allowed: a "
                "dataclass derived from patchpad.tasks.definition.Task",
                hint="Write @dataclass(frozen=True, kw_only=True) before `class ...(Task)`.",
            )
        if not callable(run) or isinstance(run, type):
            raise PluginError(
                f"{plugin} registers {run!r} as the kind of task `{name}`; allowed: a function (task, rows, scorer or "
                "model, options) that returns a TaskResult",
                hint="Put the decorator before the function.",
            )
        if takes not in ("scorer", "model"):
            raise PluginError(f"{plugin}: takes is {takes!r}; allowed: scorer, model", hint="Change it.")
        TASK_KINDS.add(name, kind(definition, run, check, takes), plugin=plugin)
        return run

    return register


def register_task(name: str, path: str | Path) -> None:
    """Registers the file of a task, which `--task` and suites may then name.

    Args:
        name: of the task.
        path: of its YAML file; best `Path(__file__).parent / "name.yaml"`.

    Raises:
        PluginError: no such file, or a name that is taken.
    """
    frame = sys._getframe(1)
    plugin = plugin_of(frame.f_globals.get("__name__", "__main__"), frame.f_globals.get("__file__"))
    file = Path(path).resolve()
    if file.suffix not in (".yaml", ".yml") or not file.is_file():
        raise PluginError(
            f"{plugin} registers the task `{name}` with {file}; allowed: a YAML file that is there",
            hint="Write Path(__file__).parent / ... for a file beside the plug-in.",
        )
    TASKS.add(name, str(file), plugin=plugin)


def _registering(
    registry: Registry, name: str, place: str, methods: tuple[str, ...]
) -> Callable[[type[_Target]], type[_Target]]:
    def register(target: type[_Target]) -> type[_Target]:
        plugin = _plugin_of(target)
        _require_class(target, name, registry.what, plugin)
        module, _, attribute = place.partition(":")
        base = getattr(importlib.import_module(module), attribute)
        if not issubclass(target, base):
            raise PluginError(
                f"{plugin} registers {target.__qualname__} as the {registry.what} `{name}`; allowed: a class derived "
                f"from {module}.{attribute}",
                hint=f"Write class {target.__name__}({attribute}).",
            )
        if inspect.isabstract(target):
            raise PluginError(
                f"{plugin} registers {target.__qualname__} as the {registry.what} `{name}`, which lacks "
                f"{', '.join(sorted(target.__abstractmethods__))}",
                hint=f"Write {' and '.join(methods)}, see docs/plugins.md.",
            )
        if target.threshold_in_nats and not hasattr(target, "scores"):
            raise PluginError(
                f"{plugin} registers {target.__qualname__} as the {registry.what} `{name}`, with threshold_in_nats and "
                "without a score; allowed: a class derived from patchpad.patching.ScoringPatchifier",
                hint=f"Write class {target.__name__}(ScoringPatchifier), or leave threshold_in_nats out.",
            )
        _check_options(target, plugin)
        registry.add(name, target, plugin=plugin)
        return target

    return register


def _require_class(target: Any, name: str, what: str, plugin: str) -> None:
    if not isinstance(target, type):
        raise PluginError(
            f"{plugin} registers {target!r} as the {what} `{name}`; allowed: a class",
            hint="Put the decorator before a class.",
        )


def _check_options(target: Any, plugin: str) -> None:
    """Checks that the options of a class are a dataclass with defaults, of types that configurations have."""
    options = target.Options
    if options is None:
        return
    where = f"{plugin}: {target.__qualname__}.Options"
    if not (isinstance(options, type) and dataclasses.is_dataclass(options)):
        raise PluginError(f"{where} is {options!r}; allowed: a dataclass, or None", hint="Write @dataclass before it.")
    checks = importlib.import_module("patchpad.config.checks")
    conversion = importlib.import_module("patchpad.config.conversion")
    for item in dataclasses.fields(options):
        factory = item.default_factory
        if item.default is dataclasses.MISSING and factory is dataclasses.MISSING:
            raise PluginError(
                f"{where}.{item.name} has no default; allowed: options with defaults", hint="Give it one."
            )
        try:
            default = item.default if factory is dataclasses.MISSING else factory()
            conversion.convert(checks.field_types(options)[item.name], default, item.name)
        except (KeyError, TypeError, AttributeError, NameError) as error:
            raise PluginError(
                f"{where}.{item.name} has the type {item.type!r}; allowed: int, float, str, bool, Literal, "
                "tuple[..., ...], dict[str, ...], and any of these or None",
                hint="Change its type.",
            ) from error


def _plugin_of(target: Any) -> str:
    module = getattr(target, "__module__", None) or "__main__"
    return plugin_of(module, getattr(sys.modules.get(module), "__file__", None))


__all__ = [
    "installed",
    "load",
    "register_patchifier",
    "register_task",
    "register_task_kind",
    "register_tracker",
    "register_trigger",
]
