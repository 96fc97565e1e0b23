"""`patchpad prepare`: texts of any format become a prepared corpus, by several processes, and again after a stop."""

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
from array import array
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchpad.config import TextConfig
from patchpad.data.corpus import Corpus, record_names
from patchpad.data.documents import Documents, DocumentView, FileDocuments, JoinedDocuments, digest_of
from patchpad.data.file_reading import FileReader
from patchpad.data.file_search import Found
from patchpad.data.folders import BEGINS, MANIFEST, MANIFEST_FORMAT, SHARDS, TRAINING, UNFINISHED, VALIDATION, WORK
from patchpad.data.items import Role, TextItems, divide, file_states, files_of
from patchpad.data.open_files import OpenedFile
from patchpad.data.prepared import DIGESTS, LENGTHS, PROMPTS, VERSION, read_manifest, require_size
from patchpad.errors import ConfigError, DataError, quoted
from patchpad.files import sha256_of, strict_json, sync_folder, write_atomically
from patchpad.run_lock import LOCK, run_lock
from patchpad.version import __version__

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Files that are read by one process, and become shards of their own."""

    number: int
    role: Role
    items: tuple[Found, ...]
    data: TextConfig
    shard_bytes: int
    out: Path

    @property
    def done(self) -> Path:
        """The file that says that the group is done."""
        return self.out / WORK / f"{self.number:05d}.json"

    @property
    def index(self) -> Path:
        """The file of what is known of each document."""
        return self.out / WORK / f"{self.number:05d}.npz"


def prepare(
    data: TextConfig, out: Path, *, hold_out: bool = True, shard_bytes: int = 1 << 30, num_processes: int = 1
) -> dict[str, Any]:
    """Prepares a corpus; called again after a stop, with the same texts, it goes on where it was.

    Args:
        data: the texts, and how they are read and divided.
        out: folder of the corpus; absent, empty, or left by a call that was stopped.
        hold_out: whether a part is held out where none is given.
        shard_bytes: a shard ends before the document that would make it larger, unless that is its first.
        num_processes: that read at once. The corpus does not depend on it.

    Returns:
        The manifest.

    Raises:
        ConfigError: `out` holds something else.
        DataError: text that is missing, unreadable or too little, more bad records than are allowed, or a corpus that
            was prepared and has lost bytes since.
        RunInUseError: another process prepares a corpus there.
    """
    with run_lock(out, "patchpad prepare"):
        groups, plan = _plan(data, out, hold_out, shard_bytes)
        if (out / MANIFEST).exists():
            manifest = read_manifest(out)
            if manifest["plan"] == plan:
                for name, facts in manifest["files"].items():
                    require_size(out, name, facts)
                logger.info("%s was prepared from these texts already: nothing is left to do", out)
                if (out / WORK).exists():
                    shutil.rmtree(out / WORK)
                return manifest
        _begin(out, plan)
        left = [group for group in groups if not group.done.exists()]
        if len(left) < len(groups):
            logger.info("%d of %d group(s) of files were done before", len(groups) - len(left), len(groups))
        for number, _ in enumerate(_run(left, num_processes), start=1):
            logger.info("prepared %d of %d group(s) of files", len(groups) - len(left) + number, len(groups))
        _finish(groups, plan, hold_out)
        shutil.rmtree(out / WORK)
        return read_manifest(out)


def _plan(data: TextConfig, out: Path, hold_out: bool, shard_bytes: int) -> tuple[list[Group], str]:
    """Returns the groups of files, and a checksum of all on which the corpus depends."""
    items = TextItems.find(FileReader(data))
    states = items.states
    groups: list[Group] = []
    for role, found in items.by_role.items():
        for part in _grouped(found, states, shard_bytes):
            options = {"data": data, "shard_bytes": shard_bytes, "out": out}
            groups.append(Group(number=len(groups), role=role, items=tuple(part), **options))
    described = {
        "version": VERSION,
        "data": asdict(data),
        "hold_out": hold_out,
        "shard_bytes": shard_bytes,
        "groups": [[group.role, *map(str, group.items)] for group in groups],
        "states": states,
    }
    return groups, hashlib.sha256(strict_json(described).encode()).hexdigest()


def _grouped(items: list[Found], states: dict[str, Any], most_bytes: int) -> Iterator[list[Found]]:
    """Yields items that follow one another, and come to at most so many bytes on the disk unless one alone does."""
    part: list[Found] = []
    part_bytes = 0
    for item in items:
        num_bytes = sum((states[file] or (0,))[0] for file in files_of(item))
        if part and part_bytes + num_bytes > most_bytes:
            yield part
            part, part_bytes = [], 0
        part.append(item)
        part_bytes += num_bytes
    yield part


def _begin(out: Path, plan: str) -> None:
    """Makes the folders, or keeps those of a call that was stopped and had the same plan."""
    work = out / WORK
    inside = {path.name for path in out.iterdir()} - {LOCK}
    if inside and not work.is_dir():
        raise ConfigError(
            f"{out} exists and is not empty; a corpus needs a new folder",
            hint=f"Choose another --out, or remove it: rm -r {quoted(out)}",
        )
    try:
        is_same = (out / UNFINISHED).read_text(encoding="utf-8") == plan
    except OSError:
        is_same = False
    if inside and not is_same:
        logger.warning("%s is started again from the beginning: other texts or options were being prepared there", out)
        for name in inside & {WORK, SHARDS, TRAINING, VALIDATION, MANIFEST}:
            shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink()
    work.mkdir(exist_ok=True)
    (out / SHARDS).mkdir(exist_ok=True)
    for left_over in (*(out / SHARDS).glob(".*.tmp"), *work.glob(".*.tmp*")):  # of processes that were killed
        left_over.unlink(missing_ok=True)
    write_atomically(out / UNFINISHED, plan)


def _run(groups: list[Group], num_processes: int) -> Iterator[Group]:
    """Prepares groups of files, and yields each that is done.

    Raises:
        DataError: see `prepare_group`; or a process was killed.
    """
    if num_processes == 1 or len(groups) < 2:
        for group in groups:
            prepare_group(group)
            yield group
        return
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(min(num_processes, len(groups)), context, initializer=_end_at_ctrl_c)
    try:
        waiting: dict[Future[None], Group] = {executor.submit(prepare_group, group): group for group in groups}
        for future in as_completed(waiting):
            future.result()
            yield waiting[future]
    except BrokenProcessPool as error:
        raise DataError(
            "a process that reads texts was ended from outside, as a system does that runs out of memory",
            hint="Give the same command again: it continues. Fewer --processes need less memory.",
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _end_at_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # without a traceback: the first process says what happened


class _Shard:
    """A shard that is being written, under a temporary name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self.stream = self.temporary.open("wb")
        self.num_bytes = 0
        self.digest = hashlib.sha256()

    def write(self, piece: np.ndarray) -> None:
        self.stream.write(piece.data)
        self.digest.update(piece.data)
        self.num_bytes += len(piece)

    def close(self) -> dict[str, Any]:
        """Gives the shard its name; returns what the manifest says of it."""
        self.stream.flush()
        os.fsync(self.stream.fileno())
        self.stream.close()
        os.replace(self.temporary, self.path)
        return {"num_bytes": self.num_bytes, "sha256": self.digest.hexdigest()}

    def abandon(self) -> None:
        self.stream.close()
        self.temporary.unlink(missing_ok=True)


def prepare_group(group: Group) -> None:
    """Reads the files of a group, and writes their documents as shards; the last file to be written says so.

    Raises:
        DataError: a file that cannot be read, or more bad records than are allowed.
    """
    reader = FileReader(group.data)
    lengths, prompts, digests = array("q"), array("q"), array("Q")
    shards: dict[str, Any] = {}
    shard: _Shard | None = None
    try:
        for part in (part for item in group.items for part in reader.parts(item)):
            for index, length in enumerate(part.lengths.tolist()):
                if shard is not None and shard.num_bytes + length > group.shard_bytes:
                    shards[f"{SHARDS}/{shard.path.name}"] = shard.close()
                    shard = None
                if shard is None:
                    shard = _Shard(group.out / SHARDS / f"{group.number:05d}-{len(shards):05d}.bytes")
                digests.append(_copy(part.documents, index, shard))
                lengths.append(length)
                prompts.append(0 if part.prompt_bytes is None else int(part.prompt_bytes[index]))
        if shard is not None:
            shards[f"{SHARDS}/{shard.path.name}"] = shard.close()
            shard = None
    finally:
        if shard is not None:
            shard.abandon()
    sync_folder(group.out / SHARDS)
    temporary = group.index.with_name(f".{group.index.name}.{os.getpid()}.tmp.npz")
    np.savez(temporary, lengths=np.array(lengths), prompts=np.array(prompts), digests=np.array(digests))
    os.replace(temporary, group.index)
    left_out = {"bad_records": reader.left_out.num_bad, "empty": reader.left_out.num_empty}
    write_atomically(group.done, strict_json({"shards": shards, "left_out": left_out}))


def _copy(documents: Documents, index: int, shard: _Shard) -> int:
    """Writes a document to a shard, and returns its digest."""

    def pieces() -> Iterator[np.ndarray]:
        for piece in map(np.ascontiguousarray, documents.pieces(index)):
            shard.write(piece)
            yield piece

    return digest_of(pieces())


def _finish(groups: list[Group], plan: str, hold_out: bool) -> None:
    """Divides what the groups hold, and writes the parts and the manifest."""
    data, out = groups[0].data, groups[0].out
    done = [json.loads(group.done.read_text(encoding="utf-8")) for group in groups]
    files: dict[str, Any] = {}
    for facts in done:
        files.update(facts["shards"])
    left_out = {what: sum(facts["left_out"][what] for facts in done) for what in ("bad_records", "empty")}
    if left_out["bad_records"] > data.most_bad_records:
        raise DataError(
            f"{left_out['bad_records']} bad records were found in all files; allowed: {data.most_bad_records}",
            hint="Fix them, or allow more: --most-bad-records NUMBER.",
        )
    shards = [OpenedFile.of(str(out / name)) for name in files]
    division = divide(data, _corpora(groups, shards), hold_out=hold_out)
    parts: dict[str, Any] = {}
    for name, corpus in ((TRAINING, division.training), (VALIDATION, division.validation)):
        if corpus is not None:
            files.update(_write_part(out, name, corpus))
            parts[name] = {"num_documents": len(corpus.lengths), "num_bytes": corpus.num_bytes}
    manifest = {
        "format": MANIFEST_FORMAT,
        "version": VERSION,
        "patchpad": __version__,
        "parts": parts,
        "left_out": {**left_out, "duplicates": division.num_duplicates, "held_out_too": division.num_held_out_too},
        "sources": sorted(file_states(file for group in groups for item in group.items for file in files_of(item))),
        "options": {**asdict(data), "hold_out": hold_out},
        "plan": plan,
        "files": files,
    }
    sync_folder(out)
    write_atomically(out / MANIFEST, strict_json(manifest, indent=1) + "\n")


def _corpora(groups: list[Group], shards: list[OpenedFile]) -> dict[Role, Corpus]:
    """Returns the documents that lie in the shards, by role; a role's groups follow one another."""
    indices = [dict(np.load(group.index, allow_pickle=False)) for group in groups]
    whole = {name: np.concatenate([index[name] for index in indices]) for name in ("lengths", "prompts", "digests")}
    if not len(whole["lengths"]):
        raise DataError(
            f"{', '.join(groups[0].data.paths)}: no text, only empty documents", hint="Give at least one byte of text."
        )
    documents = FileDocuments(shards, whole["lengths"].cumsum() - whole["lengths"], whole["lengths"], whole["digests"])
    prompts = whole["prompts"] if whole["prompts"].any() else None
    corpus = Corpus(documents, record_names("document", range(1, len(documents) + 1)), prompts)
    group_of = np.repeat(np.arange(len(groups)), [len(index["lengths"]) for index in indices])
    corpora: dict[Role, Corpus] = {}
    for role in dict.fromkeys(group.role for group in groups):
        numbers = [group.number for group in groups if group.role == role]
        chosen = np.flatnonzero(np.isin(group_of, numbers))
        if len(chosen):
            corpora[role] = corpus.select(chosen)
    return corpora


def _write_part(out: Path, name: str, corpus: Corpus) -> dict[str, Any]:
    """Writes what is known of each document of a part; returns what the manifest says of the files."""
    documents = corpus.documents
    known = documents.digests
    if known is None:
        known = np.fromiter(map(documents.digest, range(len(documents))), dtype=np.uint64, count=len(documents))
    arrays = {BEGINS: _begins(documents), LENGTHS: documents.lengths, DIGESTS: known}
    if corpus.prompt_bytes is not None and corpus.prompt_bytes.any():
        arrays[PROMPTS] = corpus.prompt_bytes
    folder = out / name
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    files = {}
    for file_name, values in arrays.items():
        with open(folder / file_name, "wb") as file:
            np.save(file, np.ascontiguousarray(values), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        facts = {"num_bytes": (folder / file_name).stat().st_size, "sha256": sha256_of(folder / file_name)}
        files[f"{name}/{file_name}"] = facts
    sync_folder(folder)
    return files


def _begins(documents: Documents) -> np.ndarray:
    """Returns the number of each document's first byte, all shards numbered through, [document] of int64."""
    if isinstance(documents, FileDocuments):
        return documents.begins
    if isinstance(documents, JoinedDocuments):
        return np.concatenate([_begins(part) for part in documents.parts])
    assert isinstance(documents, DocumentView)
    begins = _begins(documents.documents)[documents.indices]
    return begins if documents.begins is None else begins + documents.begins
