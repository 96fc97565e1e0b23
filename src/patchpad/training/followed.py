"""A threshold that follows a quantile."""

import math
from dataclasses import dataclass
from typing import Any

from patchpad.files import json_float

FOLLOW_RATE = 0.5
"""Weight of the newest batch's quantile in the running threshold."""


@dataclass
class FollowedThreshold:
    """A threshold in nats that is fixed, or a running quantile that follows a rate and then freezes."""

    nats: float
    is_fixed: bool = False
    has_followed: bool = False

    def follow(self, newest: float, *, is_fresh: bool) -> None:
        """Moves towards the newest quantile; at once while the head is fresh or nothing was followed yet."""
        if not self.has_followed or is_fresh or not math.isfinite(newest):
            self.nats = newest
        else:
            self.nats += FOLLOW_RATE * (newest - self.nats)
        self.has_followed = math.isfinite(newest)

    def state(self) -> dict[str, Any]:
        """Returns what a resumed run needs."""
        return {"nats": self.nats, "has_followed": self.has_followed}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over `state()` after a trip through JSON."""
        self.nats, self.has_followed = json_float(state["nats"]), bool(state["has_followed"])
