"""Patches that are tokens of a source, on the pretended device: the host finds them, and nothing mixes devices."""

import math
from dataclasses import replace

import pytest
from cuda_models import never_ending, run_config, small_config

from patchpad.config import TriggerConfig
from patchpad.inference.generator import Generation
from patchpad.testing import tiny_source_tokens
from patchpad.training import release
from patchpad.training.metrics import read_metrics
from patchpad.training.trainer import train

pytestmark = pytest.mark.unmeasured

LONGEST = 16
CLOSE_NATS = 0.03
"""Bits per byte of a run in bf16 and of one in fp32 differ by less."""

HEADS = [{}, {"source_head": "tied", "trigger": TriggerConfig(kind="ending_entropy")}]


def model_of_tokens(**options):
    config = small_config()
    tokens = tiny_source_tokens(LONGEST)
    patchifier = replace(config.patchifier, kind="tokens", num_token_ids=tokens.num_ids, max_patch_size=LONGEST)
    model = never_ending(replace(config, patchifier=patchifier, **options))
    model.use_source_tokens(tokens)
    return model


@pytest.mark.parametrize("options", HEADS)
def test_a_run_of_tokens_trains_in_rooms_as_it_trains_on_a_cpu(tmp_path, record, options):
    model = model_of_tokens(**options)
    config = run_config(model.config)
    release.save(model, config, tmp_path / "source")
    found = {}
    for device in ("cuda", "cpu"):
        on_device = replace(config, train=replace(config.train, device=device))
        run = train(on_device, out=tmp_path / device, init_from=tmp_path / "source")
        assert all(parameter.device.type == device for parameter in run.model.parameters())
        found[device] = [line["train/bpb"] for line in read_metrics(tmp_path / device)]
    assert not record.oddities
    assert all(math.isfinite(value) for value in found["cuda"])
    assert all(abs(a - b) < CLOSE_NATS for a, b in zip(found["cuda"], found["cpu"], strict=True)), found


@pytest.mark.parametrize("options", HEADS)
def test_bytes_are_generated_with_tokens(record, options):
    model = model_of_tokens(**options).to("cuda")
    prompts = [b"abc", b"It is a truth universally", b""]
    generation = Generation(model, prompts, max_new_bytes=12, temperature=0.0)
    for _ in generation:
        pass
    together = [completion.data for completion in generation.completions()]
    assert max(map(len, together)) == 12  # with a source head, some documents end before
    assert record.graphs_captured == 0
    assert not record.oddities
