"""What rows have released on its way to those who asked: a few times a second, many rows at once."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial

from patchpad.errors import PatchpadError
from patchpad.inference.generator import Completion
from patchpad.model.compilation import first_words
from patchpad.serving.delivery import Delivery, Handle

logger = logging.getLogger(__name__)

Post = Callable[[Callable[[], None]], object]
"""Has a function called in another thread, such as `loop.call_soon_threadsafe`; it must not block."""


class Outbox:
    """Hands a row's first byte and its end over at once, and its other bytes when they are old enough.

    The engine's thread alone uses it.

    Args:
        event_seconds: age at which bytes are handed over.
        cancel: called, from any thread, with a request that cannot be given anything.
    """

    def __init__(self, event_seconds: int | float, *, cancel: Callable[[Handle], None]) -> None:
        self.event_seconds = event_seconds
        self.post: Post | None = None
        """None to call `deliver` functions at once, in the engine's thread."""
        self._cancel = cancel
        self._fresh: dict[Handle, None] = {}
        """Those with bytes that wait to be handed over."""
        self._oldest = math.inf
        """When the oldest of these bytes was released."""
        self._outgoing: list[tuple[Handle, Delivery]] = []
        """What is handed over next."""

    def add(self, handle: Handle, now: float) -> None:
        """Notes that a row has released bytes.

        Args:
            handle: of the row; it holds them.
            now: by the monotonic clock.
        """
        if handle.has_delivered:
            self._fresh[handle] = None
            self._oldest = min(self._oldest, now)
        else:
            self._outgoing.append((handle, handle.take()))

    def end(self, handle: Handle, *, completion: Completion | None = None, error: PatchpadError | None = None) -> None:
        """Notes that a row has ended; what it still holds goes with its last delivery."""
        self._fresh.pop(handle, None)
        self._outgoing.append((handle, handle.take(completion=completion, error=error)))

    def hand_over(self, *, next_round: float = math.inf) -> None:
        """Hands over what is due.

        Args:
            next_round: seconds until this is called again, as far as is known: bytes that would be too old by then
                are due now.
        """
        if self._fresh and time.monotonic() + next_round >= self._oldest + self.event_seconds:
            self._outgoing += [(handle, handle.take()) for handle in self._fresh]
            self._fresh.clear()
            self._oldest = math.inf
        outgoing, self._outgoing = self._outgoing, []
        if not outgoing:
            return
        if self.post is None:
            self._deliver(outgoing)
            return
        try:
            self.post(partial(self._deliver, outgoing))
        except Exception as error:
            logger.warning("what rows have released cannot be handed over (%s); they end", first_words(error))
            for handle, _ in outgoing:
                self._cancel(handle)

    def _deliver(self, outgoing: Sequence[tuple[Handle, Delivery]]) -> None:
        """Calls the functions that get what rows have released. One that fails has its row cancelled."""
        for handle, delivery in outgoing:
            try:
                handle.deliver(delivery)
            except Exception as error:
                logger.warning("a request cannot take what it is given (%s); it ends", type(error).__name__)
                self._cancel(handle)


__all__ = ["Outbox", "Post"]
