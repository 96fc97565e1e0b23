"""A training pass with parts of a plug-in is one graph, as with those that are built in."""

from dataclasses import replace

import pytest
import torch
from plugin_tools import PATCHES, nothing_loaded

import patchpad
from patchpad.config import Config, PatchifierConfig, TriggerConfig
from patchpad.data import TrainingBatches, open_corpus
from patchpad.data.bundled_text import bundled_novels
from patchpad.model.back_ends import attention_back_end
from patchpad.patching import SlotRoom
from patchpad.testing import sharp_model, tiny_model_config
from patchpad.training.passes import PassWeights, compiled_pass
from patchpad.training.threshold_schedule import ThresholdSchedule

STEPS = 8


@pytest.mark.compile
@pytest.mark.slow
@pytest.mark.parametrize(("patchifier", "trigger"), [("marks", "impatient"), ("rises", "capitals")])
def test_batches_and_phases_of_thresholds_with_parts_of_a_plugin_are_one_graph(
    tmp_path, monkeypatch, patchifier, trigger
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_patches.py").write_text(PATCHES)
    with nothing_loaded():
        patchpad.plugins.load("my_patches")
        model_config = replace(
            tiny_model_config(encoder_layers=1, decoder_layers=1, trunk_layers=1),
            patchifier=PatchifierConfig(kind=patchifier, target_patch_size=5, max_patch_size=9),
            trigger=TriggerConfig(kind=trigger),
        )
        config = Config(model=model_config)
        config = replace(config, train=replace(config.train, steps=STEPS, threshold_frozen_fraction=0.3))
        corpus = open_corpus(bundled_novels().validation_paths)
        batches = TrainingBatches(corpus, context_bytes=64, batch_rows=2, seed=0, width=128)
        model, schedule = sharp_model(model_config).train(), ThresholdSchedule(config)
        graphs, slots = [], set()

        def backend(graph, inputs):
            graphs.append(graph)
            return graph.forward

        torch._dynamo.reset()
        run = compiled_pass(backend=backend)
        for step in range(STEPS):
            batch = batches.batch(step)
            weights = PassWeights.of_step(model, [batch], [batch], config.train)
            decisions = schedule.decisions(model, step)
            with attention_back_end("flex"), torch.no_grad():
                result = run(
                    model, batch.byte_ids, batch.targets, decisions, weights, SlotRoom(commits=128, scratchpads=128)
                )
            slots.add(tuple(result.num_slots.tolist()))
            assert result.scores is not None
            schedule.observe(result.scores, batch.num_bytes_read)
            schedule.move(model, step, STEPS)
        assert len(graphs) == 1
        assert len(slots) > 3
