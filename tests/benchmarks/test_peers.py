import pytest
import torch
from measuring import time_interleaved
from peer_models import Ours, with_start
from peer_report import ratio, report
from sizes import SIZES, plain_patches

import patchpad
from patchpad.config import SEPARATOR, ModelConfig

RATE_TOLERANCE = 0.02
TINY = ModelConfig(byte_dim=16, trunk_dim=32, trunk_heads=2, trunk_layers=1)
TEXT = b"It is a truth universally acknowledged, that a single man in possession of a good fortune. " * 60


def row(name, seconds, num_bytes=100, at="960", kind="generation"):
    facts = {"size": "3M", "kind": kind, "at": at, "name": name, "num_params": 2_739_204, "num_bytes": num_bytes}
    return {**facts, "seconds": [{"cpu": second, "wall": 2 * second} for second in seconds]}


def ids(rows, length):
    return torch.tensor(list(TEXT[: rows * length])).view(rows, length)


@pytest.fixture(scope="module")
def ours():
    torch.manual_seed(0)
    return Ours.random(TINY, "cpu")


def test_ratio_is_of_bytes_per_second_in_the_same_turns():
    fast, slow = row("patchpad", [1.0, 2.0, 1.0], num_bytes=200), row("HF Llama", [4.0, 4.0, 4.0, 9.0])
    assert ratio(fast, slow, "cpu") == pytest.approx(8.0)
    assert ratio(slow, fast, "wall") == pytest.approx(1 / 8)


def test_report_names_what_was_not_run_and_why():
    rows = [row("patchpad", [1.0]), row("HF Llama", [4.0])]
    rows += [{**row("mblm", []), "reason": "not run: one byte takes 31 s"}]
    del rows[-1]["seconds"]
    rows += [{"size": "3M", "name": "BLT", "kind": "all", "at": "all", "reason": "not installed"}]
    text = report(rows, "cpu")
    (line,) = [line for line in text.splitlines() if line.startswith("| patchpad |")]
    assert line.split(" | ") == ["| patchpad", "2,739,204", "960", "", "100", "0 %", "50.0", "0 %", "4.00x |"]
    assert "| mblm | 2,739,204 | 960 |  | not run: one byte takes 31 s |" in text
    assert "- BLT: not installed" in text
    assert "| generation, 960 | 4.00x |  | 1.00x |" in text


def test_slow_tasks_are_repeated_less_and_prepared_each_time():
    calls = []
    runs = time_interleaved(
        {"slow": lambda: calls.append("slow"), "fast": lambda: calls.append("fast")},
        repeats={"slow": 1, "fast": 3},
        warmups=0,
        before={"slow": lambda: calls.append("before")},
    )
    assert calls == ["before", "slow", "fast", "fast", "fast"]
    assert {name: len(timed) for name, timed in runs.items()} == {"slow": 1, "fast": 3}


@pytest.mark.parametrize("shape", [(4, 1024), (1, 4096)])
def test_forced_scratchpads_make_a_quarter_trunk_call_per_byte(ours, shape):
    assert ours.trunk_calls_per_byte(ids(*shape)) == pytest.approx(1 / 4, abs=RATE_TOLERANCE)


@pytest.mark.parametrize("context", [128, 960])
def test_generation_makes_a_quarter_trunk_call_per_byte(ours, context):
    prompt = TEXT[:context]
    generated = ours.generate(ours.branch(ours.prefill(prompt, b"")), 128)
    assert len(generated) == 128
    assert ours.generated_trunk_calls_per_byte(prompt, b"", 128) == pytest.approx(1 / 4, abs=RATE_TOLERANCE)


def test_generated_bytes_are_the_likeliest_of_the_full_pass(ours):
    prompt = TEXT[:50]
    engine, generation_row = ours.branch(ours.prefill(prompt, b""))
    first = bytes(generation_row.data)
    generated = ours.generate((engine, generation_row), 40)
    everything = torch.tensor([[*prompt, *first, *generated]])
    likeliest = ours.forward(everything).argmax(-1)[0, len(prompt) :]
    assert bytes(likeliest.tolist()) == first + generated


@pytest.mark.parametrize("config", [TINY, plain_patches(TINY, 4)])
def test_training_step_reaches_every_parameter(config):
    model = Ours.random(config, "cpu")
    before = {name: parameter.detach().clone() for name, parameter in model.module.named_parameters()}
    assert float(model.train_step(ids(2, 256))) > 0
    for name, parameter in model.module.named_parameters():
        assert float(parameter.grad.abs().sum()) > 0, name
        assert not torch.equal(parameter.detach(), before[name]), name


def test_inputs_are_shifted_by_the_separator():
    assert with_start(torch.tensor([[7, 8, 9]])).tolist() == [[SEPARATOR, 7, 8]]


def test_plain_patches_have_no_entropy_head():
    model = Ours.random(plain_patches(TINY, 4), "cpu")
    assert model.model.entropy_head is None
    assert Ours.random(TINY, "cpu").model.entropy_head is not None
    assert SIZES["3M"].reads_entropy


def test_shipped_size_is_that_of_the_shipped_model():
    assert patchpad.load().config == SIZES["6.6M"] == SIZES["4.2M"]


def test_shipped_model_generates_at_its_own_rate_and_does_not_end():
    ours = Ours.shipped("cpu")
    generated = ours.generate(ours.branch(ours.prefill(TEXT[:128], b"")), 96)
    assert len(generated) == 96
    assert 1 / 16 < ours.generated_trunk_calls_per_byte(TEXT[:128], b"", 96) < 1
