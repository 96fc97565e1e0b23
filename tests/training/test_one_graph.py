"""A training pass on CUDA is one graph, and stays the same one whatever a batch holds and whatever is decided."""

from dataclasses import replace

import pytest
import torch

from patchpad.config import Config
from patchpad.data import TrainingBatches, open_corpus
from patchpad.data.bundled_text import bundled_novels
from patchpad.model.back_ends import attention_back_end
from patchpad.patching import SlotRoom
from patchpad.testing import sharp_model, tiny_model_config
from patchpad.training.passes import PassWeights, compiled_pass
from patchpad.training.threshold_schedule import ThresholdSchedule

STEPS = 20
ONE_LAYER_EACH = {"encoder_layers": 1, "decoder_layers": 1, "trunk_layers": 1}


@pytest.mark.compile
@pytest.mark.parametrize(
    ("patchifier", "trigger"),
    [
        ("entropy", "entropy"),
        ("hnet", "entropy_jump"),
        pytest.param("fixed", "random", marks=pytest.mark.slow),
        pytest.param("spacebyte", "stride", marks=pytest.mark.slow),
    ],
)
def test_20_batches_of_differing_text_and_all_phases_of_thresholds_are_one_graph(patchifier, trigger):
    """The head is fresh at first, then thresholds follow, then they are frozen. Kernels are left out."""
    config = Config(model=tiny_model_config(patchifier, trigger, **ONE_LAYER_EACH))
    config = replace(config, train=replace(config.train, steps=STEPS, threshold_frozen_fraction=0.3))
    corpus, context_bytes = open_corpus(bundled_novels().validation_paths), config.model.context_bytes
    batches = TrainingBatches(corpus, context_bytes=context_bytes, batch_rows=2, seed=0, width=128)
    model, schedule = sharp_model(config.model).train(), ThresholdSchedule(config)
    graphs, fresh, numbers_of_slots = [], set(), set()

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
        fresh.add(bool(schedule.is_fresh))
        numbers_of_slots.add(tuple(result.num_slots.tolist()))
        if result.scores is not None:
            schedule.observe(result.scores, batch.num_bytes_read)
        schedule.move(model, step, STEPS)
    assert len(graphs) == 1
    assert len(numbers_of_slots) > 5
    assert fresh == ({True, False} if config.model.reads_entropy else {False})
