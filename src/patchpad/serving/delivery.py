"""What the scheduler and its callers hand each other: requests on their way, what they release, and counts."""

from collections.abc import Callable
from dataclasses import dataclass, field

from patchpad.errors import PatchpadError
from patchpad.inference.engine import Request, Row
from patchpad.inference.generator import Completion
from patchpad.inference.reports import ByteReport


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What a row hands over at once."""

    data: bytes = b""
    reports: tuple[ByteReport, ...] = ()
    """Of these bytes, where the request asks for them; see `ByteReport`."""
    completion: Completion | None = None
    """Everything the row has generated, with its counts; only in the last delivery of a row that ended or was
    cancelled. `stop_reason` is None where it was cancelled."""
    error: PatchpadError | None = None
    """Why the row failed; then this is its last delivery."""

    @property
    def is_last(self) -> bool:
        """Whether no other delivery of the row follows."""
        return self.completion is not None or self.error is not None


Deliver = Callable[[Delivery], None]


@dataclass(eq=False)
class Handle:
    """A request on its way; only the scheduler reads or writes what is in it."""

    request: Request
    deliver: Deliver
    row: Row | None = None
    """Of the engine, once it has taken the request in."""
    data: bytearray = field(default_factory=bytearray)
    """Released, but not handed over yet."""
    reports: list[ByteReport] = field(default_factory=list)
    has_delivered: bool = False
    has_ended: bool = False

    def take(self, *, completion: Completion | None = None, error: PatchpadError | None = None) -> Delivery:
        """Returns what is to be handed over next, and notes that it was."""
        delivery = Delivery(data=bytes(self.data), reports=tuple(self.reports), completion=completion, error=error)
        self.data.clear()
        self.reports.clear()
        self.has_delivered, self.has_ended = True, delivery.is_last
        return delivery


@dataclass(kw_only=True)
class Counts:
    """What the scheduler is doing, and what it has done since it was made."""

    is_alive: bool = False
    """Whether the engine's thread runs."""
    has_died: bool = False
    """Whether it has ended though nobody closed the scheduler."""
    is_accepting: bool = True
    rows_running: int = 0
    """Rows in the batch."""
    rows_waiting: int = 0
    rows_ended: int = 0
    """Rows that came to their end, cancelled and failed ones not counted."""
    rows_cancelled: int = 0
    rows_failed: int = 0
    steps: int = 0
    steps_failed: int = 0
    """Steps that an unexpected exception broke off."""
    calls: int = 0
    """Other functions of the model that were called."""
    prompt_bytes: int = 0
    """Of the requests that were taken."""
    new_bytes: int = 0
    """Bytes that were released."""
    trunk_calls: int = 0
    """Of rows that have left, their prompts included."""
    trunk_batches: int = 0
    """Calls of the trunk in steps and for drafts, whatever their number of rows."""
    drafted_bytes: int = 0
    """Bytes of drafts."""
    kept_bytes: int = 0
    """Those of them that stayed."""
    prefix_hits: int = 0
    """Prompts of which a stored state served at least a part."""
    prefix_bytes: int = 0
    """Memory that stored states take."""
    seconds_busy: float = 0.0
    """Spent in steps and calls."""


__all__ = ["Counts", "Deliver", "Delivery", "Handle"]
