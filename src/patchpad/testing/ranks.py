"""Functions run by several ranks at once, as `torchrun` would start them, on gloo and the CPU."""

import functools
import importlib
import importlib.util
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PRELOADED = [
    "torch",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.nn.parallel",
    "patchpad.training.trainer",
]
"""What the server of ranks has loaded before it forks, so that a rank starts at once."""


def run_ranks(num_ranks: int, function: Callable[..., Any], *arguments: Any, seconds: float = 120.0) -> list[Any]:
    """Calls a function on every rank of a new process group, and returns what each one returned, in rank order.

    Ranks are processes with one thread each and the variables that `torchrun` sets. Their group is ready, shapes are
    not checked in them, and warnings are errors. They are ended when all have returned, or when one has failed.

    Args:
        num_ranks: processes to start.
        function: of a module, not a lambda or a part of another function. A test's module will do.
        arguments: for each rank the same; they and the results are pickled.
        seconds: that all ranks may take.

    Raises:
        TimeoutError: a rank was not ready in time.
        ChildProcessError: a rank ended without a result.
        Exception: whatever the first rank that failed has raised, with its rank and traceback as a note.
    """
    context = _context()
    task = pickle.dumps((function.__qualname__, arguments))
    module = sys.modules[function.__module__]
    place = (module.__name__, getattr(module, "__file__", None))
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        ranks: list[tuple[BaseProcess, Connection]] = []
        try:
            for rank in range(num_ranks):
                ours, theirs = context.Pipe(duplex=False)
                arguments_of_rank = (rank, num_ranks, Path(folder) / "store", place, task, theirs)
                process = context.Process(target=_run, args=arguments_of_rank, daemon=True)
                process.start()
                theirs.close()
                ranks.append((process, ours))
            return _results(ranks, seconds)
        finally:
            for process, connection in ranks:
                process.kill()
                process.join()
                connection.close()


@functools.cache
def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _results(ranks: list[tuple[BaseProcess, Connection]], seconds: float) -> list[Any]:
    results: dict[int, Any] = {}
    number_of = {connection: rank for rank, (_, connection) in enumerate(ranks)}
    ends_at = time.monotonic() + seconds
    while len(results) < len(ranks):
        waiting = [connection for connection, rank in number_of.items() if rank not in results]
        ready = wait(waiting, timeout=max(0.0, ends_at - time.monotonic()))
        if not ready:
            raise TimeoutError(f"ranks {[number_of[connection] for connection in waiting]} took over {seconds:.0f} s")
        for connection in ready:
            assert isinstance(connection, Connection)
            rank = number_of[connection]
            try:
                error, result = pickle.loads(connection.recv_bytes())
            except EOFError:
                process = ranks[rank][0]
                process.join(5)
                raise ChildProcessError(f"rank {rank} ended with exit code {process.exitcode}") from None
            if error is not None:
                error.add_note(result)
                raise error
            results[rank] = result
    return [results[rank] for rank in range(len(ranks))]


def _run(
    rank: int, num_ranks: int, store: Path, place: tuple[str, str | None], task: bytes, connection: Connection
) -> None:
    """What a rank does from its start to its end."""
    try:
        answer = pickle.dumps((None, _call(rank, num_ranks, store, place, task)))
    except BaseException as error:
        note = f"on rank {rank} of {num_ranks}:\n{traceback.format_exc()}"
        try:
            answer = pickle.dumps((error, note))
            pickle.loads(answer)
        except Exception:  # an error that cannot be pickled, or not be made again
            answer = pickle.dumps((RuntimeError(f"{type(error).__name__}: {error}"), note))
    connection.send_bytes(answer)
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()  # it kills this one before: a group that loses a rank fails on the others
    os._exit(0)


def _call(rank: int, num_ranks: int, store: Path, place: tuple[str, str | None], task: bytes) -> Any:
    import torch
    import torch.distributed as dist

    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks, "LOCAL_WORLD_SIZE": num_ranks}
    os.environ.update({name: str(number) for name, number in numbers.items()})
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    shared = dist.FileStore(str(store), num_ranks)
    dist.init_process_group("gloo", store=shared, rank=rank, world_size=num_ranks)
    module = _load(*place)
    name, arguments = pickle.loads(task)
    return functools.reduce(getattr, name.split("."), module)(*arguments)


def _load(name: str, file: str | None) -> Any:
    """Imports a module by its name, or from its file where it has no place on the path, as those of tests."""
    try:
        return importlib.import_module(name)
    except ImportError:
        if file is None:
            raise
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
