"""Plug-ins written to a folder, and a process in which none of them has been loaded."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from patchpad import registry

PATCHES = """
from dataclasses import dataclass
import torch
from patchpad.patching import Patchifier, ScoringPatchifier, Trigger
from patchpad.plugins import register_patchifier, register_trigger

with open("loaded.txt", "a") as trace:
    trace.write("x")

@register_patchifier("marks")
class MarksPatchifier(Patchifier):
    @dataclass(frozen=True, kw_only=True)
    class Options:
        marks: str = ". "
        powers: tuple[int, ...] = (1, 2)

    def natural_ends(self, facts, threshold):
        ends = torch.zeros_like(facts.is_byte)
        for mark in self.options.marks.encode():
            ends = ends | (facts.byte_ids == mark)
        return facts.is_byte & ends

@register_patchifier("rises")
class RisesPatchifier(ScoringPatchifier):
    def scores(self, facts):
        return facts.entropy_nats - 0.5 * facts.previous_entropy_nats

@register_trigger("capitals")
class CapitalsTrigger(Trigger):
    def scores(self, facts, open_bytes):
        return ((facts.byte_ids >= 65) & (facts.byte_ids <= 90)).float()

@register_trigger("impatient")
class ImpatientTrigger(Trigger):
    threshold_in_nats = True

    def scores(self, facts, open_bytes):
        return facts.entropy_nats * (1 + 0.1 * open_bytes)
"""
MODEL = """
  byte_dim: 16
  byte_heads: 2
  window_bytes: 4
  encoder_layers: 1
  decoder_layers: 1
  pooling_heads: 2
  trunk_dim: 32
  trunk_heads: 2
  trunk_layers: 1
  context_bytes: 64
"""


def config_text(patchifier: str = "marks", trigger: str = "impatient", extra: str = "", train: str = "") -> str:
    """Returns the YAML of a tiny model."""
    return (
        f"model:{MODEL}  patchifier: {{kind: {patchifier}, target_patch_size: 8{extra}}}\n"
        f"  trigger: {{kind: {trigger}}}\n"
        f"train: {{steps: 3, batch_rows: 2, warmup_steps: 1, device: cpu{train}}}\n"
    )


@contextmanager
def nothing_loaded() -> Iterator[None]:
    """Forgets plug-ins before and after, as a new process would."""
    finders = list(sys.meta_path)
    kept = [dict(table.registered) for table in registry.REGISTRIES]
    given, state = list(registry.given_plugins), dict(registry._installed_state)

    def forget() -> None:
        for table in registry.REGISTRIES:
            for one in table.registered.values():
                target = one.target if isinstance(one.target, type) else getattr(one.target, "run", None)
                sys.modules.pop(getattr(target, "__module__", ""), None)
            table.registered.clear()
        registry.given_plugins.clear()
        registry._installed_state["is_loaded"] = False

    forget()
    try:
        yield
    finally:
        forget()
        for table, registered in zip(registry.REGISTRIES, kept, strict=True):
            table.registered.update(registered)
        registry.given_plugins.extend(given)
        registry._installed_state.update(state)
        sys.meta_path[:] = finders
