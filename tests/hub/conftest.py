"""transformers without a network, and models behind its interface. It is imported when a test needs it."""

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from patchpad.config import Config
from patchpad.model.language_model import LanguageModel
from patchpad.testing import (
    BASELINE_KINDS,
    batch_of,
    random_documents,
    settle_patches,
    sharp_baseline,
    sharp_model,
    thresholds_to_try,
    tiny_model_config,
)

os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="patchpad-hub-")
atexit.register(shutil.rmtree, os.environ["HF_MODULES_CACHE"], ignore_errors=True)

BYTE_KINDS = [kind for kind in BASELINE_KINDS if kind != "bpe"]
IDS = batch_of([[256, *document] for document in random_documents(5, [60, 41])])
"""What thresholds of patches are settled on."""


def model_of(kind: str) -> LanguageModel:
    """A model of a kind such as `hnet-entropy`, or a baseline, whose decisions rounding does not flip here."""
    if kind in BYTE_KINDS:
        return sharp_baseline(kind, context_bytes=96)
    patchifier, _, trigger = kind.partition("-")
    model = sharp_model(tiny_model_config(patchifier, trigger, context_bytes=96))
    settle_patches(model, IDS)
    first = thresholds_to_try(model, IDS)[0]
    if first is not None:
        model.store_threshold(first)
    return model


@pytest.fixture(scope="session")
def hub() -> SimpleNamespace:
    """The classes that need transformers, and transformers itself."""
    transformers = pytest.importorskip("transformers", reason='needs the extra `hub`: pip install "patchpad[hub]"')
    from patchpad.hub import configuration, exporting, importing, modeling, tokenizer

    def of(model: LanguageModel, **train: object) -> modeling.PatchpadForCausalLM:
        config = Config(model=model.config)
        return modeling.PatchpadForCausalLM.of(model, replace(config, train=replace(config.train, **train)))

    return SimpleNamespace(
        of=of,
        transformers=transformers,
        Model=modeling.PatchpadForCausalLM,
        Config=configuration.PatchpadConfig,
        tokenizer=tokenizer.PatchpadTokenizer(),
        Tokenizer=tokenizer.PatchpadTokenizer,
        export=exporting.export,
        import_folder=importing.import_folder,
    )


@pytest.fixture(scope="session")
def outer(hub) -> Callable[[str], object]:
    """A model of a kind behind the interface of transformers; tests leave it as it is."""
    made = {}

    def get(kind: str) -> object:
        if kind not in made:
            made[kind] = hub.of(model_of(kind))
        return made[kind]

    return get


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@pytest.fixture(autouse=True)
def said() -> Iterator[list[str]]:
    """What transformers warns of, which is an error; a test that expects it takes it out."""
    kept = Kept()
    logger = logging.getLogger("transformers")
    logger.addHandler(kept)
    yield kept.texts
    logger.removeHandler(kept)
    assert kept.texts == []
