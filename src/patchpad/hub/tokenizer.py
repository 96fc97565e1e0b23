"""`PatchpadTokenizer`: bytes as ids, in the interface of transformers."""

import os
from collections.abc import Iterable
from typing import Any

from patchpad.config import NUM_BYTE_VALUES, PADDING, SEPARATOR
from patchpad.errors import InputError
from patchpad.hub.configuration import PatchpadConfig
from patchpad.hub.exported import TOKENIZER_AUTO_MAP
from patchpad.hub.library import AutoTokenizer, PreTrainedTokenizer
from patchpad.hub.saving import write_remote_code
from patchpad.hub.text import bytes_text, text_bytes

SEPARATOR_TOKEN, PADDING_TOKEN = "<|separator|>", "<|padding|>"
_TOKENS = [chr(value) if value < 0x80 else f"<0x{value:02X}>" for value in range(NUM_BYTE_VALUES)]
"""Names of the bytes: what transformers calls tokens. Text never holds those of the upper half: it is split into bytes
first."""
_IDS = {token: value for value, token in enumerate(_TOKENS)}


class PatchpadTokenizer(PreTrainedTokenizer):
    """Text as its UTF-8 bytes, 0 to 255; 256 is the separator (beginning and end of a document), 257 padding.

    Any bytes make a round trip: `encode_bytes` and `decode_bytes` take and give bytes. In text, a byte that is not
    UTF-8 is a surrogate, as `data.decode("utf-8", "surrogateescape")` makes it. No text means a special id: their names
    in a text are the bytes of these names.

    Args:
        errors: what `decode` makes of bytes that are not UTF-8: `replace` gives U+FFFD, `surrogateescape` keeps them.
        add_bos_token: put the separator before a text, where special ids are asked for.
        add_eos_token: put it behind, too.
    """

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012  (theirs)
    padding_side = "left"

    def __init__(
        self, errors: str = "replace", add_bos_token: bool = True, add_eos_token: bool = False, **kwargs: Any
    ) -> None:
        if errors not in ("replace", "surrogateescape"):
            raise InputError(f"errors is {errors!r}; allowed: 'replace', 'surrogateescape'")
        self.errors = errors
        self.add_bos_token = add_bos_token
        self.add_eos_token = add_eos_token
        for name, token in (("bos", SEPARATOR_TOKEN), ("eos", SEPARATOR_TOKEN), ("pad", PADDING_TOKEN)):
            kwargs[f"{name}_token"] = token
        kwargs["clean_up_tokenization_spaces"] = False
        super().__init__(errors=errors, add_bos_token=add_bos_token, add_eos_token=add_eos_token, **kwargs)

    @property
    def vocab_size(self) -> int:
        """Ids of bytes; `len(tokenizer)` counts the special ones too."""
        return NUM_BYTE_VALUES

    def get_vocab(self) -> dict[str, int]:
        """Returns the name of each id."""
        return {**_IDS, SEPARATOR_TOKEN: SEPARATOR, PADDING_TOKEN: PADDING}

    def encode_bytes(self, data: bytes) -> list[int]:
        """Returns the ids of bytes, special ids as in `encode`."""
        return self.build_inputs_with_special_tokens(list(data))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Returns the bytes among ids; separators and padding are left out.

        Raises:
            InputError: an id below 0 or above 257.
        """
        values = [int(value) for value in ids]
        wrong = next((value for value in values if not 0 <= value <= PADDING), None)
        if wrong is not None:
            raise _unknown(wrong)
        return bytes(value for value in values if value < NUM_BYTE_VALUES)

    def tokenize(self, text: str, **kwargs: Any) -> list[str]:
        """Returns the names of a text's bytes. Names of special ids in it are bytes like any others."""
        return [_TOKENS[value] for value in text_bytes(text)]

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return self.tokenize(text)

    def _convert_token_to_id(self, token: str) -> int | None:
        return _IDS.get(token)

    def _convert_id_to_token(self, index: int) -> str:
        if not 0 <= index < NUM_BYTE_VALUES:
            raise _unknown(index)
        return _TOKENS[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Returns the text of names of ids; those of special ids stand for themselves.

        Raises:
            InputError: a name that no id has.
        """
        special = (SEPARATOR_TOKEN, PADDING_TOKEN)
        wrong = next((token for token in tokens if token not in special and token not in _IDS), None)
        if wrong is not None:
            raise InputError(f"{wrong!r} is not the name of an id; allowed: what `tokenize` returns")
        data = b"".join(token.encode() if token in special else bytes((_IDS[token],)) for token in tokens)
        return bytes_text(data, self.errors)

    def _decode(  # pyrefly: ignore  # the other arguments do not matter here
        self, token_ids: int | list[int], skip_special_tokens: bool = False, **kwargs: Any
    ) -> str:
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        if skip_special_tokens:
            return bytes_text(self.decode_bytes(ids), self.errors)
        return self.convert_tokens_to_string(self.convert_ids_to_tokens([int(value) for value in ids]))

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Returns one text, or two, each with the separators that are asked for."""
        texts = [token_ids_0] if token_ids_1 is None else [token_ids_0, token_ids_1]
        before, behind = [SEPARATOR] * self.add_bos_token, [SEPARATOR] * self.add_eos_token
        return [value for text in texts for value in (*before, *text, *behind)]

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """Returns 1 for each special id, 0 for each byte."""
        if not already_has_special_tokens:
            token_ids_0 = self.build_inputs_with_special_tokens(token_ids_0, token_ids_1)
        return [int(value >= NUM_BYTE_VALUES) for value in token_ids_0]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Returns zeros, one for each id: texts have no types."""
        return [0] * len(self.build_inputs_with_special_tokens(token_ids_0, token_ids_1))

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Refuses: there are as many ids as there are bytes.

        Raises:
            InputError: always, unless there is nothing to add.
        """
        added = [token for token in _as_list(new_tokens) if str(token) not in self.get_vocab()]
        if added:
            raise InputError(f"{added} cannot be added: ids are the 256 bytes, the separator and padding")
        return 0

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Writes nothing: bytes need no vocabulary."""
        return ()

    def save_chat_templates(
        self, save_directory: str | os.PathLike[str], tokenizer_config: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Adds to the saved configuration what transformers leaves out of it; see transformers."""
        ends = {"add_bos_token": self.add_bos_token, "add_eos_token": self.add_eos_token}
        return super().save_chat_templates(save_directory, {**tokenizer_config, **ends}, *args, **kwargs)

    def save_pretrained(  # pyrefly: ignore  # the other arguments are handed on
        self, save_directory: str | os.PathLike[str], **kwargs: Any
    ) -> Any:
        """Writes a folder that transformers loads; see transformers."""
        self.init_kwargs["auto_map"] = TOKENIZER_AUTO_MAP
        write_remote_code(save_directory)
        return super().save_pretrained(save_directory, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Does nothing: the class is in a package, so no code of it is copied into folders."""


def _unknown(index: int) -> InputError:
    return InputError(f"the id {index} is unknown; allowed: 0 to {PADDING}")


def _as_list(tokens: Any) -> list[Any]:
    return list(tokens) if isinstance(tokens, list | tuple) else [tokens]


AutoTokenizer.register(PatchpadConfig, tokenizer_class=PatchpadTokenizer, exist_ok=True)

__all__ = ["PatchpadTokenizer"]
