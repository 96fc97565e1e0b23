"""Products of few rows over packed weights: the same numbers, also when the weights change, and for nothing else."""

import copy
import pickle

import pytest
import torch
from torch.nn import functional as F

from patchpad.inference.compiled import kernels_compiled_for
from patchpad.model import packed_copy
from patchpad.model.packed_copy import LEAST_WEIGHTS, MANY_WEIGHTS, MOST_ROWS, PackedCopy
from patchpad.model.weights import Linear, PreciseLinear
from patchpad.testing.models import sharp_model, tiny_model_config

pytestmark = pytest.mark.skipif(not packed_copy.HAS_PRODUCT, reason="this build of torch has no oneDNN")
SIZES = {"small": (192, 512), "medium": (256, 768), "large": (1024, 600)}
CASES = [
    (size, rows)
    for size in ("medium", "large")
    for rows in (1, 2, 3, 6, 7, 12, MOST_ROWS)
    if (size, rows) != ("medium", 1)
]


def layer_of(size):
    layer = Linear(*SIZES[size])
    layer.draw(torch.Generator().manual_seed(0))
    return layer


def numbers(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def products(monkeypatch):
    """Counts of rows that packed copies were asked for."""
    plain, seen = PackedCopy.product, []
    monkeypatch.setattr(PackedCopy, "product", lambda self, input: seen.append(input.shape) or plain(self, input))
    return seen


def test_sizes_are_on_both_sides_of_what_counts_as_many_weights():
    assert 192 * 512 < LEAST_WEIGHTS <= 256 * 768 < MANY_WEIGHTS <= 1024 * 600


@pytest.mark.parametrize(("size", "rows"), CASES)
def test_few_rows_get_the_product_of_torch_from_packed_weights(size, rows, products):
    layer, input = layer_of(size), numbers(rows, SIZES[size][0])
    with torch.inference_mode():
        found = layer(input)
    assert len(products) == 1
    assert torch.allclose(found, F.linear(input, layer.weight), atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 5), (1, 1), (2, 3, 4), (6, 2)])
def test_rows_may_have_several_axes(shape, products):
    layer, input = layer_of("large"), numbers(*shape, 1024)
    with torch.inference_mode():
        found = layer(input)
    assert len(products) == 1
    assert torch.allclose(found, F.linear(input, layer.weight), atol=1e-5)


def test_rows_do_not_depend_on_one_another():
    layer, input = layer_of("large"), numbers(9, 1024)
    with torch.inference_mode():
        whole = layer(input)
        changed = layer(torch.cat((input[:4], -input[4:])))
    assert torch.equal(whole[:4], changed[:4])


def test_whatever_else_asks_gets_torchs_own_product(products, monkeypatch):
    layer, input = layer_of("large"), numbers(3, 1024)
    layer(input).sum().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():
        layer(numbers(MOST_ROWS + 1, 1024))
        layer_of("medium")(numbers(1, 256))
        layer_of("small")(numbers(3, 192))
        assert layer(numbers(0, 1024)).shape == (0, 600)
        assert PreciseLinear(1024, 8)(input).shape == (3, 8)
        with torch.autocast("cpu"):
            assert layer(input).dtype == torch.bfloat16
        with monkeypatch.context() as patch:
            patch.setattr(torch.backends.mkldnn, "enabled", False)
            layer(input)
        assert layer.double()(input.double()).dtype == torch.float64
        assert layer.bfloat16()(input.bfloat16()).dtype == torch.bfloat16
    assert not products


def written_in_place(layer):
    with torch.no_grad():
        layer.weight.mul_(2)


def written_through_data(layer):
    layer.weight.data.mul_(2)


def moved(layer):
    layer.weight.data = layer.weight.data * 2


def replaced(layer):
    layer.weight = torch.nn.Parameter(layer.weight.detach() * 2)


def loaded(layer):
    layer.load_state_dict({"weight": layer.weight.detach() * 2})


def stepped(layer):
    layer.weight.grad = -layer.weight.detach().clone()
    torch.optim.SGD(layer.parameters(), lr=1.0).step()


@pytest.mark.parametrize("change", [written_in_place, written_through_data, moved, replaced, loaded, stepped])
def test_weights_that_change_are_packed_anew(change):
    layer, input = layer_of("large"), numbers(3, 1024)
    with torch.inference_mode():
        before = layer(input)
    change(layer)
    with torch.inference_mode():
        assert torch.allclose(layer(input), 2 * before, atol=1e-5)


def test_copies_and_pickles_pack_their_own_weights():
    layer, input = layer_of("medium"), numbers(3, 256)
    with torch.inference_mode():
        expected = layer(input)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        written_in_place(other)
        with torch.inference_mode():
            assert torch.allclose(other(input), 2 * expected, atol=1e-5)
            assert torch.equal(layer(input), expected)


def test_a_layer_that_goes_elsewhere_frees_its_packed_copy():
    layer = layer_of("large")
    with torch.inference_mode():
        layer(numbers(3, 1024))
    assert layer._packed is not None
    layer.to(torch.bfloat16)
    assert layer._packed is None


def compiled(layer):
    return torch.compile(lambda input: layer(input) + 1, backend="aot_eager", fullgraph=True)


def test_compiled_code_multiplies_with_the_packed_copy_of_the_moment(products):
    layer, input = layer_of("large"), numbers(3, 1024)
    layer.pack_when_compiled()
    function = compiled(layer)
    with torch.inference_mode():
        before = function(input)
        assert len(products) == 1
        assert torch.allclose(before, F.linear(input, layer.weight) + 1, atol=1e-5)
    written_in_place(layer)
    with torch.inference_mode():
        assert torch.allclose(function(input) - 1, 2 * (before - 1), atol=1e-5)
    moved(layer)  # to where no compiled code finds its copy
    with torch.inference_mode():
        assert torch.allclose(function(input) - 1, 4 * (before - 1), atol=1e-5)


def test_compiled_code_with_gradients_and_of_smaller_layers_is_torchs_own(products):
    large, small = layer_of("large"), layer_of("small")
    large.pack_when_compiled()
    small.pack_when_compiled()
    compiled(large)(numbers(3, 1024)).sum().backward()
    assert large.weight.grad is not None
    with torch.inference_mode():
        compiled(small)(numbers(3, 192))
    assert not products


def test_compiled_steps_use_packed_copies_of_a_models_large_layers(monkeypatch):
    monkeypatch.setattr("patchpad.model.weights.LEAST_WEIGHTS", 1)
    model = sharp_model(tiny_model_config())
    kernels_compiled_for(model)
    assert all(module.is_packed_when_compiled for module in model.modules() if isinstance(module, Linear))


def test_compiled_code_multiplies_many_rows_as_torch_does(products):
    layer, input = layer_of("large"), numbers(MOST_ROWS + 1, 1024)
    layer.pack_when_compiled()
    with torch.inference_mode():
        assert torch.equal(compiled(layer)(input), F.linear(input, layer.weight) + 1)
    assert not products


def test_without_the_product_everything_is_torchs_own(monkeypatch, products):
    monkeypatch.setattr(packed_copy, "HAS_PRODUCT", False)
    layer, input = layer_of("large"), numbers(3, 1024)
    layer.pack_when_compiled()
    with torch.inference_mode():
        assert torch.equal(layer(input), F.linear(input, layer.weight))
        assert torch.equal(compiled(layer)(input), F.linear(input, layer.weight) + 1)
    assert not products
