"""Patchifiers, triggers and the layout of patches and slots."""

from patchpad.patching.decisions import Decisions, ThresholdLike, checked_threshold, threshold_values
from patchpad.patching.documents import ByteFacts, Documents
from patchpad.patching.layout import PatchLayout, SlotRoom
from patchpad.patching.patchifiers import Patchifier, ScoringPatchifier, build_patchifier, is_spacelike
from patchpad.patching.source_tokens import OpenPiece, SourceTokens
from patchpad.patching.token_facts import TokenFacts, facts_of_rows, facts_of_span, facts_of_step
from patchpad.patching.triggers import Trigger, build_trigger, initial_threshold
from patchpad.patching.vocabulary_trie import VocabularyTrie

__all__ = [
    "ByteFacts",
    "Decisions",
    "Documents",
    "OpenPiece",
    "PatchLayout",
    "Patchifier",
    "ScoringPatchifier",
    "SlotRoom",
    "SourceTokens",
    "ThresholdLike",
    "TokenFacts",
    "Trigger",
    "VocabularyTrie",
    "build_patchifier",
    "build_trigger",
    "checked_threshold",
    "facts_of_rows",
    "facts_of_span",
    "facts_of_step",
    "initial_threshold",
    "is_spacelike",
    "threshold_values",
]
