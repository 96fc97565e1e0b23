"""Which rank failed first: it says what happened, and the others end without a word of their own."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch.distributed as dist

from patchpad.errors import LostRankError, OtherRankError, PatchpadError
from patchpad.run_lock import is_gone, is_here

FAILURE, ALIVE = "patchpad/failure", "patchpad/alive"
"""Keys of torch's store, which all ranks see."""
ENDING_SECONDS = 1.0
"""How long a process may take to end once its connections have broken."""
ANSWER_SECONDS = 5.0
"""How long ranks whose connections broke wait for each other before those that are missing count as lost."""


@dataclass(frozen=True)
class Failure:
    """What a rank has failed of."""

    rank: int
    message: str
    exit_code: int

    @staticmethod
    def of(error: BaseException, rank: int) -> "Failure":
        """Describes an error."""
        if isinstance(error, PatchpadError):
            return Failure(rank, error.message, error.exit_code)
        return Failure(rank, f"{type(error).__name__}: {error}", 1)

    def to_dict(self) -> dict[str, Any]:
        """Returns it as other ranks get it."""
        return asdict(self)

    def as_error(self) -> OtherRankError:
        """Returns what the other ranks raise."""
        return OtherRankError(f"rank {self.rank} has failed: {self.message}", exit_code=self.exit_code)


def is_lost_connection(error: Exception) -> bool:
    """Whether an error says that another rank cannot be reached any more."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def first_failure(own: Failure) -> Failure:
    """Tells the other ranks of a failure, unless one of them was first; returns the first one."""
    try:
        first = _store().compare_set(FAILURE, "", json.dumps(own.to_dict()))
    except RuntimeError:  # the store is gone with its rank
        return own
    return Failure(**json.loads(first))


def known_failure() -> Failure | None:
    """Returns the first failure that a rank has reported, or None."""
    try:
        store = _store()
        return Failure(**json.loads(store.get(FAILURE))) if store.check([FAILURE]) else None
    except RuntimeError:
        return None


def lost_rank_error(rank: int, processes: Sequence[dict[str, Any]]) -> LostRankError:
    """Returns the error of a rank whose connection to another broke. It names those that have ended.

    Of this machine it is known who has. Ranks on others are asked, and count as ended where they do not answer.

    Args:
        rank: that was waiting.
        processes: `process_facts` of each rank.
    """
    missing = _ended_here(processes)
    if not missing:
        elsewhere = [other for other, facts in enumerate(processes) if not is_here(facts)]
        missing = _without_answer(rank, elsewhere)
    names = ", ".join(map(str, missing))
    size = len(processes)
    what = f"rank{'s' if len(missing) > 1 else ''} {names} of {size}" if missing else f"one of {size} ranks"
    return LostRankError(
        f"{what} ended without a message while the others were waiting",
        hint="The launcher's own messages may say why. Start the ranks again with: patchpad train --resume RUN",
    )


def _ended_here(processes: Sequence[dict[str, Any]]) -> list[int]:
    """Returns the ranks of this machine that have ended. A process closes its connections shortly before it has."""
    ends_at = time.monotonic() + (ENDING_SECONDS if any(map(is_here, processes)) else 0.0)
    while True:
        ended = [rank for rank, facts in enumerate(processes) if is_gone(facts)]
        if ended or time.monotonic() >= ends_at:
            return ended
        time.sleep(0.02)


def _without_answer(rank: int, others: list[int]) -> list[int]:
    """Returns the ranks among `others` that do not say in time that they are alive."""
    try:
        store = _store()
        store.set(f"{ALIVE}/{rank}", "yes")
        ends_at = time.monotonic() + ANSWER_SECONDS
        while others and time.monotonic() < ends_at and not store.check([FAILURE]):
            others = [other for other in others if not store.check([f"{ALIVE}/{other}"])]
            time.sleep(0.05)
        return others
    except RuntimeError:
        return [0]  # the store lives with rank 0, where the launcher has none


def _store() -> dist.Store:
    return dist.distributed_c10d._get_default_store()
