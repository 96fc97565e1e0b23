"""`export`: a run becomes a folder that transformers loads."""

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from patchpad.config import Config
from patchpad.errors import CheckpointError, GenerationError
from patchpad.files import sync_folder, write_atomically
from patchpad.hub.card import Facts, model_card
from patchpad.hub.exported import CARD, CONFIG, MODEL
from patchpad.hub.library import without_progress_bars
from patchpad.hub.modeling import PatchpadForCausalLM
from patchpad.hub.tokenizer import PatchpadTokenizer
from patchpad.training.checkpoint import Checkpoint, open_checkpoint
from patchpad.training.metrics import METRICS, read_metrics
from patchpad.training.release import released_config, require_empty

OWN_CARD = "CARD.md"
"""What a released model may have beside its files: the one that ships with patchpad has it."""


def export(source: str | Path, out: str | Path) -> PatchpadForCausalLM:
    """Writes a folder that `AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)` loads offline.

    Paths of this machine, of the text and of a run that it started from, are left out, as in a released model.

    Args:
        source: RUN, RUN/checkpoints/step-N or `bundled`.
        out: absent, or an empty folder; it is there as a whole or not at all.

    Returns:
        The model as it was written.

    Raises:
        CheckpointError: no usable checkpoint, or `out` is not empty or cannot be written.
        GenerationError: a `bpe` model, whose ids are tokens.
        MissingExtraError: transformers is not installed.
    """
    path = Path(out)
    require_empty(path, hint="Choose another --out.")
    checkpoint = open_checkpoint(source)
    if checkpoint.config.model.kind == "bpe":
        raise GenerationError(
            f"{source} is a `bpe` model; allowed for export: models of bytes (patch, byte, megabyte)",
            hint="Its tokens are its own: use it with patchpad generate, evaluate and lm-eval.",
        )
    config = released_config(checkpoint.config)
    model = PatchpadForCausalLM.of(checkpoint.model(), config)
    card = model_card(_facts(path.resolve().name, checkpoint, config, model))
    try:
        with _made_whole(path) as folder, without_progress_bars():
            model.save_pretrained(folder)
            PatchpadTokenizer(model_max_length=config.model.context_bytes + 1).save_pretrained(folder)
            write_atomically(folder / CARD, card)
            mode = stat.S_IMODE((folder / CARD).stat().st_mode)
            (folder / MODEL).chmod(mode)  # safetensors lets its owner alone read it
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error}", hint="Free some space, or choose another folder."
        ) from error
    return model


def _facts(name: str, checkpoint: Checkpoint, config: Config, model: PatchpadForCausalLM) -> Facts:
    """Collects what the card tells."""
    folder = checkpoint.path
    own_card = folder / OWN_CARD
    return Facts(
        name=name,
        config=config,
        calibration=model.model.calibration,
        scratchpad_threshold_nats=float(model.model.scratchpad_threshold_nats),
        metrics=read_metrics(folder) if (folder / METRICS).is_file() else [],
        own_card=own_card.read_text(encoding="utf-8") if own_card.is_file() else None,
    )


@contextlib.contextmanager
def _made_whole(folder: Path) -> Iterator[Path]:
    """Gives a folder to write into, which takes its name when all is written and is removed when something fails.

    A folder that is there already may be a mount, a link or where the shell is: it stays, and the files move into it.
    """
    is_there = folder.is_dir()
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = (folder if is_there else folder.parent).resolve()
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=place))
    try:
        temporary.chmod(0o777 & ~_mask())
        yield temporary
        sync_folder(temporary)
        if is_there:
            for file in sorted(
                temporary.iterdir(), key=lambda file: file.name == CONFIG
            ):  # what makes it whole is last
                file.rename(folder / file.name)
            sync_folder(folder)
        else:
            os.rename(temporary, folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _mask() -> int:
    """Returns the bits that new folders do not get, which can be read only by setting them."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


__all__ = ["export"]
