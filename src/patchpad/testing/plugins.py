"""One call that checks a patchifier or a trigger of a plug-in against the method's invariants."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from patchpad.config import PatchifierConfig, TriggerConfig
from patchpad.model.byte_lm import ByteLM
from patchpad.patching import ByteFacts, Documents, Patchifier, Trigger
from patchpad.patching.patchifiers import FixedPatchifier, bytes_since_end
from patchpad.registry import PATCHIFIERS, TRIGGERS, Registered, Registry
from patchpad.testing.models import as_row, random_documents, sharp_model, thresholds_to_try, tiny_model_config
from patchpad.testing.stepping import assert_steps_equal_pass, batch_of, ragged_packed_rows

STEP_FACTS = "previous_byte_ids, previous_entropy_nats and document_offset"
ONE_RULE = f"Decide each position from its own facts alone, with {STEP_FACTS} for what came before"


def check_patchifier(
    patchifier: str | type[Patchifier],
    *,
    options: Mapping[str, Any] | None = None,
    target_patch_size: int = 5,
    max_patch_size: int = 7,
    examples: int = 3,
    seed: int = 0,
    compile: bool = False,
) -> None:
    """Checks that a patchifier decides causally, byte by byte as in whole rows, and for each document by itself.

    First the rule is tried on irregular texts, packed and padded. Then a tiny model with it steps through ragged
    batches, and is compared with its own full pass.

    Args:
        patchifier: a class, registered or not, or a name.
        options: as in `model.patchifier.options`.
        target_patch_size: in bytes.
        max_patch_size: at which patches are closed by force.
        examples: texts that a model steps through; the rule alone is tried on four times as many.
        seed: of texts and models.
        compile: whether the rule must be traced as one graph too, as training on CUDA does.

    Raises:
        AssertionError: the rule breaks an invariant; the message says which one, where, and what to do.
        ConfigError: a name that nothing has, or options that it does not take.
    """
    with _named(PATCHIFIERS, patchifier) as name:
        config = PatchifierConfig(
            kind=name,
            target_patch_size=target_patch_size,
            max_patch_size=max_patch_size,
            options=dict(options or {}),
        )
        rule = PATCHIFIERS.get(name)(config)
        who = type(rule).__qualname__
        if not hasattr(rule, "longest_patch"):
            raise AssertionError(f"{who} has no `longest_patch`. Call super().__init__(config) in its __init__.")
        threshold = torch.tensor(1.5)
        subject = _Subject(
            who=who,
            method="natural_ends",
            call=lambda facts, open_bytes: rule.natural_ends(facts, threshold),
            reads_entropy=config.reads_entropy,
            dtype=torch.bool,
        )
        for number in range(4 * examples):
            _check_rule(subject, seed + number)
            _check_forced_ends(subject, rule, threshold, seed + number)
        if compile:
            _check_compiled(subject, seed)
        model_config = dataclasses.replace(tiny_model_config(), patchifier=config)
        for number in range(examples):
            _check_model(who, sharp_model(model_config, seed=seed + number), seed + number)


def check_trigger(
    trigger: str | type[Trigger],
    *,
    options: Mapping[str, Any] | None = None,
    patchifier: str = "spacebyte",
    examples: int = 3,
    seed: int = 0,
    compile: bool = False,
) -> None:
    """Checks that a trigger scores causally, byte by byte as in whole rows, and for each document by itself.

    Args:
        trigger: a class, registered or not, or a name.
        options: as in `model.trigger.options`.
        patchifier: whose patches scratchpads are issued in.
        examples: texts that a model steps through; the score alone is tried on four times as many.
        seed: of texts and models.
        compile: whether the score must be traced as one graph too, as training on CUDA does.

    Raises:
        AssertionError: the score breaks an invariant; the message says which one, where, and what to do.
        ConfigError: a name that nothing has, or options that it does not take.
    """
    with _named(TRIGGERS, trigger) as name:
        config = TriggerConfig(kind=name, options=dict(options or {}))
        score = TRIGGERS.get(name).of(config)
        who = type(score).__qualname__
        subject = _Subject(
            who=who,
            method="scores",
            call=score.scores,
            reads_entropy=config.reads_entropy,
            dtype=torch.float32,
        )
        for number in range(4 * examples):
            _check_rule(subject, seed + number)
        if compile:
            _check_compiled(subject, seed)
        model_config = dataclasses.replace(tiny_model_config(patchifier), trigger=config)
        for number in range(examples):
            _check_model(who, sharp_model(model_config, seed=seed + number), seed + number)


@contextlib.contextmanager
def _named(registry: Registry, given: str | type) -> Iterator[str]:
    """Gives the name of a class, under which it is registered for a while if it is not."""
    if isinstance(given, str):
        yield given
        return
    known = (name for name, one in registry.registered.items() if one.target is given)
    name = next(known, None)
    if name is not None:
        yield name
        return
    name = "checked"
    registry.registered[name] = Registered(given, given.__module__)
    try:
        yield name
    finally:
        del registry.registered[name]


@dataclass(frozen=True, kw_only=True)
class _Subject:
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
    """Texts in packed, padded rows, with made-up entropies."""

    ids: Tensor
    entropies: Tensor | None

    def facts(self) -> tuple[ByteFacts, Tensor, Documents]:
        """Returns the facts, the bytes of each open patch of three bytes, and the documents."""
        documents = Documents.locate(self.ids)
        facts = ByteFacts.gather(self.ids, documents, self.entropies)
        fixed = FixedPatchifier(PatchifierConfig(target_patch_size=3))
        ends = fixed.patch_ends(facts, documents, torch.tensor(0.0))
        return facts, bytes_since_end(ends, documents), documents

    def changed(self, where: Tensor, byte: int | None, seed: int) -> "_Example":
        """Returns the same rows with another byte and other entropies at some positions; None: with random bytes."""
        generator = torch.Generator().manual_seed(seed)
        bytes_there = torch.randint(0, 256, self.ids.shape, generator=generator)
        if byte is not None:
            bytes_there = torch.full_like(bytes_there, byte)
        ids = torch.where(where & (self.ids < 256), bytes_there, self.ids)
        other = 5.5 * torch.rand(self.ids.shape, generator=generator)
        return _Example(ids, None if self.entropies is None else torch.where(where, other, self.entropies))


def _example(subject: _Subject, seed: int) -> _Example:
    rows, _ = ragged_packed_rows(seed, [23, 40, 0, 31])
    ids = batch_of(rows)
    generator = torch.Generator().manual_seed(seed)
    entropies = 5.5 * torch.rand(ids.shape, generator=generator) if subject.reads_entropy else None
    return _Example(ids, entropies)


def _differs(one: Tensor, other: Tensor) -> Tensor:
    """Returns where two answers differ by more than rounding: vectors of other lengths round otherwise."""
    return one != other if one.dtype == torch.bool else (one - other).abs() > 1e-5 * (1 + other.abs())


def _check_rule(subject: _Subject, seed: int) -> None:
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


def _keeps_state(subject: _Subject) -> str:
    return (
        f"{subject.who} keeps state, or draws random numbers: {subject.method} gives another answer for the same facts "
        f"when it is called again. {ONE_RULE}; keep nothing in self."
    )


def _check_causality(subject: _Subject, example: _Example, documents: Documents, found: Tensor, seed: int) -> None:
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


def _check_single_positions(subject: _Subject, facts: ByteFacts, open_bytes: Tensor, found: Tensor, seed: int) -> None:
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


def _check_forced_ends(subject: _Subject, rule: Patchifier, threshold: Tensor, seed: int) -> None:
    """Checks that no patch is longer than the longest."""
    facts, _, documents = _example(subject, seed).facts()
    ends = rule.patch_ends(facts, documents, threshold)
    longest = int(torch.where(documents.is_byte, bytes_since_end(ends, documents), 0).max())
    if longest > rule.longest_patch:
        raise AssertionError(
            f"{subject.who} leaves a patch of {longest} bytes open, with at most {rule.longest_patch}. Leave "
            "patch_ends, step_ends and forced_after as they are in the base class."
        )


def _check_compiled(subject: _Subject, seed: int) -> None:
    """Traces the rule as one graph."""
    facts, open_bytes, _ = _example(subject, seed).facts()
    compiled = torch.compile(subject.call, fullgraph=True, backend="aot_eager")
    try:
        found = compiled(facts, open_bytes)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise AssertionError(
            f"{subject.who}.{subject.method} cannot be compiled as one graph, which training on CUDA does: {reason}. "
            "Use tensor operations alone: no `if` on a tensor's values, no .item(), no .tolist()."
        ) from error
    if bool(_differs(found, subject.call(facts, open_bytes)).any()):
        raise AssertionError(f"{subject.who}.{subject.method} gives another answer when it is compiled.")


def _check_model(who: str, model: ByteLM, seed: int) -> None:
    """Checks a model with the rule: stepping, packing, forced ends, and commits that no threshold moves."""
    rows, first = ragged_packed_rows(seed, [26, 11])
    ids = batch_of(rows)
    thresholds = thresholds_to_try(model, ids)
    layouts = []
    for threshold in thresholds:
        with torch.no_grad():
            layouts.append(model(ids, threshold).layout)
        _require_steps(who, model, rows, [length // 3 for length in first], threshold)
    documents, ends = layouts[0].documents, layouts[0].patch_end_mask
    for layout in layouts:
        if not torch.equal(layout.patch_end_mask, ends):
            raise AssertionError(f"{who} moves patch ends with the scratchpad threshold; they may not depend on it.")
    may_fire = ~(ends | documents.is_padding)
    for layout, expected in ((layouts[-2], torch.zeros_like(may_fire)), (layouts[-1], may_fire)):
        if not torch.equal(layout.scratchpad_mask, expected):
            raise AssertionError(f"{who} does not fire nowhere at a threshold of inf and everywhere at -inf.")
    _require_same_alone(who, model, seed, thresholds[0])


def _require_steps(who: str, model: ByteLM, rows: list[list[int]], prompts: list[int], threshold: float | None) -> None:
    try:
        assert_steps_equal_pass(model, rows, prompts, threshold)
    except AssertionError as error:
        shown = "the stored threshold" if threshold is None else f"threshold {threshold:.4g}"
        raise AssertionError(
            f"{who} does not step as it passes, at {shown}: the logits of a step differ from those of the full pass "
            f"({error}). {ONE_RULE}; keep nothing in self."
        ) from error


def _require_same_alone(who: str, model: ByteLM, seed: int, threshold: float | None) -> None:
    documents = random_documents(seed, [19, 33])
    packed = torch.tensor([as_row(*documents)])
    with torch.no_grad():
        together = model(packed, threshold).layout
        begin = 0
        for document in documents:
            alone = model(torch.tensor([as_row(document)]), threshold).layout
            end = begin + len(document) + 1
            for mask in ("patch_end_mask", "scratchpad_mask"):
                if not torch.equal(getattr(alone, mask)[0], getattr(together, mask)[0, begin:end]):
                    raise AssertionError(
                        f"{who} decides a document otherwise alone than packed behind another one. {ONE_RULE}."
                    )
            begin = end


__all__ = ["check_patchifier", "check_trigger"]
