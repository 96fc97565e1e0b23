"""The style of what pages with scripts have in common: a dial with its buttons, and a cell for each byte of a text."""

from pathlib import Path

INTERACTIVE_CSS = (Path(__file__).parent / "interactive.css").read_text(encoding="utf-8")
"""Goes behind `PAGE_CSS`, whose colours it uses."""
