"""A plain step starts few operations: a small model spends most of its time on starting them."""

from collections import Counter
from copy import deepcopy

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from patchpad.inference import kernels
from patchpad.inference.patch_stepper import PatchStepper
from patchpad.testing import random_documents, sharp_model, tiny_model_config

LAYERS = {"encoder_layers": 2, "entropy_head_layers": 0, "trunk_layers": 4, "decoder_layers": 2}
MOST_OPERATIONS = {"read": 145, "refresh": 204, "predict": 103}
"""Of each phase, for a single row of a model with n-grams and the layers above. They may become fewer; where a change
needs more, its commit says what for."""


class CountsOperations(TorchDispatchMode):
    """Counts what is started under it, views included."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.counts[str(function)] += 1
        return function(*arguments, **(options or {}))


def test_a_plain_step_of_one_row_starts_no_more_operations_than_it_did():
    model = sharp_model(tiny_model_config("fixed", "entropy", **LAYERS))
    stepper, threshold, rows = PatchStepper(model), torch.zeros(1), torch.arange(1)
    _, state = stepper.prefill(random_documents(1, [20]), threshold)
    state.make_room()
    state = deepcopy(state)  # whose tensors belong to no inference mode, which would hide what an operation starts
    phases = {
        "read": lambda: kernels.read(model, state, rows, torch.tensor([65]), threshold),
        "refresh": lambda: kernels.refresh(model, state, rows),
        "predict": lambda: kernels.predict(model, state, rows),
    }
    for phase, run in phases.items():
        with torch.no_grad(), CountsOperations() as mode:
            run()
        assert mode.counts.total() <= MOST_OPERATIONS[phase], (phase, mode.counts.most_common())
