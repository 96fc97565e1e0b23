"""One trunk pass for many thresholds: what the decoder says when fewer of its scratchpads are there.

A scratchpad sees commits and itself, never another scratchpad, and commits do not depend on the threshold. So a pass at
a low threshold holds the trunk outputs of every higher one, and only the local decoder has to run again.
"""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from patchpad.model.attention import Attend
from patchpad.model.back_ends import window_attentions
from patchpad.model.byte_lm import ByteLM
from patchpad.model.outputs import ByteLMOutput
from patchpad.model.visibility import Window
from patchpad.patching import Documents, PatchLayout
from patchpad.shapes import ByteInts, ByteMask, Logits


def shares_its_trunk(model: ByteLM) -> bool:
    """Returns whether `SharedTrunk` knows all that predictions are made of: not where a source's head speaks too."""
    return model.source_head is None


class SharedTrunk:
    """Reads a pass again with some of its scratchpads left out.

    Args:
        model: that made the pass.
        output: of a pass with its activations, at the lowest of the thresholds.
    """

    def __init__(self, model: ByteLM, output: ByteLMOutput) -> None:
        assert output.activations is not None
        self._model, self._output, self._activations = model, output, output.activations
        layout = output.layout
        self._scratchpad_at = torch.zeros(layout.newest_slot.numel(), dtype=torch.long, device=layout.slot_byte.device)
        scratchpads = torch.arange(layout.room.commits, layout.room.slots, device=layout.slot_byte.device)
        self._scratchpad_at[layout.slot_byte[scratchpads]] = 1 + scratchpads
        (self._sees,) = window_attentions(layout.documents, (model.config.decoder_window,))

    def read(self, layout: PatchLayout) -> ByteLMOutput:
        """Returns what a pass with this layout would, up to rounding, and no logits of the entropy head."""
        if layout is self._output.layout:
            return self._output
        additions = self._additions(self._slots(layout), layout.patch_lag)
        logits = self._decode(self._activations.byte_states, additions, layout.documents.offset, self._sees)
        return self._with(logits, layout)

    def read_with_and_without(self, layout: PatchLayout) -> tuple[ByteLMOutput, Logits, ByteMask]:
        """Returns what `read` does, and what each byte would predict if its newest scratchpad were missing.

        Returns:
            The output; logits in which the newest scratchpad of each byte, and no other, is left out for this byte and
            for those that read the same one before it; and where the newest slot is a scratchpad, so that the two
            differ.
        """
        documents = layout.documents
        newest, lag = self._slots(layout), layout.patch_lag
        reads_scratchpad = layout.newest_slot > layout.room.commits
        columns = torch.arange(newest.shape[1], device=newest.device).expand_as(newest)
        fires = layout.scratchpad_mask
        since = torch.where(fires, columns, -1).cummax(dim=1).values
        since = torch.where(reads_scratchpad, since, newest.shape[1])
        older, older_lag = self._before(layout, newest, since, columns)
        states, offsets = self._activations.byte_states, documents.offset
        sees = WithoutNewest(documents, self._model.config.decoder_window, since, self._sees)
        additions = torch.cat((self._additions(newest, lag), self._additions(older, older_lag)))
        both = self._decode(torch.cat((states, states)), additions, torch.cat((offsets, offsets)), sees)
        logits, without = both.chunk(2)
        return self._with(logits, layout), without, reads_scratchpad

    def _before(
        self, layout: PatchLayout, newest: ByteInts, since: ByteInts, columns: ByteInts
    ) -> tuple[ByteInts, ByteInts]:
        """Returns the slot that each byte would read without its newest scratchpad, and how many bytes it lies back.

        Beside commits at the same byte, which only `tokens` patches have, these are what is read then.
        """
        starts = layout.documents.start
        is_read = since < newest.shape[1]
        at = torch.where(is_read, since, 0)
        is_first = at <= starts
        before = (at - 1).clamp_min(0)
        older = torch.where(is_first, 0, newest.gather(1, before))
        older_lag = torch.where(is_first, columns - starts, layout.patch_lag.gather(1, before) + columns - before)
        beside = layout.commits_at.gather(1, at) > 0
        commits = layout.newest_commit.gather(1, at)
        older = torch.where(beside, commits, older)
        older_lag = torch.where(beside, columns - at + layout.open_bytes.gather(1, at), older_lag)
        return torch.where(is_read, older, newest), torch.where(is_read, older_lag, layout.patch_lag)

    def _slots(self, layout: PatchLayout) -> ByteInts:
        """Returns 1 + index, in the shared pass, of the slot that each byte reads; 0 for the null context.

        Commits come first in both layouts and are the same.
        """
        newest = layout.newest_slot
        if layout.room.slots == 0:
            return newest
        at = self._scratchpad_at[layout.slot_byte[(newest - 1).clamp_min(0)]]
        return torch.where(newest > layout.room.commits, at, newest)

    def _additions(self, newest: ByteInts, lag: ByteInts) -> Float[Tensor, "batch byte layer byte_dim"]:
        return self._model.context_to_bytes.read(self._activations.contexts, (newest,), lag)

    def _decode(
        self,
        states: Float[Tensor, "batch byte byte_dim"],
        additions: Float[Tensor, "batch byte layer byte_dim"],
        offsets: ByteInts,
        sees: Attend,
    ) -> Logits:
        return self._model.local_decoder(states, additions, offsets, sees)

    def _with(self, logits: Logits, layout: PatchLayout) -> ByteLMOutput:
        return dataclasses.replace(self._output, logits=logits, layout=layout, entropy_logits=None, activations=None)


class WithoutNewest:
    """Attention of rows twice over: as they are, and as each byte would see them without its newest scratchpad.

    In the second half, a byte sees what came before that scratchpad as it is, and from there on the second half itself.

    Args:
        documents: of the rows.
        window_bytes: that each byte sees.
        since: column of the newest scratchpad of each byte; beyond the row where there is none.
        sees: attention of the rows as they are.
    """

    def __init__(self, documents: Documents, window_bytes: int, since: ByteInts, sees: Attend) -> None:
        window = Window.build(documents, window_bytes)
        batch, length = since.shape
        self._sees, self._block, self._reach = sees, window.block, window_bytes - 1
        self._num_blocks = -(-length // window.block)
        self._spare = self._num_blocks * window.block - length
        blocks = F.pad(since, (0, self._spare)).view(-1, 1, window.block, 1)
        first = torch.arange(self._num_blocks, device=since.device) * window.block - self._reach
        key = first[:, None] + torch.arange(window.block + self._reach, device=since.device)
        is_changed = key.repeat(batch, 1)[:, None, None] >= blocks
        self._bias = torch.cat(
            [window.bias.masked_fill(hidden, -torch.inf) for hidden in (is_changed, ~is_changed)], dim=-1
        )

    def __call__(
        self,
        layer: int,
        query: Float[Tensor, "two_batches byte head head_dim"],
        key: Float[Tensor, "two_batches byte head head_dim"],
        value: Float[Tensor, "two_batches byte head head_dim"],
    ) -> Float[Tensor, "two_batches byte head head_dim"]:
        """Attends in both halves."""
        queries, keys, values = (part.chunk(2) for part in (query, key, value))
        as_they_are = self._sees(layer, queries[0], keys[0], values[0])
        batch, length, heads, head_dim = queries[1].shape
        blocks = F.pad(queries[1], (0, 0, 0, 0, 0, self._spare)).view(-1, self._block, heads, head_dim)
        mixed = F.scaled_dot_product_attention(
            blocks.transpose(1, 2),
            *(torch.cat([self._spans(half) for half in part], dim=2) for part in (keys, values)),
            attn_mask=self._bias.to(query.dtype),
        )
        mixed = mixed.transpose(1, 2).reshape(batch, -1, heads, head_dim)[:, :length]
        return torch.cat((as_they_are, mixed))

    def _spans(self, part: Float[Tensor, "batch byte head head_dim"]) -> Float[Tensor, "block head span head_dim"]:
        """Returns what each block of queries may see."""
        padded = F.pad(part, (0, 0, 0, 0, self._reach, self._spare))
        return padded.unfold(1, self._block + self._reach, self._block).flatten(0, 1).transpose(-1, -2)
