"""The tokens of a source, their embeddings and its output head, for a model whose commits are these tokens."""

import torch
from torch import Tensor

from patchpad.config import NUM_BYTE_VALUES
from patchpad.conversion.llama import EMBEDDING, LM_HEAD
from patchpad.conversion.source import LlamaSource
from patchpad.errors import CheckpointError, ConversionError
from patchpad.model.byte_lm import ByteLM
from patchpad.model.patch_pooling import ByteProjection, PatchPooling
from patchpad.model.token_inputs import TokenInputs
from patchpad.patching import SourceTokens
from patchpad.patching.byte_level_bpe import ByteLevelBpe

BEGINNINGS = ("<|endoftext|>", "<|begin_of_text|>", "<s>")
"""Names of the token that stands before a text, the likeliest first."""
OTHER_PATCHES = "Take another kind of patches than `tokens`."
ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<|im_end|>", "<|eot_id|>")
"""Names of tokens that end one."""


def tokens_of(source: LlamaSource) -> SourceTokens:
    """Returns the tokens of a source, with the usual longest open text.

    Args:
        source: with a tokenizer.

    Raises:
        ConversionError: no byte-level BPE tokenizer, no token that begins a text or none that ends one, or more tokens
            than embeddings.
    """
    text = source.tokenizer_json()
    try:
        added = ByteLevelBpe(text).added
        begin = next((added[name] for name in BEGINNINGS if name in added), None)
        ends = [added[name] for name in ENDS if name in added]
        if begin is None or not ends:
            what, names = ("begins", BEGINNINGS) if begin is None else ("ends", ENDS)
            raise ConversionError(
                f"{source.place}: its tokenizer has no token that {what} a text; allowed: one of {', '.join(names)}",
                hint=OTHER_PATCHES,
            )
        tokens = SourceTokens.from_json(text, begin=begin, ends=ends)
    except CheckpointError as error:
        raise ConversionError(f"{source.place}: {error}", hint=OTHER_PATCHES) from error
    if len(tokens.bytes_of) > source.config.vocab_size:
        raise ConversionError(
            f"{source.place}: its tokenizer has {len(tokens.bytes_of)} tokens and {source.config.vocab_size} "
            "embeddings; allowed: an embedding for each token",
            hint="Its tokenizer and its weights are of different models: download or copy both again.",
        )
    return tokens


@torch.no_grad()
def load_slot_inputs(model: ByteLM, source: LlamaSource, tokens: SourceTokens | None) -> None:
    """Gives the inputs of slots the scale of the source's embeddings, and tokens their embeddings and output head.

    Args:
        model: whose trunk is the source's.
        source: of the weights.
        tokens: of the source, for `tokens` patches; None for others.

    Raises:
        ConversionError: a tensor cannot be read, or holds nan or inf.
    """
    embedding = source.tensor(EMBEDDING)
    scale = embedding.square().mean().sqrt()
    for module in model.patch_pooling.modules():
        if isinstance(module, PatchPooling):
            module.mean_out.weight.mul_(scale)
            module.out.weight.mul_(scale)
        elif isinstance(module, ByteProjection):
            module.out.weight.mul_(scale)
    if tokens is None:
        return
    assert isinstance(model.patch_pooling, TokenInputs)
    model.use_source_tokens(tokens)
    num_tokens = len(tokens.bytes_of)
    bytes_alone = [token for token, data in enumerate(tokens.bytes_of) if data is not None and len(data) == 1]
    mean = embedding[bytes_alone].mean(dim=0)
    _fill(model.patch_pooling.embedding.weight, embedding[:num_tokens], mean)
    if model.source_head is not None and model.source_head.own is not None:
        _fill(model.source_head.own.weight, source.tensor(LM_HEAD)[:num_tokens], torch.zeros_like(mean))


def _fill(weights: Tensor, of_tokens: Tensor, of_bytes: Tensor) -> None:
    """Writes the rows of tokens, and then one row for each byte value; those that are tokens are never asked for."""
    weights[: len(of_tokens)].copy_(of_tokens)
    weights[len(of_tokens) :].copy_(of_bytes.expand(NUM_BYTE_VALUES, -1))
