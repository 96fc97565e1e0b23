"""Patchifiers, triggers and the layout of patches and slots."""

from patchpad.patching.decisions import Decisions, ThresholdLike, checked_threshold, threshold_values
from patchpad.patching.documents import ByteFacts, Documents
from patchpad.patching.layout import PatchLayout, SlotRoom
from patchpad.patching.patchifiers import Patchifier, ScoringPatchifier, build_patchifier, is_spacelike
from patchpad.patching.triggers import Trigger, build_trigger, initial_threshold

__all__ = [
    "ByteFacts",
    "Decisions",
    "Documents",
    "PatchLayout",
    "Patchifier",
    "ScoringPatchifier",
    "SlotRoom",
    "ThresholdLike",
    "Trigger",
    "build_patchifier",
    "build_trigger",
    "checked_threshold",
    "initial_threshold",
    "is_spacelike",
    "threshold_values",
]
