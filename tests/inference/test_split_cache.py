"""Rows of unlike lengths do not pad each other in the trunk's cache, and give what they give alone."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import patchpad
from patchpad.inference import blocks
from patchpad.inference.cache import TrunkCache
from patchpad.inference.engine import Engine, Request
from patchpad.inference.sampling import Sampling
from patchpad.inference.split_cache import SplitTrunkCache, fitted, grouped, homes_of, joined, with_rows_at
from patchpad.inference.stepper import step_all
from patchpad.inference.steppers import stepper_for
from patchpad.testing import (
    ALL_OPTIONS,
    OPTIONS,
    random_documents,
    sharp_baseline,
    sharp_model,
    tiny_model_config,
    tolerance,
)

MODELS = {
    "fixed-entropy": ("fixed", "entropy", {}),
    "spacebyte-entropy_jump": ("spacebyte", "entropy_jump", OPTIONS["grouped queries"]),
    "hnet-stride": ("hnet", "stride", {}),
    "tokens-ending_entropy": ("tokens", "ending_entropy", {"source_head": "tied"}),
    "window": ("spacebyte", "entropy", ALL_OPTIONS),
    "byte": None,
    "megabyte": None,
}
CHECKED = {"fixed-entropy", "megabyte"}
"""Those whose shapes are checked too."""
every_model = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in CHECKED else pytest.mark.unchecked) for name in MODELS]
)


def model_named(name: str):
    if MODELS[name] is None:
        return sharp_baseline(name, seed=3)
    patchifier, trigger, options = MODELS[name]
    return sharp_model(tiny_model_config(patchifier, trigger, **options), seed=3)


def grow_by(monkeypatch, places: int) -> None:
    """Lets caches grow by so few places that tiny texts are of unlike lengths."""
    for module in ("cache", "split_cache"):
        monkeypatch.setattr(f"patchpad.inference.{module}.GROWTH", places)


def request(model, prompt: bytes, number: int, **options) -> Request:
    sampling = (Sampling(temperature=0.0), Sampling(temperature=1.0, top_p=0.95))[number % 2]
    values = {"max_new_bytes": 6 + 13 * (number % 4), "sampling": sampling, **options}
    return Request(prompt=prompt, seed=number, threshold=float(model.scratchpad_threshold_nats), **values)


def run(engine: Engine) -> int:
    """Runs to the end; returns in how many steps the cache was in parts."""
    num_split = 0
    while not engine.is_done:
        engine.advance()
        state = engine.batch.state
        num_split += state is not None and isinstance(state.trunk, SplitTrunkCache)
    return num_split


def facts(row):
    return bytes(row.data), row.stop_reason, row.trunk_calls, row.trunk_cache_entries


def alone(model, one: Request):
    engine = Engine(model)
    (row,) = engine.submit([one])
    run(engine)
    return facts(row)


@every_model
@given(seed=st.integers(0, 9_999), draft=st.sampled_from(["off", 5]), free_share=st.sampled_from([0.9, 0.25]))
def test_rows_of_unlike_lengths_join_and_leave_and_give_what_they_give_alone(name, seed, draft, free_share):
    source = random.Random(seed)
    model = model_named(name)
    lengths = [source.choice([0, 5, 30, 90, 300]) for _ in range(source.randrange(3, 10))] + [250, 3]
    requests = [request(model, prompt, number) for number, prompt in enumerate(random_documents(seed, lengths))]
    with pytest.MonkeyPatch.context() as patched:
        grow_by(patched, 4)
        patched.setattr("patchpad.inference.batch.MOST_FREE_SHARE", free_share)
        engine = Engine(model, batch_rows=4, draft=draft if MODELS[name] is not None else "off")
        rows = engine.submit(requests)
        num_split = run(engine)
        assert (num_split > 0) == (name != "window"), "a window of the trunk has a bound of its own"
        assert [facts(row) for row in rows] == [alone(model, one) for one in requests]


def num_places(cache) -> int:
    """Places of all rows together."""
    parts = cache.parts if isinstance(cache, SplitTrunkCache) else [cache]
    return sum(len(part.keys[0]) * part.capacity for part in parts)


def test_one_long_row_among_many_costs_its_own_cache_and_not_theirs():
    model = sharp_model(tiny_model_config("fixed", patch_size=1), seed=3)
    texts = random_documents(2, [3000, *[20 + number for number in range(15)]])
    engine = Engine(model, batch_rows=16)
    engine.submit([request(model, text, number, max_new_bytes=40) for number, text in enumerate(texts)])
    while engine.next_to_join is not None:
        engine.join()
    engine.step()
    assert num_places(engine.batch.state.trunk) <= 3008 + 15 * 128
    run(engine)


def test_a_row_that_grows_much_longer_than_the_others_leaves_them(monkeypatch):
    grow_by(monkeypatch, 4)
    model = sharp_model(tiny_model_config("fixed", patch_size=1), seed=3)
    engine = Engine(model, batch_rows=8)
    endless = Sampling(temperature=1.0, logit_bias=((256, -100.0),))
    rows = engine.submit(
        [
            request(model, b"x", number, max_new_bytes=300 if number == 5 else 20 + number, sampling=endless)
            for number in range(8)
        ]
    )
    late = [request(model, b"ab", number, max_new_bytes=9) for number in range(40)]
    engine.submit(late)
    most = 0
    while rows[5].stop_reason is None:
        engine.advance()
        if len(rows[5].data) > 100 and engine.batch.state is not None:
            most = max(most, num_places(engine.batch.state.trunk) - len(rows[5].data))
    assert 0 < most < 600, "beside the long row of 300 places: 7 short ones"


@every_model
def test_prompts_of_unlike_lengths_are_read_in_buckets_and_give_what_they_give_alone(name, monkeypatch):
    grow_by(monkeypatch, 4)
    monkeypatch.setattr(blocks, "FREE_POSITIONS", 8)
    model = model_named(name)
    prompts = random_documents(5, [3, 200, 20, 0, 180, 21, 4])
    stepper = stepper_for(model)
    passes = []
    plain = stepper.prefill
    monkeypatch.setattr(stepper, "prefill", lambda texts, at: passes.append(list(map(len, texts))) or plain(texts, at))
    thresholds = torch.full((len(prompts),), float(model.scratchpad_threshold_nats))
    logits, state = blocks.read_prompts(stepper, prompts, thresholds)
    assert len(passes) > 1
    for lengths in passes:
        padding = (max(lengths) + 1) * len(lengths) - sum(lengths) - len(lengths)
        assert padding <= max(8, 0.25 * (sum(lengths) + len(lengths)))
    branch = state.clone()
    for row, prompt in enumerate(prompts):
        wanted, own = patchpad.prefill(model, [prompt])
        assert torch.allclose(logits[row], wanted[0], atol=tolerance(wanted[wanted.isfinite()]), rtol=0)
        found = branch.select([row])
        for value in b"ab z":
            wanted, own = patchpad.step(model, [value], own)
            again, found = patchpad.step(model, [value], found)
            assert torch.allclose(again, wanted, atol=tolerance(wanted[wanted.isfinite()]), rtol=0)
    ids = torch.tensor([97] * len(prompts))
    for _ in range(12):  # longer than a part has room
        logits, state = step_all(stepper, state, ids, thresholds)
    wanted = patchpad.prefill(model, [prompt + b"a" * 12 for prompt in prompts])[0]
    if model.config.kind != "bpe":
        assert torch.allclose(logits, wanted, atol=tolerance(wanted[wanted.isfinite()]), rtol=0)


def cache_of(rows: int, capacity: int, first: float) -> TrunkCache:
    """A cache whose rows hold numbers of their own."""
    values = torch.arange(float(first), first + rows).view(-1, 1, 1, 1).expand(rows, 2, capacity, 3)
    return TrunkCache([values.clone()], [values.clone() + 0.5])


def held(cache) -> list[tuple[float, float]]:
    """The numbers that each row holds."""
    return [
        (float(home.cache.keys[0][home.place, 0, 0, 0]), float(home.cache.values[0][home.place, 0, 0, 0]))
        for _, home in sorted(homes_of(cache).items())
    ]


def test_rows_keep_what_they_hold_through_joins_choices_and_growth():
    short, long, middle = cache_of(3, 64, 1), cache_of(1, 6400, 10), cache_of(2, 640, 20)
    cache = joined([short, long, middle])
    wanted = [1, 2, 3, 10, 20, 21]
    assert isinstance(cache, SplitTrunkCache)
    assert held(cache) == [(value, value + 0.5) for value in wanted]
    assert num_places(cache) == 3 * 64 + 6400 + 2 * 640
    chosen = cache.select(torch.tensor([4, 0, 3, 0]))
    assert held(chosen) == [(value, value + 0.5) for value in (20, 1, 10, 1)]
    assert isinstance(cache.select(torch.tensor([2, 0])), TrunkCache)
    grown = fitted(cache, [63, 64, 10, 6300, 100, None])
    assert held(grown) == [(value, value + 0.5) for value in wanted]
    assert num_places(grown) == 3 * 128 + 6400 + 2 * 128
    assert fitted(grown, [120, 64, 10, 6300, 100, None]) is grown


def test_a_row_takes_a_place_that_it_fits_and_makes_a_part_of_its_own_elsewhere():
    cache = joined([cache_of(3, 64, 1), cache_of(4, 6400, 10)])
    parts = list(cache.parts)
    same = with_rows_at(cache, [1], cache_of(1, 64, 30))
    assert same is cache
    assert held(cache) == [(value, value + 0.5) for value in (1, 30, 3, 10, 11, 12, 13)]
    other = with_rows_at(cache, [4], cache_of(1, 64, 40))
    assert held(other) == [(value, value + 0.5) for value in (1, 30, 3, 10, 40, 12, 13)]
    assert other.parts[0] is parts[0], "the long ones were not copied"
    assert num_places(other) == 4 * 6400 + 4 * 64


def test_a_joined_cache_shares_nothing_with_what_is_kept():
    kept = cache_of(2, 64, 1)
    for cache in (joined([kept]), joined([kept, cache_of(1, 6400, 5)]), grouped(homes_of(kept), 2, copies=True)):
        parts = cache.parts if isinstance(cache, SplitTrunkCache) else [cache]
        for part in parts:
            part.keys[0].fill_(-1)
    assert held(kept) == [(1, 1.5), (2, 2.5)]


def test_the_part_of_a_long_row_is_dropped_when_it_leaves():
    model = sharp_model(tiny_model_config("fixed", patch_size=1), seed=3)
    engine = Engine(model, batch_rows=8)
    texts = [b"x" * 1000, *[b"y"] * 7]
    rows = engine.submit([request(model, text, 2 * number, max_new_bytes=60) for number, text in enumerate(texts)])
    while engine.next_to_join is not None:
        engine.join()
    assert num_places(engine.batch.state.trunk) > 1000
    engine.cancel(rows[0])
    assert num_places(engine.batch.state.trunk) < 1000
