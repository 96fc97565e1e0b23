"""The random trigger's scores follow from its seed alone, and two triggers or patchifiers can be blended into one."""

import pytest
import torch

from patchpad.config import PatchifierConfig
from patchpad.patching import ByteFacts, Documents, build_patchifier
from patchpad.patching.blending import BlendedPatchifier, BlendedTrigger
from patchpad.patching.patchifiers import bytes_since_end
from patchpad.patching.triggers import RandomTrigger, StrideTrigger
from patchpad.testing import as_row, random_documents

SCORES = {
    7: [0.07389715313911438, 0.3229720890522003, 0.4917236864566803, 0.7421177625656128],
    -3: [0.8423507213592529, 0.4019147455692291, 0.7616997957229614, 0.9156326055526733],
    2**40 + 1: [0.31404468417167664, 0.5790359973907471, 0.9837898015975952, 0.908354640007019],
}
"""At these bytes after the separator; runs that were trained with them must not change."""
OFFSETS = [0, 1, 2, 500]


def facts_of(documents: list[bytes]) -> tuple[ByteFacts, Documents]:
    ids = torch.tensor([as_row(*documents)])
    located = Documents.locate(ids)
    return ByteFacts.gather(ids, located, torch.rand(ids.shape, generator=torch.Generator().manual_seed(0))), located


@pytest.mark.parametrize("seed", SCORES)
def test_scores_of_a_seed_are_the_same_whether_its_salt_is_a_number_or_a_tensor(seed):
    offsets = torch.tensor(OFFSETS)
    facts = ByteFacts(
        byte_ids=offsets,
        previous_byte_ids=offsets,
        document_offset=offsets,
        is_byte=offsets > 0,
        entropy_nats=None,
        previous_entropy_nats=None,
    )
    salt = torch.tensor(RandomTrigger.salt_of(seed))
    for trigger in (RandomTrigger(seed), RandomTrigger.of_salt(salt)):
        assert trigger.scores(facts, offsets).tolist() == SCORES[seed]


@pytest.mark.parametrize("is_first", [True, False])
def test_blended_rules_decide_as_the_one_that_holds_forced_ends_included(is_first):
    facts, documents = facts_of(random_documents(1, [70, 30]))
    short = build_patchifier(PatchifierConfig(kind="fixed", target_patch_size=3))
    own = build_patchifier(PatchifierConfig(kind="entropy", target_patch_size=3, max_patch_size=7))
    holds = torch.tensor(is_first)
    patchifier, expected = BlendedPatchifier(holds, short, own), short if is_first else own
    threshold = torch.tensor(0.8)
    ends = patchifier.patch_ends(facts, documents, threshold)
    assert torch.equal(ends, expected.patch_ends(facts, documents, threshold))
    assert not torch.equal(ends, (own if is_first else short).patch_ends(facts, documents, threshold))
    assert patchifier.longest_patch == 7
    open_bytes = bytes_since_end(ends, documents)
    assert torch.equal(
        patchifier.step_ends(facts, open_bytes, threshold), expected.step_ends(facts, open_bytes, threshold)
    )

    random, stride = RandomTrigger(0), StrideTrigger(4)
    scores = BlendedTrigger(holds, random, stride).scores(facts, open_bytes)
    assert torch.equal(scores, (random if is_first else stride).scores(facts, open_bytes))
