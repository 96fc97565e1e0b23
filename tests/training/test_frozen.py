"""Frozen parts: their weights stay, they cost no moments, and no backward pass where nothing before them learns."""

import pytest
import torch

from patchpad.config import PARTS, DataConfig
from patchpad.training import trainer
from patchpad.training.checkpoint import list_steps
from patchpad.training.parts import part_of
from patchpad.training.sums import StepSums
from patchpad.training.tensor_folders import tensor_sizes
from patchpad.training.text import RunText
from patchpad.training.trainer import Trainer


def trainer_of(config, folder, text) -> Trainer:
    return Trainer(config, folder / "run", RunText.open(DataConfig(paths=(str(text),))))


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("frozen", [("trunk",), ("local_encoder", "entropy_head"), PARTS[2:-1]])
def test_frozen_parts_keep_every_bit_and_the_others_learn(tmp_path, text, tools, frozen):
    config = tools.config(patchifier="hnet", frozen=frozen)
    run = trainer_of(config, tmp_path, text)
    before = weights(run.model)
    for step in range(3):
        run.train_step(StepSums())
        run.step = step + 1
    for name, now in weights(run.model).items():
        assert torch.equal(now, before[name]) == (part_of(name) in frozen), name


def test_a_frozen_encoder_records_no_graph_and_a_frozen_trunk_passes_gradients_on(tmp_path, text, tools):
    seen = {}
    for frozen in ("local_encoder", "trunk"):
        run = trainer_of(tools.config(frozen=(frozen,)), tmp_path, text)
        part = run.model.get_submodule(frozen)
        part.register_forward_hook(lambda *given, name=frozen: seen.update({name: given[2].requires_grad}))
        run.train_step(StepSums())
        assert all(parameter.grad is None for parameter in part.parameters())
        assert all(parameter.grad is not None for parameter in run.model.patch_pooling.parameters())
    assert seen == {"local_encoder": False, "trunk": True}


def test_a_run_with_frozen_parts_resumes_to_the_same_bits_without_their_moments(tmp_path, text, tools):
    config = tools.config(frozen=("trunk", "entropy_head"), steps=6, checkpoint_every=3, activation_checkpointing=True)
    whole = trainer.train(config, data=text, out=tmp_path / "whole", progress=tools.Hook())
    out = tmp_path / "resumed"

    def stop():
        raise KeyboardInterrupt

    tools.train_until_error(config, tools.Hook(4, stop), KeyboardInterrupt, data=text, out=out)
    kept = {part_of(name) for name in tensor_sizes(list_steps(out)[-1] / "optimizer")}
    assert kept == set(config.model.parts) - {"trunk", "entropy_head"}
    resumed = trainer.resume(out, progress=tools.Hook())
    assert tools.losses(out) == tools.losses(tmp_path / "whole")
    for name, expected in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], expected), name
