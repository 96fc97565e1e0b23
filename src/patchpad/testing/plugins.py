"""One call that checks a patchifier or a trigger of a plug-in against the method's invariants."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from patchpad.config import PatchifierConfig, TriggerConfig
from patchpad.model.byte_lm import ByteLM
from patchpad.patching import Patchifier, Trigger
from patchpad.registry import PATCHIFIERS, TRIGGERS, Registered, Registry
from patchpad.testing.models import as_row, random_documents, sharp_model, thresholds_to_try, tiny_model_config
from patchpad.testing.rules import ONE_RULE, Rule, check_compiled, check_forced_ends, check_rule
from patchpad.testing.stepping import assert_steps_equal_pass, batch_of, ragged_packed_rows


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
        compile: whether the rule must be ready for CUDA too: on another device, and traced as one graph.

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
        subject = Rule(
            who=who,
            method="natural_ends",
            call=lambda facts, open_bytes: rule.natural_ends(facts, threshold),
            reads_entropy=config.reads_entropy,
            dtype=torch.bool,
        )
        for number in range(4 * examples):
            check_rule(subject, seed + number)
            check_forced_ends(subject, rule, threshold, seed + number)
        if compile:
            check_compiled(subject, seed)
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
        patchifier: whose patches scratchpads are issued in; `tokens`, with a source head, for scores that read
            `ended_share`.
        examples: texts that a model steps through; the score alone is tried on four times as many.
        seed: of texts and models.
        compile: whether the score must be ready for CUDA too: on another device, and traced as one graph.

    Raises:
        AssertionError: the score breaks an invariant; the message says which one, where, and what to do.
        ConfigError: a name that nothing has, or options that it does not take.
    """
    with _named(TRIGGERS, trigger) as name:
        config = TriggerConfig(kind=name, options=dict(options or {}))
        score = TRIGGERS.get(name).of(config)
        who = type(score).__qualname__
        subject = Rule(
            who=who,
            method="scores",
            call=score.scores,
            reads_entropy=config.reads_entropy,
            dtype=torch.float32,
        )
        for number in range(4 * examples):
            check_rule(subject, seed + number)
        if compile:
            check_compiled(subject, seed)
        source_head = "tied" if patchifier == "tokens" else "none"
        model_config = dataclasses.replace(tiny_model_config(patchifier, source_head=source_head), trigger=config)
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
    ends, may_fire = layouts[0].patch_end_mask, layouts[0].may_fire
    for layout in layouts:
        if not torch.equal(layout.patch_end_mask, ends):
            raise AssertionError(f"{who} moves patch ends with the scratchpad threshold; they may not depend on it.")
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
