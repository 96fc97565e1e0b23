"""What the files of a source have to offer, whatever their format."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from patchpad.conversion.llama import LlamaConfig


@dataclass(frozen=True)
class Licence:
    """What a source's own files say about its licence."""

    name: str
    """As the file writes it: an identifier such as `apache-2.0`, or the first line of a licence file."""
    place: str
    """Where it stands."""


class SourceFiles(ABC):
    """Files of a model of the llama architecture. Tensors have Hugging Face's names, rotary features half-split."""

    config: LlamaConfig
    name: str
    """Of the model."""
    licence: Licence | None
    weight_files: tuple[Path, ...]

    @abstractmethod
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Returns name -> shape of every tensor that is there; nothing but headers is read."""

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """Returns a tensor that is there, in fp32.

        Raises:
            ConversionError: its file is damaged, or its type is not known.
        """

    @abstractmethod
    def tokenizer_json(self) -> str:
        """Returns the tokenizer as the library `tokenizers` writes it.

        Raises:
            ConversionError: there is none.
        """
