"""/tokenize, /detokenize and /tokenizer_info: bytes as ids, which is all there is to know."""

import base64
from typing import Any

from patchpad.config import SEPARATOR
from patchpad.serving.api_error import ApiError
from patchpad.serving.chat import JINJA
from patchpad.serving.fields import SEPARATOR_NAME, read_ids, read_text
from patchpad.serving.model_card import ModelCard
from patchpad.serving.schemas import DetokenizeBody, TokenizeBody
from patchpad.text import decode_text


def tokenize(body: TokenizeBody, card: ModelCard) -> dict[str, Any]:
    """Returns the ids of a text: its bytes. A text that is the separator's name and nothing else is the id 256.

    Raises:
        ApiError: text that is not UTF-8.
    """
    if body.prompt == SEPARATOR_NAME:
        ids = [SEPARATOR]
    else:
        try:
            ids = list(read_text(body.prompt))
        except ValueError as error:
            raise ApiError(400, f"`prompt` is {error}", param="prompt") from None
        ids = [SEPARATOR, *ids] if body.add_special_tokens else ids
    return {"count": len(ids), "max_model_len": card.model.config.context_bytes, "tokens": ids, "token_strs": None}


def detokenize(body: DetokenizeBody) -> dict[str, Any]:
    """Returns the text of ids, and the exact bytes beside it.

    Raises:
        ApiError: ids that are not bytes.
    """
    try:
        prompt = read_ids(body.tokens)
    except ValueError as error:
        raise ApiError(400, f"`tokens` is {error}", param="tokens") from None
    text = decode_text(prompt.data)
    return {
        "prompt": SEPARATOR_NAME + text if prompt.has_separator else text,
        "bytes_base64": base64.b64encode(prompt.data).decode("ascii"),
    }


def tokenizer_info(card: ModelCard) -> dict[str, Any]:
    """Returns what programs ask about a tokenizer before they use it."""
    return {
        "tokenizer_class": "bytes",
        "vocab_size": SEPARATOR + 1,
        "model_max_length": card.model.config.context_bytes,
        "bos_token": SEPARATOR_NAME,
        "eos_token": SEPARATOR_NAME,
        "pad_token": None,
        "add_bos_token": False,
        "chat_template": JINJA,
    }
