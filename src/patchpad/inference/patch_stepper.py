"""Steps of the patch model."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchpad.config import PADDING
from patchpad.inference.kernels import PLAIN, Kernels
from patchpad.inference.patch_extension import extend_patches
from patchpad.inference.patch_state import DecodingState, state_of_prefill
from patchpad.inference.prompts import padded_prompts
from patchpad.inference.reports import SlotFacts
from patchpad.inference.source_masses import ended_share_of_step, mixed_step
from patchpad.inference.span import Extension
from patchpad.inference.split_cache import SplitTrunkCache
from patchpad.inference.token_steps import read_tokens, refresh_tokens
from patchpad.inference.transfers import on_device
from patchpad.model.byte_lm import ByteLM
from patchpad.model.precision import autocast


class PatchStepper:
    """Prefill and step of the patch model; see `Stepper`.

    Args:
        model: used in eval mode.
        kernels: plain, compiled or captured. With `tokens` patches they are plain: the host finds the tokens.
    """

    def __init__(self, model: ByteLM, kernels: Kernels = PLAIN) -> None:
        self.model = model.eval()
        self.kernels = kernels
        self._commits_tokens = model.config.patchifier.commits_tokens

    @torch.inference_mode()
    def prefill(
        self, prompts: list[bytes], threshold: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch vocab"], DecodingState]:
        """Reads prompts in one pass."""
        model = self.model
        last_position = on_device([len(prompt) for prompt in prompts], model.device, torch.int64)
        byte_ids = padded_prompts(prompts, PADDING, model.device)
        with autocast(model.device):
            output = model.run(byte_ids, model.decisions_at(threshold), keep_activations=True)
        rows = torch.arange(len(prompts), device=model.device)
        return output.logits[rows, last_position].float(), state_of_prefill(model, byte_ids, last_position, output)

    @torch.inference_mode()
    def begin_documents(self, state: DecodingState, rows: Int[Tensor, " row"]) -> None:
        """Drops the trunk's cache and the context of `rows`."""
        with autocast(self.model.device):
            null = self.model.context_to_bytes(self.model.context_to_bytes.null_context[None])
        counts = state.patch_counts
        state.contexts[rows, counts.num_refreshes[rows] % 2] = null.to(state.contexts.dtype)
        zero = torch.zeros_like(rows)
        dropped = counts._replace(
            num_patches=counts.num_patches.index_put((rows,), zero),
            slot_position=counts.slot_position.index_put((rows,), zero),
            num_dropped=counts.num_dropped.index_put((rows,), zero),
        )
        state.ints = torch.cat((torch.stack(dropped, dim=1), state.recent_ids), dim=1)

    @torch.inference_mode()
    def read(
        self,
        state: DecodingState,
        rows: Int[Tensor, " row"],
        ids: Int[Tensor, " row"],
        threshold: Float[Tensor, " row"],
    ) -> Bool[Tensor, " row"]:
        """Reads one id in each of `rows`; those that end a patch or fire a scratchpad need the trunk."""
        known: list[Any] = []
        if self._commits_tokens:
            tokens = read_tokens(self.model, state, rows, ids)
            known.append(tokens)
            if self.model.source_head is not None:
                known.append(ended_share_of_step(self.model, state, rows, tokens))
        needs_trunk, state.ints, state.floats = self.kernels.read(self.model, state, rows, ids, threshold, *known)
        return needs_trunk

    @torch.inference_mode()
    def slot_facts(
        self, state: DecodingState, rows: Int[Tensor, " row"], needs_trunk: Bool[Tensor, " row"]
    ) -> SlotFacts:
        """Returns what the last `read` told."""
        counts = state.patch_counts
        entropies = None if self.model.entropy_head is None else state.floats[rows, 0]
        return SlotFacts(counts.ends_patch[rows] == 1, counts.has_scratchpad[rows] == 1, entropies)

    @torch.inference_mode()
    def refresh(self, state: DecodingState, rows: Int[Tensor, " row"]) -> None:
        """Runs the trunk for `rows` on their patches so far."""
        if len(rows) == 0:
            return
        if self._commits_tokens:
            state.ints = refresh_tokens(self.model, state, rows)
            return
        state.make_room()
        # How many parts there are is not what compiled code may depend on.
        kernels = PLAIN if isinstance(state.trunk, SplitTrunkCache) else self.kernels
        _, state.ints = kernels.refresh(self.model, state, rows)

    @torch.inference_mode()
    def predict(self, state: DecodingState, rows: Int[Tensor, " row"]) -> Float[Tensor, "row vocab"]:
        """Returns the logits of the next id in each of `rows`."""
        (logits,) = self.kernels.predict(self.model, state, rows)
        return logits if self.model.source_head is None else mixed_step(self.model, state, rows, logits)

    def encode(self, text: bytes) -> list[int]:
        """Returns the bytes."""
        return list(text)

    def extend(
        self, state: DecodingState, next_ids: Sequence[Sequence[int]], threshold: Float[Tensor, " batch"]
    ) -> Extension:
        """Reads many bytes of each row in one pass."""
        return extend_patches(self.model, state, next_ids, threshold)
