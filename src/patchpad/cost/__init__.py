"""Parameters, FLOPs and cache bytes of a model from its configuration alone; torch-free."""

from patchpad.cost.patch_model import DTYPE_BYTES, PARTS, Cost, PartCost, cost, count_parameters, default_rates

__all__ = ["DTYPE_BYTES", "PARTS", "Cost", "PartCost", "cost", "count_parameters", "default_rates"]
