"""Patchifiers, triggers and the layout of patches and slots."""

from patchpad.patching.documents import ByteFacts, Documents
from patchpad.patching.layout import PatchLayout
from patchpad.patching.patchifiers import Patchifier, build_patchifier, is_spacelike
from patchpad.patching.triggers import Threshold, Trigger, build_trigger, check_threshold

__all__ = [
    "ByteFacts",
    "Documents",
    "PatchLayout",
    "Patchifier",
    "Threshold",
    "Trigger",
    "build_patchifier",
    "build_trigger",
    "check_threshold",
    "is_spacelike",
]
