"""Drafts change no text: what stays of them is what steps would have chosen, whatever was drafted."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.config import SEPARATOR
from patchpad.inference.drafting import DraftLimits, choose_for, draft, verify
from patchpad.inference.rows import Progress, Request, Row
from patchpad.inference.sampling import Draws, Sampling
from patchpad.inference.steppers import stepper_for
from patchpad.registry import PATCHIFIERS
from patchpad.testing import (
    ALL_OPTIONS,
    as_row,
    batch_of,
    random_documents,
    sharp_model,
    thresholds_to_try,
    tiny_model_config,
)

TRIGGERS = ["entropy", "never", "always", "random", "stride", "whitespace", "entropy_jump"]
COMBINATIONS = [
    *(
        pytest.param(
            patchifier,
            trigger,
            {},
            id=f"{patchifier}-{trigger}",
            marks=() if trigger == "entropy" or patchifier == "spacebyte" else pytest.mark.slow,
        )
        for patchifier in PATCHIFIERS
        for trigger in TRIGGERS
    ),
    pytest.param("hnet", "entropy", ALL_OPTIONS, id="hnet-all options"),
    *(
        pytest.param("tokens", trigger, {"source_head": "tied"}, id=f"tokens-{trigger}, source head")
        for trigger in ("entropy", "ending_entropy")
    ),
]
SAMPLINGS = (Sampling(), Sampling(temperature=1.0), Sampling(temperature=0.6, top_k=9, logit_bias=((97, 2.0),)))


def rows_of(prompts, threshold: float, seed: int) -> list[Row]:
    rows = []
    for index, prompt in enumerate(prompts):
        sampling = SAMPLINGS[index % len(SAMPLINGS)]
        request = Request(prompt=prompt, max_new_bytes=40 + index, threshold=threshold, sampling=sampling, seed=seed)
        rows.append(Row(request, index, threshold, Draws(seed + index)))
    return rows


def steps_of(stepper, row: Row, count: int) -> tuple[list[int], torch.Tensor, int]:
    """Ids that steps choose for a row alone, the logits of the next one, and the trunk calls."""
    thresholds, only = torch.tensor([row.threshold]), torch.tensor([0])
    logits, state = stepper.prefill([row.request.prompt], thresholds)
    ids = []
    while len(ids) < count:
        chosen = int(choose_for([row], logits, [len(ids)]).ids)
        ids.append(chosen)
        if chosen == SEPARATOR:
            break
        with torch.inference_mode():
            needs = stepper.read(state, only, torch.tensor([chosen]), thresholds)
            stepper.refresh(state, only[needs])
            logits = stepper.predict(state, only)
    return ids, logits, int(state.trunk_calls)


def rounds_of(stepper, rows: list[Row], limits: DraftLimits, count: int, change=lambda drafts: drafts):
    """Runs all rows by drafts until each has so many ids or has ended: ids, trunk calls, and ids of each round."""
    thresholds = torch.tensor([row.threshold for row in rows])
    logits, state = stepper.prefill([row.request.prompt for row in rows], thresholds)
    found: list[list[int]] = [[] for _ in rows]
    sizes = []
    while going := [place for place, ids in enumerate(found) if len(ids) < count and ids[-1:] != [SEPARATOR]]:
        some = [rows[place] for place in going]
        firsts = choose_for(some, logits[going]).ids.tolist()
        before = [part.clone() for part in state.tensors()]
        drafts = change(draft(stepper, state, going, some, firsts, limits))
        assert all(torch.equal(one, other) for one, other in zip(before, state.tensors(), strict=True))
        assert [ids[:1] for ids in drafts] == [[] if value == SEPARATOR else [value] for value in firsts]
        ended = [place for place, value in zip(going, firsts, strict=True) if value == SEPARATOR]
        for place in ended:
            found[place].append(SEPARATOR)
        if not any(drafts):
            continue
        extension, num_kept, _ = verify(stepper, state, going, some, drafts, thresholds)
        lengths = [0] * len(rows)
        for place, ids, kept in zip(going, drafts, num_kept, strict=True):
            lengths[place] = kept
            found[place] += ids[:kept]
            rows[place].progress = Progress(num_chosen=len(found[place]), num_bytes=len(found[place]))
            sizes += [kept] if ids else []
        last = [sum(map(len, drafts[:number])) + kept - 1 for number, kept in enumerate(num_kept)]
        for place, ids, index in zip(going, drafts, last, strict=True):
            if ids:
                logits = logits.index_put((torch.tensor([place]),), extension.logits[index])
        state = extension.advance(lengths)
    return found, state.trunk_calls.tolist(), sizes


@pytest.mark.unchecked
@pytest.mark.parametrize(("patchifier", "trigger", "options"), COMBINATIONS)
@given(
    seed=st.integers(0, 9_999),
    most_bytes=st.integers(1, 16),
    most_slots=st.sampled_from([None, 1, 2, 4]),
    errs=st.booleans(),
)
def test_rounds_choose_what_steps_choose(patchifier, trigger, options, seed, most_bytes, most_slots, errs):
    model = sharp_model(tiny_model_config(patchifier, trigger, **options), seed=seed % 5)
    prompts = random_documents(seed, [0, 3, 9, 25])
    threshold = thresholds_to_try(model, batch_of([as_row(one + b" and so on") for one in prompts]))[0]
    threshold = float(model.scratchpad_threshold_nats) if threshold is None else threshold
    stepper, source = stepper_for(model), random.Random(seed)

    def change(drafts: list[list[int]]) -> list[list[int]]:
        """Puts a wrong byte into some drafts."""
        for ids in drafts if errs else ():
            if len(ids) > 1 and source.random() < 0.5:
                ids[source.randrange(1, len(ids))] ^= 1
        return drafts

    rows = rows_of(prompts, threshold, seed)
    found, trunk_calls, _ = rounds_of(
        stepper, rows, DraftLimits(most_bytes=most_bytes, most_slots=most_slots), 16, change
    )
    for number, row in enumerate(rows_of(prompts, threshold, seed)):
        ids, _, calls = steps_of(stepper, row, len(found[number]))
        assert (ids, calls) == (found[number], trunk_calls[number]), number


def test_drafts_are_kept_while_the_trunk_has_nothing_to_say():
    model = sharp_model(tiny_model_config("fixed", "never", patch_size=7))
    with torch.no_grad():
        model.local_decoder.lm_head.weight[SEPARATOR] = 0
        model.context_to_bytes.projection.weight.zero_()
    rows = rows_of([b"some words", b"more"], float("inf"), 0)
    *_, sizes = rounds_of(stepper_for(model), rows, DraftLimits(most_bytes=8), 24)
    assert sizes == [8] * 6


def test_a_draft_ends_before_the_slot_that_is_one_too_many():
    model = sharp_model(tiny_model_config("fixed", "never", patch_size=4))
    with torch.no_grad():
        model.local_decoder.lm_head.weight[SEPARATOR] = 0
    stepper, rows = stepper_for(model), rows_of([b"ab", b"abc", b"abcd"], float("inf"), 0)
    logits, state = stepper.prefill([row.request.prompt for row in rows], torch.full((3,), torch.inf))
    firsts = choose_for(rows, logits).ids.tolist()
    for most_slots, sizes in ((1, [5, 4, 7]), (2, [9, 8, 11]), (None, [16, 16, 16])):
        limits = DraftLimits(most_bytes=16, most_slots=most_slots)
        assert list(map(len, draft(stepper, state, [0, 1, 2], rows, firsts, limits))) == sizes


def test_a_draft_leaves_the_last_byte_of_a_row_to_the_next_round():
    model = sharp_model(tiny_model_config("fixed", "never"))
    with torch.no_grad():
        model.local_decoder.lm_head.weight[SEPARATOR] = 0
    stepper, (row,) = stepper_for(model), rows_of([b"ab"], float("inf"), 0)
    logits, state = stepper.prefill([b"ab"], torch.tensor([torch.inf]))
    first = choose_for([row], logits).ids.tolist()
    for num_bytes, size in ((33, 6), (38, 1), (39, 0)):
        row.progress = Progress(num_bytes=num_bytes)
        assert list(map(len, draft(stepper, state, [0], [row], first, DraftLimits(most_bytes=9)))) == [size]


@pytest.mark.unchecked
def test_a_source_head_drafts_up_to_the_first_commit():
    model = sharp_model(tiny_model_config("tokens", "entropy", source_head="tied"))
    stepper, rows = stepper_for(model), rows_of(random_documents(3, [5, 9, 14]), 1.0, 0)
    logits, state = stepper.prefill([row.request.prompt for row in rows], torch.ones(3))
    firsts = choose_for(rows, logits).ids.tolist()
    drafts = draft(stepper, state, [0, 1, 2], rows, firsts, DraftLimits(most_bytes=16))
    for place, ids in enumerate(drafts):
        extension = stepper.extend(state.select([place]), [ids[:-1] or ids], torch.ones(1))
        if len(ids) > 1:
            assert int(extension.num_commits) == 0
