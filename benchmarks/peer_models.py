"""The interface behind which `peers.py` measures models, and this project's own model behind it.

Bytes go in and argmaxes of bytes come out, so adapters add their own start id and offsets.
"""

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
import torch.nn.functional as F
from ours import ENDLESS, build, force, forced_trigger
from torch import Tensor, nn

import patchpad
from patchpad.config import SEPARATOR, ModelConfig
from patchpad.inference.engine import Engine, Request, Row
from patchpad.inference.sampling import Sampling
from patchpad.model.block import compile_blocks
from patchpad.model.byte_lm import ByteLM

TIMED_STRETCHES = ((0, 1024), (0, 4096), (128, 128), (960, 128), (8000, 128))
"""Start and length of the stretches of a document in which the forced rate of scratchpads should hold, after the
separator and the engine's first byte."""
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

    def generated_trunk_calls_per_byte(self, prompt: bytes, following: bytes, num_bytes: int) -> float | None:
        """Returns the same for the newest `generate`; None where each byte runs the whole context again.

        Args:
            prompt: as in `prefill`.
            following: as in `prefill`.
            num_bytes: bytes generated.
        """
        return None

    def set_patches(self, ids: Tensor) -> None:  # noqa: B027  most models have nothing to set
        """Gives patches whose ends depend on weights, here random ones, their mean size on ids to be measured."""

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
    """This project's model, generating through the engine that users get.

    Args:
        model: of `build` or trained.
        device: of its weights.
        compile: run its compiled steps.
        sampling: how bytes are chosen.
    """

    has_cache = True

    def __init__(self, model: ByteLM, device: str, *, compile: bool, sampling: Sampling) -> None:
        self.compile, self.sampling = compile, sampling
        super().__init__(model, device)
        self.model = model
        self.newest: tuple[Engine, Row, int, int] | None = None

    @classmethod
    def random(cls, config: ModelConfig, device: str, *, compile: bool = False) -> Self:
        """Returns a model with random weights, which generates greedily. A random trigger decides."""
        model = build(config, device, compile=compile)
        spans = [[range(start + 2, start + 2 + length)] for start, length in TIMED_STRETCHES]
        force(model, forced_trigger(config, spans))
        return cls(model, device, compile=compile, sampling=Sampling(temperature=0))

    @classmethod
    def shipped(cls, device: str, *, compile: bool = False) -> Self:
        """Returns the model that comes with the package; its text decides, never ends and does not go in circles."""
        model = patchpad.load(device=device)
        if compile:
            compile_blocks(model)
        return cls(model, device, compile=compile, sampling=ENDLESS)

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
        return int(self.model(with_start(ids)).layout.num_slots) / ids.numel()

    def prefill(self, prompt: bytes, following: bytes) -> Any:
        """Keeps the prompt: the engine is given it in `branch`."""
        return prompt

    def branch(self, state: bytes) -> tuple[Engine, Row]:
        """Lets an engine read the prompt and write the first byte."""
        engine = Engine(self.model, batch_rows=1, compile=self.compile)
        request = Request(
            prompt=state,
            max_new_bytes=2**30,
            threshold=float(self.model.scratchpad_threshold_nats),
            sampling=self.sampling,
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

    def generated_trunk_calls_per_byte(self, prompt: bytes, following: bytes, num_bytes: int) -> float:
        """Returns what the newest `generate` took."""
        assert self.newest is not None
        engine, row, calls_before, num_generated = self.newest
        engine.refresh_counts()
        return (row.trunk_calls - calls_before) / num_generated
