"""Plug-ins: patchifiers, triggers, tasks and trackers from modules of one's own. Torch-free by itself.

    from patchpad.patching import Patchifier
    from patchpad.plugins import register_patchifier

    @register_patchifier("sentences")
    class SentencePatchifier(Patchifier):
        ...

Such a module is loaded by `--plugin MODULE`, by `patchpad.plugins.load("MODULE")`, by a plain import, or as an entry
point of an installed package. A checkpoint knows the names alone, and never causes an import.
"""

import dataclasses
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

from patchpad.errors import PluginError, near_matches
from patchpad.registry import (
    PATCHIFIERS,
    REGISTRIES,
    TASK_KINDS,
    TASKS,
    TRACKERS,
    TRIGGERS,
    Registry,
    given_plugins,
    installed,
    loading,
    plugin_of,
    registered_by,
)

_Target = TypeVar("_Target")
MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class FolderFinder:
    """Finds top-level modules of a folder after all others, so that a file there never hides an installed module.

    Folders without an `__init__.py` are not modules here: that of a run may be called as a library is.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Returns where a module is; None where the folder does not have it."""
        found = PathFinder.find_spec(name, [self.folder]) if path is None else None
        return found if found is not None and found.loader is not None and found.origin else None


def load(*modules: str | Path) -> None:
    """Loads plug-ins, as `--plugin` does. One that is loaded already is left as it is.

    Args:
        modules: names of modules that are installed or lie in the working folder, or paths of `.py` files.

    Raises:
        PluginError: no such module, an error while it is imported, a module that registers nothing, or a name that is
            taken. Nothing of that module stays registered.
    """
    importlib.invalidate_caches()  # the file may be new
    for module in modules:
        text = str(module)
        if text.endswith(".py") or isinstance(module, Path) or "/" in text or "\\" in text:
            _load_file(Path(module))
        else:
            _load_module(text)
        if text not in given_plugins:
            given_plugins.append(text)


def _load_module(name: str) -> None:
    if not MODULE.fullmatch(name):
        raise PluginError(
            f"--plugin is {name!r}; allowed: the name of a module, such as my_patches, or the path of a .py file",
            hint=_near_files(name),
        )
    _find_in(Path.cwd())
    _import(name, name, lambda: importlib.import_module(name))


def _load_file(path: Path) -> None:
    if path.suffix != ".py" or not path.is_file():
        raise PluginError(
            f"--plugin is {path}, and there is no such file; allowed: the path of a .py file, or the name of a module",
            hint=_near_files(path.stem),
        )
    path = path.resolve()
    for module in list(sys.modules.values()):
        origin = getattr(module, "__file__", None)
        if origin and module.__name__ != "__main__" and Path(origin).resolve() == path:
            return
    _find_in(path.parent)
    name = path.stem
    if not MODULE.fullmatch(name) or name in sys.modules or not _is_the_file(name, path):
        name = "patchpad_plugin_" + re.sub(r"\W", "_", path.stem)
        while name in sys.modules:
            name += "_"

    def run() -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    _import(path.name, name, run)


def _is_the_file(name: str, path: Path) -> bool:
    """Whether a plain import of the name would give the file, and not another module."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == path


def _import(plugin: str, name: str, run: Callable[[], ModuleType]) -> None:
    """Imports a plug-in, and checks that it registers something."""
    if name in sys.modules and _registers(sys.modules[name], plugin):
        return
    loaded_before = set(sys.modules)
    try:
        with loading(plugin):
            module = run()
            if not _registers(module, plugin):
                raise PluginError(
                    f"the plug-in {plugin} registers nothing; it was read from {getattr(module, '__file__', '?')}",
                    hint=f"Is it another module of that name? Then give the path: --plugin ./{name}.py. Else use the "
                    "decorators of patchpad.plugins in it.",
                )
    except PluginError:
        _forget(name, loaded_before)
        raise
    except (Exception, SystemExit) as error:
        _forget(name, loaded_before)
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise PluginError(
                f"there is no module {name!r} to load as a plug-in, neither installed nor in {Path.cwd()}",
                hint=_near_files(name),
            ) from error
        reason = " ".join(str(error).split()) or "it has no message"
        raise PluginError(
            f"the plug-in {plugin} cannot be loaded: {type(error).__name__}: {reason}{_line_of(error)}",
            hint="Fix the plug-in, or leave it out. --debug shows where the error comes from.",
        ) from error


def _forget(name: str, loaded_before: set[str]) -> None:
    """Removes a module that failed, so that it can be loaded again."""
    if name not in loaded_before:
        sys.modules.pop(name, None)


def _line_of(error: BaseException) -> str:
    """Returns the line of the plug-in in which an error was raised, where the error does not say so itself."""
    if isinstance(error, SyntaxError):
        return ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<") and file not in (__file__, importlib.__file__):
            return f" ({Path(file).name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return ""


def _registers(module: ModuleType, plugin: str) -> bool:
    """Whether something is registered that is the plug-in's, or that lies in its module."""
    own = [value for value in vars(module).values() if isinstance(value, type) or callable(value)]
    targets = [one.target for registry in REGISTRIES for one in registry.registered.values()]
    functions = [getattr(target, "run", target) for target in targets]
    return bool(registered_by(plugin)) or any(one is value for one in (*targets, *functions) for value in own)


def _find_in(folder: Path) -> None:
    """Lets modules of a folder be imported, after all others."""
    finders: Any = sys.meta_path
    if not any(isinstance(finder, FolderFinder) and finder.folder == str(folder) for finder in finders):
        finders.append(FolderFinder(str(folder)))


def _near_files(name: str) -> str:
    """Returns a hint with the names of Python files here and of installed plug-ins that are spelt alike."""
    here = [path.stem for path in Path.cwd().glob("*.py")]
    close = near_matches(name, [*here, *installed()])
    return close if close.startswith("Did") else "Give the name of a module, or the path of a .py file."


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
