"""H-Net's parts: the scan is the recurrence, the ratio loss has its minimum, gradients reach the router."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchpad.model.hnet import linear_scan, ratio_loss, smooth, smoothing_share, straight_through_confidence
from patchpad.testing import as_row, random_documents, settle_patches, sharp_model, tiny_model_config


@given(st.lists(st.sampled_from([0.0, 1e-4, 0.3, 0.9999]), min_size=1, max_size=70), st.integers(0, 99))
def test_the_parallel_scan_equals_the_recurrence(decays, seed):
    inputs = torch.randn(len(decays), 3, generator=torch.Generator().manual_seed(seed))
    decay = torch.tensor(decays)
    expected, z = [], torch.zeros(3, dtype=torch.float64)
    for step in range(len(decays)):
        z = decay[step].double() * z + inputs[step].double()
        expected.append(z)
    difference = (linear_scan(decay, inputs).double() - torch.stack(expected)).abs().max()
    assert float(difference) <= 1e-6 * max(1.0, float(torch.stack(expected).abs().max()))


def test_smoothing_runs_over_the_commits_of_each_document_only():
    model = sharp_model(tiny_model_config("hnet", "entropy"))
    ids = torch.tensor([as_row(*random_documents(2, [40, 0, 33])), as_row(*random_documents(3, [75]))])
    settle_patches(model, ids)
    with torch.no_grad():
        output = model(ids, 1.0)
    layout, p = output.layout, output.boundary_probability
    outputs = torch.randn(layout.room.slots, 5)
    smoothed = smooth(outputs, layout, p)
    starts = layout.documents.start.flatten()[layout.slot_byte] + layout.slot_byte // ids.shape[1] * ids.shape[1]
    state = {}
    num_commits = 0
    for slot in range(layout.room.slots):
        expected = outputs[slot]
        if layout.slot_is_commit[slot]:
            document = int(starts[slot])
            share = float(p.flatten()[layout.slot_byte[slot]].clamp(1e-4, 1 - 1e-4)) if document in state else 1.0
            expected = state[document] = share * outputs[slot] + (1 - share) * state.get(document, 0)
            num_commits += 1
        assert float((smoothed[slot] - expected).abs().max()) <= 1e-6 * max(1.0, float(outputs.abs().max()))
    assert 5 < num_commits < layout.num_slots - 5
    assert len(state) == 3


def test_a_first_commit_takes_nothing_and_others_keep_their_probability_inside_the_bounds():
    share = smoothing_share(torch.tensor([0.2, 0.0, 1.0, 0.2]), torch.tensor([True, False, False, False]))
    torch.testing.assert_close(share, torch.tensor([1.0, 1e-4, 1 - 1e-4, 0.2]))


def losses_at(share: float, n: int) -> float:
    """The loss where a share of the bytes has p = 1, the rest p = 0, so that F = G."""
    p = torch.zeros(1, 10_000)
    p[:, : round(share * 10_000)] = 1.0
    return float(ratio_loss(p, torch.ones(1, 10_000, dtype=torch.bool), n))


@pytest.mark.parametrize("n", [2, 4, 5, 16])
def test_the_ratio_loss_has_its_minimum_1_at_one_in_n(n):
    losses = {share / 400: losses_at(share / 400, n) for share in range(401)}
    best = min(losses, key=losses.__getitem__)
    assert best == pytest.approx(1 / n)
    assert losses[best] == pytest.approx(1.0, abs=1e-6)


def test_the_ratio_loss_is_finite_at_a_size_of_one_and_without_bytes():
    p = torch.rand(1, 4)
    assert float(ratio_loss(p, torch.ones(1, 4, dtype=torch.bool), 1)) == 1.0
    assert float(ratio_loss(p, torch.zeros(1, 4, dtype=torch.bool), 5)) == 1.0


def test_the_ratio_loss_of_parts_sums_to_that_of_the_whole_and_leaves_out_what_is_no_byte():
    p = torch.rand(4, 30, generator=torch.Generator().manual_seed(0)).requires_grad_()
    is_byte = torch.ones(4, 30, dtype=torch.bool)
    is_byte[:, 0] = is_byte[2, 7:] = is_byte[3] = False
    whole = ratio_loss(p, is_byte, 5)
    torch.testing.assert_close(whole, ratio_loss(p[is_byte][None], is_byte[is_byte][None], 5))
    num_bytes, share = is_byte.sum(), (p.detach() > 0.5)[is_byte].float().mean()
    parts = [
        ratio_loss(p[rows], is_byte[rows], 5, num_bytes=num_bytes, boundary_share=share)
        for rows in (slice(0, 1), slice(1, 3), slice(3, 4))
    ]
    torch.testing.assert_close(sum(parts), whole)
    (gradient,) = torch.autograd.grad(sum(parts), p)
    (expected,) = torch.autograd.grad(whole, p)
    torch.testing.assert_close(gradient, expected)
    assert torch.equal(gradient != 0, is_byte)


def test_the_confidence_is_exactly_one_and_passes_its_gradient():
    p = torch.tensor([[0.1, 0.5, 0.7, 1.0]], requires_grad=True)
    confidence = straight_through_confidence(p)
    assert torch.equal(confidence.detach(), torch.ones(1, 4))
    confidence.sum().backward()
    assert p.grad.tolist() == [[-1.0, -1.0, 1.0, 1.0]]


def test_the_loss_reaches_the_router_and_it_starts_as_the_identity():
    config = tiny_model_config("hnet", "entropy")
    from patchpad.model.byte_lm import ByteLM

    model = ByteLM(config, seed=1)
    assert torch.equal(model.routing.key.weight, torch.eye(config.byte_dim))
    ids = torch.tensor([as_row(*random_documents(2, [60]))])
    settle_patches(model, ids)
    model(ids).logits.square().sum().backward()
    for parameter in model.routing.parameters():
        assert float(parameter.grad.abs().max()) > 0


def test_probabilities_are_one_at_separators_and_never_outside_zero_to_one():
    model = sharp_model(tiny_model_config("hnet", "never"))
    ids = torch.tensor([as_row(b"aaaa", b"", b"xyz" * 5)])
    with torch.no_grad():
        p = model(ids).boundary_probability
    assert torch.equal(p[ids == 256], torch.ones(3))
    assert float(p.min()) >= 0
    assert float(p.max()) <= 1
