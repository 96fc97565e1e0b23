"""Parameters, FLOPs, cache bytes and training memory of a model from its configuration alone; torch-free."""

from patchpad.config import PARTS
from patchpad.cost.costs import DTYPE_BYTES, Cost, PartCost
from patchpad.cost.memory import TrainingMemory, fitted, training_memory
from patchpad.cost.rates import default_rates
from patchpad.cost.whole_model import cost, count_parameters

__all__ = [
    "DTYPE_BYTES",
    "PARTS",
    "Cost",
    "PartCost",
    "TrainingMemory",
    "cost",
    "count_parameters",
    "default_rates",
    "fitted",
    "training_memory",
]
