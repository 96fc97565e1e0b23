"""Products of few rows take another kernel on a CPU, with the same result."""

import pytest
import torch
from torch.nn import functional as F

from patchpad.model import weights
from patchpad.model.weights import Linear, PreciseLinear


@pytest.fixture
def layer():
    layer = Linear(1024, 600)
    layer.draw(torch.Generator().manual_seed(0))
    return layer


@pytest.mark.skipif(not weights.HAS_FEW_ROWS_PRODUCT, reason="this build of torch has no oneDNN")
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 6])
def test_a_product_of_few_rows_is_that_of_torch(layer, rows, monkeypatch):
    plain, seen = F.linear, []
    monkeypatch.setattr(F, "linear", lambda *arguments: seen.append(1) or plain(*arguments))
    input = torch.randn(rows, 1024, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = layer(input)
    assert bool(seen) == (rows not in weights.FEW_ROWS)
    assert torch.allclose(found, plain(input, layer.weight), atol=1e-5)


def test_whatever_else_asks_gets_torchs_own_product(layer, monkeypatch):
    monkeypatch.setattr(Linear, "_reads_weights_once", lambda self, input: False)
    input = torch.randn(3, 1024, generator=torch.Generator().manual_seed(1))
    expected = layer(input)
    monkeypatch.undo()
    assert torch.equal(layer(input), expected)  # with gradients
    layer(input).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        assert torch.equal(layer(input[None]), expected[None])
        assert layer.double()(input.double()).dtype == torch.float64
        assert PreciseLinear(1024, 8)(input).shape == (3, 8)
        with torch.autocast("cpu"):
            assert layer.float()(input).dtype == torch.bfloat16
