"""What the state of every kind of model can do: its rows are copied, chosen and joined."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from patchpad.config import SEPARATOR
from patchpad.errors import InputError
from patchpad.inference.cache import TrunkCache


@dataclass
class RowState:
    """Everything that the next step of each row needs. A step consumes it: use only the state that it returns.

    Subclasses are dataclasses whose fields are tensors with rows first, caches, or None.
    """

    position: Int[Tensor, " batch"]
    """n - start(n) of the newest id."""
    newest_id: Int[Tensor, " batch"]
    trunk: TrunkCache
    trunk_calls: Int[Tensor, " batch"]
    """Positions that the trunk computed since the prefill began."""

    def tensors(self) -> list[Tensor]:
        """Returns all tensors of the state, those of its caches included."""
        found: list[Any] = []
        for part in vars(self).values():
            for value in [part] if isinstance(part, Tensor) or part is None else vars(part).values():
                found += value if isinstance(value, list) else [value]
        return [value for value in found if isinstance(value, Tensor)]

    @torch.inference_mode()
    def clone(self) -> "RowState":
        """Returns an independent copy, for beams and rollback."""
        return self._map(lambda part: part.clone())

    @torch.inference_mode()
    def select(self, rows: Sequence[int] | Int[Tensor, " row"]) -> "RowState":
        """Returns a copy with the given rows, in the given order; a row may come more than once.

        Args:
            rows: their places.

        Raises:
            InputError: no places of rows; a mask of them is none.
        """
        batch = len(self.position)
        index = integers(rows)
        if index is None or index.dim() != 1 or bool(((index < 0) | (index >= batch)).any()):
            raise InputError(
                f"rows is {rows!r}; allowed: a list of places from 0 to {batch - 1}",
                hint="Of a mask, mask.nonzero().flatten() gives the places.",
            )
        index = index.to(self.position.device)
        return self._map(lambda part: part[index] if isinstance(part, Tensor) else part.select(index))

    @classmethod
    @torch.inference_mode()
    def join(cls, states: Sequence["RowState"]) -> "RowState":
        """Returns one state with the rows of all, in order; all must be of the same model."""
        joined: dict[str, Any] = {}
        for field in fields(cls):
            parts = [getattr(state, field.name) for state in states]
            if isinstance(parts[0], Tensor):
                joined[field.name] = torch.cat(parts)
            else:
                joined[field.name] = None if parts[0] is None else type(parts[0]).join(parts)
        return cls(**joined)

    def _map(self, change: Callable[[Any], Any]) -> "RowState":
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: None if part is None else change(part) for name, part in values.items()}
        return type(self)(**changed)


def integers(values: Any) -> Int[Tensor, "..."] | None:
    """Returns integers of any kind and shape as a tensor; None for what is none, booleans included."""
    try:
        found = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    if found.numel() == 0:
        return found.long()
    return None if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool else found.long()


def padded_prompts(prompts: Sequence[Sequence[int]], fill: int, device: torch.device) -> Int[Tensor, "batch position"]:
    """Returns prompts as rows of ids, a separator before each."""
    width = max(map(len, prompts))
    return torch.tensor([[SEPARATOR, *prompt, *[fill] * (width - len(prompt))] for prompt in prompts], device=device)
