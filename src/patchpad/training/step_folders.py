"""Writing step folders, one rank or many: whole or absent, and old ones removed."""

import functools
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from torch import Tensor

from patchpad.errors import CheckpointError
from patchpad.files import sha256_of, sync_folder, write_atomically
from patchpad.registry import command_line
from patchpad.training.checkpoint import list_steps, step_number
from patchpad.training.manifest import CHECKPOINTS, write_manifest
from patchpad.training.tensor_folders import files_of_rank, save_tensors

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StepContent:
    """What goes into a step folder."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    """Name of a folder -> name -> tensor, on each rank its own shards. Empty ones are left out."""
    files: Mapping[str, str]
    """Name of a file -> content; the main rank writes them."""


def save_step(run: Path, content: StepContent, *, group: "ProcessGroup | None" = None, mark: str = "") -> Path:
    """Writes RUN/checkpoints/step-N under a temporary name, then renames it; nothing stays under the temporary one.

    Args:
        run: the folder of the run, on a file system that all ranks share.
        content: of the step.
        group: of all ranks, with messages on the CPU, that nothing else uses meanwhile; None for one process.
        mark: for the temporary name, on all ranks the same: another process that still writes there has another.

    Raises:
        CheckpointError: on every rank, where a rank could not write; earlier checkpoints are intact.
    """
    ranks = _Ranks(group)
    final = run / CHECKPOINTS / f"step-{content.step}"
    temporary = final.with_name(f".{final.name}.{mark or os.getpid()}.tmp")
    folders = {name: tensors for name, tensors in content.tensors.items() if tensors}
    try:
        ranks.together(lambda: _begin(temporary, content.files) if ranks.is_main else None)
        for name, tensors in folders.items():
            save_tensors(temporary / name, tensors, group)
        digests = ranks.together(lambda: _digests_of_rank(temporary, folders, ranks.rank))
        whole = {name: digest for part in digests for name, digest in part.items()}
        ranks.together(lambda: _finish(temporary, final, content.files, whole) if ranks.is_main else None)
    except (OSError, SafetensorError) as error:
        kept = list_steps(run)
        left = f"{kept[-1]} is intact" if kept else "no earlier checkpoint exists"
        again = f"run: {command_line(['train', '--resume', str(run)])}" if kept else "train into a new folder."
        message = f"cannot save {final}: {error}; {left}"
        raise CheckpointError(message, hint=f"Free some space, then {again}") from error
    finally:
        if ranks.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
    return final


class _Ranks:
    """Calls functions on all ranks of a group, or on the only process."""

    def __init__(self, group: "ProcessGroup | None") -> None:
        import torch.distributed as dist

        self.group = group
        self.rank, self.num_ranks = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))
        self.is_main = self.rank == 0

    def together(self, function: Callable[[], Any]) -> list[Any]:
        """Calls a function on each rank; returns what each one returned, or raises on all what the first failed with.

        Raises:
            OSError: a rank could not read or write.
            RuntimeError: a rank failed with another error.
        """
        import torch.distributed as dist

        if self.group is None:
            return [function()]
        result, failure, error = None, None, None
        try:
            result = function()
        except BaseException as raised:
            error = raised
            failure = f"rank {self.rank}: {raised}", isinstance(raised, OSError | SafetensorError)
        answers: list[Any] = [None] * self.num_ranks
        dist.all_gather_object(answers, (result, failure), group=self.group)
        if error is not None and not isinstance(error, OSError | SafetensorError):
            raise error
        for _, failed in answers:
            if failed is not None:
                message, is_disk = failed
                raise (OSError if is_disk else RuntimeError)(message) from error
        return [answer for answer, _ in answers]


def _begin(temporary: Path, files: Mapping[str, str]) -> None:
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, content in files.items():
        write_atomically(temporary / name, content)


def _digests_of_rank(temporary: Path, folders: Mapping[str, Any], rank: int) -> dict[str, str]:
    """Returns the SHA-256 of the files that a rank has written."""
    files = [file for name in folders for file in files_of_rank(temporary / name, rank)]
    return {f"{file.parent.name}/{file.name}": sha256_of(file) for file in files}


def _finish(temporary: Path, final: Path, files: Mapping[str, str], digests: Mapping[str, str]) -> None:
    """Writes the manifest, and gives the folder its name.

    Args:
        temporary: where it is.
        final: the name that it gets.
        files: written by this rank.
        digests: of what the ranks have written.
    """
    for name in digests:
        if not (temporary / name).is_file():
            raise OSError(f"{name} was written by another rank and is not here: ranks need one common file system")
    for folder in {(temporary / name).parent for name in digests}:
        sync_folder(folder)
    own = {name: sha256_of(temporary / name) for name in files}
    write_manifest(temporary, {**own, **dict(sorted(digests.items()))})
    replaced = _move_aside(final)
    os.replace(temporary, final)
    sync_folder(final.parent)
    if replaced is not None:
        _remove_folder(replaced)


def _move_aside(step: Path) -> Path | None:
    """Renames what bears the name of a new step: an older folder, or whatever someone put there; returns its name."""
    if not os.path.lexists(step):
        return None
    free = (step.with_name(f"{step.name}.replaced{number or ''}") for number in range(10_000))
    aside = next(path for path in free if not os.path.lexists(path))
    os.replace(step, aside)
    return aside


def remove_old_steps(run: Path, *, keep: int, keep_every: int = 0) -> None:
    """Removes old step folders. Links are neither counted nor touched.

    Args:
        run: the folder of the run.
        keep: newest ones that stay; 0: all.
        keep_every: multiples of this stay too; 0: none.
    """
    if not keep:
        return
    for folder in [step for step in list_steps(run) if not step.is_symlink()][:-keep]:
        if not keep_every or step_number(folder) % keep_every:
            _remove_folder(folder)


def remove_unfinished_steps(run: Path) -> None:
    """Removes the temporary step folders of processes that were killed while they saved."""
    for folder in (run / CHECKPOINTS).glob(".step-*.tmp"):
        _remove_folder(folder)


def _remove_folder(folder: Path) -> None:
    """Removes a folder that a run made, or says why not: what is left over must not end a run."""
    if folder.is_symlink() or not folder.is_dir():
        _report_left(str(folder), "it is not a folder of the run")
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        _report_left(str(folder), error.strerror or str(error))


@functools.lru_cache(maxsize=1024)
def _report_left(path: str, reason: str) -> None:
    logger.warning("cannot remove %s (%s): it is left where it is", path, reason)
