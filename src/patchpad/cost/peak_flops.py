"""Peak arithmetic of accelerators, for MFU: the share of it that training uses. Torch-free."""

import re

PEAK_FLOPS_PER_SECOND = {
    r"NVIDIA A100[- ].*": 312e12,
    r"NVIDIA A800[- ].*": 312e12,
    r"NVIDIA A30": 165e12,
    r"NVIDIA A40": 149.7e12,
    r"NVIDIA A10": 125e12,
    r"NVIDIA L4": 121e12,
    r"NVIDIA L40": 181.05e12,
    r"NVIDIA L40S": 362.05e12,
    r"NVIDIA H100 PCIe": 756e12,
    r"NVIDIA H100 NVL": 835.5e12,
    r"NVIDIA H100( 80GB HBM3)?": 989.4e12,
    r"NVIDIA H800": 989.4e12,
    r"NVIDIA H20": 148e12,
    r"NVIDIA H200 NVL": 835.5e12,
    r"NVIDIA H200": 989.4e12,
    r"NVIDIA GH200 .*": 989.4e12,
    r"NVIDIA B200": 2250e12,
    r"NVIDIA GB200": 2500e12,
    r"AMD Instinct MI300X.*": 1307.4e12,
    r"AMD Instinct MI325X.*": 1307.4e12,
}
"""Pattern of the name that `torch.cuda.get_device_name` gives -> dense bf16 FLOPs per second, multiply and add as 2.

From the makers' datasheets of each product (NVIDIA A100, A30, A40, A10, L4, L40, L40S, H100, H200, GH200, DGX B200,
GB200 NVL72; AMD Instinct MI300X, MI325X). Where they give the rate for sparse matrices alone, this is half of it. A
device that is not here, or a slice of one (MIG), has no known peak.
"""


def peak_flops_per_second(device_name: str) -> float | None:
    """Returns the dense bf16 FLOPs per second of a device by its name; None where they are not known."""
    if "MIG" in device_name:
        return None
    return next((peak for name, peak in PEAK_FLOPS_PER_SECOND.items() if re.fullmatch(name, device_name)), None)
