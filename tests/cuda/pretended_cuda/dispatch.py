"""Runs one operation of torch on the pretended device: checks devices, notes waits and kernels, computes on the CPU."""

import contextlib
import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

from pretended_cuda.record import device_of, has_values, line_of_package, size_of
from pretended_cuda.tensor import CudaTensor, Device, OnThisThread, placed

NO_KERNEL = {
    *("_unsafe_view", "_reshape_alias", "reshape", "lift_fresh", "is_same_size", "sym_size", "sym_stride", "sym_numel"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_local_scalar_dense", "_has_same_"),
    *("is_pinned", "_pin_memory", "record_stream"),
}
"""Operations that start none, beside views."""
READS_SOME = {"embedding", "index", "gather", "index_select", "_embedding_bag", "_embedding_bag_forward_only"}
"""Operations that read as much of their first argument as they write."""
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
PRODUCTS = {"mm", "bmm", "addmm", "baddbmm"}
COPIES = {"_to_copy", "copy_", "_foreach_copy_"}
WAITS = {
    "_local_scalar_dense": ("value read",),
    "nonzero": ("nonzero",),
    "masked_select": ("masked_select",),
    "_unique": ("unique",),
    "_unique2": ("unique",),
    "unique_dim": ("unique",),
    "unique_consecutive": ("unique",),
    "bincount": ("bincount's least", "bincount's largest"),
    "equal": ("equal",),
}
"""Operations whose result, or its shape, the host has to know."""


class DeviceMixError(RuntimeError):
    """An operation got tensors of the CPU beside some of the device."""


@dataclass(frozen=True)
class Facts:
    """What is known of an operation before it runs."""

    name: str
    is_view: bool
    mutates: bool
    has_aliases: bool
    can_decompose: bool
    starts_kernel: bool


@functools.cache
def facts_of(func: Any) -> Facts:
    """Returns what an operation's schema says."""
    schema = getattr(func, "_schema", None)
    name = func.overloadpacket.__name__ if hasattr(func, "overloadpacket") else str(func)
    has_aliases = schema is not None and any(argument.alias_info is not None for argument in schema.arguments)
    mutates = schema is not None and schema.is_mutable
    is_view = has_aliases and not mutates
    return Facts(
        name=name,
        is_view=is_view,
        mutates=mutates,
        has_aliases=has_aliases,
        can_decompose=hasattr(func, "_can_decompose") and func._can_decompose(),
        starts_kernel=not is_view and name not in NO_KERNEL,
    )


class Arguments:
    """The arguments of an operation, with the tensors behind pretended ones in their place."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.on_device: list[CudaTensor] = []
        self.on_host: list[Tensor] = []
        self.lacks_values = False
        """Whether some tensors have shapes alone."""
        self.args = tuple([self._real(value) for value in args])
        self.kwargs = {key: self._real(value) for key, value in kwargs.items()} if kwargs else {}

    def _real(self, value: Any) -> Any:
        if isinstance(value, CudaTensor):
            self.on_device.append(value)
            host = value.host
            if host.is_meta:
                self.lacks_values = True
            return host
        if isinstance(value, Tensor):
            self.on_host.append(value)
        elif isinstance(value, list | tuple) and value and not isinstance(value[0], int | float):
            return [self._real(part) for part in value]
        return value

    def tensors(self) -> list[Tensor]:
        """Returns all that the operation reads or writes."""
        return [tensor.host for tensor in self.on_device] + self.on_host


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs an operation of torch: the one way to the pretended device."""
    facts = facts_of(func)
    given = Arguments(args, kwargs)
    on_device, on_host = given.on_device, given.on_host
    if facts.can_decompose and _is_for_inference(on_device, on_host):  # it comes whole there
        with OnThisThread():
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
    target = device_of(kwargs.get("device"))
    to_device = target is not None and target.type == "cuda"
    if not on_device and not to_device:
        return func(*args, **kwargs)
    if on_device and on_host:
        _check_mix(facts.name, on_device, on_host)
    _note_waits(facts.name, given, target)
    if to_device:
        given.kwargs["device"] = torch.device("cpu")
    if given.lacks_values:
        if facts.name == "_local_scalar_dense":
            return 1.0 if on_device[0].dtype.is_floating_point else 0
        _forget_values(facts, given)
    if facts.name in COPIES and (copied_later := _copies_later(facts, given, target)) is not None:
        return copied_later
    captures = Device.tape is not None and facts.mutates  # a capture notes what changes anything, and does not run it
    compute = _in_fp32(func) if facts.name in PRODUCTS else SUBSTITUTES.get(facts.name, func)
    made = given.args[0] if captures else compute(*given.args, **given.kwargs)
    if Device.tape is not None:
        Device.tape.append((compute, given.args, given.kwargs, made, facts.mutates))
    if facts.starts_kernel:
        if Device.record.measures:
            _measure_kernel(facts.name, func, given, made)
        else:
            Device.record.kernel(facts.name)
    if facts.name == "_to_copy" and target is not None and target.type == "cpu":
        return made
    return _wrapped(func, facts, args, kwargs, made, on_device)


Device.run = staticmethod(run)


@functools.cache
def _in_fp32(func: Any) -> Any:
    """Returns a matrix product that adds up bf16 in fp32, as CUDA does; a CPU may take ten times as long otherwise."""

    def product(*factors: Tensor, **kwargs: Any) -> Tensor:
        if factors[0].dtype != torch.bfloat16 or not has_values(factors[0]):
            return func(*factors, **kwargs)
        return func(*(factor.float() for factor in factors), **kwargs).to(torch.bfloat16)

    return product


def _efficient_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *_: object, scale: float | None = None
) -> tuple[Tensor, ...]:
    """Computes what CUDA's kernel does, without what it keeps for gradients."""
    assert query.dtype == key.dtype == value.dtype, (query.dtype, key.dtype, value.dtype)
    assert bias is None or bias.dtype == query.dtype, bias.dtype
    floats = (part if part is None else part.float() for part in (query, key, value, bias))
    mixed = F.scaled_dot_product_attention(*floats, scale=scale).to(query.dtype)
    return mixed, *(query.new_empty(0) for _ in range(3))


SUBSTITUTES = {"_scaled_dot_product_efficient_attention": _efficient_attention}
"""Operations of CUDA alone."""


def _is_for_inference(on_device: list[CudaTensor], on_host: list[Tensor]) -> bool:
    return torch.is_inference_mode_enabled() or any(tensor.is_inference() for tensor in (*on_device, *on_host))


def _check_mix(name: str, on_device: list[CudaTensor], on_host: list[Tensor]) -> None:
    if name in COPIES or name in INDEXED:
        return
    if any(tensor.dim() > 0 for tensor in on_host):
        shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (on_device, on_host)]
        raise DeviceMixError(
            f"{name} at {line_of_package()} mixes tensors of cuda:0 {shapes[0]} and of the CPU {shapes[1]}"
        )
    Device.record.odd(f"a number of the CPU in {name}")


def _note_waits(name: str, given: Arguments, target: torch.device | None) -> None:
    for why in WAITS.get(name, ()):
        Device.wait(why)
    if name == "repeat_interleave" and given.kwargs.get("output_size") is None:
        Device.wait(name)
    elif name in INDEXED:
        if given.on_host:
            Device.wait(f"{name} with an index or value of the CPU")
        masks = [part for part in given.args[1] if isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8)]
        fills = name != "index" and len(masks) == 1 and given.args[2].numel() == 1  # becomes `masked_fill_`
        if masks and not fills:
            Device.wait(f"{name} by a bool mask")


def _copies_later(facts: Facts, given: Arguments, target: torch.device | None) -> Tensor | None:
    """Notes a copy between host and device; begins one to the host that does not block, and returns where it goes."""
    if facts.name == "_to_copy":
        is_between = target is not None and (target.type == "cuda") != bool(given.on_device)
        goes_to_host, blocks = bool(given.on_device), not given.kwargs.get("non_blocking")
    else:
        is_between = bool(given.on_device and given.on_host)
        goes_to_host = is_between and given.args[0] is given.on_host[0]
        blocks = not (given.kwargs.get("non_blocking") or (len(given.args) > 2 and given.args[2]))
    if not is_between:
        return None
    if facts.name == "_to_copy" and goes_to_host:
        is_pinned = True  # torch pins what it makes
    else:
        is_pinned = all(tensor.is_pinned() for tensor in given.on_host)
    if blocks or not is_pinned:
        Device.wait("copy to the host" if goes_to_host else "copy to the device" + ("" if blocks else ", not pinned"))
    elif goes_to_host and has_values(given.on_device[0].host) and Device.tape is None:
        values = given.on_device[0].host
        if facts.name == "_to_copy":
            host = torch.empty(values.shape, dtype=given.kwargs.get("dtype") or values.dtype, pin_memory=True)
        else:
            host = given.on_host[0]
        Device.transfers.begin_to_host(host, values.to(host.dtype), line_of_package())
        Device.record.kernel(facts.name, size_of(values))
        return host
    elif not goes_to_host and Device.tape is None:
        for host in given.on_host:
            Device.transfers.begin_to_device(host, line_of_package())
    return None


def _measure_kernel(name: str, func: Any, given: Arguments, made: Any) -> None:
    made_tensors = [part for part in (made if isinstance(made, list | tuple) else (made,)) if isinstance(part, Tensor)]
    written, read = sum(part.numel() * part.element_size() for part in made_tensors), given.tensors()
    if name in READS_SOME:
        moved = 2 * written + sum(size_of(part) for part in read[1:])
    elif name in ("fill_", "zero_"):
        moved = written
    else:
        once = {(part.untyped_storage()._cdata, part.storage_offset(), part.shape): part for part in read}
        moved = written + sum(size_of(part) for part in once.values())
        if name in INDEXED:
            moved *= 2  # it sorts the places, and reads through them
    count = flop_registry.get(getattr(func, "overloadpacket", None))
    flops = count(*given.args, **given.kwargs, out_val=made) if count is not None else 0
    Device.record.kernel(name, moved, flops)


def _forget_values(facts: Facts, given: Arguments) -> None:
    """Moves all arguments to `meta`, where some have no values; a mask's own values still say how many there are."""
    if facts.mutates and given.on_device and has_values(given.on_device[0].host):
        raise RuntimeError(f"{facts.name} at {line_of_package()} writes unknown values (meta) into known ones")
    if facts.name == "index":
        places: list[Any] = []
        for part in given.args[1]:
            is_known_mask = isinstance(part, Tensor) and part.dtype == torch.bool and has_values(part)
            places += part.nonzero().unbind(1) if is_known_mask else [part]
        given.args = (given.args[0], places)
    given.args, given.kwargs = tree_map_only(Tensor, lambda part: part.to("meta"), (given.args, given.kwargs))
    if "device" in given.kwargs:
        given.kwargs["device"] = torch.device("meta")


def _wrapped(
    func: Any, facts: Facts, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any, on_device: list[CudaTensor]
) -> Any:
    """Returns what an operation has made, as tensors of the device."""
    if not facts.has_aliases:
        return _wrap(made)
    if facts.mutates:
        if made is None:
            return None
        if facts.name.endswith("_") and isinstance(made, Tensor) and made.shape == args[0].shape:
            return args[0]
        return return_and_correct_aliasing(func, args, kwargs, _wrap(made))
    # A view of a tensor that was not made for inference is none either.
    stays_normal = torch.is_inference_mode_enabled() and not on_device[0].is_inference()
    with torch.inference_mode(False) if stays_normal else contextlib.nullcontext():
        if isinstance(made, Tensor):
            return _view(made, on_device[0])
        return type(made)(_view(part, on_device[0]) for part in made)


def _wrap(made: Any) -> Any:
    if isinstance(made, Tensor):
        return placed(made)
    if isinstance(made, list | tuple):
        return type(made)(_wrap(part) for part in made)
    return made


def _view(made: Tensor, of: CudaTensor) -> CudaTensor:
    view = CudaTensor(made)
    torch._functionalize_unsafe_set(view, of)
    return view
