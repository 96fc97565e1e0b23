"""The scheduler: requests of other threads share one engine, and nothing that befalls one stops the others."""

import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future

import pytest
import torch

from patchpad.errors import ConfigError, EngineError, GenerationError, QueueFullError, SchedulerClosedError
from patchpad.inference import draft_rule
from patchpad.inference.engine import Request
from patchpad.inference.generator import complete
from patchpad.inference.sampling import Sampling
from patchpad.serving.scheduler import Delivery, Scheduler
from patchpad.testing import random_documents, sharp_model, tiny_model_config

SECONDS = 60
"""Longest wait for something that comes at once."""
GREEDY, SAMPLED = Sampling(temperature=0.0), Sampling(temperature=0.9, top_p=0.9)


@pytest.fixture(scope="module")
def model():
    made = sharp_model(tiny_model_config("fixed", "entropy"), seed=3)
    with torch.no_grad():
        made.local_decoder.lm_head.weight[256] = 0  # documents hardly end
    return made


@pytest.fixture
def started(model):
    """Starts schedulers, and closes them at the end of the test."""
    made: list[Scheduler] = []

    def start(**options) -> Scheduler:
        made.append(Scheduler(options.pop("model", model), **options))
        made[-1].start()
        return made[-1]

    yield start
    for scheduler in made:
        scheduler.close(drain_seconds=0)


class Listener:
    """Collects what a row hands over; `ended` has the last delivery."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.ended: Future[Delivery] = Future()

    def __call__(self, delivery: Delivery) -> None:
        assert not self.ended.done(), "something came after the last delivery"
        self.deliveries.append(delivery)
        if delivery.is_last:
            self.ended.set_result(delivery)

    @property
    def data(self) -> bytes:
        return b"".join(delivery.data for delivery in self.deliveries)

    def last(self) -> Delivery:
        return self.ended.result(SECONDS)


def request(prompt: bytes = b"abc", **options) -> Request:
    values = {"max_new_bytes": 20, "threshold": 1.0, "sampling": GREEDY, "seed": 0, **options}
    return Request(prompt=prompt, **values)


def endless(prompt: bytes = b"on and on") -> Request:
    return request(prompt, max_new_bytes=10**6, sampling=SAMPLED)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def fail_once(scheduler: Scheduler, name: str, error: Exception, when: Callable[..., bool] = lambda *_: True) -> None:
    """Has a phase of the stepper fail the next time that `when` is true of its arguments."""
    stepper = scheduler._engine.stepper
    plain = getattr(stepper, name)

    def failing(*arguments):
        if when(*arguments):
            setattr(stepper, name, plain)
            raise error
        return plain(*arguments)

    setattr(stepper, name, failing)


@pytest.mark.unchecked
@pytest.mark.parametrize("draft", ["off", 5])
def test_requests_of_many_threads_get_what_they_get_alone(model, started, draft):
    scheduler = started(batch_rows=3, max_waiting=100, draft=draft)
    prompts = random_documents(1, [5 * number for number in range(8)])
    listeners = [Listener() for _ in prompts]

    def send(first: int) -> None:
        for number in range(first, len(prompts), 4):
            sampling = (GREEDY, SAMPLED)[number % 2]
            one = request(prompts[number], seed=number, sampling=sampling, max_new_bytes=3 + number)
            scheduler.submit(one, listeners[number])

    threads = [threading.Thread(target=send, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, listener in enumerate(listeners):
        sampled = {"temperature": 0.9, "top_p": 0.9} if number % 2 else {"temperature": 0}
        alone = complete(
            model, prompts[number], seed=number, max_new_bytes=3 + number, scratchpad_threshold_nats=1.0, **sampled
        )
        assert listener.last().completion == alone
        assert listener.data == alone.data
    counts = scheduler.counts()
    assert (counts.rows_ended, counts.rows_running, counts.rows_waiting) == (8, 0, 0)
    assert counts.new_bytes == sum(len(listener.data) for listener in listeners)
    assert counts.trunk_calls == sum(listener.last().completion.trunk_calls for listener in listeners)
    assert counts.prompt_bytes == sum(map(len, prompts))
    assert (0 < counts.kept_bytes < counts.drafted_bytes) == (draft != "off")


@pytest.mark.unchecked
def test_drafts_are_tried_where_nobody_says_otherwise(model, started, monkeypatch):
    for name, value in (("LEAST_TRUNK_PARAMETERS", 100), ("TRIAL_IDS", 9), ("HOPELESS", 1e9)):
        monkeypatch.setattr(draft_rule, name, value)
    scheduler, listeners = started(), [Listener() for _ in range(3)]
    for number, listener in enumerate(listeners):
        scheduler.submit(request(b"x" * number, max_new_bytes=150, sampling=SAMPLED, seed=number), listener)
    options = {"max_new_bytes": 150, "scratchpad_threshold_nats": 1.0, "temperature": 0.9, "top_p": 0.9}
    for number, listener in enumerate(listeners):
        alone = complete(model, b"x" * number, seed=number, draft="off", **options)
        assert listener.last().completion == alone
    counts = scheduler.counts()
    assert 0 < counts.kept_bytes < counts.new_bytes  # some come from steps


@pytest.mark.unchecked
def test_a_step_that_fails_with_drafts_ends_its_rows_and_no_others(model, started):
    scheduler, first, second = started(draft=4), Listener(), Listener()
    fail_once(scheduler, "extend", RuntimeError("broken"))
    scheduler.submit(request(), first)
    assert isinstance(first.last().error, EngineError)
    scheduler.submit(request(), second)
    assert second.last().completion == complete(
        model, b"abc", max_new_bytes=20, temperature=0, scratchpad_threshold_nats=1.0
    )


def test_all_deliveries_of_a_step_are_posted_at_once(model):
    posted, listeners = [], [Listener() for _ in range(5)]
    scheduler = Scheduler(model, event_seconds=1000)
    scheduler.submit_all([(request(b"x" * number), listener) for number, listener in enumerate(listeners)])
    scheduler.start(post=posted.append)
    scheduler.close(drain_seconds=SECONDS)
    assert not any(listener.deliveries for listener in listeners)
    for function in posted:
        function()
    assert len(posted) <= 1 + 5  # the first bytes together, then the last ones
    for listener in listeners:
        assert [len(delivery.data) for delivery in listener.deliveries] == [1, 19]


def test_bytes_are_handed_over_when_they_are_old_enough(model, started):
    listener = Listener()
    started(event_seconds=0).submit(request(), listener)
    listener.last()
    assert [len(delivery.data) for delivery in listener.deliveries] == [1] * 20


def test_a_cancelled_row_ends_with_what_it_has_and_makes_room(started):
    scheduler = started(batch_rows=1)
    running, waiting, other = Listener(), Listener(), Listener()
    first = scheduler.submit(endless(), running)
    second = scheduler.submit(endless(), waiting)
    scheduler.submit(request(), other)
    wait_until(lambda: len(running.deliveries) > 1)
    scheduler.cancel(second)
    scheduler.cancel(first)
    scheduler.cancel(first)
    assert running.last().completion.stop_reason is None
    assert running.last().completion.data == running.data != b""
    assert running.last().completion.trunk_calls > 0
    assert waiting.last().completion.data == b""
    assert other.last().completion.stop_reason == "length"
    scheduler.cancel(first)  # has ended
    counts = scheduler.counts()
    assert (counts.rows_cancelled, counts.rows_ended) == (2, 1)


def test_no_step_is_made_after_a_cancellation(model):
    scheduler, posted = Scheduler(model), threading.Event()
    steps_at_end = []
    handle = scheduler.submit(
        endless(), lambda delivery: steps_at_end.append((delivery.is_last, scheduler._counts.steps))
    )
    scheduler.call(lambda _: (posted.wait(SECONDS), scheduler.cancel(handle)))
    scheduler.start()
    posted.set()
    scheduler.close(drain_seconds=SECONDS)
    ((is_last, steps),) = steps_at_end[-1:]
    assert is_last
    assert steps <= 1


def test_a_full_queue_takes_no_more_until_there_is_room(started):
    scheduler = started(batch_rows=2, max_waiting=3)
    listeners = [Listener() for _ in range(5)]
    handles = [scheduler.submit(endless(), listener) for listener in listeners]
    with pytest.raises(QueueFullError, match="3 of 3 places in the queue are taken"):
        scheduler.submit(request(), Listener())
    scheduler.cancel(handles[0])
    listeners[0].last()
    with pytest.raises(QueueFullError):  # all or none
        scheduler.submit_all([(request(), Listener()), (request(), Listener())])
    one_more = Listener()
    handles.append(scheduler.submit(request(), one_more))
    assert scheduler.counts().rows_waiting == 3
    for handle in handles[:-1]:
        scheduler.cancel(handle)
    assert one_more.last().completion is not None


def test_a_bias_for_an_id_that_the_model_lacks_is_refused_by_the_thread_that_asks(started):
    with pytest.raises(GenerationError, match="logit_bias has the id 257; allowed: 0 to 256"):
        started().submit(request(sampling=Sampling(logit_bias=((257, 1.0),))), Listener())


def test_a_call_runs_between_steps_and_its_error_is_the_callers(model, started):
    scheduler, listener = started(), Listener()
    handle = scheduler.submit(endless(), listener)
    names = [scheduler.call(lambda given: (given is model, threading.current_thread().name)) for _ in range(3)]
    assert [name.result(SECONDS) for name in names] == [(True, "patchpad-engine")] * 3
    with pytest.raises(SystemExit):
        scheduler.call(lambda _: exec("raise SystemExit(3)")).result(SECONDS)
    before = len(listener.deliveries)
    wait_until(lambda: len(listener.deliveries) > before)
    scheduler.cancel(handle)
    assert listener.last().completion is not None
    assert scheduler.counts().calls == 4


def test_an_exception_in_deliver_cancels_that_row_alone(started):
    scheduler, calls, other = started(event_seconds=0), [], Listener()

    def fail(delivery: Delivery) -> None:
        calls.append(delivery)
        raise RuntimeError("cannot take it")

    scheduler.submit(endless(), fail)
    scheduler.submit(request(), other)
    assert other.last().completion.stop_reason == "length"
    wait_until(lambda: scheduler.counts().rows_cancelled == 1)
    assert len(calls) <= 3
    assert scheduler.counts().is_alive


def test_a_loop_that_takes_nothing_more_ends_the_rows(model):
    def closed(function):
        raise RuntimeError("Event loop is closed")

    scheduler = Scheduler(model)
    scheduler.submit(endless(), Listener())
    scheduler.start(post=closed)
    wait_until(lambda: scheduler.counts().rows_cancelled == 1)
    scheduler.close(drain_seconds=0)


def test_an_unexpected_exception_of_a_step_reaches_its_rows_and_the_waiting_ones_go_on(started, caplog):
    scheduler = started(batch_rows=2)
    hit, waiting = [Listener(), Listener()], [Listener(), Listener()]
    for listener in hit:
        scheduler.submit(endless(), listener)
    wait_until(lambda: all(listener.deliveries for listener in hit))
    for listener in waiting:
        scheduler.submit(request(), listener)
    fail_once(scheduler, "predict", torch.OutOfMemoryError("no memory"))
    for listener in hit:
        assert isinstance(listener.last().error, EngineError)
        assert "OutOfMemoryError" in str(listener.last().error)
    assert [listener.last().completion.stop_reason for listener in waiting] == ["length", "length"]
    counts = scheduler.counts()
    assert (counts.rows_failed, counts.steps_failed, counts.is_alive) == (2, 1, True)
    assert "Traceback" not in caplog.text


def test_a_prompt_that_cannot_be_read_fails_alone(started):
    scheduler, running = started(), Listener()
    handle = scheduler.submit(endless(), running)
    wait_until(lambda: running.deliveries != [])
    plain = scheduler._engine.stepper.prefill

    def prefill(prompts, threshold):
        if b"bad" in prompts:
            raise RuntimeError("cannot read it")
        return plain(prompts, threshold)

    scheduler._engine.stepper.prefill = prefill
    listeners = [Listener() for _ in range(3)]
    scheduler.submit_all(
        [(request(prompt), listener) for prompt, listener in zip((b"a", b"bad", b"c"), listeners, strict=True)]
    )
    good, bad, fine = (listener.last() for listener in listeners)
    assert good.completion.stop_reason == fine.completion.stop_reason == "length"
    assert isinstance(bad.error, EngineError)
    scheduler.cancel(handle)
    assert running.last().completion is not None


def test_a_row_whose_logits_are_not_numbers_fails_alone(model, started):
    scheduler, listeners = started(), [Listener() for _ in range(3)]
    plain = scheduler._engine.stepper.predict

    def predict(state, rows):
        logits = plain(state, rows)
        bad = state.counts.newest_id[rows] == 7
        return torch.where(bad[:, None], torch.nan, logits)

    scheduler._engine.stepper.predict = predict
    never, always = ((7, -100.0),), ((7, 100.0),)
    for listener, bias in zip(listeners, (never, always, never), strict=True):
        scheduler.submit(request(sampling=Sampling(logit_bias=bias)), listener)
    assert [listener.last().completion is not None for listener in listeners] == [True, False, True]
    assert isinstance(listeners[1].last().error, GenerationError)
    assert listeners[1].data == b"\x07"


def test_an_exception_outside_of_steps_does_not_end_the_thread(started, monkeypatch):
    scheduler, hit, later = started(), Listener(), Listener()
    plain, failed = scheduler._take_orders, []

    def fail():
        if not failed and scheduler._open:
            failed.append(True)
            raise MemoryError
        plain()

    monkeypatch.setattr(scheduler, "_take_orders", fail)
    scheduler.submit(endless(), hit)
    assert isinstance(hit.last().error, EngineError)
    scheduler.submit(request(), later)
    assert later.last().completion is not None


def test_whatever_ends_the_thread_leaves_nobody_without_an_answer(model, monkeypatch):
    scheduler, listeners = Scheduler(model, batch_rows=1), [Listener(), Listener()]
    for listener in listeners:
        scheduler.submit(endless(), listener)
    later = scheduler.call(lambda _: None)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def end(*_):
        raise SystemExit

    scheduler._make_round = end
    scheduler.start()
    for listener in listeners:
        assert isinstance(listener.last().error, EngineError)
    assert isinstance(later.exception(SECONDS), EngineError)
    scheduler._thread.join(SECONDS)
    assert not scheduler.counts().is_alive
    assert scheduler.counts().has_died
    with pytest.raises(EngineError, match="the engine has stopped"):
        scheduler.submit(request(), Listener())


def test_as_many_calls_wait_as_rows_may(model):
    scheduler = Scheduler(model, max_waiting=2)
    waiting = [scheduler.call(lambda _: 7) for _ in range(2)]
    with pytest.raises(QueueFullError, match="2 calls wait already"):
        scheduler.call(lambda _: 7)
    scheduler.start()
    assert [one.result(SECONDS) for one in waiting] == [7, 7]
    scheduler.close(drain_seconds=0)


def test_calls_that_nobody_waits_for_take_no_place(model):
    scheduler = Scheduler(model, max_waiting=2)  # not started yet, so that calls stay
    left = [scheduler.call(lambda _: "left") for _ in range(2)]
    for one in left:
        one.cancel()
    stays = scheduler.call(lambda _: "stays")
    scheduler.start()
    assert stays.result(SECONDS) == "stays"
    scheduler.close(drain_seconds=SECONDS)


def test_a_queue_without_places_still_has_one_for_a_call(started):
    assert started(max_waiting=0).call(lambda _: 1).result(SECONDS) == 1


@pytest.mark.parametrize("options", [{"batch_rows": 0}, {"batch_rows": -1}, {"max_waiting": -1}])
def test_numbers_of_rows_that_are_none_are_refused(model, options):
    with pytest.raises(ConfigError, match=f"{next(iter(options))} is .*; allowed: "):
        Scheduler(model, **options)


@pytest.mark.unchecked
def test_requests_that_have_ended_leave_nothing_behind(model, started):
    scheduler = started(batch_rows=4, prefix_bytes=20_000)
    seen: list[weakref.ref] = []
    for number in range(40):
        listener = Listener()
        options = {"max_new_bytes": 3, "num_logprobs": 2, "details": True}
        handle = scheduler.submit(request(bytes([number]) * 20, **options), listener)
        seen += [weakref.ref(handle), weakref.ref(listener)]
        if number % 4 == 0:
            scheduler.cancel(handle)
        listener.last()
    del handle, listener
    last = Listener()
    scheduler.submit(request(max_new_bytes=1), last)
    last.last()
    scheduler.call(lambda _: None).result(SECONDS)
    gc.collect()
    assert [reference() for reference in seen if reference() is not None] == []
    assert scheduler.counts().prefix_bytes <= 20_000


def test_close_lets_rows_end(model):
    scheduler, listener = Scheduler(model), Listener()
    scheduler.submit(request(max_new_bytes=40), listener)
    scheduler.start()
    scheduler.close(drain_seconds=SECONDS)
    assert listener.last().completion.stop_reason == "length"
    assert not scheduler.counts().is_alive
    with pytest.raises(SchedulerClosedError):
        scheduler.submit(request(), Listener())
    with pytest.raises(SchedulerClosedError):
        scheduler.call(lambda _: None)


def test_close_cuts_short_what_does_not_end_in_time(model, started):
    scheduler, listeners = started(batch_rows=1), [Listener(), Listener()]
    for listener in listeners:
        scheduler.submit(endless(), listener)
    wait_until(lambda: listeners[0].deliveries != [])
    scheduler.close(drain_seconds=0.05)
    for listener in listeners:
        assert isinstance(listener.last().error, SchedulerClosedError)
    assert listeners[0].data
    assert not listeners[1].data


def test_a_scheduler_that_accepts_nothing_goes_on_with_what_it_has(started):
    scheduler, listener = started(), Listener()
    handle = scheduler.submit(endless(), listener)
    scheduler.set_accepting(False)
    assert not scheduler.counts().is_accepting
    with pytest.raises(SchedulerClosedError):
        scheduler.submit(request(), Listener())
    before = len(listener.deliveries)
    wait_until(lambda: len(listener.deliveries) > before)
    scheduler.set_accepting(True)
    scheduler.cancel(handle)
    assert listener.last().completion is not None
