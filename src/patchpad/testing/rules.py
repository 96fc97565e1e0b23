"""What the rule of a plug-in has to keep to: causality, no state, and one answer for rows and for single bytes."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from patchpad.config import PatchifierConfig
from patchpad.patching import ByteFacts, Documents, Patchifier
from patchpad.patching.patchifiers import FixedPatchifier, bytes_since_end
from patchpad.testing.stepping import batch_of, ragged_packed_rows

STEP_FACTS = "previous_byte_ids, previous_entropy_nats and document_offset"
ONE_RULE = f"Decide each position from its own facts only, with {STEP_FACTS} for what came before"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule that is checked."""

    who: str
    method: str
    call: Callable[[ByteFacts, Tensor], Tensor]
    reads_entropy: bool
    dtype: torch.dtype
    """Of what it returns."""

    def result(self, facts: ByteFacts, open_bytes: Tensor, where: str) -> Tensor:
        """Returns what the rule says, and checks its shape and type."""
        found = self._called(facts, open_bytes, where)
        if not isinstance(found, Tensor) or found.shape != facts.byte_ids.shape or found.dtype != self.dtype:
            kind = f"{list(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else repr(found)
            raise AssertionError(
                f"{self.who}.{self.method} returns {kind} {where}; allowed: the shape of the facts, "
                f"{list(facts.byte_ids.shape)}, of {self.dtype}."
            )
        if self.dtype.is_floating_point and not bool(found.isfinite().all()):
            raise AssertionError(
                f"{self.who}.{self.method} returns nan or inf {where}; allowed: finite scores, so that a threshold of "
                "inf never fires and -inf fires everywhere."
            )
        return found

    def _called(self, facts: ByteFacts, open_bytes: Tensor, where: str) -> Tensor:
        try:
            return self.call(facts, open_bytes)
        except Exception as error:
            advice = f"{ONE_RULE}."
            if facts.entropy_nats is None and "NoneType" in str(error):
                advice = "Set reads_entropy = True in the class if it reads entropies."
            raise AssertionError(
                f"{self.who}.{self.method} fails {where}, with {type(error).__name__}: {error}. {advice}"
            ) from error


@dataclass(frozen=True)
class _Example:
    """Texts in packed, padded rows, with made-up entropies and chances that the open token has ended."""

    ids: Tensor
    entropies: Tensor | None
    ended: Tensor

    def facts(self) -> tuple[ByteFacts, Tensor, Documents]:
        """Returns the facts, the bytes of each open patch of three bytes, and the documents."""
        documents = Documents.locate(self.ids)
        facts = ByteFacts.gather(self.ids, documents, self.entropies, ended_share=self.ended)
        fixed = FixedPatchifier(PatchifierConfig(target_patch_size=3))
        ends = fixed.patch_ends(facts, documents, torch.tensor(0.0))
        return facts, bytes_since_end(ends, documents), documents

    def changed(self, where: Tensor, byte: int | None, seed: int) -> "_Example":
        """Returns the same rows with another byte and other numbers at some positions; None: with random bytes."""
        generator = torch.Generator().manual_seed(seed)
        bytes_there = torch.randint(0, 256, self.ids.shape, generator=generator)
        if byte is not None:
            bytes_there = torch.full_like(bytes_there, byte)
        ids = torch.where(where & (self.ids < 256), bytes_there, self.ids)
        other = torch.rand(self.ids.shape, generator=generator)
        entropies = None if self.entropies is None else torch.where(where, 5.5 * other, self.entropies)
        return _Example(ids, entropies, torch.where(where, other, self.ended))


def _example(subject: Rule, seed: int) -> _Example:
    rows, _ = ragged_packed_rows(seed, [23, 40, 0, 31])
    ids = batch_of(rows)
    generator = torch.Generator().manual_seed(seed)
    entropies = 5.5 * torch.rand(ids.shape, generator=generator) if subject.reads_entropy else None
    return _Example(ids, entropies, torch.rand(ids.shape, generator=generator))


def _differs(one: Tensor, other: Tensor) -> Tensor:
    """Returns where two answers differ by more than rounding: vectors of other lengths round otherwise."""
    return one != other if one.dtype == torch.bool else (one - other).abs() > 1e-5 * (1 + other.abs())


def check_rule(subject: Rule, seed: int) -> None:
    """Checks the rule alone."""
    example = _example(subject, seed)
    facts, open_bytes, documents = example.facts()
    found = subject.result(facts, open_bytes, "for whole rows")
    if subject.dtype == torch.bool and bool((found & ~facts.is_byte).any()):
        raise AssertionError(
            f"{subject.who} ends a patch at a separator or at padding, where no byte is. Write facts.is_byte & ..."
        )
    other = _example(subject, seed + 1_000)
    subject.result(*other.facts()[:2], "for whole rows")
    if bool(_differs(found, subject.result(facts, open_bytes, "for whole rows")).any()):
        raise AssertionError(_keeps_state(subject))
    _check_causality(subject, example, documents, found, seed)
    _check_single_positions(subject, facts, open_bytes, found, seed)


def _keeps_state(subject: Rule) -> str:
    return (
        f"{subject.who} keeps state, or draws random numbers: {subject.method} gives another answer for the same facts "
        f"when it is called again. {ONE_RULE}; keep nothing in self."
    )


def _check_causality(subject: Rule, example: _Example, documents: Documents, found: Tensor, seed: int) -> None:
    """Changes later bytes, other documents and other rows, none of which may change an answer."""
    positions = torch.arange(example.ids.shape[1])
    rows = torch.arange(len(example.ids))[:, None]

    def require_same(changed: Tensor, compared: Tensor, what: str) -> None:
        for byte in (None, *b" .a\n", 0xE9):
            facts, open_bytes, _ = example.changed(changed, byte, seed).facts()
            differs = _differs(subject.result(facts, open_bytes, "for whole rows"), found) & compared
            if bool(differs.any()):
                row, position = differs.nonzero()[0].tolist()
                raise AssertionError(f"{subject.who} {what} (row {row}, position {position}). {ONE_RULE}.")

    for cut in (4, 9, 17, 30):
        later = (positions > cut).expand_as(example.ids)
        require_same(later, ~later, f"looks ahead: its answer up to byte {cut} changes when bytes after {cut} change")
    second = documents.start > 0
    require_same(
        ~second, second, "reads across documents: its answer in a document changes with the document before it"
    )
    odd = (rows % 2 == 1).expand_as(example.ids)
    require_same(odd, ~odd, "reads other rows: its answer in a row changes with the rows beside it")


def _check_single_positions(subject: Rule, facts: ByteFacts, open_bytes: Tensor, found: Tensor, seed: int) -> None:
    """Asks for positions without their rows, as a step does, in an order of their own."""
    order = torch.randperm(found.numel(), generator=torch.Generator().manual_seed(seed))
    order = order[facts.byte_ids.flatten()[order] <= 256]  # a step never reads padding
    for number in (len(order), 3, 1):
        places = order[:number]
        alone: dict[str, Any] = {
            item.name: None if (value := getattr(facts, item.name)) is None else value.flatten()[places]
            for item in dataclasses.fields(facts)
        }
        single = subject.result(ByteFacts(**alone), open_bytes.flatten()[places], "for single bytes, as in a step")
        again = subject.result(ByteFacts(**alone), open_bytes.flatten()[places], "for single bytes, as in a step")
        if bool(_differs(single, again).any()):
            raise AssertionError(_keeps_state(subject))
        if bool(_differs(single, found.flatten()[places]).any()):
            raise AssertionError(
                f"{subject.who} gives another answer for a byte by itself than in its row: it reads positions beside "
                f"it. A step knows the newest byte of each row alone. {ONE_RULE}."
            )


def check_forced_ends(subject: Rule, rule: Patchifier, threshold: Tensor, seed: int) -> None:
    """Checks that no patch is longer than the longest."""
    facts, _, documents = _example(subject, seed).facts()
    ends = rule.patch_ends(facts, documents, threshold)
    longest = int(torch.where(documents.is_byte, bytes_since_end(ends, documents), 0).max())
    if longest > rule.longest_patch:
        raise AssertionError(
            f"{subject.who} leaves a patch of {longest} bytes open, with at most {rule.longest_patch}. Leave "
            "patch_ends, step_ends and forced_after as they are in the base class."
        )


def _check_device(subject: Rule, facts: ByteFacts, open_bytes: Tensor) -> None:
    elsewhere: dict[str, Any] = {
        item.name: None if (value := getattr(facts, item.name)) is None else value.to("meta")
        for item in dataclasses.fields(facts)
    }
    try:
        found = subject.call(ByteFacts(**elsewhere), open_bytes.to("meta"))
        wrong = "" if found.device.type == "meta" else f"returns a tensor on {found.device}"
    except Exception as error:
        wrong = f"fails with {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if wrong:
        raise AssertionError(
            f"{subject.who}.{subject.method} {wrong} where its facts are on another device, as on CUDA. Compare with "
            "Python numbers, make tensors like the facts (torch.zeros_like(facts.is_byte)), and read no values of "
            "tensors: no `if` on them, no .item(), no .tolist()."
        )


def check_compiled(subject: Rule, seed: int) -> None:
    """Runs the rule on a device without values, which no other tensors fit, and traces it as one graph."""
    facts, open_bytes, _ = _example(subject, seed).facts()
    _check_device(subject, facts, open_bytes)
    compiled = torch.compile(subject.call, fullgraph=True, backend="aot_eager")
    try:
        found = compiled(facts, open_bytes)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise AssertionError(
            f"{subject.who}.{subject.method} cannot be compiled as one graph, which training on CUDA does: {reason}. "
            "Use only tensor operations: no `if` on a tensor's values, no .item(), no .tolist()."
        ) from error
    if bool(_differs(found, subject.call(facts, open_bytes)).any()):
        raise AssertionError(f"{subject.who}.{subject.method} gives another answer when it is compiled.")


__all__ = ["ONE_RULE", "Rule", "check_compiled", "check_forced_ends", "check_rule"]
