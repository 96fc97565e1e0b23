"""FlexAttention (Dong et al. 2024) for the full pass on CUDA: fused kernels that skip what no query of a block sees.

Both visibility rules of the model are ranges: a byte sees bytes of a window, a slot sees consecutive commits. So the
blocks of a mask follow from the ranges' ends, and nothing of size queries x keys is ever evaluated to find them.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any, no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from patchpad.model.attention import Attend, KeepsKeysAndValues
from patchpad.model.compilation import first_words, own_copy
from patchpad.model.visibility import visible_bytes
from patchpad.patching.layout import PatchLayout
from patchpad.shapes import ByteInts

logger = logging.getLogger(__name__)

BLOCK = 128
"""Queries and keys of a block that is skipped, masked, or seen in full."""
SMALLEST_HEAD_DIM = 16
"""Smaller heads are padded with zeros: the GPU multiplies no smaller matrices."""

_proved: set[tuple[object, ...]] = set()
"""Signatures whose backward pass has run."""
_has_given_up = False


def has_given_up() -> bool:
    """Whether FlexAttention has failed in this process, so that the reference goes on."""
    return _has_given_up


class FlexAttention(KeepsKeysAndValues):
    """What both back ends share: keeping keys and values, and giving way to the reference.

    Args:
        keep: remember keys and values for a prefill.
        make_reference: makes the back end that goes on where this one fails; None lets errors through.
    """

    def __init__(self, *, keep: bool, make_reference: Callable[[], Attend] | None) -> None:
        super().__init__(keep)
        self.make_reference = make_reference
        self.reference: Attend | None = None

    def __call__(
        self,
        layer: int,
        query: Float[Tensor, "*where head head_dim"],
        key: Float[Tensor, "*where kv_head head_dim"],
        value: Float[Tensor, "*where kv_head head_dim"],
    ) -> Float[Tensor, "*where head head_dim"]:
        """Attends with FlexAttention, or with the reference once that has failed."""
        self.remember(key, value)
        if query.shape[0] == 0:
            return query
        if self.reference is None:
            if self.make_reference is None or torch.compiler.is_compiling():
                return self.attend(query, key, value)
            try:
                if not has_given_up():
                    self.prove(query, key, value)
                    return self.attend(query, key, value)
            except torch.OutOfMemoryError:
                raise  # too large a batch: the reference would need more
            except Exception as error:  # compilers raise errors of many kinds
                _give_up(error)
            self.reference = self.make_reference()
        return self.reference(layer, query, key, value)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Returns the mixed values, in the query's shape."""
        raise NotImplementedError

    def prove(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Runs a backward pass at first use: it is compiled when it first runs, too late to give way then."""
        if not (torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)):
            return
        signature = (type(self), *_signature(query, key))
        if signature in _proved:
            return
        copies = [part.detach().requires_grad_() for part in (query, key, value)]
        # Inside a block that is computed again for its backward pass, this one must not start that.
        with torch.autograd.graph.saved_tensors_hooks(lambda held: held, lambda held: held):
            torch.autograd.grad(self.attend(*copies).sum(), copies)
        _proved.add(signature)


class FlexWindowAttention(FlexAttention):
    """Attention of a local layer in a window, or of a plain Transformer in whole documents, over [batch, byte].

    See `WindowAttention` and `DocumentAttention`.
    """

    def __init__(
        self, window: "FlexWindow", *, keep: bool = False, make_reference: Callable[[], Attend] | None = None
    ) -> None:
        super().__init__(keep=keep, make_reference=make_reference)
        self.window = window

    def attend(
        self,
        query: Float[Tensor, "batch byte head head_dim"],
        key: Float[Tensor, "batch byte head head_dim"],
        value: Float[Tensor, "batch byte head head_dim"],
    ) -> Float[Tensor, "batch byte head head_dim"]:
        """Attends to the bytes of the window."""
        length, head_dim = query.shape[1], query.shape[3]
        parts = (part.transpose(1, 2) for part in _pad(query, key, value))
        mixed = _kernel(query, key)(*parts, self.window.block_mask)
        return mixed.transpose(1, 2)[:, :length, :, :head_dim]


class FlexWindow:
    """A window inside each document, whose blocks are found when they are first needed.

    Args:
        start: first position of each position's document.
        window_bytes: positions that each one sees, itself included; as many as a row has for whole documents.
    """

    def __init__(self, start: ByteInts, window_bytes: int) -> None:
        self.start = start
        self.window_bytes = window_bytes
        self._block_mask: BlockMask | None = None  # a cached property would lock, and a compiler traces no locks

    @property
    def block_mask(self) -> BlockMask:
        """What each block of bytes sees, for all layers with this window."""
        if self._block_mask is None:
            first, last = visible_bytes(self.start, self.window_bytes)
            self._block_mask = block_mask_of_ranges(first, last, first.shape[1])
        return self._block_mask


class FlexSlotAttention(FlexAttention):
    """Trunk attention over packed slots: each slot sees earlier commits of its document, and itself.

    All slots are one sequence of queries and of keys. Commits come first, so what a slot sees is a range of the keys'
    beginning and its own place: no keys are gathered, and scratchpads are skipped, block by block, by all others.
    """

    def __init__(
        self, layout: PatchLayout, *, keep: bool = False, make_reference: Callable[[], Attend] | None = None
    ) -> None:
        super().__init__(keep=keep, make_reference=make_reference)
        self.layout = layout
        self._block_mask: BlockMask | None = None

    @property
    def block_mask(self) -> BlockMask:
        """What each block of slots sees, for all layers."""
        if self._block_mask is None:
            first, last = self.layout.visible_from[None], self.layout.visible_to[None]
            self._block_mask = block_mask_of_ranges(first, last, self.layout.room.slots, and_itself=True)
        return self._block_mask

    def attend(
        self,
        query: Float[Tensor, "slot head head_dim"],
        key: Float[Tensor, "slot kv_head head_dim"],
        value: Float[Tensor, "slot kv_head head_dim"],
    ) -> Float[Tensor, "slot head head_dim"]:
        """Attends to the commits and to the slot itself."""
        slots, _, head_dim = query.shape
        parts = (part.transpose(1, 2) for part in _pad(query[None], key[None], value[None]))
        mixed = _kernel(query, key)(*parts, self.block_mask)
        # Not mixed[0]: its backward pass would copy the gradient into zeros.
        return mixed.squeeze(0).transpose(0, 1)[:slots, :, :head_dim]


def padded_length(length: int) -> int:
    """Rounds up to whole blocks, at least two: lengths of one block, or of no key, would each be compiled anew."""
    return max(2, -(-length // BLOCK)) * BLOCK


def block_mask_of_ranges(
    first: Int[Tensor, "batch query"], last: Int[Tensor, "batch query"], num_keys: int, *, and_itself: bool = False
) -> BlockMask:
    """Returns the mask by which each query sees the keys from `first` to before `last`.

    Args:
        first: first key of each query.
        last: one past each query's last key; not above `first` where it sees none.
        num_keys: keys of a row. Queries and keys are padded to whole blocks; the padding sees none of the others and is
            seen by none.
        and_itself: whether each query also sees the key at its own place, which lies at or behind its range.
    """
    first, last = (F.pad(part, (0, padded_length(part.shape[1]) - part.shape[1])).int() for part in (first, last))
    num_blocks = padded_length(num_keys) // BLOCK
    seen_in_part, seen_in_full = _seen_blocks(
        first.unflatten(1, (-1, BLOCK)), last.unflatten(1, (-1, BLOCK)), num_blocks, and_itself=and_itself
    )

    @no_type_check  # kernels are traced, and a type checker cannot be
    def sees(batch, head, query, key):
        return (first[batch, query] <= key) & (key < last[batch, query])

    @no_type_check
    def sees_range_and_itself(batch, head, query, key):
        return ((first[batch, query] <= key) & (key < last[batch, query])) | (query == key)

    rule = sees_range_and_itself if and_itself else sees
    return BlockMask.from_kv_blocks(*seen_in_part, *seen_in_full, BLOCK_SIZE=BLOCK, mask_mod=rule)


BlockList = tuple[Int[Tensor, "batch 1 query_block"], Int[Tensor, "batch 1 query_block key_block"]]


def _seen_blocks(
    first: Int[Tensor, "batch query_block query"],
    last: Int[Tensor, "batch query_block query"],
    num_blocks: int,
    *,
    and_itself: bool,
) -> tuple[BlockList, BlockList]:
    """Returns how many blocks of keys each block of queries sees in part and in full, and which.

    Blocks between the first key and the last one that any query sees are listed; those that all queries see are full.
    The block of the queries' own places is listed too where they see these, as one that is seen in part.
    """
    sees_any = first < last
    high = -(-torch.where(sees_any, last, 0).amax(-1) // BLOCK)
    low = torch.where(sees_any, first, num_blocks * BLOCK).amin(-1) // BLOCK
    low = torch.minimum(low, high)
    full_low, full_high = -(-first.amax(-1) // BLOCK), last.amin(-1) // BLOCK
    is_any_full = full_low < full_high
    full_low, full_high = (torch.where(is_any_full, part, high) for part in (full_low, full_high))
    before = full_low - low
    place = torch.arange(num_blocks, device=first.device, dtype=first.dtype)
    in_part = torch.where(place < before[..., None], place + low[..., None], place + (full_high - before)[..., None])
    num_in_part = before + high - full_high
    if and_itself:
        own = torch.arange(first.shape[1], device=first.device, dtype=first.dtype)
        in_part = torch.where(place == num_in_part[..., None], own[:, None], in_part)
        num_in_part = num_in_part + (own >= high)  # the ranges of those before it end in its block, or earlier
    counts = (num_in_part, full_high - full_low)
    indices = (in_part, place + full_low[..., None])
    part, full = (
        (count[:, None].contiguous(), index.clamp_max(num_blocks - 1)[:, None].contiguous())
        for count, index in zip(counts, indices, strict=True)
    )
    return part, full


def _pad(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pads [batch, position, head, head_dim] to whole blocks and to heads that are large enough.

    There are as many keys as queries.
    """
    head_dim = query.shape[-1]
    spare = max(0, SMALLEST_HEAD_DIM - head_dim)
    if spare:
        query = query * ((head_dim + spare) / head_dim) ** 0.5  # the kernel scales by the padded size
    more = padded_length(query.shape[1]) - query.shape[1]
    if spare or more:  # padding by nothing would copy
        query, key, value = (F.pad(part, (0, spare, 0, 0, 0, more)) for part in (query, key, value))
    return query, key, value


@no_type_check
def _attend(query, key, value, block_mask):
    return flex_attention(query, key, value, block_mask=block_mask, enable_gqa=True)


def _kernel(query: Tensor, key: Tensor) -> Callable[..., Any]:
    """Returns what runs on the tensors' device: compiled on CUDA, unfused elsewhere.

    Inside a function that is being compiled, it becomes a part of that.
    """
    if torch.compiler.is_compiling() or query.device.type != "cuda":
        return _attend
    return _compiled(*_signature(query, key))


def _signature(query: Tensor, key: Tensor) -> tuple[object, ...]:
    return query.dtype, query.shape[-2:], key.shape[-2:], torch.is_grad_enabled(), torch.is_autocast_enabled("cuda")


@functools.cache
def _compiled(*signature: object) -> Callable[..., Any]:
    """Compiles the kernel once per process and signature, for all lengths."""
    return torch.compile(own_copy(_attend), dynamic=True, fullgraph=True)


def _give_up(error: Exception) -> None:
    """Lets the reference go on for the rest of the process, and says so once."""
    global _has_given_up
    if not _has_given_up:
        logger.warning(
            "FlexAttention does not run here (%s); attention continues without it, slower and with more memory",
            first_words(error),
        )
    _has_given_up = True
