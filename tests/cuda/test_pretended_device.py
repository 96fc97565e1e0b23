"""The pretended device refuses and notes what a real one would."""

import sys
import threading

import pytest
import torch
from pretended_cuda import CudaTensor, WaitInGraphError, hooks
from pretended_cuda.dispatch import DeviceMixError
from pretended_cuda.transfers import OverwrittenEarlyError
from torch.nn import functional as F
from torch.nn.attention import flex_attention as flex


def on_cuda(*shape: int) -> torch.Tensor:
    return torch.arange(1.0, 1.0 + torch.Size(shape).numel(), device="cuda").reshape(shape)


def waits(record) -> list[str]:
    return sorted(why for (_, _, why), count in record.waits.items() for _ in range(count))


def test_tensors_say_cuda_and_keep_their_gradients():
    states = on_cuda(2, 3).requires_grad_()
    weights = torch.ones(3, 3).to("cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        product = states @ weights
    product.sum().backward()
    assert product.device == torch.device("cuda", 0)
    assert product.dtype == torch.bfloat16
    assert states.grad.dtype == torch.float32
    assert states.grad.tolist() == [[3.0] * 3] * 2


def test_tensors_of_the_cpu_are_refused_unless_they_are_single_numbers(record):
    with pytest.raises(DeviceMixError, match=r"add.*mixes"):
        on_cuda(3) + torch.ones(3)
    assert (on_cuda(3) + torch.tensor(1.0)).tolist() == [2.0, 3.0, 4.0]
    assert record.oddities


@pytest.mark.parametrize(
    ("does", "why"),
    [
        (lambda x: float(x.sum()), "value read"),
        (lambda x: bool((x > 0).any()), "value read"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[x > 2], "index by a bool mask"),
        (lambda x: x.repeat_interleave(x.long()), "repeat_interleave"),
        (lambda x: x[torch.tensor([0])], "index with an index or value of the CPU"),
        (lambda x: x.cpu(), "copy to the host"),
        (lambda x: torch.tensor([1.0], device="cuda"), "copy to the device"),
        (lambda x: torch.ones(1).to("cuda", non_blocking=True), "copy to the device, not pinned"),
        (lambda x: torch.cuda.synchronize(), "synchronize"),
        (lambda x: x.tolist(), "tolist"),
    ],
)
def test_what_makes_the_host_wait_is_noted(record, does, why):
    values = on_cuda(3)
    record.waits.clear()
    does(values)
    assert waits(record) == [why]


@pytest.mark.parametrize(
    "does",
    [
        lambda x: x + 1,
        lambda x: x.masked_fill_(x > 2, 0.0),
        lambda x: torch.where(x > 2, x, 0.0),
        lambda x: x.repeat_interleave(2),
        lambda x: x[x.argsort()],
        lambda x: torch.full((2,), 3.0, device="cuda"),
        lambda x: torch.ones(1).pin_memory().to("cuda", non_blocking=True),
        lambda x: x.to("cpu", non_blocking=True),
    ],
)
def test_what_lets_the_host_go_on_is_no_wait(record, does):
    does(on_cuda(3))
    assert waits(record) == []


def test_a_copy_to_the_host_is_nonsense_until_the_host_has_waited(record):
    buffer = torch.zeros(3, pin_memory=True)
    buffer.copy_(on_cuda(3), non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    later = on_cuda(2).to("cpu", non_blocking=True)
    assert buffer.isnan().all()
    event.synchronize()
    assert buffer.tolist() == [1.0, 2.0, 3.0]
    assert later.isnan().all()
    torch.cuda.current_stream().synchronize()
    assert later.tolist() == [1.0, 2.0]
    assert waits(record) == ["event", "stream"]


def test_pinned_memory_must_not_be_written_into_while_it_is_read():
    buffer = torch.ones(3).pin_memory()
    assert buffer.is_pinned()
    assert not torch.ones(3).is_pinned()
    buffer.to("cuda", non_blocking=True)
    torch.cuda.synchronize()
    buffer[0] = 2.0
    sent = buffer.to("cuda", non_blocking=True)
    buffer[0] = 3.0
    with pytest.raises(OverwrittenEarlyError, match="too early"):
        sent.tolist()


def test_threads_of_a_program_use_the_device_and_are_counted_apart(record):
    sent = []
    thread = threading.Thread(target=lambda: sent.append(torch.ones(2).to("cuda")))
    thread.start()
    thread.join()
    assert isinstance(sent[0], CudaTensor)
    assert record.num_waits("other threads") == 1
    assert record.num_waits("rest") == 0


def test_a_graph_runs_again_on_the_values_of_its_tensors(record):
    values, total = on_cuda(3), torch.zeros(3, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        doubled = 2 * values
        total.add_(doubled)
    assert total.tolist() == [0.0] * 3
    values.fill_(1.0)
    graph.replay()
    graph.replay()
    assert doubled.tolist() == [2.0] * 3
    assert total.tolist() == [4.0] * 3
    assert record.num_kernels("capture") == 2
    assert record.replayed["rest"] == 4


def test_the_host_may_not_wait_in_a_capture_nor_in_compiled_code():
    values = on_cuda(3)
    with pytest.raises(WaitInGraphError, match="captured"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        values.sum().item()
    assert values.sum().item() == 6.0
    with pytest.raises(WaitInGraphError, match=r"<lambda> cannot be compiled"):
        torch.compile(lambda: values.sum().item(), fullgraph=True)()
    assert not torch.compiler.is_compiling()


def test_kernels_bytes_flops_and_memory_are_counted(record):
    left, right = on_cuda(4, 8), on_cuda(8, 2)
    held = record.live_bytes
    record.kernels.clear()
    record.bytes_moved.clear()
    product = left @ right
    assert dict(record.kernels) == {("rest", "mm"): 1}
    assert record.num_bytes_moved("rest") == 4 * (4 * 8 + 8 * 2 + 4 * 2)
    assert record.num_flops("rest") == 2 * 4 * 8 * 2
    assert record.live_bytes == held + 4 * 4 * 2
    del product
    assert record.live_bytes == held
    assert record.peak_bytes == held + 4 * 4 * 2


def test_without_values_shapes_and_counts_are_the_same(record):
    states = CudaTensor(torch.empty(3, 5, device="meta"), requires_grad=True)
    (F.silu(states) @ CudaTensor(torch.empty(5, 2, device="meta"))).sum().backward()
    assert states.grad.shape == (3, 5)
    assert record.num_flops("rest") == 2 * (2 * 3 * 5 * 2)  # the second factor needs no gradient


@pytest.mark.parametrize("name", ["silu", "rms_norm", "flex_attention"])
def test_fused_kernels_give_the_values_and_gradients_of_their_definition(record, name):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 256, 16, generator=generator) for _ in range(3))
    weight = torch.linspace(0.5, 2.0, 16)

    def outcome(device: str) -> list[torch.Tensor]:
        inputs = [part.to(device).requires_grad_() for part in (query, key, value)]
        gain = weight.to(device)
        mask = torch.ones(256, 256, device=device).tril(-1).bool()
        if name == "silu":
            made = F.silu(inputs[0]) + inputs[1] + inputs[2]
        elif name == "rms_norm":
            made = F.rms_norm(inputs[0], [16], gain, 1e-6) + inputs[1] + inputs[2]
        elif device == "cuda":
            blocks = flex.create_block_mask(lambda b, h, q, k: k < q, None, None, 256, 256, device="cpu")
            blocks = flex.BlockMask.from_kv_blocks(
                *(part.to("cuda") for part in (blocks.kv_num_blocks, blocks.kv_indices)),
                *(part.to("cuda") for part in (blocks.full_kv_num_blocks, blocks.full_kv_indices)),
                BLOCK_SIZE=128,
                mask_mod=blocks.mask_mod,
            )
            made = flex.flex_attention(*inputs, block_mask=blocks)
        else:
            made = F.scaled_dot_product_attention(*inputs, attn_mask=mask)[:, :, 1:]
        made = made[:, :, -255:]
        made.square().sum().backward()
        return [part.detach().cpu() for part in (made, *(part.grad for part in inputs))]

    for one, other in zip(outcome("cuda"), outcome("cpu"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    kernels = {kernel for (_, kernel) in record.kernels}
    expected = {"rms_norm": "fused_rms_norm"}.get(name, name)
    assert {expected, f"{expected}_backward"} <= kernels


def test_where_no_device_can_be_pretended_the_reason_is_named(monkeypatch):
    assert "imported before" in hooks.what_is_missing()
    with monkeypatch.context() as patch:
        patch.setattr(hooks.shutil, "which", lambda name: None)
        assert "needs g++" in hooks.what_is_missing()
    monkeypatch.delitem(sys.modules, "torch")
    assert hooks.what_is_missing() is None
    monkeypatch.setattr(hooks.importlib.metadata, "version", lambda name: "2.11.0+cpu")
    assert "2.13 or newer, and this is 2.11.0+cpu" in hooks.what_is_missing()
