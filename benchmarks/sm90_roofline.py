"""The time that an H100 would need at the least for the launches of a graph: an estimate, not a timing."""

from collections.abc import Iterable
from dataclasses import dataclass

GENERATED, PRODUCT, ATTENTION, LIBRARY = "generated", "product", "attention", "library"
"""Kinds of launches: Inductor's own kernels, matrix products, FlexAttention (generated too), other library calls."""


@dataclass(frozen=True)
class Launch:
    """One kernel, or one call of a library, in a compiled graph."""

    kind: str
    is_backward: bool
    num_bytes: int
    """Inductor's `get_read_write_buffers_sizes`: each buffer once, as a whole where one is read by index."""
    flops: float
    """Inductor's `estimate_flops`; of FlexAttention, those of the blocks that it visits."""
    is_fp32: bool
    """Whether a product multiplies numbers in fp32."""
    name: str


PRODUCT_FLOPS = 650e12
"""FLOP/s of large bf16 products in practice; the data sheet says 989e12."""
FP32_FLOPS = 50e12
"""The same of fp32 products, which use no tensor cores; the data sheet says 67e12."""
BANDWIDTH = 2.85e12
"""Bytes per second in practice; the data sheet says 3.35e12."""
LEAST_SECONDS = 2e-6
"""Of any launch."""
ATTENTION_FLOPS = {False: 400e12, True: 300e12}
"""FLOP/s of FlexAttention, forward and backward, over whole blocks."""
LEAST_ATTENTION_SECONDS = {False: 5e-6, True: 10e-6}
PEAK_FLOPS = 989e12
"""What a share of the peak (MFU) is of: dense bf16 by the data sheet."""


def seconds(launch: Launch) -> float:
    """Returns the time of a launch: that of its FLOPs or of its bytes, whichever is longer."""
    rate, least = PRODUCT_FLOPS, LEAST_SECONDS
    if launch.kind == ATTENTION:
        rate, least = ATTENTION_FLOPS[launch.is_backward], LEAST_ATTENTION_SECONDS[launch.is_backward]
    elif launch.is_fp32:
        rate = FP32_FLOPS
    return max(launch.flops / rate, launch.num_bytes / BANDWIDTH, least)


def total_seconds(launches: Iterable[Launch]) -> float:
    """Returns the time of launches one after another."""
    return sum(seconds(launch) for launch in launches)
