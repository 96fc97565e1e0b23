"""What transformers hands from call to call as the model's cache: our states of all rows, and where they stand."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchpad.config import SEPARATOR
from patchpad.inference.blocks import read_prompts, read_with_logits
from patchpad.inference.row_state import RowState
from patchpad.inference.stepper import Stepper
from patchpad.inference.transfers import on_device


class RowCache:
    """The state of each row, which reading more ids moves on in place.

    The prompts are read when the state is first asked for, so that a full pass whose cache nobody uses costs nothing
    more.

    Args:
        stepper: of the model.
        documents: returns what the newest document of each row holds so far; called when that is to be read.
        threshold: scratchpad threshold of each row, at which these were read.
        length: positions that the caller has given so far, padding included.
    """

    is_compileable = False
    is_linear = (False,)
    """What transformers asks of a cache: it does not forget, so ids that it has read are not given again."""

    def __init__(
        self, stepper: Stepper, documents: Callable[[], list[bytes]], threshold: Float[Tensor, " batch"], *, length: int
    ) -> None:
        self._stepper = stepper
        self._documents, self._threshold = documents, threshold
        self._length = length
        self._state: RowState | None = None
        self._newest: Float[Tensor, "batch vocab"] | None = None

    @property
    def state(self) -> RowState:
        """The state of all rows, as `patchpad.step` and `patchpad.extend` take it."""
        if self._state is None:
            logits, self._state = read_prompts(self._stepper, self._documents(), self._threshold)
            self._newest = logits.clone()  # out of inference mode
        return self._state

    @property
    def newest_logits(self) -> Float[Tensor, "batch vocab"]:
        """What each row predicts after all that it has read."""
        assert self.state is not None
        assert self._newest is not None
        return self._newest

    @property
    def num_rows(self) -> int:
        """Rows of the batch."""
        return len(self._threshold) if self._state is None else len(self._state.ints)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Returns how many positions the caller has given so far, padding included; the name is that of transformers.

        Args:
            layer_idx: ignored: all layers have read the same.
        """
        return self._length

    def read(
        self, new_ids: Sequence[Sequence[int]], threshold: Float[Tensor, " batch"], *, num_positions: int
    ) -> Float[Tensor, "batch entry vocab"]:
        """Reads more ids of each row.

        Args:
            new_ids: of each row, padding left out; a row may have none.
            threshold: scratchpad threshold of each row from here on.
            num_positions: that the caller gave them in.

        Returns:
            Logits: entry 0 is what a row predicted before, entry n what it predicts after its n-th new id. Behind a
            row's last id the entries mean nothing.
        """
        before = self.newest_logits
        most = max(map(len, new_ids))
        if most > 1 and not any(SEPARATOR in row for row in new_ids):
            entries = self._extend(new_ids, threshold)
        else:
            columns = [self._step([row[n : n + 1] for row in new_ids], threshold) for n in range(most)]
            entries = torch.stack(columns, dim=1) if columns else before[:, None][:, :0]
        self._length += num_positions
        return torch.cat((before[:, None], entries), dim=1)

    def _extend(
        self, new_ids: Sequence[Sequence[int]], threshold: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch width vocab"]:
        """Reads bytes of all rows at once, very many in blocks."""
        before, state = self.newest_logits, self.state
        entries, after = read_with_logits(self._stepper, state, new_ids, threshold)
        entries = entries.clone()  # out of inference mode
        last = on_device([len(ids) - 1 for ids in new_ids], entries.device, torch.int64)
        newest = entries[torch.arange(len(entries), device=entries.device), last.clamp_min(0)]
        state.become(after)
        self._newest = torch.where(last[:, None] >= 0, newest, before)
        return entries

    def _step(
        self, new_ids: Sequence[Sequence[int]], threshold: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch vocab"]:
        """Reads at most one id of each row; rows without one stay where they are, and cost nothing."""
        state, stepper = self.state, self._stepper
        found = [(row, *ids) for row, ids in enumerate(new_ids) if ids]
        if not found:
            return self.newest_logits
        begins = [row for row, value in found if value == SEPARATOR]
        device = stepper.model.device
        rows, ids = (on_device(values, device, torch.int64) for values in zip(*found, strict=True))
        with torch.inference_mode():
            working = state.clone() if begins else state.working_copy()
            if begins:
                stepper.begin_documents(working, on_device(begins, device, torch.int64))
            needs_trunk = stepper.read(working, rows, ids, threshold[rows])
            stepper.refresh(working, rows[needs_trunk])
            logits = stepper.predict(working, rows)
        newest = logits.clone()
        self._newest = newest if len(found) == len(new_ids) else self.newest_logits.index_put((rows,), newest)
        state.become(working)
        return self._newest

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Gives each row the state of the row that it goes on from, as beams do."""
        rows = beam_idx.tolist()
        if rows != list(range(self.num_rows)):
            self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps the given rows, in the given order; a row may come more than once."""
        newest = self.newest_logits
        self._state = self.state.select(indices)
        self._newest = newest[indices.to(newest.device)]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Makes so many rows of each one."""
        rows = torch.arange(self.num_rows).repeat_interleave(repeats)
        self.batch_select_indices(rows)

    def __deepcopy__(self, memo: dict[int, Any]) -> "RowCache":
        """Copies the states; the model stays the same."""
        twin = copy.copy(self)
        if self._state is not None and self._newest is not None:
            twin._state, twin._newest = self._state.clone(), self._newest.clone()
        return twin


__all__ = ["RowCache"]
