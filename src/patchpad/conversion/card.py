"""The model card of a converted model: where its trunk comes from, under which licence, and what is new."""

from textwrap import fill

from patchpad.config import NUM_BYTE_VALUES, Config, ModelConfig
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
    taken = taken_parameters(config.model)
    left = {part: count - taken.get(part, 0) for part, count in count_parameters(config.model).items()}
    drawn = {part: count for part, count in left.items() if count}
    files = [(f"`{path.name}`", f"`{sha256_of(path)}`") for path in source.weight_files]
    parts = [
        f"# A model of bytes with the layers of {source.name}",
        _text(f"""Made by `patchpad convert`, patchpad {__version__}. It is at step 0: its trunk was trained in another
        model, and its other parts have not learned anything yet. It has to be trained before it can write."""),
        "## Where the trunk comes from",
        _text(f"""The trunk is the {sizes.num_hidden_layers} layers and the last norm of {source.name}, a subword model
        of the llama architecture. It is {sizes.hidden_size} wide, has {sizes.num_attention_heads} heads of attention
        and {sizes.num_key_value_heads} of keys and values, and {taken["trunk"]:,} parameters, in fp32.
        {_beside_the_trunk(config.model)}"""),
        markdown_table(("file of the source", "SHA-256"), files),
        "## Licence",
        _text(_licence(source)),
        "## What was drawn fresh",
        f"These parts were drawn from the seed {config.train.seed}, {sum(drawn.values()):,} parameters in all:",
        markdown_table(("part", "parameters"), [(f"`{part}`", f"{count:,}") for part, count in drawn.items()]),
    ]
    return "\n\n".join(parts) + "\n"


def taken_parameters(config: ModelConfig) -> dict[str, int]:
    """Returns how many parameters of each part are not drawn: those of the source, and the rows of byte values.

    Those rows follow the tokens' in the embeddings and in an output head of its own.
    """
    taken = {"trunk": count_parameters(config)["trunk"]}
    of_tokens = (config.patchifier.num_token_ids or 0) * config.trunk_dim
    if of_tokens:
        taken["patch_pooling"] = of_tokens
    if config.source_head == "own":
        taken["source_head"] = of_tokens
    return taken


def _beside_the_trunk(config: ModelConfig) -> str:
    """Says what else of the source was taken."""
    if not config.patchifier.commits_tokens:
        return "The token embeddings, the LM head and the tokenizer of the source were not taken."
    num_ids = config.patchifier.num_token_ids or 0
    heads = {
        "none": "The LM head was not taken.",
        "tied": "The same embeddings are its LM head, which was taken too.",
        "own": "Its LM head was taken too, as the part `source_head`; there the rows of byte values are zeros.",
    }
    return f"""Its tokenizer and its token embeddings were taken too: the latter are {num_ids - NUM_BYTE_VALUES:,} rows
    in the part `patch_pooling`. One row for each byte value follows them, the mean of the tokens of a single byte.
    {heads[config.source_head]}"""


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
