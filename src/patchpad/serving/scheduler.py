"""The scheduler: one thread that runs the engine for requests of other threads.

Everything that touches the engine happens in that thread, between two steps: rows are taken in, dropped, and other
functions of the model are called. What rows release is collected and handed over a few times a second.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeVar

from patchpad.errors import ConfigError, EngineError, PatchpadError, QueueFullError, SchedulerClosedError
from patchpad.inference.draft_rule import DraftOption
from patchpad.inference.engine import Engine, NewBytes, NotFiniteError, Request, check_request
from patchpad.inference.generator import Completion
from patchpad.model.compilation import first_words
from patchpad.model.language_model import LanguageModel
from patchpad.serving.delivery import Counts, Deliver, Delivery, Handle
from patchpad.serving.outbox import Outbox, Post
from patchpad.serving.prefixes import StoredPrefixes

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Scheduler:
    """Runs requests of any thread in one batch of the engine, in a thread of its own.

    Args:
        model: a loaded or trained model; from `start` on, only the scheduler's thread may use it.
        batch_rows: most rows in the batch at once.
        max_waiting: most rows that wait for a place in the batch.
        prefix_bytes: memory for states of prompts that were read; equal prompts are not read again. 0 keeps none.
        piece_bytes: bytes of prompts that are read between two steps as long as other rows run.
        compile: run the steps compiled, or on CUDA as captured graphs.
        draft: as in `Generation`; by drafts, a row may release several bytes in a step.
        event_seconds: bytes of a row are handed over when they are so old; the first one and the last ones at once.

    Raises:
        ConfigError: no place in the batch, or fewer than none in the queue.
        GenerationError: drafts that the model cannot make.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        batch_rows: int = 64,
        max_waiting: int = 256,
        prefix_bytes: int = 64 * 2**20,
        piece_bytes: int = 512,
        compile: bool = False,
        draft: DraftOption = "auto",
        event_seconds: int | float = 0.05,
    ) -> None:
        if batch_rows < 1:
            raise ConfigError(f"batch_rows is {batch_rows}; allowed: 1 or more")
        if max_waiting < 0:
            raise ConfigError(f"max_waiting is {max_waiting}; allowed: 0 or more rows that wait")
        self.model = model
        self.batch_rows = batch_rows
        self.max_waiting = max_waiting
        self._compile = compile
        self._draft: DraftOption = draft
        self._piece_bytes = piece_bytes
        self._prefixes = StoredPrefixes(prefix_bytes)
        self._engine = self._new_engine()
        self._thread: threading.Thread | None = None
        self._lock = threading.Condition()
        """Guards the fields up to the next blank line."""
        self._arrived: deque[Handle] = deque()
        self._cancelled: deque[Handle] = deque()
        self._calls: deque[tuple[Callable[[LanguageModel], Any], Future[Any]]] = deque()
        self._open: dict[Handle, None] = {}
        """Requests that were taken and have not ended, in the order in which they came."""
        self._is_accepting = True
        self._has_died = False
        self._ends_at = math.inf
        """Time at which what still runs is cut short; below infinity once `close` was called."""

        self._handles: dict[int, Handle] = {}
        """By the index of their row in the engine."""
        self._outbox = Outbox(event_seconds, cancel=self.cancel)
        self._round_seconds = [0.0, 0.0]
        """What the last round took in which no prompt was read, and the last one in which some were."""
        self._counts = Counts()

    def _new_engine(self) -> Engine:
        return Engine(
            self.model,
            batch_rows=self.batch_rows,
            compile=self._compile,
            piece_bytes=self._piece_bytes,
            prefixes=self._prefixes if self._prefixes.max_bytes > 0 else None,
            draft=self._draft,
        )

    def start(self, *, post: Post | None = None) -> None:
        """Starts the engine's thread.

        Args:
            post: has `deliver` functions called in another thread, all of one step at once; an event loop gives its
                `call_soon_threadsafe`. None to call them in the engine's thread, where they must not block.
        """
        assert self._thread is None, "a scheduler is started once"
        self._outbox.post = post
        self._thread = threading.Thread(target=self._run, name="patchpad-engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request, deliver: Deliver) -> Handle:
        """Queues a request, from any thread.

        Args:
            request: with a threshold that was checked.
            deliver: gets what the row releases; one that raises has its row cancelled.

        Raises:
            QueueFullError: as many rows wait as may.
            SchedulerClosedError: no requests are taken.
            GenerationError: a bias for an id that the model does not have.
        """
        return self.submit_all([(request, deliver)])[0]

    def submit_all(self, requests: Sequence[tuple[Request, Deliver]]) -> list[Handle]:
        """Queues all requests or none; see `submit`."""
        for request, _ in requests:
            check_request(self.model, request)
        handles = [Handle(request, deliver) for request, deliver in requests]
        with self._lock:
            self._require_accepting()
            if len(self._open) + len(handles) > self.batch_rows + self.max_waiting:
                waiting = max(0, len(self._open) - self.batch_rows)
                raise QueueFullError(
                    f"{waiting} of {self.max_waiting} places in the queue are taken, too many for {len(handles)} more",
                    hint="Try again in a few seconds.",
                )
            self._open.update(dict.fromkeys(handles))
            self._arrived.extend(handles)
            self._lock.notify()
        return handles

    def cancel(self, handle: Handle) -> None:
        """Drops a request before the next step, from any thread; one that has ended is left alone.

        Its last delivery tells what it had until then.
        """
        with self._lock:
            self._cancelled.append(handle)
            self._lock.notify()

    def call(self, function: Callable[[LanguageModel], T]) -> "Future[T]":
        """Has a function of the model called in the engine's thread, between two steps.

        Returns:
            Its result, or what it raises.

        Raises:
            QueueFullError: as many calls wait as rows may, or one where no rows may wait.
            SchedulerClosedError: no requests are taken.
        """
        future: Future[T] = Future()
        with self._lock:
            self._require_accepting()
            if len(self._calls) >= max(1, self.max_waiting):  # those that nobody waits for any more take no place
                self._calls = deque(one for one in self._calls if not one[1].cancelled())
            if len(self._calls) >= max(1, self.max_waiting):
                raise QueueFullError(
                    f"{len(self._calls)} calls wait already, as many as may", hint="Try again in a few seconds."
                )
            self._calls.append((function, future))
            self._lock.notify()
        return future

    def set_accepting(self, value: bool) -> None:
        """Says whether new requests are taken; those that were go on."""
        with self._lock:
            self._is_accepting = value

    def close(self, *, drain_seconds: int | float) -> None:
        """Takes no more requests, waits for those that were taken, and ends the thread.

        Call it from another thread than the one that `post` calls functions in.

        Args:
            drain_seconds: what has not ended by then fails with a `SchedulerClosedError`.
        """
        with self._lock:
            self._is_accepting = False
            self._ends_at = min(self._ends_at, time.monotonic() + drain_seconds)
            self._lock.notify()
        if self._thread is not None:
            self._thread.join()

    def counts(self) -> Counts:
        """Returns where the scheduler stands, from any thread."""
        batch = self._engine.batch
        with self._lock:
            num_open, is_accepting, has_died = len(self._open), self._is_accepting, self._has_died
        return replace(
            self._counts,
            is_alive=self._thread is not None and self._thread.is_alive(),
            has_died=has_died,
            is_accepting=is_accepting,
            rows_running=batch.num_running,
            rows_waiting=max(0, num_open - batch.num_running),
            trunk_batches=batch.num_trunk_batches,
            drafted_bytes=batch.drafts.num_drafted,
            kept_bytes=batch.drafts.num_kept,
            prefix_hits=self._prefixes.num_hits,
            prefix_bytes=self._prefixes.num_bytes,
        )

    def _require_accepting(self) -> None:
        if self._has_died:
            raise engine_stopped()
        if not self._is_accepting:
            raise SchedulerClosedError("no more requests are taken: the server is shutting down")

    def _run(self) -> None:
        """Is what the thread does."""
        try:
            while self._wait():
                try:
                    self._make_round()
                except Exception as error:  # none that is known of; whatever it was, later requests can be served
                    self._engine = self._new_engine()
                    self._fail(self._all_open(), failure("a round of the scheduler", error))
                    self._outbox.hand_over()
        finally:
            self._end()

    def _wait(self) -> bool:
        """Waits for something to do; returns False at the end."""
        with self._lock:
            while self._engine.is_done and not (self._arrived or self._cancelled or self._calls):
                if self._ends_at < math.inf:
                    return False
                self._lock.wait()
        return True

    def _make_round(self) -> None:
        """Does what other threads asked for, makes one call and one step, and hands over what came of it."""
        begin = time.monotonic()
        self._take_orders()
        self._make_call()
        joins = self._engine.next_to_join is not None
        if not self._engine.is_done:
            self._join()
            self._step()
        self._round_seconds[joins] = time.monotonic() - begin
        self._counts.seconds_busy += self._round_seconds[joins]
        self._outbox.hand_over(next_round=self._round_seconds[self._engine.next_to_join is not None])

    def _end(self) -> None:
        """Leaves nobody without an answer when the thread ends, whatever ended it."""
        with self._lock:
            self._is_accepting, self._has_died = False, self._ends_at == math.inf
            calls, self._calls = self._calls, deque()
        error = engine_stopped()
        self._fail(self._all_open(), error)
        self._refuse(calls, error)
        self._outbox.hand_over()

    def _all_open(self) -> list[Handle]:
        with self._lock:
            return list(self._open)

    @staticmethod
    def _refuse(calls: Iterable[tuple[Callable[[LanguageModel], Any], Future[Any]]], error: PatchpadError) -> None:
        """Tells those that wait for a call why it never comes."""
        for _, future in calls:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def _take_orders(self) -> None:
        """Takes requests in, and drops those that were cancelled or that came to the end of the time to drain."""
        with self._lock:
            arrived, self._arrived = self._arrived, deque()
            cancelled, self._cancelled = self._cancelled, deque()
            ends_at = self._ends_at
        for handle in arrived:
            if not handle.has_ended:
                (handle.row,) = self._engine.submit([handle.request])
                self._handles[handle.row.index] = handle
                self._counts.prompt_bytes += len(handle.request.prompt)
        dropped = [handle for handle in dict.fromkeys(cancelled) if not handle.has_ended]
        if dropped:
            self._engine.cancel(*(handle.row for handle in dropped if handle.row is not None))
        self._counts.rows_cancelled += len(dropped)
        for handle in dropped:
            self._complete(handle)
        if time.monotonic() >= ends_at:
            self._cut_short()

    def _cut_short(self) -> None:
        """Ends everything that is left when the time to drain is over."""
        error = SchedulerClosedError("the request was cut short: the server is shutting down")
        handles = list(self._handles.values())
        self._engine.cancel(*(handle.row for handle in handles if handle.row is not None))
        self._fail(handles, error)
        with self._lock:
            calls, self._calls = self._calls, deque()
        self._refuse(calls, error)

    def _make_call(self) -> None:
        """Calls the function that waits longest; one for each step, so that rows go on meanwhile."""
        with self._lock:
            function, future = self._calls.popleft() if self._calls else (None, None)
        if function is None or future is None or not future.set_running_or_notify_cancel():
            return
        self._counts.calls += 1
        try:
            future.set_result(function(self.model))
        except BaseException as error:  # whatever it is, it belongs to the caller, and the thread goes on
            future.set_exception(error)

    def _join(self) -> None:
        """Lets waiting rows join. Where that fails, they join one by one, so that only the cause of it fails."""
        engine = self._engine
        try:
            engine.join()
            return
        except Exception as error:
            logger.warning("prompts could not be read together (%s); they are read one by one", type(error).__name__)
        while (first := engine.next_to_join) is not None and engine.batch.num_running < engine.batch_rows:
            try:
                engine.join(most=1)
                if engine.batch.reading is not None:
                    return  # the next piece comes after the next step
            except Exception as error:
                engine.cancel(first)
                own = error if isinstance(error, PatchpadError) else failure("reading a prompt", error)
                self._fail([self._handles[first.index]], own)

    def _step(self) -> None:
        """Makes one step of the rows in the batch, if there are any."""
        engine = self._engine
        if not engine.batch.rows:
            return
        try:
            released = engine.step()
        except NotFiniteError as error:
            engine.cancel(*error.rows)
            self._fail([self._handles[row.index] for row in error.rows], error)
            return
        except Exception as error:
            self._counts.steps_failed += 1
            handles = [self._handles[row.index] for row in engine.batch.running]
            engine.drop_running()
            self._fail(handles, failure("a step", error))
            return
        self._counts.steps += 1
        now = time.monotonic()
        for new in released:
            self._collect(new, now)

    def _collect(self, new: NewBytes, now: float) -> None:
        """Keeps what a row has released until the outbox hands it over."""
        handle = self._handles[new.row]
        handle.data += new.data
        handle.reports += new.reports
        self._counts.new_bytes += len(new.data)
        if new.is_last:
            self._counts.rows_ended += 1
            self._complete(handle)
        else:
            self._outbox.add(handle, now)

    def _complete(self, handle: Handle) -> None:
        """Notes the last delivery of a row that has left the engine."""
        row = handle.row
        assert row is not None
        completion = Completion(
            data=row.data,
            trunk_calls=row.trunk_calls,
            trunk_cache_entries=row.trunk_cache_entries,
            stop_reason=row.stop_reason,
        )
        self._counts.trunk_calls += row.trunk_calls
        self._forget(handle)
        self._outbox.end(handle, completion=completion)

    def _fail(self, handles: Sequence[Handle], error: PatchpadError) -> None:
        """Notes the last delivery of rows that an error has ended."""
        for handle in handles:
            self._counts.rows_failed += 1
            self._forget(handle)
            self._outbox.end(handle, error=error)

    def _forget(self, handle: Handle) -> None:
        if handle.row is not None:
            self._handles.pop(handle.row.index, None)
        with self._lock:
            self._open.pop(handle, None)


def engine_stopped() -> EngineError:
    """Returns what requests are told when the engine's thread has died."""
    return EngineError("the engine has stopped", hint="Start the server again; its log says more.")


def failure(what: str, error: Exception) -> EngineError:
    """Logs an unexpected exception, and returns what the requests that it hit are told."""
    logger.error("%s failed with %s: %s", what, type(error).__name__, first_words(error))
    logger.debug("where it failed", exc_info=error)
    return EngineError(
        f"the engine failed in {what} ({type(error).__name__})", hint="Send the request again; the log says more."
    )


__all__ = ["Counts", "Deliver", "Delivery", "Handle", "Scheduler"]
