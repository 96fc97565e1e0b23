"""Draws docs/figures/slots.svg: the method on a real sentence, as the shipped model runs it.

Usage: python recipes/concept_figure.py
"""

from pathlib import Path

from slots_figure import slots_figure

import patchpad
from patchpad.files import write_atomically

SENTENCE = "It is a truth universally acknowledged, that"
TARGET = Path(__file__).parent.parent / "docs" / "figures" / "slots.svg"

if __name__ == "__main__":
    write_atomically(TARGET, slots_figure(patchpad.inspect(patchpad.load(), SENTENCE)))
