"""The model card of a converted model: where its trunk comes from, under which licence, and what is new."""

from textwrap import fill

from patchpad.config import Config
from patchpad.conversion.source import LlamaSource
from patchpad.cost import count_parameters
from patchpad.files import sha256_of
from patchpad.pages.markdown import markdown_table
from patchpad.version import __version__

CARD = "CARD.md"
WIDTH = 116


def model_card(source: LlamaSource, config: Config) -> str:
    """Returns the content of `CARD.md`, Markdown. The source's files are read for their checksums."""
    sizes = source.config
    parameters = {part: count for part, count in count_parameters(config.model).items() if count}
    drawn = {part: count for part, count in parameters.items() if part != "trunk"}
    files = [(f"`{path.name}`", f"`{sha256_of(path)}`") for path in source.weight_files]
    parts = [
        f"# A model of bytes with the layers of {source.name}",
        _text(f"""Made by `patchpad convert`, patchpad {__version__}. It is at step 0: its trunk was trained in another
        model, and its other parts have not learned anything yet. It has to be trained before it can write."""),
        "## Where the trunk comes from",
        _text(f"""The trunk is the {sizes.num_hidden_layers} layers and the last norm of {source.name}, a subword model
        of the llama architecture. It is {sizes.hidden_size} wide, has {sizes.num_attention_heads} heads of attention
        and {sizes.num_key_value_heads} of keys and values, and {parameters["trunk"]:,} parameters, in fp32. The
        token embeddings, the LM head and the tokenizer of the source were not taken."""),
        markdown_table(("file of the source", "SHA-256"), files),
        "## Licence",
        _text(_licence(source)),
        "## What was drawn fresh",
        f"These parts were drawn from the seed {config.train.seed}, {sum(drawn.values()):,} parameters in all:",
        markdown_table(("part", "parameters"), [(f"`{part}`", f"{count:,}") for part, count in drawn.items()]),
    ]
    return "\n\n".join(parts) + "\n"


def _licence(source: LlamaSource) -> str:
    """Says under which licence the model stands."""
    found = source.licence
    if found is None:
        return """Licence of the source: not stated, neither in its files nor beside them. The weights of the trunk are
        the source's, so this model, and what is trained from it, stands under the source's licence all the same. Find
        out which it is before you share either."""
    return f"""Licence of the source: {found.name} (stated in `{found.place}`). The weights of the trunk are the
    source's, so this model, and what is trained from it, stands under that licence too. Whoever shares it keeps to the
    terms: many licences ask for a copy of their text, and for a note of who made the source."""


def _text(text: str) -> str:
    """Returns a paragraph in lines of their own."""
    return fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)
