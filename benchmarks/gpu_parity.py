"""Whether a GPU computes what a CPU does: passes, gradients, steps and training, in fp32 and in bf16.

Usage: python benchmarks/gpu_parity.py
Smoke test without a GPU: python benchmarks/gpu_parity.py --device cpu --positions 60

A model decides by its own entropies, so rounding may flip a decision, and then what follows in that row differs for
good reason. Numbers are compared up to the first flip of each row, and flips are counted.
"""

import argparse
import contextlib
import copy
import math
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any
from unittest import mock

import torch
from device_facts import release
from measuring import add_to_results, arguments, markdown_table, prepare
from ours import text
from presets_gpu import preset
from torch import Tensor
from trainer_steps import TrainerSteps

import patchpad
from patchpad.config import SEPARATOR
from patchpad.model.back_ends import attention_back_end
from patchpad.model.byte_lm import ByteLM
from patchpad.model.outputs import ByteLMOutput
from patchpad.model.precision import autocast
from patchpad.testing import sharp_model, thresholds_to_try, tiny_model_config

LIMITS = {"fp32": 1e-4, "bf16": 3e-2}
"""Largest difference allowed, as the length of the difference over the length of what is expected."""
GRADIENT_LIMITS = {"fp32": 1e-3, "bf16": 1e-1}
FLIP_LIMITS = {"fp32": 0.0, "bf16": 0.005}
"""Largest share of slots that steps may decide otherwise than the pass."""
LOSS_LIMIT = 0.02
"""Largest relative difference of the losses of training on the GPU, in bf16, from those on the CPU."""
TRAINING_STEPS = 10
ROWS = 3
PROMPT = 20
"""Positions of a row that a prefill reads before steps go on."""
KINDS = {"fixed": "entropy", "spacebyte": "entropy_jump", "entropy": "entropy", "hnet": "stride"}
"""Triggers by patchifier: all of them are compared at tiny sizes."""

Facts = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A model on the CPU, ids that it reads, and its scratchpad threshold; None for its own."""

    name: str
    model: ByteLM
    ids: Tensor
    threshold: float | None

    def on(self, device: str) -> tuple[ByteLM, Tensor]:
        """Returns a copy of the model on a device, and the ids there."""
        return copy.deepcopy(self.model).to(device), self.ids.to(device)


def cases(positions: int) -> Iterator[Case]:
    """Yields the shipped model, and a tiny one for each patchifier with weights that make decisions vary."""
    ids = torch.tensor([[SEPARATOR, *text()[1000 * row :][: positions - 1]] for row in range(ROWS)])
    yield Case("shipped model", patchpad.load(), ids, None)
    for patchifier, trigger in KINDS.items():
        model = sharp_model(tiny_model_config(patchifier, trigger, window_bytes=24))
        yield Case(f"{patchifier}-{trigger}", model, ids, thresholds_to_try(model, ids)[0])


@contextlib.contextmanager
def computing_in(dtype: str) -> Iterator[None]:
    """Lets everything inside compute in "bf16", as it does on CUDA, or in "fp32"."""
    if dtype == "bf16":
        yield
        return
    plain = torch.autocast
    with mock.patch.object(torch, "autocast", lambda device, **options: plain(device, enabled=False)):
        yield


def check_pass(case: Case, dtype: str, device: str, *, back_end: str, against: str) -> Facts:
    """Compares logits of the full pass on the device with those of a CPU, or of the reference on the device."""
    model, ids = case.on(device)
    other, its_ids = case.on("cpu") if against == "cpu" else (model, ids)
    with torch.no_grad(), computing_in(dtype):
        with attention_back_end(back_end), autocast(ids.device):
            found = model(ids, case.threshold)
        with attention_back_end("reference"), autocast(its_ids.device):
            expected = other(its_ids, case.threshold)
    same = slots_of(found).cpu() == slots_of(expected).cpu()
    return distance(found.logits, expected.logits, same, LIMITS[dtype]) | {
        "flips": int((~same).sum()),
        "slots": int(slots_of(expected).sum()),
    }


def check_gradients(case: Case, dtype: str, device: str) -> Facts:
    """Compares the gradients of the device's own attention with those of the reference."""
    model, ids = case.on(device)
    with computing_in(dtype):
        expected = gradients(model, ids, case.threshold, "reference")
        found = gradients(model, ids, case.threshold, "auto")
    limit = GRADIENT_LIMITS[dtype]
    error = relative(found, expected)
    is_finite = bool(torch.isfinite(found).all())
    return {"relative_error": error, "limit": limit, "is_finite": is_finite, "ok": is_finite and error <= limit}


def gradients(model: ByteLM, ids: Tensor, threshold: float | None, back_end: str) -> Tensor:
    """Returns all gradients of a pass that predicts each next id, as one vector on the CPU."""
    model.zero_grad(set_to_none=True)
    with attention_back_end(back_end), autocast(ids.device):
        output = model(ids, threshold)
        loss = output.predicted(torch.roll(ids, -1, dims=1)).nats.mean()
        if output.entropy_logits is not None:
            loss = loss + output.entropy_logits.float().logsumexp(-1).mean()
    loss.backward()
    found = [weights.grad.flatten().float() for weights in model.parameters() if weights.grad is not None]
    return torch.cat(found).cpu().double()


def check_steps(case: Case, dtype: str, device: str) -> Facts:
    """Compares steps with the full pass on the same device: logits, and where slots are."""
    model, ids = case.on(device)
    with torch.no_grad(), computing_in(dtype):
        with autocast(ids.device):
            expected = model(ids, case.threshold)
        prompts = [bytes(row[1:PROMPT]) for row in case.ids.tolist()]
        logits, state = patchpad.prefill(model, prompts, scratchpad_threshold_nats=case.threshold)
        seen, calls = [logits], [state.trunk_calls.clone()]
        for place in range(PROMPT, ids.shape[1]):
            logits, state = patchpad.step(model, case.ids[:, place], state, scratchpad_threshold_nats=case.threshold)
            seen.append(logits)
            calls.append(state.trunk_calls.clone())
    stepped = torch.stack(calls, dim=1).diff(dim=1).cpu() > 0
    slots = slots_of(expected)[:, PROMPT:].cpu()
    same = stepped == slots
    start = torch.ones(len(ids), 1, dtype=torch.bool)
    facts = distance(
        torch.stack(seen, dim=1), expected.logits[:, PROMPT - 1 :], torch.cat((start, same), dim=1), LIMITS[dtype]
    )
    flips, num_slots = int((~same).sum()), int(slots.sum())
    facts["ok"] = facts["ok"] and flips <= FLIP_LIMITS[dtype] * num_slots
    return facts | {"flips": flips, "slots": num_slots}


def check_graphs(case: Case, device: str, num_bytes: int) -> Facts:
    """Compares the bytes that captured graphs generate with those of plain steps."""
    model, _ = case.on(device)
    options = {"max_new_bytes": num_bytes, "temperature": 0.0, "scratchpad_threshold_nats": case.threshold}
    prompts = [bytes(row[1:PROMPT]) for row in case.ids.tolist()]
    texts = [
        [done.data for done in patchpad.complete(model, prompts, compile=compile, **options)]
        for compile in (False, True)
    ]
    same = [_common(plain, compiled) for plain, compiled in zip(*texts, strict=True)]
    whole = [len(plain) for plain in texts[0]]
    return {"bytes_before_a_difference": same, "bytes": whole, "ok": same == whole}


def check_training(device: str, *, compile: bool, num_steps: int) -> Facts:
    """Compares the losses of the first steps of training with those on a CPU, which computes in fp32."""
    found, expected = losses(device, compile, num_steps), losses("cpu", False, num_steps)
    worst = max(abs(one / other - 1) for one, other in zip(found, expected, strict=True))
    return {"relative_error": worst, "limit": LOSS_LIMIT, "nats": [found, expected], "ok": worst <= LOSS_LIMIT}


@cache
def losses(device: str, compile: bool, num_steps: int) -> list[float]:
    """Returns the nats of each of the first steps of training."""
    nats = [0.0]
    with TrainerSteps(preset("tiny", "fixed16-entropy"), device, batch_rows=1, compile=compile) as steps:
        for _ in range(num_steps):
            steps.run()
            nats.append(steps.read().nats)
    return [after - before for before, after in pairwise(nats)]


def slots_of(output: ByteLMOutput) -> Tensor:
    """Returns where slots are, [batch, byte]."""
    return output.layout.patch_end_mask | output.layout.scratchpad_mask


def distance(found: Tensor, expected: Tensor, same: Tensor, limit: float) -> Facts:
    """Returns how far logits are apart, up to the first decision of each row that differs.

    Args:
        found: [batch, byte, vocab].
        expected: the same.
        same: [batch, byte], where the decision is the same.
        limit: the most that is allowed.
    """
    counts = same.long().cumprod(dim=1).bool()
    error = relative(found.cpu()[counts].double(), expected.cpu()[counts].double())
    return {"relative_error": error, "limit": limit, "compared": float(counts.float().mean()), "ok": error <= limit}


def relative(found: Tensor, expected: Tensor) -> float:
    """Returns the length of the difference over the length of what is expected; nan where anything is."""
    return float((found - expected).norm() / expected.norm())


def _common(first: bytes, second: bytes) -> int:
    """Returns how many bytes two texts have in common at their beginning."""
    pairs = zip(first, second, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def checks(options: argparse.Namespace) -> Iterator[tuple[Facts, Callable[[], Facts]]]:
    """Yields what each check is called and the check itself, finite gradients first."""
    device = options.device
    dtypes = ("fp32", "bf16") if device == "cuda" else ("fp32",)
    everything = list(cases(options.positions))
    for case in everything:
        for dtype in dtypes:
            facts = {"case": case.name, "dtype": dtype}
            yield {"check": "gradients, against the reference", **facts}, partial(check_gradients, case, dtype, device)
    for case in everything:
        for dtype in dtypes:
            facts = {"case": case.name, "dtype": dtype}
            for back_end, against in (("auto", "cpu"), ("reference", "cpu"), ("auto", "reference")):
                words = "a CPU in fp32" if against == "cpu" else "the reference"
                task = partial(check_pass, case, dtype, device, back_end=back_end, against=against)
                yield {"check": f"pass ({back_end}), against {words}", **facts}, task
            yield {"check": "steps, against the pass", **facts}, partial(check_steps, case, dtype, device)
        if options.compile:
            task = partial(check_graphs, case, device, options.positions)
            yield {"check": "captured graphs, against plain steps", "case": case.name, "dtype": dtypes[-1]}, task
    for compile in (False, True) if options.compile else (False,):
        words = "compiled" if compile else "not compiled"
        task = partial(check_training, device, compile=compile, num_steps=options.training_steps)
        yield {"check": f"losses of training, {words}, against a CPU", "case": "tiny", "dtype": dtypes[-1]}, task


def run(facts: Facts, check: Callable[[], Facts]) -> Facts:
    """Returns the row of a check; an error is its result too."""
    try:
        return {"part": "parity", **facts, **check()}
    except Exception as error:  # whatever it is, the next check may tell more
        traceback.print_exc()
        return {"part": "parity", **facts, "error": f"{type(error).__name__}: {error}"[:500], "ok": False}


def report(rows: list[Facts]) -> str:
    """Returns the Markdown."""
    lines = []
    for row in rows:
        error = row.get("relative_error", math.nan)
        flips = f"{row['flips']} of {row['slots']}" if "flips" in row else ""
        found = row.get("error") or ("" if math.isnan(error) else f"{error:.1e}")
        limit = f"{row['limit']:.0e}" if "limit" in row else ""
        lines.append([row["check"], row["case"], row["dtype"], found, limit, flips, "yes" if row["ok"] else "**no**"])
    header = ["check", "model", "type", "relative error", "allowed", "decisions that differ", "holds"]
    return "## Parity\n\n" + markdown_table(header, lines)


def main() -> None:
    """Runs all checks."""
    parser = arguments(__doc__.splitlines()[0])
    parser.set_defaults(device="cuda")
    parser.add_argument("--positions", type=int, default=400, help="positions of a row")
    parser.add_argument("--training-steps", type=int, default=TRAINING_STEPS)
    options = parser.parse_args()
    prepare(options)
    rows = []
    for facts, check in checks(options):
        rows.append(run(facts, check))
        add_to_results(options, "gpu-parity", rows[-1:])
        release()
    print(report(rows))


if __name__ == "__main__":
    main()
