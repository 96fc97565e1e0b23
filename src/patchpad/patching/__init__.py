"""Patchifiers, triggers and the layout of patches and slots."""

from patchpad.patching.documents import ByteFacts, Documents
from patchpad.patching.layout import PatchLayout
from patchpad.patching.patchifiers import Patchifier, build_patchifier, is_spacelike
from patchpad.patching.triggers import (
    Threshold,
    ThresholdLike,
    Trigger,
    build_trigger,
    checked_threshold,
    threshold_values,
)

__all__ = [
    "ByteFacts",
    "Documents",
    "PatchLayout",
    "Patchifier",
    "Threshold",
    "ThresholdLike",
    "Trigger",
    "build_patchifier",
    "build_trigger",
    "checked_threshold",
    "is_spacelike",
    "threshold_values",
]
