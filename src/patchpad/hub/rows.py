"""Rows as transformers has them, padded on any side, as rows that the models read: a separator, bytes, then padding."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchpad.config import IGNORED_TARGET, PADDING, SEPARATOR, VOCAB_SIZE
from patchpad.errors import InputError
from patchpad.shapes import ByteInts, ByteMask


@dataclass(frozen=True, kw_only=True)
class GivenRows:
    """Ids of a caller, and the same as the models read them.

    Padding is left out wherever it stands. Where a row does not begin with the separator, it is read as if it did.
    """

    is_read: ByteMask
    """Where a given id is read: neither masked nor padding."""
    byte_ids: Int[Tensor, "batch width"]
    """What is read: [batch, width], each row a separator, its ids, and padding at the end."""
    place: ByteInts
    """Column of `byte_ids` that holds the newest id read at each given position; before the first, the separator's."""

    @staticmethod
    def of(input_ids: Tensor, attention_mask: Tensor | None) -> "GivenRows":
        """Arranges rows.

        Args:
            input_ids: 0..255 bytes, 256 separators, 257 padding anywhere.
            attention_mask: [batch, byte], 0 where an id is not to be read; None for none of these but padding.

        Raises:
            InputError: another shape or type, ids out of range, or a mask of another shape.
        """
        check_given(input_ids, attention_mask)
        input_ids = input_ids.long()
        is_read = input_ids != PADDING
        if attention_mask is not None:
            is_read &= attention_mask.to(input_ids.device) != 0
        count = is_read.long().cumsum(dim=1)
        first = input_ids.gather(1, is_read.long().argmax(dim=1, keepdim=True))
        lacks_separator = (first != SEPARATOR) | ~is_read.any(dim=1, keepdim=True)
        place = (count - 1 + lacks_separator.long()).clamp_min(0)
        width = int(place.max()) + 1
        byte_ids = input_ids.new_full((len(input_ids), width + 1), PADDING)
        byte_ids[:, 0] = SEPARATOR
        byte_ids.scatter_(1, torch.where(is_read, place, width), input_ids)  # what is not read goes to a column more
        return GivenRows(is_read=is_read, byte_ids=byte_ids[:, :width], place=place)

    def targets(self, labels: Int[Tensor, "_ _"]) -> Int[Tensor, "batch width"]:
        """Returns what each column of `byte_ids` predicts, from labels that lie one position further.

        Raises:
            InputError: another shape than that of the ids, or labels out of range.
        """
        if labels.shape != self.is_read.shape:
            found = f"labels has the shape {list(labels.shape)} with ids of the shape {list(self.is_read.shape)}"
            raise InputError(f"{found}; allowed: the same shape")
        counts = labels != IGNORED_TARGET
        wrong = labels[counts & ((labels < 0) | (labels >= VOCAB_SIZE))]
        if wrong.numel():
            shown = ", ".join(map(str, wrong.unique().tolist()[:8]))
            raise InputError(
                f"labels holds {shown}; allowed: 0 to {SEPARATOR}, and {IGNORED_TARGET} where nothing is predicted",
                hint=f"A label of padding is {IGNORED_TARGET}, not {PADDING}.",
            )
        following = torch.full_like(labels, IGNORED_TARGET)
        following[:, :-1] = labels[:, 1:]
        width = self.byte_ids.shape[1]
        targets = labels.new_full((len(labels), width + 1), IGNORED_TARGET)
        return targets.scatter_(1, torch.where(self.is_read, self.place, width), following)[:, :width]

    def at_given(self, logits: Float[Tensor, "batch width vocab"]) -> Float[Tensor, "batch byte vocab"]:
        """Returns the prediction at each given position: after all that was read up to it."""
        return logits.gather(1, self.place[..., None].expand(-1, -1, logits.shape[-1]))

    def documents(self) -> list[bytes]:
        """Returns the bytes of each row's newest document."""
        found = []
        for ids in self.byte_ids.tolist():
            begin = len(ids) - ids[::-1].index(SEPARATOR)
            found.append(bytes(value for value in ids[begin:] if value != PADDING))
        return found


def check_given(input_ids: Tensor, attention_mask: Tensor | None) -> None:
    """Checks ids and mask of a caller.

    Raises:
        InputError: another shape or type, ids out of range, or a mask of another shape.
    """
    if input_ids.dim() != 2 or input_ids.numel() == 0 or input_ids.dtype not in (torch.int64, torch.int32):
        found = f"input_ids has the shape {list(input_ids.shape)} and the type {input_ids.dtype}"
        raise InputError(f"{found}; allowed: [batch, length] of integers, at least one row and one id")
    low, high = int(input_ids.min()), int(input_ids.max())
    if low < 0 or high > PADDING:
        raise InputError(
            f"input_ids holds {low if low < 0 else high}; allowed: 0 to {PADDING} (bytes, {SEPARATOR} the separator, "
            f"{PADDING} padding)",
            hint="Make ids with the tokenizer of the model's folder.",
        )
    if attention_mask is not None and attention_mask.shape != input_ids.shape:
        raise InputError(
            f"attention_mask has the shape {list(attention_mask.shape)} with ids of the shape "
            f"{list(input_ids.shape)}; allowed: the same shape"
        )


def with_padding(logits: Float[Tensor, "*where vocab"]) -> Float[Tensor, "*where wider"]:
    """Returns logits with one more outcome, padding, which is never predicted: -inf."""
    return torch.cat((logits, logits.new_full((*logits.shape[:-1], 1), -torch.inf)), dim=-1)


def are_read(input_ids: Tensor, attention_mask: Tensor | None) -> ByteMask:
    """Returns which ids behind a cache are read.

    Args:
        input_ids: the new ones.
        attention_mask: [batch, positions], of all positions up to now, or of the new ones; None for no mask.

    Raises:
        InputError: ids out of range, or a mask of another shape.
    """
    check_given(input_ids, None)
    is_read = input_ids != PADDING
    if attention_mask is None:
        return is_read
    num_rows, width = input_ids.shape
    if attention_mask.dim() != 2 or len(attention_mask) != num_rows or attention_mask.shape[1] < width:
        raise InputError(
            f"attention_mask has the shape {list(attention_mask.shape)} with ids of the shape "
            f"{list(input_ids.shape)}; allowed: [batch, positions up to now]"
        )
    return is_read & (attention_mask[:, -width:].to(is_read.device) != 0)


def ids_read(input_ids: Tensor, is_read: Tensor) -> list[list[int]]:
    """Returns the ids of each row that are read, in lists of the host."""
    kept = torch.where(is_read, input_ids, PADDING)
    return [[value for value in row if value != PADDING] for row in kept.tolist()]
