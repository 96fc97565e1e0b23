"""Batches that are made while the device computes."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from patchpad.data.loader import Batch

AHEAD = 2
"""Batches that are made beyond the newest one that was asked for."""


class PrefetchedBatches:
    """Makes the batches after the newest one that was asked for, in a thread of its own.

    A batch follows from its number alone, so they are the same whoever makes them, and in whatever order they are asked
    for. `close` ends the thread.

    Args:
        make: returns the batch of a number; it is called from the thread.
        ahead: batches to make beyond the newest one that was asked for.
    """

    def __init__(self, make: Callable[[int], Batch], *, ahead: int = AHEAD) -> None:
        self.make = make
        self.ahead = ahead
        self._made: dict[int, Future[Batch]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")

    def batch(self, index: int) -> Batch:
        """Returns the batch number `index`, waiting for it if it is not ready; an error in making it is raised here."""
        batch = self._begun(index).result()  # first, as a thread that is woken up may take the interpreter
        self._made = {number: made for number, made in self._made.items() if number > index}
        for number in range(index + 1, index + self.ahead + 1):
            self._begun(number)
        return batch

    def _begun(self, number: int) -> Future[Batch]:
        if number not in self._made:
            self._made[number] = self._thread.submit(self.make, number)
        return self._made[number]

    def close(self) -> None:
        """Ends the thread; batches that it has not begun are not made."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._made.clear()
