"""What `patchpad train --help` says of the configuration's keys. Imports no torch."""

import textwrap

from rich.console import Console
from rich.text import Text

from patchpad.config.field_texts import field_texts

INTRODUCTION = (
    "Keys of the configuration, with their defaults. Each can be given as an option, --model.trunk_dim 384, or in the "
    "YAML file."
)


def print_keys(console: Console) -> None:
    """Prints every key with its default and what it means, section by section."""
    width = max(40, console.width)
    console.print(Text("\n" + textwrap.fill(INTRODUCTION, width)))
    for section, keys in field_texts().items():
        console.print(Text(f"\n{section}", style="bold"))
        for key in keys:
            words = f" One of {', '.join(key.words)}." if key.words else ""
            meaning = textwrap.fill(
                key.text + words, width, initial_indent=" " * 4, subsequent_indent=" " * 4, break_on_hyphens=False
            )
            console.print(Text.assemble(("--" + section + "." + key.name, "cyan"), f" {key.default}"), soft_wrap=True)
            console.print(Text(meaning))
