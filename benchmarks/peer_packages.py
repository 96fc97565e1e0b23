"""The peers behind the interface of `peer_models`, each built to nearly the parameters of ours.

A package is imported when its peer is built, so that one that is missing costs only its own row.
"""

import copy
import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from peer_models import NUM_BYTE_VALUES, Ours, Peer, as_bytes, mean_nats, with_start
from sizes import SIZES, TRAINED_SIZES, plain_patches
from torch import Tensor, nn

from patchpad.config import SEPARATOR, VOCAB_SIZE

PATCH_BYTES = 4
"""Patches of the peers with fixed ones."""
MAX_BYTES = 16_384
"""Longest context that peers are built for; none has weights that depend on it."""
STAGES = {"3M": (256, 64, 3, 4), "4.2M": (256, 96, 5, 4), "6.6M": (256, 96, 8, 4), "20M": (512, 128, 6, 8)}
"""For MEGABYTE and MBLM: width of the global and local stage, layers and heads of the global one."""


class CachedPeer(Peer):
    """A peer that generates from its own cache."""

    has_cache = True

    def branch(self, state: Any) -> Any:
        """Copies the cache."""
        with torch.inference_mode():
            return copy.deepcopy(state)


class Llama(CachedPeer):
    """Hugging Face's Llama over bytes; cached generation is a bare loop of forward calls, without `generate`."""

    def __init__(self, size: str, device: str) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        width, layers, heads, hidden = {
            "3M": (256, 3, 4, 768),
            "4.2M": (256, 4, 4, 1000),
            "6.6M": (256, 6, 4, 1064),
            "20M": (512, 6, 8, 1440),
        }[size]
        config = LlamaConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=hidden,
            max_position_embeddings=MAX_BYTES,
            attn_implementation="sdpa",
        )
        super().__init__(LlamaForCausalLM(config), device)
        parameters = inspect.signature(LlamaForCausalLM.forward).parameters
        self.cache_argument = "cache" if "cache" in parameters else "past_key_values"

    def logits(self, ids: Tensor) -> Tensor:
        """Predicts each byte."""
        return self.module(with_start(ids), use_cache=False).logits

    def loss(self, ids: Tensor) -> Tensor:
        """Returns mean nats."""
        return mean_nats(self.logits(ids), ids)

    def trunk_calls_per_byte(self, ids: Tensor) -> float:
        """Every byte runs the whole stack."""
        return 1.0

    def generated_trunk_calls_per_byte(self, prompt: bytes, following: bytes, num_bytes: int) -> float:
        """Every byte runs the whole stack."""
        return 1.0

    @torch.inference_mode()
    def prefill(self, prompt: bytes, following: bytes) -> Any:
        """Reads all but the last byte of the prompt into a cache."""
        from transformers import DynamicCache

        ids, cache = self.ids_of(prompt), DynamicCache()
        self.module.eval()
        self.module(with_start(ids), use_cache=True, logits_to_keep=1, **{self.cache_argument: cache})
        return torch.cat((ids[:, -1:], self.ids_of(following)), dim=1), cache

    @torch.inference_mode()
    def generate(self, state: Any, num_bytes: int) -> bytes:
        """Runs one cached forward call per byte."""
        ids, cache = state
        module, chosen, given = self.module, [], {self.cache_argument: cache}
        for index in range(num_bytes):
            output = module(ids[:, index : index + 1], use_cache=True, logits_to_keep=1, **given)
            chosen.append(output.logits[:, -1, :NUM_BYTE_VALUES].argmax(-1))
        return as_bytes(chosen)


class Blt(Peer):
    """BLT of `transformers` with random weights: its cache gives wrong logits, so it runs without."""

    START, OFFSET, MEAN_PATCH = 1, 4, 5

    def __init__(self, size: str, device: str) -> None:
        from transformers import BltConfig, BltForCausalLM

        byte_dim, byte_heads, byte_hidden, width, layers, heads, hidden = {
            "3M": (64, 2, 176, 256, 3, 4, 688),
            "4.2M": (96, 2, 256, 256, 4, 4, 688),
            "6.6M": (96, 2, 256, 256, 7, 4, 688),
            "20M": (128, 4, 352, 512, 6, 8, 1376),
        }[size]
        longest = {"max_position_embeddings": MAX_BYTES}
        local = {"hidden_size": byte_dim, "num_attention_heads": byte_heads, "intermediate_size": byte_hidden} | longest
        wide = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": hidden} | longest
        config = BltConfig(
            encoder_hash_byte_group_vocab=256,
            patcher_config=local | {"num_hidden_layers": 2},
            encoder_config=local | {"num_hidden_layers": 1, "hidden_size_global": width},
            decoder_config=local | {"num_hidden_layers": 1, "hidden_size_global": width},
            global_config=wide | {"num_hidden_layers": layers},
            use_cache=False,
            **longest,
        )
        super().__init__(BltForCausalLM(config), device)

    @torch.inference_mode()
    def set_patches(self, ids: Tensor) -> None:
        """Sets the threshold so that the row with the most patches has one for 5 bytes."""
        entropies, _, _ = self.patch(ids, 0.0)
        self.module.config.patching_threshold = threshold_of_share(entropies, 1 / self.MEAN_PATCH)

    def patch(self, ids: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
        """Returns entropies, patch lengths and logits of its patcher."""
        return self.module.model.patcher(self.inputs(ids), patch_size=4, threshold=threshold)

    def inputs(self, ids: Tensor) -> Tensor:
        """Shifts bytes to its ids and puts its start id before them."""
        return F.pad(ids[:, :-1] + self.OFFSET, (1, 0), value=self.START)

    def logits(self, ids: Tensor) -> Tensor:
        """Predicts each byte."""
        return self.module(self.inputs(ids), use_cache=False).logits

    def last_logits(self, ids: Tensor) -> Tensor:
        """Predicts the byte after the last one."""
        inputs = F.pad(ids + self.OFFSET, (1, 0), value=self.START)
        return self.module(inputs, use_cache=False, logits_to_keep=1).logits[:, -1, self.OFFSET :]

    def loss(self, ids: Tensor) -> Tensor:
        """Returns mean nats; its patcher is not trained."""
        return mean_nats(self.logits(ids), ids + self.OFFSET)

    @torch.inference_mode()
    def trunk_calls_per_byte(self, ids: Tensor) -> float:
        """Counts patches, those included by which rows are padded to the row with the most."""
        _, lengths, _ = self.patch(ids, self.module.config.patching_threshold)
        return lengths.shape[1] / ids.shape[1]


class Megabyte(Peer):
    """MEGABYTE-pytorch. It has no positions by default, so one build serves every length of context."""

    def __init__(self, size: str, device: str) -> None:
        from MEGABYTE_pytorch import MEGABYTE

        width, byte_dim, layers, heads = STAGES[size]
        module = MEGABYTE(
            num_tokens=VOCAB_SIZE,
            dim=(width, byte_dim),
            depth=(layers, 1),
            max_seq_len=(MAX_BYTES // PATCH_BYTES, PATCH_BYTES),
            heads=heads,
            dim_head=width // heads,
            pad_id=SEPARATOR,
            flash_attn=True,
        )
        super().__init__(module, device)

    def logits(self, ids: Tensor) -> Tensor:
        """Predicts each next byte; it puts its own start vectors before the bytes."""
        return self.module(ids)

    def loss(self, ids: Tensor) -> Tensor:
        """Returns its own loss, mean nats."""
        return self.module(ids, return_loss=True)

    def trunk_calls_per_byte(self, ids: Tensor) -> float:
        """Its patches are fixed."""
        return 1 / PATCH_BYTES


class Mblm(Megabyte):
    """IBM's MBLM with two stages of its Transformer blocks and rotary positions."""

    def __init__(self, size: str, device: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has no Mamba, which is not used
            from mblm import MBLM, MBLMModelConfig, MBLMReturnType, TransformerBlock

        width, byte_dim, layers, heads = STAGES[size]
        block = TransformerBlock(
            attn_head_dims=width // heads,
            attn_num_heads=heads,
            attn_use_rot_embs=True,
            ff_multiplier=4,
            use_flash_attn=True,
        )
        config = MBLMModelConfig(
            num_tokens=VOCAB_SIZE,
            pad_token_id=SEPARATOR,
            hidden_dims=[width, byte_dim],
            num_layers=[layers, 1],
            seq_lens=[MAX_BYTES // PATCH_BYTES, PATCH_BYTES],
            train_checkpoint_chunks=None,
            block=block,
        )
        Peer.__init__(self, MBLM(config), device)
        self.returns = MBLMReturnType

    def logits(self, ids: Tensor) -> Tensor:
        """Predicts each next byte; it puts its own start vectors before the bytes."""
        return self.module(ids, return_type=self.returns.LOGITS)

    def loss(self, ids: Tensor) -> Tensor:
        """Returns its own loss, mean nats."""
        return self.module(ids, return_type=self.returns.LOSS)


class HNet(CachedPeer):
    """h-net-dynamic-chunking with one level and a layer of x-transformers around it on each side.

    Args:
        size: of its trunk.
        device: of its weights.
        tuned: with fused attention, and its threshold set so that a chunk has 6 bytes; else as both packages come,
            with a threshold of 0.5, at which random weights make a chunk of about 2 bytes.
    """

    def __init__(self, size: str, device: str, *, tuned: bool = True) -> None:
        from h_net_dynamic_chunking import HNet as Network
        from x_transformers import Decoder

        byte_dim, width, layers, heads = {
            "3M": (64, 256, 3, 4),
            "4.2M": (96, 256, 5, 4),
            "6.6M": (96, 256, 8, 4),
            "20M": (128, 512, 6, 8),
        }[size]

        def stack(dim: int, depth: int, heads: int) -> nn.Module:
            return Decoder(dim=dim, depth=depth, heads=heads, attn_dim_head=dim // heads, attn_flash=tuned)

        self.tuned = tuned
        network = Network(
            stack(byte_dim, 1, 2), stack(width, layers, heads), stack(byte_dim, 1, 2), dim=byte_dim, dim_inner=width
        )
        parts = {
            "embedding": nn.Embedding(VOCAB_SIZE, byte_dim),
            "network": network,
            "norm": nn.LayerNorm(byte_dim),
            "head": nn.Linear(byte_dim, VOCAB_SIZE, bias=False),
        }
        super().__init__(nn.ModuleDict(parts), device)
        self.network: Any = network

    def set_patches(self, ids: Tensor) -> None:
        """Sets the threshold so that the row with the most chunks has one for 6 bytes, its own default aim."""
        if not self.tuned:
            return
        chunker = self.network.dynamic_sequence_chunker
        chunker.boundary_threshold = threshold_of_share(self.chunks(ids).probs, 1 / chunker.target_avg_token_length)

    def generated_trunk_calls_per_byte(self, prompt: bytes, following: bytes, num_bytes: int) -> float:
        """Counts the chunks that begin at the bytes read."""
        starts = self.chunks(self.ids_of(prompt + following)).boundary_mask[0]
        return float(starts[len(prompt) : len(prompt) + num_bytes].float().mean())

    @torch.inference_mode()
    def chunks(self, ids: Tensor) -> Any:
        """Returns what its chunker decided."""
        self.module.eval()
        return self.run(with_start(ids), return_intermediates=True)[1].intermediates

    def run(self, inputs: Tensor, **options: Any) -> tuple[Tensor, Any]:
        """Returns logits and all that the network returned."""
        result = self.network(self.module["embedding"](inputs), **options)
        return self.module["head"](self.module["norm"](result.output)), result

    def logits(self, ids: Tensor) -> Tensor:
        """Predicts each byte."""
        return self.run(with_start(ids))[0]

    def loss(self, ids: Tensor) -> Tensor:
        """Returns mean nats and its own loss on the ratio of chunks."""
        logits, result = self.run(with_start(ids))
        return mean_nats(logits, ids) + result.loss

    def trunk_calls_per_byte(self, ids: Tensor) -> float:
        """Counts chunks, those included by which rows are padded to the row with the most."""
        return self.chunks(ids).chunk_lens.shape[1] / ids.shape[1]

    @torch.inference_mode()
    def prefill(self, prompt: bytes, following: bytes) -> Any:
        """Reads all but the last byte of the prompt into its caches."""
        self.module.eval()
        ids = self.ids_of(prompt)
        cache = self.run(with_start(ids), return_hiddens=True)[1].next_cache
        return torch.cat((ids[:, -1:], self.ids_of(following)), dim=1), cache

    @torch.inference_mode()
    def generate(self, state: Any, num_bytes: int) -> bytes:
        """Runs one cached step per byte."""
        ids, cache = state
        chosen = []
        for index in range(num_bytes):
            logits, result = self.run(ids[:, index : index + 1], return_hiddens=True, cache=cache)
            cache = result.next_cache
            chosen.append(logits[:, -1, :NUM_BYTE_VALUES].argmax(-1))
        return as_bytes(chosen)


def threshold_of_share(scores: Tensor, share: float) -> float:
    """Returns the threshold above which that share of scores is in the row that has the most, its first left out."""
    return float(scores[:, 1:].quantile(1 - share, dim=1).max())


def ours(size: str, device: str, *, compile: bool = False) -> Ours:
    """Returns the shipped model, or one with random weights, by the size."""
    if size in TRAINED_SIZES:
        return Ours.shipped(device, compile=compile)
    return Ours.random(SIZES[size], device, compile=compile)


Builder = Callable[[str, str], Peer]
MODELS: dict[str, Builder] = {
    "patchpad": ours,
    "patchpad compiled": partial(ours, compile=True),
    "patchpad-plain4": lambda size, device: Ours.random(plain_patches(SIZES[size], PATCH_BYTES), device),
    "HF Llama": Llama,
    "BLT": Blt,
    "MEGABYTE-pytorch": Megabyte,
    "mblm": Mblm,
    "h-net-dynamic-chunking": HNet,
    "h-net as it comes": lambda size, device: HNet(size, device, tuned=False),
}
"""What is measured: name -> (size, device) -> model."""
PACKAGES = ("transformers", "MEGABYTE-pytorch", "mblm", "h-net-dynamic-chunking", "x-transformers")
