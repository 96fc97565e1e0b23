"""What is compiled for the card: the whole training pass of a configuration, and the kernels of decoding."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import sm90
import torch
from ours import text_batch
from sizes import SCRATCHPADS_PER_BYTE
from sm90_graphs import Blocks, Graph, compiled_graphs
from torch import Tensor
from torch.nn import functional as F

from patchpad.config import PADDING, Config, ModelConfig
from patchpad.cost import cost
from patchpad.data import Batch
from patchpad.inference.buffers import Buffers
from patchpad.inference.compiled import compiled_function
from patchpad.inference.whole_batch import predict_all, read_all, refresh_all
from patchpad.model import byte_lm
from patchpad.model.block import recompute_trunk
from patchpad.model.byte_lm import ByteLM
from patchpad.model.flex_attention import FlexSlotAttention, FlexWindow, padded_length
from patchpad.model.precision import autocast
from patchpad.patching import ByteFacts, Decisions, Documents, PatchLayout, SlotRoom, build_patchifier
from patchpad.patching.triggers import RandomTrigger
from patchpad.testing import blank_state
from patchpad.training.passes import PassWeights, training_pass
from patchpad.training.room import room_ladder
from patchpad.training.threshold_schedule import ThresholdSchedule


@dataclass(frozen=True)
class TrainingShape:
    """The shapes of a training pass, and what a batch of them holds."""

    rows: int
    width: int
    """Positions of a row, padding included."""
    room: SlotRoom
    num_bytes: int
    num_commits: int
    num_scratchpads: int
    blocks: Blocks
    """Blocks that FlexAttention visits in a layer of each shape."""
    model_flops: float
    """Of the bytes and slots that are there, forward and backward, without padding: what a share of the peak counts."""


def training_shape(config: Config) -> TrainingShape:
    """Returns the shapes of a configuration's pass, with real text and scratchpads at exactly their rate.

    Entropies of random weights say nothing, so scratchpads fall at random.
    """
    model, rows = config.model, config.train.batch_rows
    batch = text_batch(rows, model.context_bytes)
    width = padded_length(model.context_bytes + 1)
    room = room_ladder(config, rows, width)[0]
    ids = F.pad(batch.byte_ids, (0, width - batch.byte_ids.shape[1]), value=PADDING)
    layout = _layout(model, ids, batch, room)
    counts = {"num_commits": int(layout.num_commits), "num_scratchpads": int(layout.num_scratchpads)}
    assert not layout.overflows
    windows = {model.encoder_window, model.decoder_window} | (
        {model.entropy_head_window} if model.reads_entropy else set()
    )
    (window,) = windows  # the same in all presets: blocks are told by shape alone
    local = FlexWindow(layout.documents.start, window).block_mask
    slots = FlexSlotAttention(layout, keep=False, make_reference=None).block_mask
    rates = [count / batch.num_bytes for count in counts.values()]
    costs = cost(model, context_bytes=model.context_bytes, patches_per_byte=rates[0], scratchpads_per_byte=rates[1])
    return TrainingShape(
        rows=rows,
        width=width,
        room=room,
        num_bytes=batch.num_bytes,
        **counts,
        blocks={(rows, width): _visited(local), (1, room.slots): _visited(slots)},
        model_flops=costs.training_flops_per_byte * batch.num_bytes,
    )


def _layout(model: ModelConfig, ids: Tensor, batch: Batch, room: SlotRoom) -> PatchLayout:
    documents = Documents.locate(ids)
    facts = ByteFacts.gather(ids, documents, None)
    infinity = torch.tensor(torch.inf)
    decisions = Decisions(
        patchifier=build_patchifier(model.patchifier),
        trigger=RandomTrigger(1),
        scratchpad_threshold=infinity,
        patch_threshold=infinity,
    )
    patch_end = decisions.patch_ends(facts, documents)
    eligible = ~(patch_end | documents.is_padding)
    scores = torch.where(eligible, decisions.trigger.scores(facts, facts.document_offset), -torch.inf).flatten()
    # Rows are alike in their offsets, and so in these scores; the row's number breaks the tie.
    scores = scores + torch.arange(len(scores)) / len(scores) * 1e-7
    count = round(SCRATCHPADS_PER_BYTE * batch.num_bytes)
    scratchpad = torch.zeros_like(scores, dtype=torch.bool).index_fill(0, scores.topk(count).indices, True)
    longest = decisions.patchifier.longest_patch + 1
    return PatchLayout.build(documents, patch_end.long(), scratchpad.view_as(ids), room=room, longest_slot=longest)


def _visited(mask: Any) -> int:
    return int(mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum())


def training_graphs(config: Config, shape: TrainingShape) -> list[Graph]:
    """Compiles the training pass of a configuration, forward and backward, as the trainer runs it on CUDA."""
    with sm90.fake_tensors():
        model = _model(config.model)
        if config.train.activation_checkpointing:
            recompute_trunk(model)
        ids = torch.zeros(shape.rows, shape.width, dtype=torch.int64, device="cuda")
        with mock.patch.object(torch, "tensor", _on_card):
            decisions = ThresholdSchedule(config, "cuda").decisions(model, step=1)
        weights = PassWeights(
            num_targets=torch.ones((), device="cuda"),
            entropy_head=config.train.entropy_head_weight,
            ratio=config.train.ratio_loss_weight,
            ratio_loss=None,
        )
        return compiled_graphs(
            training_pass, model, ids, ids.clone(), decisions, weights, shape.room, blocks=shape.blocks
        )


_TENSOR = torch.tensor


def _on_card(values: Any, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Tensor:
    """Stands for `torch.tensor`, which would ask a real card: there, values are left out."""
    made = _TENSOR(values, dtype=dtype)
    return made if torch.device(device).type == "cpu" else torch.empty_like(made, device=device)


def trunk_graphs(config: ModelConfig, shape: TrainingShape) -> list[Graph]:
    """Compiles the trunk alone, forward and backward."""
    with sm90.fake_tensors():
        trunk, places = _model(config).trunk, shape.room.slots
        seen = torch.zeros(places, dtype=torch.int64, device="cuda")
        layout: Any = SimpleNamespace(visible_from=seen, visible_to=seen, room=shape.room)

        def run(slot_inputs: Tensor, patch_index: Tensor) -> Tensor:
            attend = FlexSlotAttention(layout, make_reference=None, keep=False)
            with autocast(slot_inputs.device):
                return trunk(slot_inputs, patch_index, attend).sum()

        inputs = torch.zeros(places, config.trunk_dim, device="cuda", requires_grad=True)
        return compiled_graphs(run, inputs, seen, blocks=shape.blocks)


def _model(config: ModelConfig, linear_type: torch.dtype = torch.float32) -> ByteLM:
    with mock.patch.object(byte_lm, "draw_weights"):
        model = ByteLM(config)
    sm90.move_to_card(model, linear_type)
    return model


PHASES = ("read", "refresh", "predict")
"""Of a step: `refresh` is the trunk call, the other two come with every byte."""


def decoding_graphs(config: ModelConfig, rows: int, capacity: int) -> dict[str, list[Graph]]:
    """Compiles the three kernels of a decoding step, as generation on CUDA captures them.

    Args:
        config: sizes of the model.
        rows: of the batch.
        capacity: places of the trunk's cache.
    """
    with sm90.fake_tensors(), torch.no_grad():
        model = _model(config, torch.bfloat16).eval().requires_grad_(False)
        buffers = Buffers(blank_state(model, 1, 64), rows, capacity)
        arguments = {"read": (buffers.ids, buffers.threshold), "refresh": (buffers.is_due,), "predict": ()}
        kernels = {"read": read_all, "refresh": refresh_all, "predict": predict_all}
        return {
            phase: compiled_graphs(
                kernels[phase],
                model,
                buffers.state,
                *arguments[phase],
                dynamic=None,
                options=compiled_function(kernels[phase], effect="", fuses_any=True).options["options"],
            )
            for phase in PHASES
        }
