"""Parameters, FLOPs, cache bytes and training memory of a model from its configuration alone; torch-free."""

from patchpad.config import PARTS
from patchpad.cost.costs import DTYPE_BYTES, Cost, PartCost
from patchpad.cost.devices import Devices
from patchpad.cost.fitting import Plan, fewest_devices, fitted, plan
from patchpad.cost.memory import TrainingMemory, training_memory
from patchpad.cost.rates import default_rates
from patchpad.cost.whole_model import cost, count_parameters, scheduled_cost

__all__ = [
    "DTYPE_BYTES",
    "PARTS",
    "Cost",
    "Devices",
    "PartCost",
    "Plan",
    "TrainingMemory",
    "cost",
    "count_parameters",
    "default_rates",
    "fewest_devices",
    "fitted",
    "plan",
    "scheduled_cost",
    "training_memory",
]
