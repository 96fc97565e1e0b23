"""In bf16 too, a pass and stepping decide alike, except where a score lies within a stated margin of its threshold."""

import pytest
import torch
from cuda_models import CASES, never_ending, small_config

from patchpad.inference.stepping import prefill, step
from patchpad.model.byte_lm import ByteLM
from patchpad.testing import as_row, batch_of, random_documents

pytestmark = pytest.mark.unmeasured

ENTROPY_MARGIN_NATS = 0.05
"""By which an entropy of a pass and of a step may differ in bf16; seen: 0.02, with entropies from 0.2 to 3.8 nats."""
PROBABILITY_MARGIN = 0.002
"""The same for the router of `hnet`; seen: 0.0006."""
LOGIT_MARGIN = 0.25
"""The same for logits, whose largest is about 10, as long as all decisions are alike; seen: 0.07."""
PROMPT_BYTES = 20


@pytest.mark.parametrize(("patchifier", "trigger"), CASES[:4])
def test_a_pass_and_steps_decide_alike_within_the_margin(patchifier, trigger):
    model = never_ending(small_config(patchifier, trigger)).to("cuda")
    documents = random_documents(1, [46] * 8)
    ids = batch_of([as_row(document) for document in documents]).to("cuda")
    place_thresholds_among_scores(model, ids)
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
        output = model(ids)
    ends, fires = (mask.tolist() for mask in (output.layout.patch_end_mask, output.layout.scratchpad_mask))
    closeness = how_close_scores_are(model, output).tolist()
    expected_entropies, expected_logits = output.entropy_nats.cpu(), output.logits.cpu()
    stepped = list(steps(model, documents))
    margin = PROBABILITY_MARGIN if patchifier == "hnet" else ENTROPY_MARGIN_NATS
    num_alike = 0
    for row in range(len(documents)):
        for position, step_ends, step_fires, entropies, logits in stepped:
            assert abs(float(entropies[row] - expected_entropies[row, position])) < ENTROPY_MARGIN_NATS
            if (step_ends[row], step_fires[row]) != (ends[row][position], fires[row][position]):
                assert closeness[row][position] < margin, (row, position)
                break  # from here on the two read other contexts
            assert float((logits[row] - expected_logits[row, position]).abs().max()) < LOGIT_MARGIN
            num_alike += 1
    assert num_alike > 0.5 * len(documents) * len(stepped)


def place_thresholds_among_scores(model: ByteLM, ids: torch.Tensor) -> None:
    """Puts thresholds on observed scores, where decisions are as fragile as can be."""
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
        if model.config.cuts_by_entropy:
            model.patch_threshold.fill_(float(model(ids).entropy_nats.quantile(0.9)))
        scores = model.eligible_scores(model(ids, torch.inf))
    model.store_threshold(float(scores.float().quantile(0.7)))


def how_close_scores_are(model: ByteLM, output) -> torch.Tensor:
    """Returns the distance of each position's nearest score from its threshold; [batch, byte]."""
    entropies = output.entropy_nats
    jumps = torch.cat((entropies[:, :1], entropies.diff(dim=1)), dim=1)
    fires_by = jumps if model.config.trigger.kind == "entropy_jump" else entropies
    distances = [(fires_by - model.scratchpad_threshold_nats).abs()]
    if model.config.cuts_by_entropy:
        distances.append((entropies - model.patch_threshold).abs())
    if output.boundary_probability is not None:
        distances.append((output.boundary_probability - 0.5).abs())
    return torch.stack(distances).amin(0)


def steps(model: ByteLM, documents: list[bytes]):
    """Yields, for each position behind the prompts: where patches end, where scratchpads fire, entropies and logits."""
    _, state = prefill(model, [document[:PROMPT_BYTES] for document in documents])
    for position in range(PROMPT_BYTES + 1, len(documents[0]) + 1):
        calls = state.trunk_calls
        logits, state = step(model, [document[position - 1] for document in documents], state)
        ends = (state.patch_counts.ends_patch == 1).tolist()
        called = (state.trunk_calls > calls).tolist()
        fires = [calls and not end for calls, end in zip(called, ends, strict=True)]
        yield position, ends, fires, state.floats[:, 0].cpu(), logits.cpu()
