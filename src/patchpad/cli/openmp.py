"""What a command that computes asks of OpenMP on a machine that others use too. Imports no torch.

Threads that wait for each other spin, which makes training 15 to 20 % faster on a free machine. Beside other work they
take the processors from each other, and it gets 2 to 20 times slower. OpenMP reads its variables when torch is loaded.
"""

import logging
import os
import sys
import time
from collections.abc import Sequence

from patchpad.processors import BUSY, WAITING_VARIABLES, OtherWork, usable_processors

logger = logging.getLogger(__name__)

COMMANDS = ("train", "quickstart", "study", "evaluate", "lm-eval", "calibrate")
VARIABLE, VALUE = "OMP_WAIT_POLICY", "PASSIVE"
SAMPLE_SECONDS = 0.1


def adapt_openmp(tokens: Sequence[str]) -> None:
    """Lets waiting threads sleep where other processes keep the processors busy, unless the user has chosen.

    On a free machine nothing changes. Results do not depend on it: the number of threads stays.

    Args:
        tokens: of the command line, the command first.
    """
    if not tokens or tokens[0] not in COMMANDS or {"--help", "-h"} & set(tokens) or "torch" in sys.modules:
        return
    if any(name in os.environ for name in WAITING_VARIABLES) or _threads() == 1:
        return
    other_work = OtherWork()
    time.sleep(SAMPLE_SECONDS)
    busy = other_work.processors()
    if busy is not None and len(usable_processors()) - busy < _threads() - BUSY:
        os.environ[VARIABLE] = VALUE
        logger.info("other processes use %.1f processors: %s=%s is set", busy, VARIABLE, VALUE)


def _threads() -> int:
    """Returns how many threads OpenMP will start."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(given) if given.isdecimal() and int(given) > 0 else len(usable_processors())
