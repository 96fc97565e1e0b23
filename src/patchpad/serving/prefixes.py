"""States of prompts that were read, so that equal prompts, and those that begin alike, are not read again."""

from collections import OrderedDict

from patchpad.inference.joining import Prefix

LEAST_SHARED_BYTES = 16
"""Bytes that a stored prompt must have for a longer one to go on from it."""


class StoredPrefixes:
    """Keeps the prompts used last, up to a number of bytes.

    A prompt is stored with the threshold it was read at: commits do not depend on it, but what the open patch has seen
    of scratchpads does, and so do the counts.

    Args:
        max_bytes: of tensors and prompts together; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        """Of what is kept now."""
        self.num_hits = 0
        """Prompts that were not read, or not from their beginning."""
        self._kept: OrderedDict[tuple[float, bytes], Prefix] = OrderedDict()
        """The one used last comes last."""

    def find(self, prompt: bytes, threshold: float, *, is_whole: bool) -> Prefix | None:
        """Returns the longest stored prompt that this one begins with; see `patchpad.inference.joining.Prefixes`."""
        key = (threshold, prompt)
        if key not in self._kept:
            if is_whole:
                return None
            longest = max(
                (
                    stored
                    for at, stored in self._kept
                    if at == threshold and len(stored) >= LEAST_SHARED_BYTES and prompt.startswith(stored)
                ),
                key=len,
                default=None,
            )
            if longest is None:
                return None
            key = (threshold, longest)
        self._kept.move_to_end(key)
        return self._kept[key]

    def store(self, threshold: float, prefix: Prefix) -> None:
        """Keeps a prompt; those that were not used for longest make room."""
        key = (threshold, prefix.prompt)
        size = size_of(prefix)
        if size > self.max_bytes or key in self._kept:
            return
        self._kept[key] = prefix
        self.num_bytes += size
        while self.num_bytes > self.max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self.num_bytes -= size_of(dropped)

    def note_hits(self, count: int) -> None:
        """Counts prompts that were not read, or not from their beginning."""
        self.num_hits += count

    def __len__(self) -> int:
        return len(self._kept)


def size_of(prefix: Prefix) -> int:
    """Returns the bytes of a stored prompt, its tensors included."""
    return len(prefix.prompt) + prefix.logits.nbytes + sum(part.nbytes for part in prefix.state.tensors())


__all__ = ["StoredPrefixes", "size_of"]
