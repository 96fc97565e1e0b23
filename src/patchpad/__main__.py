"""`python -m patchpad`."""

from patchpad.cli.app import console_script

console_script()
