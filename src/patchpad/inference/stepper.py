"""What prefill, step and the engine ask of a model, whatever its kind."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.config import SEPARATOR
from patchpad.inference.reports import SlotFacts
from patchpad.inference.row_state import RowState
from patchpad.inference.span import Extension
from patchpad.inference.transfers import on_device
from patchpad.model.language_model import LanguageModel


@runtime_checkable  # so that tests can check annotations
class Stepper(Protocol):
    """Steps a model in three phases, each for some rows of a batch, so that rows can go their own way.

    `read` an id and decide, `refresh` by a trunk call where a patch ends or a scratchpad fires, `predict` the next id.
    The state is a working copy, see `RowState`: after an exception, a step begins again from the state it was made of.
    """

    @property
    def model(self) -> LanguageModel:
        """The model, in eval mode."""
        ...

    def prefill(
        self, prompts: list[bytes], threshold: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch vocab"], RowState]:
        """Reads prompts in one pass; returns the logits of each row's next id, and the state.

        Args:
            prompts: one per row; a separator is put before each.
            threshold: scratchpad threshold of each row, in nats.
        """
        ...

    def begin_documents(self, state: Any, rows: Int[Tensor, " row"]) -> None:
        """Prepares `rows` to read a separator next.

        Args:
            state: a clone, not just a working copy: its caches are written into where the state that it is of may read.
            rows: ascending.
        """
        ...

    def read(
        self, state: Any, rows: Int[Tensor, " row"], ids: Int[Tensor, " row"], threshold: Float[Tensor, " row"]
    ) -> Bool[Tensor, " row"]:
        """Reads one id in each of `rows`; returns which of them need the trunk before they can predict.

        Args:
            state: of this model.
            rows: different rows of the state, ascending.
            ids: 0 to the model's `highest_id`; a separator only after `begin_documents`, or in a row that leaves.
            threshold: scratchpad threshold of each of `rows`, in nats.
        """
        ...

    def slot_facts(self, state: Any, rows: Int[Tensor, " row"], needs_trunk: Bool[Tensor, " row"]) -> SlotFacts:
        """Returns what the last `read` told of the ids in `rows`.

        Args:
            state: that `read` has left.
            rows: that it was given.
            needs_trunk: what it returned.
        """
        ...

    def refresh(self, state: Any, rows: Int[Tensor, " row"]) -> None:
        """Runs the trunk for `rows`, ascending; there may be none."""
        ...

    def predict(self, state: Any, rows: Int[Tensor, " row"]) -> Float[Tensor, "row vocab"]:
        """Returns the logits of the next id in each of `rows`, ascending, once per id that was read."""
        ...

    def encode(self, text: bytes) -> list[int]:
        """Returns the ids of a text, as if a new one began before and after it; no separator is among them."""
        ...

    def extend(self, state: Any, next_ids: Sequence[Sequence[int]], threshold: Float[Tensor, " batch"]) -> Extension:
        """Reads many ids of each row in one pass, as so many steps would.

        Args:
            state: of this model, with at least one row.
            next_ids: of each row, some of them possibly none, but not of all; 0 to the model's `highest_id`, and no
                separator.
            threshold: scratchpad threshold of each row, in nats.
        """
        ...


@torch.inference_mode()
def step_all(
    stepper: Stepper, state: RowState, ids: Int[Tensor, " batch"], threshold: Float[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch vocab"], RowState]:
    """Runs the three phases for all rows of a state.

    Args:
        stepper: of the model.
        state: left as it is; the step happens when it becomes the working copy that is returned.
        ids: one per row, on the CPU.
        threshold: scratchpad threshold of each row, in nats.

    Returns:
        Logits of each row's next id, and the working copy.
    """
    device, values = stepper.model.device, ids.tolist()
    begins = [row for row, value in enumerate(values) if value == SEPARATOR]
    if begins:
        working = state.clone()
        stepper.begin_documents(working, on_device(begins, device, torch.int64))
    else:
        working = state.working_copy()
    rows = torch.arange(len(values), device=device)
    needs_trunk = stepper.read(working, rows, on_device(values, device, torch.int64), threshold)
    stepper.refresh(working, rows[needs_trunk])
    return stepper.predict(working, rows), working
