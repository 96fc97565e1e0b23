"""The rows of each batch that one rank trains on."""

import torch

from patchpad.config import IGNORED_TARGET, PADDING
from patchpad.data import Batch, TrainingBatches


class OwnRows:
    """Batches of a run, of which a rank has some of the rows.

    Args:
        batches: of all ranks.
        rows: of each batch that are this rank's; possibly none.
    """

    def __init__(self, batches: TrainingBatches, rows: range) -> None:
        self.batches = batches
        self.rows = rows

    def batch(self, index: int) -> Batch:
        """Returns this rank's rows of a batch. Where it has none, there is one of padding: a pass takes all ranks."""
        batch = self.batches.batch(index, self.rows)
        if self.rows:
            return batch
        shape = (1, batch.byte_ids.shape[1])
        return Batch.of(torch.full(shape, PADDING), torch.full(shape, IGNORED_TARGET))
