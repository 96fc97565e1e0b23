"""What the machine itself can do, measured beside the models: matrix products, copies and reads; and peak memory."""

import math
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import as_rows, time_interleaved

PRODUCT = "product"
READ_COLUMNS = 4096
DATA_SHEET_BF16_FLOPS = {
    "H200": 989.4e12,
    "H100 NVL": 835.5e12,
    "H100 PCIe": 756e12,
    "H100": 989.4e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
    "L4": 121e12,
}
"""Dense bf16 FLOP/s by a part of the card's name, from the makers' data sheets; the first that fits counts."""

LEAST_FLOPS = {"cpu": 4e9, "cuda": 4e12}
"""A timed product is repeated until it has done as much."""
Shape = tuple[int, int, int]
"""Rows, inner width and columns of a matrix product."""


@dataclass(frozen=True)
class Work:
    """Something to time, and how much it does."""

    task: Callable[[], object]
    flops: float = 0.0
    moved_bytes: float = 0.0


def compute_dtype(device: str) -> torch.dtype:
    """Returns the type in which a model computes: bf16 on CUDA, fp32 on the CPU."""
    return torch.bfloat16 if device == "cuda" else torch.float32


def products(shapes: Sequence[Shape], device: str, least_flops: float | None = None) -> dict[str, Work]:
    """Returns matrix products of the given shapes, by a name that begins with `PRODUCT`.

    Args:
        shapes: of the products.
        device: "cpu" or "cuda".
        least_flops: a timed product is repeated until it has done as much; default: by the device.
    """
    least_flops = LEAST_FLOPS[device] if least_flops is None else least_flops
    return {f"{PRODUCT} {' x '.join(map(str, shape))}": _product(shape, device, least_flops) for shape in shapes}


def _product(shape: Shape, device: str, least_flops: float) -> Work:
    rows, inner, columns = shape
    options = {"device": device, "dtype": compute_dtype(device)}
    left, right = torch.randn(rows, inner, **options), torch.randn(inner, columns, **options)
    flops = 2 * rows * inner * columns
    repeats = math.ceil(least_flops / flops)
    # A CPU would fetch new memory for each result; on CUDA torch keeps it at hand.
    given = {} if device == "cuda" else {"out": torch.empty(rows, columns, **options)}

    def task() -> None:
        for _ in range(repeats):
            torch.mm(left, right, **given)

    return Work(task, flops=repeats * flops)


def copy(num_bytes: int, device: str) -> Work:
    """Returns the copy of a buffer, which moves its bytes twice: they are read, and they are written."""
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    return Work(lambda: target.copy_(source), moved_bytes=2 * 4 * len(source))


def read(num_bytes: int, device: str) -> Work:
    """Returns the product of a matrix with a vector, which reads the matrix once."""
    matrix = torch.ones(max(1, num_bytes // 4 // READ_COLUMNS), READ_COLUMNS, device=device)
    vector = torch.ones(READ_COLUMNS, device=device)
    return Work(lambda: torch.mv(matrix, vector), moved_bytes=4 * matrix.numel())


def work_rows(works: Mapping[str, Work], *, repeats: int, device: str, **facts: Any) -> list[dict[str, Any]]:
    """Times works in turn; returns a row of a result file for each, with what a run of it does."""
    runs = time_interleaved({name: work.task for name, work in works.items()}, repeats=repeats, device=device)
    rows = as_rows(runs, **facts)
    for row in rows:
        work = works[row["name"]]
        row |= {"flops": work.flops, "moved_bytes": work.moved_bytes}
    return rows


def data_sheet_flops(card: str) -> float | None:
    """Returns the bf16 FLOP/s that the card's maker states; None for a card that is not listed."""
    return next((flops for part, flops in DATA_SHEET_BF16_FLOPS.items() if part in card), None)


def resident_bytes() -> int:
    """Returns the resident memory of this process."""
    return _status("VmRSS")


def peak_resident_bytes() -> int:
    """Returns the most resident memory that this process has had.

    The kernel's counter of this process's own memory: `ru_maxrss` of a child starts at its parent's.
    """
    return _status("VmHWM")


def _status(key: str) -> int:
    """Reads an entry of /proc/self/status; elsewhere, the peak of getrusage."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak() -> None:
    """Lets `peak_resident_bytes` count from now on, where the kernel can."""
    counter = Path("/proc/self/clear_refs")
    if counter.exists():
        counter.write_text("5")


def cache_bytes() -> int | None:
    """Returns the size of the CPU's largest cache, as the system gives it; None where it does not."""
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    known = [size.read_text().strip() for size in sizes]
    return max((int(size[:-1]) * {"K": 2**10, "M": 2**20}[size[-1]] for size in known), default=None)
