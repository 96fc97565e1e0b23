"""FlexAttention gives what the reference gives: on a CPU unfused, without gradients; on CUDA compiled, with them."""

import functools
import logging
import math

import pytest
import torch
from torch.nn.attention import flex_attention as torch_flex
from torch.overrides import TorchFunctionMode

from patchpad.config import PADDING, SEPARATOR
from patchpad.model import flex_attention
from patchpad.model.back_ends import attention_back_end, slot_attention, window_attentions
from patchpad.model.compilation import own_copy
from patchpad.model.flex_attention import BLOCK, block_mask_of_ranges
from patchpad.patching import Documents
from patchpad.registry import PATCHIFIERS
from patchpad.testing import as_row, random_documents, sharp_model, thresholds_to_try, tiny_model_config, tolerance

GRADIENT_TOLERANCE = 1e-4
"""Allowed difference of two fp32 gradients of a parameter, times its largest entry."""
TRIGGERS = ["entropy", "stride", "always"]
compilers_may_warn = pytest.mark.filterwarnings("default")
"""What PyTorch's compiler warns about, such as its own deprecated parts, is not for this package to fix."""
SIZES = {
    "window over a block": {"window_bytes": 150},
    "several windows": {"encoder_window_bytes": 3, "entropy_head_window_bytes": 129, "decoder_window_bytes": 1},
    "grouped queries": {"trunk_heads": 6, "trunk_kv_heads": 2},
    "one key head": {"trunk_heads": 3, "trunk_kv_heads": 1},
    "window of the trunk": {"trunk_window_patches": 3},
}


@pytest.fixture
def unfused(monkeypatch):
    """Lets FlexAttention run as it is, without the compiler and its warning."""
    monkeypatch.setattr(torch_flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)


def batch_of(*rows: list[int]) -> torch.Tensor:
    ids = torch.full((len(rows), max(map(len, rows))), PADDING)
    for row, values in zip(ids, rows, strict=True):
        row[: len(values)] = torch.tensor(values)
    return ids


def ragged_batch(seed: int = 1) -> torch.Tensor:
    """Several documents a row over more than one block, an empty one, and a row that has nothing but a separator."""
    first, second = random_documents(seed, [270, 0, 31]), random_documents(seed + 1, [17, 150, 9])
    return batch_of(as_row(*first), [SEPARATOR], as_row(*second))


def both(model, ids, threshold):
    with torch.no_grad():
        with attention_back_end("reference"):
            expected = model(ids, threshold)
        with attention_back_end("flex"):
            return model(ids, threshold), expected


def assert_equal_outputs(found, expected) -> None:
    assert torch.equal(found.layout.slot_byte, expected.layout.slot_byte)
    difference = (found.logits - expected.logits).abs().max()
    assert float(difference) <= tolerance(expected.logits)


@pytest.mark.unchecked
@pytest.mark.parametrize("trigger", TRIGGERS)
@pytest.mark.parametrize("patchifier", PATCHIFIERS)
def test_logits_are_those_of_the_reference(unfused, patchifier, trigger):
    model = sharp_model(tiny_model_config(patchifier, trigger))
    ids = ragged_batch()
    for threshold in thresholds_to_try(model, ids):
        assert_equal_outputs(*both(model, ids, threshold))


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_options_give_the_logits_of_the_reference(unfused, sizes):
    model = sharp_model(tiny_model_config("spacebyte", "entropy", **sizes))
    ids = ragged_batch(5)
    for threshold in thresholds_to_try(model, ids):
        assert_equal_outputs(*both(model, ids, threshold))


@pytest.mark.parametrize("window", [None, 20, 150])
def test_more_than_one_block_of_commits_is_seen(unfused, window):
    model = sharp_model(tiny_model_config("fixed", "entropy", patch_size=1, trunk_window_patches=window))
    found, expected = both(model, batch_of(as_row(*random_documents(2, [40, 300]))), -math.inf)
    assert int(found.layout.slot_patch_index.max()) > 2 * BLOCK
    assert_equal_outputs(found, expected)


@pytest.mark.parametrize("threshold", [math.inf, -math.inf])
def test_batches_without_slots_or_without_commits_work(unfused, threshold):
    model = sharp_model(tiny_model_config("fixed", "entropy", patch_size=400, max_patch_size=400))
    found, expected = both(model, batch_of(as_row(*random_documents(2, [140, 3])), [SEPARATOR]), threshold)
    assert not found.layout.slot_is_commit.any()
    assert (found.layout.num_slots == 0) == (threshold == math.inf)
    assert_equal_outputs(found, expected)


def test_a_prefill_keeps_the_same_keys_and_values(unfused):
    model = sharp_model(tiny_model_config("spacebyte", "entropy"))
    ids = ragged_batch()
    with torch.no_grad():
        with attention_back_end("reference"):
            expected = model(ids, 1.5, keep_activations=True).activations
        with attention_back_end("flex"):
            found = model(ids, 1.5, keep_activations=True).activations
    for part in ("encoder", "entropy_head", "trunk", "decoder"):
        for pair, expected_pair in zip(getattr(found, part), getattr(expected, part), strict=True):
            torch.testing.assert_close(pair, expected_pair, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changed_at", [140, 270])
@pytest.mark.parametrize("trigger", ["entropy", "always"])
def test_changing_a_byte_leaves_earlier_outputs_and_other_documents_unchanged(unfused, trigger, changed_at):
    model = sharp_model(tiny_model_config("spacebyte", trigger))
    ids = ragged_batch(9)
    assert ids[0, 271] == SEPARATOR
    changed = ids.clone()
    changed[0, changed_at] = (changed[0, changed_at] + 77) % 256
    threshold = thresholds_to_try(model, torch.cat([ids, changed]))[0]
    with torch.no_grad(), attention_back_end("flex"):
        before, after = model(ids, threshold).logits, model(changed, threshold).logits
    difference = (before - after).abs().amax(-1)
    allowed = tolerance(before)
    assert float(difference[0, :changed_at].max()) <= allowed
    assert float(difference[0, changed_at]) > allowed
    assert float(difference[0, 271:].max()) <= allowed, "later documents"
    assert float(difference[1:].max()) <= allowed, "other rows"


def test_blocks_in_full_and_in_part_are_those_of_the_ranges():
    generator = torch.Generator().manual_seed(0)
    num_keys, num_queries = 5 * BLOCK + 17, 6 * BLOCK + 5
    first = torch.randint(0, num_keys, (3, num_queries), generator=generator).sort(dim=1).values
    length = torch.randint(0, 2 * BLOCK, first.shape, generator=generator)
    length[1] = 0  # a row that sees nothing
    length[2] = num_keys  # to the last key
    first[2] = torch.arange(num_queries) // 200 * 100
    last = (first + length).clamp_max(num_keys)
    mask = block_mask_of_ranges(first, last, num_keys)

    visible = torch.zeros(3, mask.shape[-2], mask.shape[-1], dtype=torch.bool)
    keys = torch.arange(num_keys)
    visible[:, :num_queries, :num_keys] = (first[..., None] <= keys) & (keys < last[..., None])
    tiles = visible.unflatten(2, (-1, BLOCK)).unflatten(1, (-1, BLOCK)).transpose(2, 3).flatten(3)
    part = listed(mask.kv_num_blocks, mask.kv_indices)
    full = listed(mask.full_kv_num_blocks, mask.full_kv_indices)
    assert torch.equal(full, tiles.all(-1))
    assert full[2].any()
    assert not full[1].any()
    assert not (part & full).any()
    assert not (tiles.any(-1) & ~(part | full)).any()
    # Between a block's first and last key lies nothing that the list may leave out, and beyond them nothing is listed.
    seen = tiles.any(-1)
    between = seen.flip(2).cummax(2).values.flip(2) & seen.cummax(2).values
    assert torch.equal(part | full, between)
    by_key = listed(mask.q_num_blocks, mask.q_indices)
    assert torch.equal(by_key, part.transpose(1, 2))


@pytest.mark.parametrize("counts", [(0, 300), (130, 5), (300, 0), (2 * BLOCK, BLOCK), (3, 700)])
def test_a_mask_of_slots_lists_their_own_places_once_and_no_other_scratchpads(counts):
    num_commits, num_scratchpads = counts
    generator = torch.Generator().manual_seed(num_commits)
    starts = torch.arange(num_commits) // 70 * 70  # documents of 70 commits
    ends = torch.randint(0, num_commits + 1, (num_scratchpads,), generator=generator).sort().values
    first = torch.cat((starts, (ends - 1).clamp_min(0) // 70 * 70))[None]
    last = torch.cat((torch.arange(num_commits), ends))[None]
    slots = num_commits + num_scratchpads
    mask = block_mask_of_ranges(first, last, slots, and_itself=True)
    keys = torch.arange(mask.shape[-1])
    visible = torch.eye(mask.shape[-1], dtype=torch.bool)
    visible[:slots] |= (first[0, :, None] <= keys) & (keys < last[0, :, None])
    part = listed(mask.kv_num_blocks, mask.kv_indices)[0]
    full = listed(mask.full_kv_num_blocks, mask.full_kv_indices)[0]
    tiles = visible.unflatten(1, (-1, BLOCK)).unflatten(0, (-1, BLOCK)).transpose(1, 2).flatten(2)
    assert not (part & full).any()
    assert torch.equal(full, tiles.all(-1))
    assert not (tiles.any(-1) & ~(part | full)).any()
    for indices, count in zip(mask.kv_indices[0, 0], mask.kv_num_blocks[0, 0], strict=True):
        assert len(set(indices[:count].tolist())) == count, "a block that is listed twice would count twice"
    behind = torch.arange(len(part)) * BLOCK >= num_commits
    assert not (part | full)[:, behind][~torch.eye(len(part), dtype=torch.bool)[:, behind]].any()
    assert torch.equal(mask.mask_mod(0, 0, keys[:slots, None], keys), visible[:slots])


def listed(counts, indices) -> torch.Tensor:
    """[batch, query_block, key_block]: whether a block is listed."""
    place = torch.arange(indices.shape[-1])
    source = torch.where(place < counts[..., None], indices, indices.shape[-1]).long()
    found = torch.zeros(*indices.shape[:-1], indices.shape[-1] + 1, dtype=torch.bool).scatter_(-1, source, True)
    return found[:, 0, :, :-1]


def test_masks_are_found_without_comparing_bytes_to_bytes():
    largest = 0

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    length = 64 * BLOCK
    ids = batch_of(as_row(*random_documents(1, [length // 2, length // 2 - 2])))
    layout = sharp_model(tiny_model_config("fixed", "stride")).eval()(ids[:, :64]).layout
    with Watch(), attention_back_end("flex"):
        (window,) = window_attentions(Documents.locate(ids), (512,))
        assert window.window.block_mask.shape == (1, 1, length, length)
        assert slot_attention(layout).block_mask is not None
    assert largest < 3 * length


def written_out_kernel(query, key):
    """What a fused kernel computes, gradients included: it masks blocks listed in part and skips those not listed."""

    def attend(query, key, value, block_mask):
        batch, heads, num_queries, head_dim = query.shape
        rows, places, keys = torch.arange(batch), torch.arange(num_queries), torch.arange(key.shape[2])
        visible = block_mask.mask_mod(rows[:, None, None], 0, places[:, None], keys)
        part = listed(block_mask.kv_num_blocks, block_mask.kv_indices)
        full = listed(block_mask.full_kv_num_blocks, block_mask.full_kv_indices)
        part, full = (blocks.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2) for blocks in (part, full))
        visible = ((visible & part) | full)[:, None]
        key, value = (held.repeat_interleave(heads // held.shape[1], dim=1) for held in (key, value))
        scores = (query @ key.transpose(-1, -2) * head_dim**-0.5).masked_fill(~visible, -torch.inf)
        sees_any = visible.any(-1)
        scores = torch.where(sees_any[..., None], scores, 0)
        weights = torch.where(sees_any[..., None], scores.softmax(-1), 0)
        return weights @ value

    return attend


def gradients(model, ids, threshold, back_end: str) -> dict[str, torch.Tensor]:
    model.zero_grad()
    with attention_back_end(back_end):
        output = model(ids, threshold)
    weights = torch.linspace(-1, 1, output.logits.numel(), device=ids.device).view_as(output.logits)
    ((output.logits.softmax(-1) * weights).sum() + output.logits.square().mean()).backward()
    return {name: part.grad.clone() for name, part in model.named_parameters() if part.grad is not None}


def assert_equal_gradients(found, expected, tolerance: float = GRADIENT_TOLERANCE) -> None:
    assert found.keys() == expected.keys()
    for name, part in expected.items():
        difference = float((found[name] - part).abs().max())
        assert difference <= tolerance * (float(part.abs().max()) + 0.01), name


@pytest.mark.parametrize(
    ("patchifier", "sizes"),
    [
        ("spacebyte", {}),
        pytest.param(
            "hnet", SIZES["window over a block"] | SIZES["grouped queries"], id="hnet", marks=pytest.mark.unchecked
        ),
    ],
)
def test_gradients_around_the_kernel_are_those_of_the_reference(monkeypatch, patchifier, sizes):
    monkeypatch.setattr(flex_attention, "_kernel", written_out_kernel)
    # In float64, as the sums that cancel in a sharp model's gradients leave fp32 little; rotary angles stay in fp32.
    model = sharp_model(tiny_model_config(patchifier, "entropy", **sizes)).double()
    ids = ragged_batch()
    for threshold in thresholds_to_try(model, ids):
        expected = gradients(model, ids, threshold, "reference")
        assert_equal_gradients(gradients(model, ids, threshold, "flex"), expected, tolerance=1e-5)


def test_the_written_out_kernel_gives_finite_gradients_without_commits(monkeypatch):
    monkeypatch.setattr(flex_attention, "_kernel", written_out_kernel)
    model = sharp_model(tiny_model_config("fixed", "always", patch_size=400, max_patch_size=400))
    ids = batch_of(as_row(*random_documents(2, [140, 3])), [SEPARATOR])
    assert_equal_gradients(gradients(model, ids, None, "flex"), gradients(model, ids, None, "reference"))


@pytest.mark.compile
@compilers_may_warn
def test_gradients_of_the_traced_kernel_are_those_of_the_reference(monkeypatch):
    """The compiler traces the backward pass as it will on CUDA; the check that there is none on a CPU is taken out."""
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)

    @functools.cache
    def compiled(*signature):
        own = own_copy(flex_attention._attend)
        return torch.compile(own, dynamic=True, fullgraph=True, backend="aot_eager")

    monkeypatch.setattr(flex_attention, "_kernel", lambda query, key: compiled(*flex_attention._signature(query, key)))
    model = sharp_model(tiny_model_config("spacebyte", "entropy", **SIZES["grouped queries"]))
    for ids in (ragged_batch(), ragged_batch()[:2, :200]):
        expected = gradients(model, ids, 1.5, "reference")
        assert_equal_gradients(gradients(model, ids, 1.5, "flex"), expected)


@pytest.mark.compile
def test_compiled_kernels_serve_batches_of_many_sizes(monkeypatch):
    """The compiler sees what it will see on CUDA; what it makes of it runs unfused."""
    import torch._dynamo.testing

    counters = []

    @functools.cache
    def compiled(*signature):
        counters.append(torch._dynamo.testing.CompileCounterWithBackend("eager"))
        return torch.compile(own_copy(flex_attention._attend), dynamic=True, fullgraph=True, backend=counters[-1])

    monkeypatch.setattr(flex_attention, "_kernel", lambda query, key: compiled(*flex_attention._signature(query, key)))
    model = sharp_model(tiny_model_config("spacebyte", "entropy"))
    for batch, length in ((2, 60), (2, 200), (3, 150), (1, 290), (1, 300), (4, 400), (1, 30)):
        rows = [as_row(*random_documents(seed, [length - seed, 9 + seed])) for seed in range(batch)]
        assert_equal_outputs(*both(model, batch_of(*rows), 1.5))
    assert len(counters) == 2
    assert max(counter.frame_count for counter in counters) <= 4


@pytest.mark.compile
@pytest.mark.slow
@compilers_may_warn
def test_a_fused_kernel_skips_blocks_and_gives_the_same(monkeypatch):
    """The compiler's kernel for CPUs, for one size: it has no dynamic sizes, gradients or sums of weights."""
    monkeypatch.setattr(
        flex_attention, "_kernel", lambda *_: torch.compile(flex_attention._attend, dynamic=False, fullgraph=True)
    )
    documents = Documents.locate(batch_of(as_row(*random_documents(1, [640, 50])), as_row(*random_documents(2, [300]))))
    query, key, value = torch.randn(3, *documents.start.shape, 2, 24, generator=torch.Generator().manual_seed(0))
    with attention_back_end("flex"):
        (local,) = window_attentions(documents, (300,))
    (expected,) = window_attentions(documents, (300,))
    assert local.window.block_mask.full_kv_num_blocks.any()
    torch.testing.assert_close(local(0, query, key, value), expected(0, query, key, value), rtol=1e-5, atol=1e-5)


@pytest.fixture
def on_cuda():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda")


@pytest.mark.gpu
@compilers_may_warn
@pytest.mark.parametrize("sizes", [{}, *SIZES.values()], ids=["plain", *SIZES])
@pytest.mark.parametrize("patchifier", ["spacebyte", "hnet"])
def test_on_cuda_logits_and_gradients_are_those_of_the_reference(on_cuda, patchifier, sizes):
    model = sharp_model(tiny_model_config(patchifier, "entropy", **sizes))
    ids = ragged_batch()
    thresholds = thresholds_to_try(model, ids)
    model, ids = model.to(on_cuda), ids.to(on_cuda)
    for threshold in thresholds:
        assert_equal_outputs(*both(model, ids, threshold))
        expected = gradients(model, ids, threshold, "reference")
        assert_equal_gradients(gradients(model, ids, threshold, "flex"), expected)


@pytest.mark.gpu
@compilers_may_warn
def test_on_cuda_batches_without_commits_have_finite_gradients(on_cuda):
    model = sharp_model(tiny_model_config("fixed", "always", patch_size=400, max_patch_size=400)).to(on_cuda)
    ids = batch_of(as_row(*random_documents(2, [140, 3])), [SEPARATOR]).to(on_cuda)
    assert_equal_gradients(gradients(model, ids, None, "flex"), gradients(model, ids, None, "reference"))


@pytest.mark.gpu
@compilers_may_warn
def test_on_cuda_flex_is_chosen_and_runs_in_the_dtypes_of_training(on_cuda, caplog):
    model = sharp_model(tiny_model_config("spacebyte", "entropy", trunk_dim=128, trunk_heads=2)).to(on_cuda)
    ids = batch_of(as_row(*random_documents(1, [4000, 90]))).to(on_cuda)
    with caplog.at_level(logging.WARNING), torch.autocast("cuda", dtype=torch.bfloat16):
        output = model(ids, math.inf)
        output.logits.float().square().mean().backward()
        with attention_back_end("reference"):
            expected = model(ids, math.inf)
    assert not flex_attention.has_given_up()
    assert not [record for record in caplog.records if record.name.startswith("patchpad")]
    assert torch.equal(output.layout.slot_byte, expected.layout.slot_byte)
    assert float((output.logits - expected.logits).float().abs().mean()) < 0.1 * float(expected.logits.float().std())
    assert all(torch.isfinite(part.grad).all() for part in model.parameters() if part.grad is not None)
