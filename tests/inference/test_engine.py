"""The engine: rows join, leave and advance on their own, and each gives what it gives alone."""

import math
import random
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.inference.draft_rule import FixedDrafts
from patchpad.inference.drafting import DraftLimits
from patchpad.inference.engine import Engine, Request
from patchpad.inference.sampling import Sampling
from patchpad.testing import ALL_OPTIONS, random_documents, sharp_model, tiny_model_config

GREEDY = Sampling(temperature=0.0)
SAMPLED = Sampling(temperature=1.0, top_p=0.95)


def request(prompt: bytes, *, model, seed: int = 0, sampling: Sampling = GREEDY, **options) -> Request:
    values = {"max_new_bytes": 30, "threshold": float(model.scratchpad_threshold_nats), **options}
    return Request(prompt=prompt, seed=seed, sampling=sampling, **values)


def run(engine: Engine) -> None:
    while not engine.is_done:
        engine.advance()


def alone(model, one: Request):
    engine = Engine(model)
    (row,) = engine.submit([one])
    run(engine)
    return row


def facts(row):
    return bytes(row.data), row.stop_reason, row.trunk_calls, row.trunk_cache_entries


@pytest.fixture(
    scope="module",
    params=[
        ("fixed", "entropy", {}), ("spacebyte", "entropy_jump", {}), ("fixed", "random", {}), ("hnet", "stride", {}),
        ("entropy", "entropy", {}), ("spacebyte", "entropy", ALL_OPTIONS),
        ("tokens", "ending_entropy", {"source_head": "tied"}),
    ],
    ids=[
        "fixed-entropy", "spacebyte-entropy_jump", "fixed-random", "hnet-stride", "entropy-entropy", "all options",
        "tokens-ending_entropy",
    ],
)  # fmt: skip
def model(request):
    patchifier, trigger, options = request.param
    return sharp_model(tiny_model_config(patchifier, trigger, **options), seed=3)


@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=9),
    share=st.sampled_from([0.0, 0.3, 0.75, 1.0]),
    batch_rows=st.integers(1, 5),
    seed=st.integers(0, 1000),
    free_share=st.sampled_from([0.9, 0.25, 0.0]),
    draft=st.sampled_from(["off", 1, 5, 16]),
)
def test_rows_that_join_and_leave_give_what_they_give_alone(model, lengths, share, batch_rows, seed, free_share, draft):
    requests = [
        request(
            prompt, model=model, max_new_bytes=3 + 5 * (number % 4), seed=number, sampling=(GREEDY, SAMPLED)[number % 2]
        )
        for number, prompt in enumerate(random_documents(seed, lengths))
    ]
    engine = Engine(model, batch_rows=batch_rows, trunk_group_share=share, draft=draft)
    rows = engine.submit(requests)
    with mock.patch("patchpad.inference.batch.MOST_FREE_SHARE", free_share):
        run(engine)
    assert [facts(row) for row in rows] == [facts(alone(model, one)) for one in requests]


@pytest.mark.unchecked
def test_a_row_that_joins_takes_the_place_of_one_that_left_and_nothing_else_is_copied(model, monkeypatch):
    requests = [
        request(prompt, model=model, max_new_bytes=5 + 3 * (number % 4), seed=number, sampling=SAMPLED)
        for number, prompt in enumerate(random_documents(4, [5 * number for number in range(10)]))
    ]
    engine = Engine(model, batch_rows=4)
    rows = engine.submit(requests)
    monkeypatch.setattr("patchpad.inference.batch.MOST_FREE_SHARE", 0.8)
    kind, kept, seen = type(engine.batch), [], 0
    plain = kind.keep
    monkeypatch.setattr(kind, "keep", lambda batch, places: kept.append(places) or plain(batch, places))
    while not engine.is_done:
        engine.advance()
        seen = max(seen, len(engine.batch.free))
        if engine.batch.pending:
            assert kept == []
    assert seen > 0
    assert [facts(row) for row in rows] == [facts(alone(model, one)) for one in requests]


@pytest.mark.unchecked
def test_what_a_row_left_behind_cannot_reach_the_one_that_takes_its_place(model):
    engine = Engine(model, batch_rows=4)
    rows = engine.submit([request(b"x" * 400, model=model, max_new_bytes=40) for _ in range(4)])
    engine.advance()
    place = engine.batch.rows.index(rows[1])
    with torch.inference_mode():
        for part in engine.batch.state.cache_tensors():
            part[place] = math.nan
    late_request = request(b"short", model=model, max_new_bytes=40, sampling=SAMPLED)
    engine.cancel(rows[1])
    assert engine.batch.free == (place,)
    (late,) = engine.submit([late_request])
    run(engine)
    assert facts(late) == facts(alone(model, late_request))
    assert facts(rows[0]) == facts(alone(model, rows[0].request))


@pytest.mark.unchecked
def test_a_row_may_join_a_running_batch_and_leave_it(model):
    first, second, third = (
        request(prompt, model=model, max_new_bytes=40) for prompt in random_documents(7, [25, 3, 50])
    )
    engine = Engine(model)
    (early,) = engine.submit([first])
    for _ in range(10):
        engine.advance()
    dropped, late = engine.submit([second, third])
    for _ in range(10):
        engine.advance()
    engine.cancel(dropped)
    run(engine)
    assert facts(early) == facts(alone(model, first))
    assert facts(late) == facts(alone(model, third))
    assert dropped.stop_reason is None
    assert bytes(alone(model, second).data).startswith(bytes(dropped.data))
    assert 0 < len(dropped.data) <= 10


@pytest.mark.unchecked
def test_steps_and_drafts_may_take_turns_while_rows_join_and_leave(model):
    requests = [
        request(prompt, model=model, max_new_bytes=12 + 9 * number, seed=number, sampling=(GREEDY, SAMPLED)[number % 2])
        for number, prompt in enumerate(random_documents(9, [25, 3, 50, 0, 11]))
    ]
    engine, source = Engine(model, batch_rows=3), random.Random(2)
    rows = engine.submit(requests)
    dropped = rows[3]
    while not engine.is_done:
        engine.drafts = FixedDrafts(source.choice([None, None, DraftLimits(most_bytes=3)]))
        engine.advance()
        if len(dropped.data) > 8:
            engine.cancel(dropped)
    assert [facts(row) for row in rows if row is not dropped] == [
        facts(alone(model, row.request)) for row in rows if row is not dropped
    ]
    assert bytes(alone(model, dropped.request).data).startswith(bytes(dropped.data))


@pytest.mark.unchecked
def test_drafts_save_calls_of_the_trunk_and_are_counted(model):
    requests = [request(prompt, model=model, max_new_bytes=20) for prompt in random_documents(5, [9, 30])]
    with_drafts, without = Engine(model, draft=8), Engine(model)
    rows = with_drafts.submit(requests)
    without.submit(requests)
    run(with_drafts)
    run(without)
    counts = with_drafts.batch.drafts
    assert counts.num_drafts <= counts.num_kept <= counts.num_drafted
    ids = sum(row.progress.num_chosen for row in rows)
    ended_behind = sum(row.stop_reason == "length" for row in rows)  # by a last byte that nothing reads
    assert ids - len(rows) <= counts.num_kept <= ids - ended_behind
    assert without.batch.drafts == (0, 0, 0, 0)
    assert counts.trunk_calls > 0


@pytest.mark.unchecked
def test_one_call_of_the_trunk_serves_the_slots_of_a_whole_draft():
    model = sharp_model(tiny_model_config("fixed", "always", patch_size=4), seed=3)
    with torch.no_grad():
        model.local_decoder.lm_head.weight[256] = 0  # documents hardly end
        model.context_to_bytes.projection.weight.zero_()  # every guess is right
    engine = Engine(model, draft=8)
    (row,) = engine.submit([request(b"abc", model=model, max_new_bytes=41)])
    run(engine)
    assert engine.batch.num_trunk_batches == 5
    assert engine.batch.drafts == (5, 40, 40, 40)
    assert facts(row) == facts(alone(model, row.request))


def test_a_threshold_that_changes_between_rounds_counts_from_the_next_byte():
    model = sharp_model(tiny_model_config("fixed", "entropy"), seed=3)
    prompt = random_documents(3, [40])[0]
    engine = Engine(model, draft=6)
    (row,) = engine.submit([request(prompt, model=model, threshold=math.inf, max_new_bytes=60)])
    while len(row.data) < 20:
        engine.advance()
    engine.refresh_counts()
    before = len(row.data)
    assert row.trunk_calls == row.trunk_cache_entries == (40 + before) // 5
    engine.set_threshold(row, -math.inf)
    while len(row.data) < 40:
        engine.advance()
    engine.refresh_counts()
    assert row.trunk_cache_entries == (40 + len(row.data)) // 5
    assert row.trunk_calls == (40 + before) // 5 + len(row.data) - before


def test_a_cancelled_row_that_waits_never_joins(model):
    engine = Engine(model, batch_rows=1)
    one, two = engine.submit([request(b"a", model=model), request(b"b", model=model)])
    engine.advance()
    engine.cancel(two)
    run(engine)
    assert one.stop_reason is not None
    assert (bytes(two.data), two.stop_reason) == (b"", None)


def test_the_batch_never_has_more_rows_than_allowed(model):
    engine = Engine(model, batch_rows=3)
    rows = engine.submit([request(b"x" * number, model=model, max_new_bytes=number) for number in range(8)])
    while not engine.is_done:
        engine.advance()
        assert len(engine.batch.rows) <= 3
        assert engine.batch.state is None or len(engine.batch.state.position) == len(engine.batch.rows)
    assert [len(row.data) for row in rows if row.stop_reason == "length"] == [
        row.request.max_new_bytes for row in rows if row.stop_reason == "length"
    ]


def test_long_prompts_are_read_alone(model, monkeypatch):
    monkeypatch.setattr("patchpad.inference.blocks.CPU_BLOCK_POSITIONS", 20)
    engine = Engine(model, batch_rows=4)
    seen, prefill, extend = [], engine.stepper.prefill, engine.stepper.extend
    engine.stepper.prefill = lambda prompts, threshold: (
        seen.append(list(map(len, prompts))) or prefill(prompts, threshold)
    )
    engine.stepper.extend = lambda state, ids, threshold: (
        seen.append(list(map(len, ids))) or extend(state, ids, threshold)
    )
    engine.submit([request(b"x" * length, model=model, max_new_bytes=3) for length in (50, 8, 8, 8)])
    run(engine)
    # The separator, then blocks; of the others two at once, nine positions each, and not three.
    assert seen[:4] == [[0], [20], [20], [10]]
    assert sorted(seen[4:], reverse=True) == [[8, 8], [8]]


def test_rows_whose_prefill_fails_go_on_waiting(model):
    engine = Engine(model, batch_rows=2)
    rows = engine.submit([request(prompt, model=model, max_new_bytes=3) for prompt in (b"a", b"b", b"c")])
    prefill = engine.stepper.prefill

    def fail(*_):
        raise torch.OutOfMemoryError("no memory")

    engine.stepper.prefill = fail
    with pytest.raises(torch.OutOfMemoryError):
        engine.advance()
    engine.stepper.prefill = prefill
    run(engine)
    assert [facts(row) for row in rows] == [facts(alone(model, row.request)) for row in rows]


def trunk_batches_per_byte(model, rows: int, share: float) -> float:
    engine = Engine(model, batch_rows=rows, trunk_group_share=share)
    submitted = engine.submit(
        [
            request(prompt, model=model, max_new_bytes=60, seed=7, sampling=SAMPLED)
            for prompt in random_documents(1, [9 + 7 * row for row in range(rows)])
        ]
    )
    run(engine)
    return engine.batch.num_trunk_batches / max(len(row.data) for row in submitted)


@pytest.mark.unchecked
def test_the_saving_of_scratchpads_survives_a_batch():
    model = sharp_model(tiny_model_config("fixed", "random", patch_size=16), seed=3)
    with torch.no_grad():
        model.local_decoder.lm_head.weight[256] = 0  # documents hardly end
    single = trunk_batches_per_byte(model, 1, 0.75)
    assert single < 0.35
    for rows in (8, 32):
        assert trunk_batches_per_byte(model, rows, 0.0) > 2.5 * single  # in lockstep, some row always needs the trunk
        assert trunk_batches_per_byte(model, rows, 0.75) < 1.9 * single


def test_a_new_threshold_counts_from_the_next_byte_and_leaves_commits_alone():
    model = sharp_model(tiny_model_config("fixed", "entropy"), seed=3)
    prompt = random_documents(3, [40])[0]
    engine = Engine(model)
    (row,) = engine.submit([request(prompt, model=model, threshold=math.inf, max_new_bytes=60)])
    for _ in range(20):
        engine.advance()
    engine.refresh_counts()
    assert row.trunk_calls == row.trunk_cache_entries == (40 + 20) // 5
    engine.set_threshold(row, -math.inf)
    for _ in range(20):
        engine.advance()
    engine.refresh_counts()
    assert row.trunk_cache_entries == 80 // 5
    assert row.trunk_calls == 60 // 5 + 20


@pytest.mark.unchecked
def test_rows_of_one_batch_have_their_own_thresholds():
    model = sharp_model(tiny_model_config("fixed", "entropy"), seed=3)
    requests = [request(b"the same", model=model, threshold=threshold) for threshold in (math.inf, 1.0, -math.inf)]
    engine = Engine(model)
    rows = engine.submit(requests)
    run(engine)
    assert [facts(row) for row in rows] == [facts(alone(model, one)) for one in requests]
    assert rows[0].trunk_calls < rows[1].trunk_calls < rows[2].trunk_calls


@pytest.mark.parametrize(
    ("sampling", "asked"),
    [
        pytest.param(GREEDY, {}, id="greedy", marks=pytest.mark.unchecked),
        pytest.param(SAMPLED, {}, id="sampled", marks=pytest.mark.unchecked),
        pytest.param(
            Sampling(temperature=0.7, logit_bias=((3, 2.0),)),
            {"num_logprobs": 3, "details": True},
            id="everything is reported",
        ),
    ],
)
def test_a_step_reads_from_the_device_once(sampling, asked, monkeypatch):
    model = sharp_model(tiny_model_config("fixed", "entropy"), seed=3)
    engine = Engine(model)
    requests = [
        request(b"x" * length, model=model, sampling=sampling, max_new_bytes=150, **(asked if length != 9 else {}))
        for length in (3, 9, 30)
    ]
    for row in engine.submit(requests):
        row.draws[150]  # made on the host
    engine.advance()
    reads = []
    for name in ("tolist", "item", "__bool__", "__int__", "__float__", "__index__", "nonzero", "cpu", "numpy"):
        plain = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda *a, p=plain, n=name, **k: (reads.append(n), p(*a, **k))[1])
    steps = 0
    while not engine.is_done:  # past 64 patches, so that the cache grows
        engine.advance()
        steps += 1
    assert steps > 100
    assert len([name for name in reads if name != "tolist"]) <= 3 * 2  # where a row leaves, its place is checked
    assert reads.count("tolist") == steps
