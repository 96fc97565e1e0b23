"""Steps of many rows: what is made faster for them, and that it gives the same."""

import pytest
import torch
from torch.nn import functional as F

from patchpad.inference.cache import PRODUCT_ROWS, attend_one, bias_of
from patchpad.inference.sampling import Sampling, choose


@pytest.mark.parametrize("rows", [1, PRODUCT_ROWS - 1, PRODUCT_ROWS, 40])
@pytest.mark.parametrize("heads", [6, 2])
def test_attention_of_many_rows_by_products_is_that_of_the_fused_kernel(rows, heads, monkeypatch):
    generator = torch.Generator().manual_seed(rows)
    query = torch.randn(rows, heads, 8, generator=generator)
    keys, values = (torch.randn(rows, 2, 11, 8, generator=generator) for _ in range(2))
    is_visible = torch.arange(11) <= torch.randint(0, 11, (rows, 1), generator=generator)
    groups, bias = query.unflatten(1, (2, -1)), bias_of(is_visible[:, None, None], torch.float32)
    wanted = F.scaled_dot_product_attention(groups, keys, values, attn_mask=bias).flatten(1, 2)
    calls = []
    plain = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **b: calls.append(1) or plain(*a, **b))
    torch.testing.assert_close(attend_one(query, keys, values, bias), wanted, atol=1e-6, rtol=1e-5)
    assert len(calls) == (rows < PRODUCT_ROWS)


def test_a_draw_at_the_very_end_takes_the_last_id_that_may_be_chosen():
    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf], [3.0, 1.0, 0.0, 0.0]])
    end = 1 - 2**-53
    chosen = choose(logits, [Sampling(temperature=1.0), Sampling(temperature=1.0, top_k=2)], [end, end])
    assert chosen.ids.tolist() == [2, 1]
    several = choose(logits, [Sampling(temperature=1.0)] * 2, [1.0, 1.0])  # as rounding may make it
    assert several.ids.tolist() == [2, 3]
