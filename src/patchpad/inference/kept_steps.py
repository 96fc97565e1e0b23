"""Compiled kernels of a step that are kept in files, so that the next process need not trace and compile them again.

torch's own cache keeps the machine code. Without these files a process still traces the model, which takes most of the
wait at the start. A file is used again only where all that its code was made from is the same: the model but for the
values of its weights, the shapes of the state, patchpad, torch, the processor, and torch's settings.
"""

import copy
import functools
import hashlib
import io
import logging
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from patchpad.files import write_atomically
from patchpad.inference.patch_state import DecodingState
from patchpad.model.byte_lm import ByteLM
from patchpad.model.compilation import CACHE_VARIABLE, choose_cache, compiled_copy, first_words
from patchpad.version import __version__

logger = logging.getLogger(__name__)

FOLDER = "patchpad-steps"
"""In the folder in which torch keeps what it has compiled."""
DIGEST_BYTES = 32
"""Of the SHA-256 of the rest, which a file begins with."""
PLAIN_TYPES = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


@dataclass
class KeptKernel:
    """A compiled kernel from a file.

    Args:
        loaded: what torch has loaded: a function with guards, which say whether it fits its arguments.
        decisions: of the model that it was loaded for, see `decisions_of`.
    """

    loaded: Any
    decisions: Any

    def fits(self, model: ByteLM, *arguments: Any) -> bool:
        """Whether the code is right for these arguments: types, shapes and decisions are those it was made for."""
        return decisions_of(model) == self.decisions and self.loaded.guard_check(model, *arguments)

    def __call__(self, *arguments: Any) -> Any:
        """Calls the kernel; the arguments must fit."""
        return self.loaded(*arguments)


def decisions_of(model: ByteLM) -> tuple[Any, ...]:
    """Returns what decides patches and scratchpads, which may be set anew between two steps."""
    trigger, patchifier = model.trigger, model.patchifier
    return type(trigger), vars(trigger).copy(), type(patchifier), vars(patchifier).copy()


def kept_kernel(
    plain: Callable[..., Any],
    model: ByteLM,
    state: DecodingState,
    inputs: Sequence[Tensor],
    *,
    mark_sizes: Callable[[DecodingState, Sequence[Tensor]], None],
    **options: Any,
) -> KeptKernel | None:
    """Returns a kernel from its file; if there is none, compiles it and writes the file.

    It returns None where that cannot be: not every torch can keep such functions, and code of plug-ins or hooks may
    change without notice. `torch.compile` then does it as usual.

    Args:
        plain: the kernel.
        model: on a CPU.
        state: of the first call.
        inputs: the other arguments of the first call.
        mark_sizes: marks the sizes of a state and inputs that may change.
        options: of `torch.compile`.
    """
    choose_cache()
    folder = os.environ.get(CACHE_VARIABLE)
    if folder is None or not hasattr(torch.compiler, "load_compiled_function"):
        return None
    try:
        key = key_of(plain, model, state, inputs, options)
        if key is None:
            return None
        path = Path(folder) / FOLDER / f"{plain.__name__}-{key[:32]}.bin"
        content = _read(path)
        loaded = None if content is None else _loaded(content, plain, path)
        if loaded is None:
            content = _compiled(plain, model, state, inputs, mark_sizes, options)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, hashlib.sha256(content).digest() + content)
            loaded = _loaded(content, plain, path)
    except Exception as error:  # whatever goes wrong in a part of torch that may still change, there is another way
        logger.debug("cannot keep the compiled %s (%s); it is compiled as usual", plain.__name__, first_words(error))
        return None
    return None if loaded is None else KeptKernel(loaded, decisions_of(model))


def _read(path: Path) -> bytes | None:
    """Returns what follows the digest in a file; None for no file, and for a damaged one, with a warning."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("cannot read %s (%s); the phase is compiled again", path, error.strerror)
        return None
    if hashlib.sha256(content[DIGEST_BYTES:]).digest() != content[:DIGEST_BYTES]:
        logger.warning("%s is damaged; the phase is compiled again", path)
        return None
    return content[DIGEST_BYTES:]


def _loaded(content: bytes, plain: Callable[..., Any], path: Path) -> Any:
    """Returns what torch makes of a file's content; None, with a warning, if it cannot."""
    try:
        loaded: Any = torch.compiler.load_compiled_function(io.BytesIO(content), f_globals=plain.__globals__)
        loaded.disable_guard_check()  # `KeptKernel.fits` asks the guards
    except Exception as error:
        logger.warning("cannot load %s (%s); the phase is compiled again", path, first_words(error))
        return None
    return loaded


def _compiled(
    plain: Callable[..., Any],
    model: ByteLM,
    state: DecodingState,
    inputs: Sequence[Tensor],
    mark_sizes: Callable[[DecodingState, Sequence[Tensor]], None],
    options: dict[str, Any],
) -> bytes:
    """Compiles a kernel and returns it as bytes. The state and the inputs stay as they are, and without marks."""
    example, inputs = cast(DecodingState, state.clone()), copy.deepcopy(list(inputs))
    mark_sizes(example, inputs)
    options = options | {"options": options["options"] | {"guard_filter_fn": _guards_to_keep}}
    function: Any = compiled_copy(plain, **options)
    compiled = function.aot_compile(((model, example, *inputs), {}))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel"
        compiled.save_compiled_function(str(path))
        return path.read_bytes()


def _guards_to_keep(guards: Sequence[Any]) -> list[bool]:
    """Keeps the guards of shapes; the key of the file and `decisions_of` see to the rest."""
    return [
        guard.guard_type == "SHAPE_ENV" or (guard.guard_type == "TENSOR_MATCH" and not guard.name.startswith("model"))
        for guard in guards
    ]


def key_of(
    plain: Callable[..., Any],
    model: ByteLM,
    state: DecodingState,
    inputs: Sequence[Tensor],
    options: dict[str, Any],
) -> str | None:
    """Returns a hash of everything that compiled code depends on; None if a part of it cannot be known.

    Values of weights are left out: they are arguments of the code.
    """
    facts = model_facts(model)
    if facts is None:
        return None
    from torch._dynamo import config as tracing
    from torch._inductor import config as compiling

    parts = (
        ("code", __version__, sources_digest(), plain.__module__, plain.__qualname__),
        ("torch", torch.__version__, torch.version.git_version, sys.version),
        ("processor", processor_facts(), torch.get_num_threads()),
        ("settings", _settings(tracing), _settings(compiling), _modes()),
        ("options", sorted((name, value) for name, value in options["options"].items() if not callable(value))),
        ("others", sorted((name, value) for name, value in options.items() if name != "options")),
        ("model", facts),
        ("state", [_state_facts(getattr(state, field.name)) for field in fields(state) if field.name != "lease"]),
        ("inputs", [_tensor_facts(part)[:3] for part in inputs], len(state.ints) == 1),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def model_facts(model: ByteLM) -> list[Any] | None:
    """Returns all of a model but the values of its weights; None where code from elsewhere takes part."""
    facts: list[Any] = [repr(model.config)]
    for part in (model.trigger, model.patchifier):
        if not _is_ours(part) or not all(_is_plain(value) for value in vars(part).values()):
            return None
        facts.append((type(part).__qualname__, sorted(vars(part).items())))
    for name, module in model.named_modules():
        if not _is_ours(module) or module._forward_hooks or module._forward_pre_hooks:
            return None
        own = sorted((key, repr(value)) for key, value in vars(module).items() if _is_plain(value))
        facts.append((name, type(module).__module__, type(module).__qualname__, own))
    for kind in (model.named_parameters, model.named_buffers):
        facts += [(name, _tensor_facts(tensor), tensor.stride()) for name, tensor in kind(remove_duplicate=False)]
    return facts


def _is_ours(part: object) -> bool:
    """Whether a part's class is one of patchpad or torch, whose versions are part of the key."""
    return type(part).__module__.split(".")[0] in ("patchpad", "torch") and "forward" not in vars(part)


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(part) for part in value)
    return isinstance(value, PLAIN_TYPES)


def _tensor_facts(tensor: Tensor) -> tuple[Any, ...]:
    kind = (tensor.dtype, str(tensor.device), tensor.dim(), type(tensor).__qualname__)
    return (*kind, tuple(tensor.shape), tensor.requires_grad, tensor.is_inference())


def _state_facts(value: Any) -> Any:
    """Returns types and numbers of dimensions of a part of a state; the guards in the file look at each size."""
    if isinstance(value, Tensor):
        return _tensor_facts(value)[:4], tuple(value.shape[3:] if value.dim() == 4 else value.shape[1:])
    if isinstance(value, tuple | list):
        return [_state_facts(part) for part in value]
    if is_dataclass(value):
        parts = [_state_facts(getattr(value, field.name)) for field in fields(value)]
        return type(value).__qualname__, parts
    return type(value).__qualname__


def _settings(config: Any) -> list[Any]:
    """Returns the settings of a part of torch that are numbers or words, or lists and sets of them."""
    plain = {
        name: sorted(value) if isinstance(value, set) else value for name, value in config.get_config_copy().items()
    }
    return sorted((name, value) for name, value in plain.items() if _is_plain(value))


def _modes() -> tuple[Any, ...]:
    """Returns what else of torch's settings decides which code is made."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.get_default_dtype(),
        str(torch.get_default_device()),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.mkldnn.enabled,
    )


@functools.cache
def processor_facts() -> tuple[str, ...]:
    """Returns what kind of processor this is: compiled code uses all of its instructions."""
    lines = []
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n")[0]
        lines = [line for line in text.splitlines() if line.startswith(("model name", "flags", "Features", "CPU"))]
    except OSError:  # only Linux has it
        pass
    return (sys.platform, platform.machine(), platform.processor(), torch.backends.cpu.get_cpu_capability(), *lines)


@functools.cache
def sources_digest() -> str:
    """Returns a hash of patchpad's source: in a checkout it changes without the version."""
    found = hashlib.sha256()
    folder = Path(__file__).resolve().parents[1]
    for path in sorted(folder.rglob("*.py")):
        found.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()
