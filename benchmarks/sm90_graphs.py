"""What Inductor generates for a function: its kernels, with bytes and FLOPs by its own metrics, or their cubins."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from sm90_roofline import ATTENTION, GENERATED, LIBRARY, PRODUCT, Launch
from torch._inductor import ir, metrics
from torch._inductor.codecache import PyCodeCache
from torch._inductor.graph import GraphLowering
from torch._inductor.runtime.triton_heuristics import CachingAutotuner
from torch._inductor.scheduler import BaseSchedulerNode, NopKernelSchedulerNode


@dataclass(frozen=True)
class Graph:
    """A compiled graph, forward or backward."""

    is_backward: bool
    launches: list[Launch]
    num_generated: int
    """Inductor's `generated_kernel_count`."""
    num_bytes: int
    """Inductor's `num_bytes_accessed`."""
    code: str


class NothingRunsError(Exception):
    """Is raised where compiled code would begin to run."""


Blocks = Mapping[tuple[int, int], int]
"""Blocks of FlexAttention that are visited, by batch and number of queries."""
BLOCK = 128


def compiled_graphs(
    function: Callable[..., Any],
    *arguments: Any,
    blocks: Blocks | None = None,
    dynamic: bool | None = False,
    options: dict[str, Any] | None = None,
) -> list[Graph]:
    """Compiles a function as one graph, with its backward pass if there is one.

    Args:
        function: of fake tensors.
        *arguments: its arguments.
        blocks: what FlexAttention visits, by shape; needed where the function attends with it.
        dynamic: of `torch.compile`; None where sizes of the arguments are marked as dynamic.
        options: of `torch.compile`.

    Returns:
        The forward graph, then the backward one.
    """
    graphs: list[Graph] = []
    torch._dynamo.reset()
    with _collecting(graphs, {} if blocks is None else blocks), contextlib.suppress(NothingRunsError):
        torch.compile(function, fullgraph=True, dynamic=dynamic, options=options)(*arguments)
    return graphs


@contextlib.contextmanager
def _collecting(graphs: list[Graph], blocks: Blocks) -> Iterator[None]:
    def compile_to_module(lowering: GraphLowering) -> Any:
        before = metrics.generated_kernel_count
        code, _ = lowering.codegen()
        graphs.append(
            Graph(
                is_backward=lowering.is_backward,
                launches=[
                    _launch(node, lowering.is_backward, blocks) for node in lowering.scheduler.nodes if _launches(node)
                ],
                num_generated=metrics.generated_kernel_count - before,
                num_bytes=lowering.count_bytes()[0],
                code=code.value,
            )
        )
        return SimpleNamespace(call=_run_nothing, runner=None, __file__="")

    with mock.patch.object(GraphLowering, "compile_to_module", compile_to_module):
        yield


def _run_nothing(*_: Any) -> None:
    raise NothingRunsError


def _launches(node: BaseSchedulerNode) -> bool:
    """Whether a node starts anything: not an empty one, nor one that names an output of another."""
    return not isinstance(node, NopKernelSchedulerNode) and not isinstance(node.node, ir.MultiOutput)


def _launch(node: BaseSchedulerNode, is_backward: bool, blocks: Blocks) -> Launch:
    flops: float = node.estimate_flops() or 0
    kind, is_fp32, name = GENERATED, False, node.get_name()
    attends = [origin for origin in _origins(node) if "flex_attention" in str(origin.target)]
    if node.is_template() and attends:
        kind, flops = ATTENTION, _attention_flops(attends[0], is_backward, blocks)
    elif node.is_extern():
        kernel = node.node
        assert isinstance(kernel, ir.ExternKernel)
        name = str(kernel.python_kernel_name)
        kind = PRODUCT if name.startswith("extern_kernels.") else LIBRARY
        is_fp32 = kind == PRODUCT and kernel.inputs[0].get_dtype() == torch.float32
    return Launch(
        kind=kind,
        is_backward=is_backward,
        num_bytes=node.get_read_write_buffers_sizes(),
        flops=flops,
        is_fp32=is_fp32,
        name=name,
    )


def _origins(node: BaseSchedulerNode) -> list[torch.fx.Node]:
    return [origin for part in node.get_nodes() if part.node is not None for origin in part.node.get_origins()]


def _attention_flops(call: torch.fx.Node, is_backward: bool, blocks: Blocks) -> float:
    """Products of the blocks visited, two forward and five backward, each of queries x keys x head_dim."""
    batch, heads, queries, head_dim = call.args[0].meta["val"].shape
    return (10 if is_backward else 4) * blocks[batch, queries] * BLOCK * BLOCK * heads * head_dim


@dataclass(frozen=True)
class Cubin:
    """A kernel as machine code for the card."""

    name: str
    num_bytes: int
    num_warps: int
    shared_bytes: int
    has_tensor_cores: bool
    num_local_stores: int
    """Instructions that store to local memory: registers that do not fit, or the exact path of sine and cosine."""


DEFINITION = re.compile(r"async_compile\.triton\('(?P<name>\w+)', '''(?P<code>.*?)'''", re.DOTALL)


def cubins(graphs: Sequence[Graph]) -> list[Cubin]:
    """Compiles every generated kernel of some graphs, those of FlexAttention included, with triton and its ptxas.

    Where a kernel has several configurations to try, the first is compiled.
    """
    found = []
    for graph in graphs:
        for definition in DEFINITION.finditer(graph.code):
            with mock.patch.object(CachingAutotuner, "precompile", _precompile):
                kernel = getattr(PyCodeCache.load(definition["code"]), definition["name"])
                kernel.precompile()
            compiled = kernel.compile_results[0].kernel
            assembly = compiled.asm["ptx"]
            found.append(
                Cubin(
                    name=definition["name"],
                    num_bytes=len(compiled.asm["cubin"]),
                    num_warps=compiled.metadata.num_warps,
                    shared_bytes=compiled.metadata.shared,
                    has_tensor_cores="wgmma" in assembly or "mma.sync" in assembly,
                    num_local_stores=assembly.count("st.local"),
                )
            )
    return found


def _precompile(kernel: CachingAutotuner, *_: Any, **__: Any) -> None:
    kernel.configs = kernel.configs[:1]
    kernel._precompile_worker()
