"""`LlamaSource`: a trained model of the llama architecture, whose layers can become a trunk."""

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from patchpad.conversion.gguf_file import GgufFile
from patchpad.conversion.hugging_face_folder import HuggingFaceFolder
from patchpad.conversion.llama import EMBEDDING, LM_HEAD, ONLY_LLAMA, LlamaConfig
from patchpad.conversion.source_files import Licence, SourceFiles
from patchpad.errors import ConversionError

NUM_SHOWN = 3
"""Tensors that a message names one by one."""


class LlamaSource:
    """A checked source: it has every tensor of the llama architecture in its shape, and no other."""

    def __init__(self, files: SourceFiles, place: str) -> None:
        self._files = files
        self._shapes = files.shapes()
        self.place = place
        """Its path, for messages."""
        self._check()

    @staticmethod
    def open(path: str | Path) -> "LlamaSource":
        """Opens a source; nothing but headers is read.

        Args:
            path: a folder with `config.json` and safetensors, or a .gguf file.

        Raises:
            ConversionError: nothing there, damaged, or a model that is not of the llama architecture.
            MissingExtraError: a .gguf file without the extra `convert`.
        """
        place = Path(path)
        if place.is_dir():
            return LlamaSource(HuggingFaceFolder(place), str(place))
        if place.is_file() and place.suffix == ".gguf":
            return LlamaSource(GgufFile(place), str(place))
        found = "is neither a folder nor a .gguf file" if place.exists() else "does not exist"
        raise ConversionError(
            f"{place} {found}; allowed: a folder with config.json and safetensors, or a .gguf file",
            hint="Give --from what a model of the llama architecture was saved as.",
        )

    @property
    def config(self) -> LlamaConfig:
        """Its sizes."""
        return self._files.config

    @property
    def name(self) -> str:
        """Of the model."""
        return self._files.name

    @property
    def licence(self) -> Licence | None:
        """What its own files say about its licence; None where they say nothing."""
        return self._files.licence

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The files that its tensors lie in."""
        return self._files.weight_files

    def tensor(self, name: str) -> Tensor:
        """Returns one tensor in fp32; it is read now, and not kept.

        Args:
            name: Hugging Face's, such as `model.layers.0.self_attn.q_proj.weight`. Where the LM head is tied,
                `lm_head.weight` is the token embedding.

        Raises:
            ConversionError: its file is damaged, or it holds nan or inf.
        """
        if name == LM_HEAD and self.config.tie_word_embeddings:
            name = EMBEDDING
        found = self._files.read(name)
        if not bool(found.isfinite().all()):
            raise ConversionError(
                f"{self.place}: `{name}` holds nan or inf; allowed: finite weights", hint="Take another copy."
            )
        return found

    def tokenizer_json(self) -> str:
        """Returns its tokenizer, as the library `tokenizers` writes it.

        Raises:
            ConversionError: there is none, or it cannot be read.
            MissingExtraError: a .gguf file without the extra `convert`.
        """
        return self._files.tokenizer_json()

    def _check(self) -> None:
        wanted, there = self.config.shapes(), self._shapes
        missing, layers = [name for name in wanted if name not in there], self.config.num_hidden_layers
        if missing:
            raise ConversionError(
                f"{self.place} lacks {_listed(missing)}; allowed: all tensors of {layers} layers",
                hint="Download or copy the model again.",
            )
        for name, shape in wanted.items():
            if there[name] != shape:
                raise ConversionError(
                    f"{self.place}: `{name}` has the shape {list(there[name])}; allowed: {list(shape)}, by its sizes",
                    hint="Its description and its weights are of different models: download or copy both again.",
                )
        others = sorted(there.keys() - wanted.keys() - {LM_HEAD})
        if others:
            raise ConversionError(
                f"{self.place} has {_listed(others)}; allowed: only the tensors of the llama architecture",
                hint=ONLY_LLAMA,
            )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    shown = ", ".join(f"`{name}`" for name in names[:NUM_SHOWN])
    return shown + (f" and {len(names) - NUM_SHOWN} more" if len(names) > NUM_SHOWN else "")
