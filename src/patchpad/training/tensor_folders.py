"""Folders of tensors that ranks write and read together: PyTorch's distributed checkpoints, in safetensors.

Each rank writes one file with the shards that it holds, and the place of each shard in its header; what several ranks
hold is written once. Any number of ranks can read the folder, and so can a process without a group. Nothing is pickled.
"""

import contextlib
import math
import mmap
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from torch import Tensor

from patchpad.errors import CheckpointError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

FIRST_SHARD = "shard-00001-model-00001-of-00001.safetensors"
"""Name of the file of the main rank, as PyTorch has it."""


def save_tensors(folder: Path, tensors: Mapping[str, Tensor], group: "ProcessGroup | None" = None) -> None:
    """Writes tensors, some of which may be sharded over ranks, into a new folder, and syncs the files.

    Args:
        folder: on a file system that all ranks share.
        tensors: on each rank the same names. Plain tensors are the same on all ranks.
        group: of all ranks; None: this process has everything.

    Raises:
        OSError: on every rank, where a rank could not write.
    """
    from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageWriter, save

    _expect_no_group()
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    writer.per_thread_copy_ahead = 0  # else, where there is CUDA, it waits for streams of training
    try:
        save(dict(tensors), storage_writer=writer, process_group=group, no_dist=group is None)
    except CheckpointException as error:
        raise _first_cause(error, is_shared=group is not None) from error


def files_of_rank(folder: Path, rank: int) -> list[Path]:
    """Returns what a rank has written; one whose tensors others have written too may have no file."""
    return sorted(folder.glob(f"shard-{rank + 1:05d}-*.safetensors"))


def load_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Reads what `save_tensors` wrote into tensors that are there, each rank its own shards of them, without a group.

    Args:
        folder: was saved by any number of ranks.
        tensors: name -> where it goes; exactly the names of the folder, and their sizes.

    Raises:
        CheckpointError: a name that is missing or left over, another size, or a file that cannot be read.
    """
    from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader, load

    _require_sizes(folder, tensors)
    _expect_no_group()
    try:
        with _readable(folder) as place:
            load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(place)), no_dist=True)
    except (CheckpointException, SafetensorError, OSError) as error:
        cause = _first_cause(error, is_shared=False) if isinstance(error, CheckpointException) else error
        raise does_not_fit(folder, cause) from error


def tensor_sizes(folder: Path) -> dict[str, torch.Size]:
    """Returns name -> size of a folder's tensors.

    Raises:
        CheckpointError: a file that cannot be read, or a tensor of which a shard is missing.
    """
    from torch.distributed.checkpoint import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    try:
        with _readable(folder) as place:
            found = HuggingFaceStorageReader(str(place)).read_metadata().state_dict_metadata
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise does_not_fit(folder, error) from error
    sizes = {}
    for name, tensor in found.items():
        assert isinstance(tensor, TensorStorageMetadata)
        if sum(math.prod(chunk.sizes) for chunk in tensor.chunks) != math.prod(tensor.size):
            raise does_not_fit(folder, f"a shard of `{name}` is missing")
        sizes[name] = tensor.size
    return sizes


def does_not_fit(path: Path, detail: object) -> CheckpointError:
    """Returns the error of weights or moments that are not what they should be."""
    shown = " ".join(str(detail).split())[:200]
    return CheckpointError(f"cannot load {path}: {shown}", hint="Use another checkpoint of the run.")


def _require_sizes(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    sizes = tensor_sizes(folder)
    if sizes.keys() != tensors.keys():
        odd = sorted(sizes.keys() ^ tensors.keys())[0]
        missing = odd in tensors
        raise does_not_fit(folder, f"`{odd}` is missing" if missing else f"the model has no place for `{odd}`")
    for name, size in sizes.items():
        if size != tensors[name].size():
            raise does_not_fit(
                folder, f"`{name}` has the shape {[*size]}, and the model needs {[*tensors[name].size()]}"
            )


def _first_cause(error: BaseException, *, is_shared: bool) -> BaseException:
    """Returns why saving or loading failed, on the first rank that failed."""
    rank, (cause, _) = min(error.failures.items())  # pyrefly: ignore
    if is_shared and isinstance(cause, OSError | SafetensorError):
        return OSError(f"rank {rank}: {cause}")
    return cause


def _expect_no_group() -> None:
    """Silences the warning that a process without a group gets: it is the usual case here."""
    warnings.filterwarnings("ignore", "torch.distributed is (disabled, )?unavailable or uninitialized", UserWarning)


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[Path]:
    """Gives a folder's files at a place where safetensors can open them: in UTF-8, and where files can be mapped."""
    try:
        str(folder).encode("utf-8")
        is_utf8 = True
    except UnicodeEncodeError:
        is_utf8 = False
    if is_utf8 and all(_can_be_mapped(file) for file in sorted(folder.glob("*.safetensors"))[:1]):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "tensors"
        shutil.copytree(folder, copy)
        yield copy


def _can_be_mapped(file: Path) -> bool:
    try:
        with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ):
            return True
    except ValueError:  # an empty file
        return True
    except OSError:
        return False
