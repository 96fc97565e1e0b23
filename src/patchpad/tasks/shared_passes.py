"""Scores windows that begin alike: what they share is read once, and its state goes on in as many ways as are needed.

A tree of three levels: the shared beginning (shots), contexts after it, continuations after each context. A level is
read by `Stepper.extend` from copies of the rows above it, in batches of rows of about equal length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from patchpad.evaluation.bits_per_byte import not_finite
from patchpad.inference.blocks import read_in_blocks
from patchpad.inference.row_state import RowState
from patchpad.inference.span import Extension
from patchpad.inference.stepper import Stepper
from patchpad.inference.steppers import stepper_for
from patchpad.model.language_model import LanguageModel
from patchpad.tasks.compute import COUNTS, ComputeTally
from patchpad.tasks.full_passes import Window, WindowScore

MOST_STATE_BYTES = 1 << 31
"""Memory of the states of a batch, estimated from above."""

Ids = tuple[int, ...]


@dataclass
class Shared:
    """Windows whose contexts begin with the same ids."""

    prefix: Ids
    contexts: dict[Ids, list["Branch"]] = field(default_factory=dict)
    """Branches by what their context has after the prefix."""


@dataclass(frozen=True)
class Branch:
    """A continuation of a context."""

    index: int
    """Of the window."""
    ids: Ids
    num_scored: int
    """Ids at the end that are scored; those before are context that no other branch shares."""


@dataclass(frozen=True)
class Readings:
    """Rows that have been read so far."""

    state: RowState
    logits: Float[Tensor, "row vocab"]
    """Of each row's next id."""
    counts: Int[Tensor, "row count"]
    """`COUNTS` of each row, as if it had been read alone."""

    @property
    def row_bytes(self) -> int:
        """Memory of a row's state."""
        return sum(tensor.nbytes for tensor in self.state.tensors()) // len(self.logits)

    @property
    def place_bytes(self) -> int:
        """Memory of an entry in a row's trunk cache."""
        trunk = self.state.trunk
        return sum(part.nbytes for part in (*trunk.keys, *trunk.values)) // (len(self.logits) * trunk.capacity)


class SharedPasses:
    """Reads shared beginnings once.

    Args:
        model: in eval mode.
        threshold: one scratchpad threshold in nats; None for the stored one.
        tally: what full passes would have taken is added to it, and what was read.
        batch_positions: about how many new positions a pass has.
    """

    def __init__(
        self, model: LanguageModel, threshold: float | None, tally: ComputeTally, *, batch_positions: int
    ) -> None:
        self.model, self.tally, self.batch_positions = model, tally, batch_positions
        self.stepper: Stepper = stepper_for(model)
        self.threshold = model.decisions(threshold, batch=1).scratchpad_threshold.reshape(1)

    @torch.inference_mode()
    def score(self, windows: Sequence[Window], group: Shared) -> dict[int, WindowScore]:
        """Returns the scores of a group's windows by their indices.

        Raises:
            TrainingError: the model predicts nan or inf.
        """
        start = self._root()
        if group.prefix:
            start, _ = self._extended(start, [0], [group.prefix])
        scores: dict[int, WindowScore] = {}
        remainders = sorted(group.contexts, key=len)
        for batch in _batches(list(map(len, remainders)), self.batch_positions, start):
            chosen = [remainders[place] for place in batch]
            if any(chosen):
                contexts, _ = self._extended(start, [0] * len(chosen), chosen)
                rows = range(len(chosen))
            else:
                contexts, rows = start, [0] * len(chosen)
            branches = [(row, branch) for row, ids in zip(rows, chosen, strict=True) for branch in group.contexts[ids]]
            scores |= self._score_branches(contexts, branches, windows)
        return scores

    def _score_branches(
        self, contexts: Readings, branches: list[tuple[int, Branch]], windows: Sequence[Window]
    ) -> dict[int, WindowScore]:
        """Scores branches, each with the row of its context."""
        scores: dict[int, WindowScore] = {}
        branches = sorted(branches, key=lambda pair: len(pair[1].ids))
        for batch in _batches([len(branch.ids) for _, branch in branches], self.batch_positions, contexts):
            chosen = [branches[place] for place in batch]
            rows = [row for row, _ in chosen]
            unread = [branch.ids[:-1] for _, branch in chosen]
            ends, extension = contexts, None
            if any(unread):
                ends, extension = self._extended(contexts, rows, unread, keeps_state=False)
                rows = list(range(len(chosen)))
            counts = ends.counts[rows].sum(dim=0)
            nats, misses = self._targets(contexts.logits[[row for row, _ in chosen]], extension, chosen)
            if not bool(nats.isfinite().all()):
                raise not_finite()
            for (_, branch), total, missed in zip(chosen, nats.tolist(), misses.tolist(), strict=True):
                scores[branch.index] = WindowScore(total, missed == 0)
            self._count(counts, [windows[branch.index] for _, branch in chosen])
        return scores

    def _targets(
        self, first: Float[Tensor, "row vocab"], extension: Extension | None, chosen: list[tuple[int, Branch]]
    ) -> tuple[Float[Tensor, " row"], Int[Tensor, " row"]]:
        """Returns the nats of each row's scored ids, and how many of them are not the most likely.

        Args:
            first: logits of each row's first id.
            extension: has those of the others; None where there are none.
            chosen: the rows.
        """
        device = first.device
        scores_all = torch.tensor([branch.num_scored == len(branch.ids) for _, branch in chosen], device=device)
        wanted = torch.tensor([branch.ids[0] for _, branch in chosen], device=device)
        nats = torch.where(scores_all, F.cross_entropy(first.float(), wanted, reduction="none"), 0).double()
        misses = (scores_all & (first.argmax(dim=-1) != wanted)).long()
        if extension is not None:
            span = extension.span
            given = torch.tensor([len(branch.ids) - branch.num_scored for _, branch in chosen], device=device)
            is_scored = span.columns + 1 >= given[span.rows]
            wanted = torch.tensor([value for _, branch in chosen for value in branch.ids[1:]], device=device)[is_scored]
            rows, logits = span.rows[is_scored], extension.logits[is_scored]
            nats.index_add_(0, rows, F.cross_entropy(logits, wanted, reduction="none").double())
            misses.index_add_(0, rows, (logits.argmax(dim=-1) != wanted).long())
        return nats, misses

    def _root(self) -> Readings:
        """Returns a row that has read a separator."""
        logits, state = self.stepper.prefill([b""], self.threshold)
        commits = state.num_patches
        scratchpads = state.trunk_calls - commits
        # Nothing lies before them: each slot saw itself, and a scratchpad pooled the separator.
        counts = torch.stack((commits, scratchpads, commits + scratchpads, scratchpads), dim=1)
        self.tally.bytes_read += 1
        return Readings(state, logits, counts)

    def _extended(
        self, readings: Readings, rows: Sequence[int], next_ids: Sequence[Ids], *, keeps_state: bool = True
    ) -> tuple[Readings, Extension | None]:
        """Reads ids after copies of rows, also returns the last block of them.

        Without `keeps_state` they are read at once, and of what is returned only the counts and the block are of use.
        """
        state = readings.state.narrowed(self._patches_of(max(map(len, next_ids)))).select(rows)
        threshold = self.threshold.expand(len(rows))
        places = torch.tensor(rows, device=readings.logits.device)
        counts, logits, extension = readings.counts[places], readings.logits[places], None
        if not keeps_state:
            extension = self.stepper.extend(state, next_ids, threshold)
            counts = counts + _counts_of(extension)
        else:
            for block in read_in_blocks(self.stepper, state, next_ids, threshold):
                extension, state = block
                logits, counts = extension.span.last(extension.logits, logits), counts + _counts_of(extension)
        self.tally.bytes_read += sum(map(self._num_bytes, next_ids))
        return Readings(state, logits, counts), extension

    def _patches_of(self, width: int) -> int:
        """Returns how many patches so many ids hardly exceed; where they do, the trunk's cache grows."""
        config = self.model.config
        size = config.patchifier.target_patch_size if config.kind in ("patch", "megabyte") else 1
        return min(width, 2 * width // size + 2)

    def _num_bytes(self, ids: Ids) -> int:
        if self.model.config.kind != "bpe":
            return len(ids)
        return sum(len(self.model.bytes_of(value) or b"") for value in ids)

    def _count(self, counts: Int[Tensor, " count"], windows: Sequence[Window]) -> None:
        self.tally.add_counts(dict(zip(COUNTS, counts.tolist(), strict=True)))
        self.tally.count_windows([(window.num_bytes, len(window.continuation)) for window in windows])


def _counts_of(extension: Extension) -> Int[Tensor, "row count"]:
    return torch.stack([getattr(extension, name) for name in COUNTS], dim=1)


def grouped(model: LanguageModel, windows: Sequence[Window], shared: Sequence[int]) -> tuple[list[Shared], list[int]]:
    """Returns windows that share something, as groups, and the indices of those that share nothing.

    Args:
        model: its tokens are what is shared.
        windows: to score.
        shared: how many bytes at the start of each window's context others have too.
    """
    encode = stepper_for(model).encode
    groups: dict[Ids, Shared] = {}
    encoded: dict[bytes, Ids] = {}

    def ids_of(text: bytes) -> Ids:
        if text not in encoded:
            encoded[text] = tuple(encode(text))
        return encoded[text]

    for index, (window, size) in enumerate(zip(windows, shared, strict=True)):
        context, continuation = ids_of(window.context), tuple(encode(window.continuation))
        prefix = _common(ids_of(window.context[:size]), context)
        group = groups.setdefault(prefix, Shared(prefix))
        branch = Branch(index, continuation, len(continuation))
        group.contexts.setdefault(context[len(prefix) :], []).append(branch)
    return _worthwhile(list(groups.values()))


def _worthwhile(groups: Sequence[Shared]) -> tuple[list[Shared], list[int]]:
    """Undoes what would share nothing; see `grouped`.

    A prefix of a single context becomes a part of it, and a context of a single continuation is read together with it.
    """
    unshared = Shared(())
    for group in groups:
        if len(group.contexts) == 1 or not group.prefix:
            for ids, branches in group.contexts.items():
                unshared.contexts.setdefault(group.prefix + ids, []).extend(branches)
    kept = [group for group in groups if len(group.contexts) > 1 and group.prefix]
    for group in kept:
        group.contexts = _joined(group.contexts)
    is_alone = {ids: len(branches) == 1 or not ids for ids, branches in unshared.contexts.items()}
    alone = [branch.index for ids, branches in unshared.contexts.items() if is_alone[ids] for branch in branches]
    unshared.contexts = {ids: branches for ids, branches in unshared.contexts.items() if not is_alone[ids]}
    return [*kept, *([unshared] if unshared.contexts else [])], sorted(alone)


def _joined(contexts: dict[Ids, list[Branch]]) -> dict[Ids, list[Branch]]:
    """Puts contexts of a single continuation before it, so that both are read at once."""
    found: dict[Ids, list[Branch]] = {}
    for ids, branches in contexts.items():
        if len(branches) > 1:
            found.setdefault(ids, []).extend(branches)
        else:
            (branch,) = branches
            found.setdefault((), []).append(Branch(branch.index, ids + branch.ids, branch.num_scored))
    return found


def _common(first: Ids, second: Ids) -> Ids:
    """Returns what two rows of ids begin with alike."""
    for size, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return first[:size]
    return first[: len(second)]


def _batches(lengths: list[int], batch_positions: int, readings: Readings) -> Iterator[range]:
    """Yields places of rows to read together, at least one.

    Args:
        lengths: of the rows, ascending, so that a batch has little padding.
        batch_positions: that a batch may have, padding included.
        readings: what the rows follow.
    """
    row_bytes, place_bytes = readings.row_bytes, readings.place_bytes
    begin = 0
    while begin < len(lengths):
        end = begin + 1
        while end < len(lengths):
            rows, width = end + 1 - begin, lengths[end]
            memory = rows * (row_bytes + width * place_bytes)
            if rows * width > batch_positions or memory > MOST_STATE_BYTES:
                break
            end += 1
        yield range(begin, end)
        begin = end


__all__ = ["Shared", "SharedPasses", "grouped"]
