"""How the module of a plug-in is found and imported, and what is said where that fails. Torch-free by itself."""

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from patchpad.errors import PluginError, near_matches, quoted
from patchpad.registry import REGISTRIES, given_plugins, installed, loading, registered_by

MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
PACKAGE = Path(__file__).parent


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
        raise PluginError(
            f"the plug-in {plugin} cannot be loaded: {_described(error)}{_line_of(error)}",
            hint="Fix the plug-in, or leave it out. --debug shows where the error comes from.",
        ) from error


def _forget(name: str, loaded_before: set[str]) -> None:
    """Removes a module that failed, and those beside it that it imported, so that all can be loaded again."""
    folders = [finder.folder for finder in sys.meta_path if isinstance(finder, FolderFinder)]
    for new in set(sys.modules) - loaded_before:
        file = getattr(sys.modules[new], "__file__", None)
        if new == name or (file and str(Path(file).parent) in folders):
            del sys.modules[new]


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


def fault_of_plugin(error: BaseException) -> tuple[str, str] | None:
    """Returns what to say of an error that a loaded plug-in raised while it was used: the error, and what to do.

    None where the error comes from elsewhere: the last frame that is patchpad's or a plug-in's decides.
    """
    plugins = {}
    for registry in REGISTRIES:
        for one in registry.registered.values():
            module = sys.modules.get(getattr(getattr(one.target, "run", one.target), "__module__", ""))
            plugins[getattr(module, "__file__", None)] = one.plugin
    fault, trace = None, error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file in plugins:
            fault = (
                f"the plug-in {plugins[file]} failed: {_described(error)} ({Path(file).name}, line {trace.tb_lineno})"
            )
        elif Path(file).is_relative_to(PACKAGE):
            fault = None
        trace = trace.tb_next
    return None if fault is None else (fault, "Fix the plug-in; patchpad.testing can check it. --debug shows all.")


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'it has no message'}"


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
    file = Path(f"{name.replace('.', '/')}.py")
    if "." in name and file.is_file():  # in a folder without __init__.py
        return f"Give the path of the file: --plugin {quoted(file)}"
    here = [path.stem for path in Path.cwd().glob("*.py")]
    close = near_matches(name, [*here, *installed()])
    return close if close.startswith("Did") else "Give the name of a module, or the path of a .py file."


__all__ = ["FolderFinder", "fault_of_plugin", "load"]
