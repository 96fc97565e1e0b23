"""What a saved folder holds beside the files of transformers: thin code, and checksums."""

import hashlib
import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from patchpad.files import sha256_of, strict_json, write_atomically
from patchpad.hub.exported import CONFIG, DIGESTS, INDEX, MODEL, REMOTE_CODE
from patchpad.model.byte_lm import SOURCE_TOKENS

STORED_THRESHOLD = "scratchpad_threshold_nats"


def write_remote_code(folder: str | os.PathLike[str]) -> None:
    """Writes the files that transformers runs under `trust_remote_code=True`."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name in REMOTE_CODE:
        content = (resources.files("patchpad.hub") / "remote_code" / name).read_bytes()
        write_atomically(Path(folder) / name, content)


def write_digests(folder: str | os.PathLike[str]) -> None:
    """Writes the checksums of the files of a model in a folder, which are whole by now."""
    path = Path(folder)
    digests = {name: sha256_of(path / name) for name in saved_files(path)}
    write_atomically(path / DIGESTS, strict_json(digests, indent=1))


def saved_files(folder: Path) -> list[str]:
    """Returns the names of the configuration and of the model's other files, as far as they are there."""
    names = [CONFIG, SOURCE_TOKENS]
    if (folder / MODEL).is_file():
        names.append(MODEL)
    elif (folder / INDEX).is_file():
        weight_map = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        names += [INDEX, *sorted(set(weight_map.values()))]
    return [name for name in names if (folder / name).is_file()]


@torch.no_grad()
def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 of a model's tensors in fp32, that of its stored scratchpad threshold left out.

    Args:
        tensors: `state_dict()` of the model.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        if name != STORED_THRESHOLD:
            digest.update(f"{name} {list(tensors[name].shape)}\n".encode())
            digest.update(tensors[name].detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


__all__ = ["saved_files", "weights_sha256", "write_digests", "write_remote_code"]
