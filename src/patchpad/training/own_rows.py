"""The rows of each batch that one rank trains on."""

from patchpad.data import Batch, TrainingBatches
from patchpad.data.loader import padding_batch


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
        return batch if self.rows else padding_batch(batch.byte_ids.shape[1])
