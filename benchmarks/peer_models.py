"""Ours and the peers behind one interface, each built to nearly the same number of parameters.

Bytes go in and argmaxes of bytes come out, so adapters add their own start id and offsets. Packages of peers are
imported when a peer is built, so that one that is missing costs only its own row.
"""

import copy
import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from sizes import SCRATCHPADS_PER_BYTE, SIZES, plain_patches
from torch import Tensor, nn

from patchpad.config import SEPARATOR, VOCAB_SIZE, ModelConfig
from patchpad.inference.engine import Engine, Request, Row
from patchpad.inference.sampling import Sampling
from patchpad.model.byte_lm import ByteLM
from patchpad.patching.triggers import RandomTrigger

PATCH_BYTES = 4
"""Patches of the peers with fixed ones."""
MAX_BYTES = 16_384
"""Longest context that peers are built for; none has weights that depend on it."""
TIMED_STRETCHES = ((0, 1024), (128, 128), (960, 128), (8000, 128))
"""Start and length of the stretches of a document in which the forced rate of scratchpads should hold."""
NUM_BYTE_VALUES = 256


class Peer(ABC):
    """A model with what is measured of it. Ids are [batch, byte] with values 0 to 255."""

    has_cache = False
    """Whether generation reuses what it has computed for earlier bytes."""

    def __init__(self, module: nn.Module, device: str) -> None:
        self.module = module.to(device)
        self.device = device
        self.num_params = sum(parameter.numel() for parameter in module.parameters())
        self.optimizer: torch.optim.Optimizer | None = None

    @abstractmethod
    def logits(self, ids: Tensor) -> Tensor:
        """Returns the logits of a full pass."""

    @abstractmethod
    def loss(self, ids: Tensor) -> Tensor:
        """Returns what is trained on: mean nats, and what else the model asks for."""

    @abstractmethod
    def trunk_calls_per_byte(self, ids: Tensor) -> float:
        """Returns positions of the largest stack over positions of the input, padding included."""

    def forward(self, ids: Tensor) -> Tensor:
        """Runs a full pass without gradients."""
        self.module.eval()
        with torch.inference_mode():
            return self.logits(ids)

    def train_step(self, ids: Tensor) -> Tensor:
        """Runs forward, backward and a step of torch's AdamW; the rate is so low that patches stay as they are."""
        self.module.train()
        if self.optimizer is None:
            trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
            self.optimizer = torch.optim.AdamW(trained, lr=1e-6)
        self.optimizer.zero_grad()
        loss = self.loss(ids)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def prefill(self, prompt: bytes, following: bytes) -> Any:
        """Reads a prompt, as far as a cache allows; not timed.

        Args:
            prompt: bytes before those that are generated.
            following: read one by one in place of the argmaxes, so that learned patches stay those of text.
        """
        self.module.eval()
        return self.ids_of(prompt), self.ids_of(following)

    def branch(self, state: Any) -> Any:
        """Returns a copy of a state that `generate` may use up; not timed."""
        return state

    @torch.inference_mode()
    def generate(self, state: Any, num_bytes: int) -> bytes:
        """Generates greedily from a state; here without a cache, by a full pass per byte."""
        ids, following = state
        chosen = []
        for index in range(num_bytes):
            chosen.append(self.last_logits(ids).argmax(-1))
            ids = torch.cat((ids, following[:, index : index + 1]), dim=1)
        return as_bytes(chosen)

    def last_logits(self, ids: Tensor) -> Tensor:
        """Returns the logits of the byte after the last one [batch, 256]."""
        return self.logits(ids)[:, -1, :NUM_BYTE_VALUES]

    def ids_of(self, text: bytes) -> Tensor:
        """Returns bytes as one row of ids."""
        return torch.tensor([list(text)], device=self.device)


def with_start(ids: Tensor) -> Tensor:
    """Puts the separator before each row and drops its last byte, which is only predicted."""
    return F.pad(ids[:, :-1], (1, 0), value=SEPARATOR)


def mean_nats(logits: Tensor, ids: Tensor) -> Tensor:
    """Returns the mean cross-entropy of logits [batch, byte, vocab]."""
    return F.cross_entropy(logits.flatten(0, 1), ids.flatten())


def as_bytes(chosen: list[Tensor]) -> bytes:
    """Returns argmaxes of one row as bytes; on CUDA this is where the loop waits for the device."""
    return bytes(torch.cat(chosen).tolist())


class Ours(Peer):
    """This project's model, generating through the engine that users get."""

    has_cache = True

    def __init__(self, config: ModelConfig, device: str) -> None:
        model = ByteLM(config)
        with torch.no_grad():  # an end of the document with a logit of 0 is never the likeliest of 257
            model.local_decoder.lm_head.weight[SEPARATOR] = 0
        if config.trigger.kind == "entropy":
            model.trigger = forced_trigger(config.patchifier.target_patch_size)
        super().__init__(model, device)
        self.model = model
        self.newest: tuple[Engine, Row, int, int] | None = None

    def logits(self, ids: Tensor) -> Tensor:
        """Predicts as in evaluation."""
        return self.model(with_start(ids)).logits

    def loss(self, ids: Tensor) -> Tensor:
        """Returns the trainer's loss: mean nats, plus those of the entropy head where there is one."""
        predicted = self.model.predict_targets(with_start(ids), ids)
        total = predicted.nats.sum()
        if predicted.entropy_head_nats is not None:
            total = total + predicted.entropy_head_nats.sum()
        return total / ids.numel()

    @torch.inference_mode()
    def trunk_calls_per_byte(self, ids: Tensor) -> float:
        """Counts commits and scratchpads."""
        return self.model(with_start(ids)).layout.num_slots / ids.numel()

    def prefill(self, prompt: bytes, following: bytes) -> Any:
        """Keeps the prompt: the engine is given it in `branch`."""
        return prompt

    def branch(self, state: bytes) -> tuple[Engine, Row]:
        """Lets an engine read the prompt and write the first byte."""
        engine = Engine(self.model, batch_rows=1)
        request = Request(
            prompt=state,
            max_new_bytes=2**30,
            threshold=self.model.trigger.threshold,
            sampling=Sampling(temperature=0),
            seed=0,
        )
        (row,) = engine.submit([request])
        while not row.data:
            engine.advance()
        return engine, row

    def generate(self, state: tuple[Engine, Row], num_bytes: int) -> bytes:
        """Advances the engine until so many bytes are out."""
        engine, row = state
        engine.refresh_counts()
        calls, start = row.trunk_calls, len(row.data)
        while len(row.data) < start + num_bytes:
            engine.advance()
            if row.stop_reason is not None:
                raise RuntimeError(f"generation ended by itself: {row.stop_reason}")
        self.newest = engine, row, calls, len(row.data) - start
        return bytes(row.data[start:])

    def generated_trunk_calls_per_byte(self) -> float:
        """Returns what the newest `generate` took."""
        assert self.newest is not None
        engine, row, calls_before, num_bytes = self.newest
        engine.refresh_counts()
        return (row.trunk_calls - calls_before) / num_bytes


def forced_trigger(patch_size: int) -> RandomTrigger:
    """Returns the random trigger with the seed whose rate is nearest to the wanted one in every timed stretch."""
    share = SCRATCHPADS_PER_BYTE / (1 - 1 / patch_size)

    def deviation(seed: int) -> float:
        trigger = RandomTrigger(SCRATCHPADS_PER_BYTE, patch_size, seed)
        rates = []
        for start, length in TIMED_STRETCHES:
            facts: Any = SimpleNamespace(document_offset=torch.arange(start + 2, start + 2 + length))
            fires = trigger.scores(facts, facts.document_offset) > trigger.threshold
            rates.append(float(fires[facts.document_offset % patch_size != 0].float().mean()))
        return max(abs(rate - share) for rate in rates)

    return RandomTrigger(SCRATCHPADS_PER_BYTE, patch_size, min(range(200), key=deviation))


class Llama(Peer):
    """Hugging Face's Llama over bytes; cached generation is a bare loop of forward calls, without `generate`."""

    has_cache = True

    def __init__(self, size: str, device: str) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        width, layers, heads, hidden = {"3M": (256, 3, 4, 768), "20M": (512, 6, 8, 1440)}[size]
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

    @torch.inference_mode()
    def prefill(self, prompt: bytes, following: bytes) -> Any:
        """Reads all but the last byte of the prompt into a cache."""
        from transformers import DynamicCache

        ids, cache = self.ids_of(prompt), DynamicCache()
        self.module.eval()
        self.module(with_start(ids), use_cache=True, logits_to_keep=1, **{self.cache_argument: cache})
        return torch.cat((ids[:, -1:], self.ids_of(following)), dim=1), cache

    def branch(self, state: Any) -> Any:
        """Copies the cache."""
        with torch.inference_mode():
            return copy.deepcopy(state)

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

    def __init__(self, size: str, device: str, text: Tensor) -> None:
        from transformers import BltConfig, BltForCausalLM

        byte_dim, byte_heads, byte_hidden, width, layers, heads, hidden = {
            "3M": (64, 2, 176, 256, 3, 4, 688),
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
        with torch.inference_mode():
            entropies, _, _ = self.patch(text, 0.0)
        config = self.module.config
        config.patching_threshold = float(entropies[:, 1:].quantile(1 - 1 / self.MEAN_PATCH))

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


STAGES = {"3M": (256, 64, 3, 4), "20M": (512, 128, 6, 8)}
"""Width of the global and local stage, layers and heads of the global one."""


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


class HNet(Peer):
    """h-net-dynamic-chunking with one level, a layer around it on each side, and x-transformers' own defaults."""

    has_cache = True

    def __init__(self, size: str, device: str, text: Tensor) -> None:
        from h_net_dynamic_chunking import HNet as Network
        from x_transformers import Decoder

        byte_dim, width, layers, heads = {"3M": (64, 256, 3, 4), "20M": (128, 512, 6, 8)}[size]

        def stack(dim: int, depth: int, heads: int) -> nn.Module:
            return Decoder(dim=dim, depth=depth, heads=heads, attn_dim_head=dim // heads, attn_flash=True)

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
        chunker = self.network.dynamic_sequence_chunker
        probabilities = self.chunks(text).probs[:, 1:]
        chunker.boundary_threshold = float(probabilities.quantile(1 - 1 / chunker.target_avg_token_length))

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

    def branch(self, state: Any) -> Any:
        """Copies the caches."""
        with torch.inference_mode():
            return copy.deepcopy(state)

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


Builder = Callable[[str, str, Tensor], Peer]
MODELS: dict[str, Builder] = {
    "patchpad": lambda size, device, text: Ours(SIZES[size], device),
    "patchpad-plain4": lambda size, device, text: Ours(plain_patches(SIZES[size], PATCH_BYTES), device),
    "HF Llama": lambda size, device, text: Llama(size, device),
    "BLT": Blt,
    "MEGABYTE-pytorch": lambda size, device, text: Megabyte(size, device),
    "mblm": lambda size, device, text: Mblm(size, device),
    "h-net-dynamic-chunking": HNet,
}
"""What is measured: name -> (size, device, ids of some text) -> model."""
PACKAGES = ("transformers", "MEGABYTE-pytorch", "mblm", "h-net-dynamic-chunking")
