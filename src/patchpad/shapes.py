"""Words for tensor axes, and the aliases that the code is annotated with.

| axis | meaning |
|---|---|
| `batch` | rows of a batch |
| `byte` | positions of a row: separators, bytes and trailing padding |
| `slot` | trunk positions of the whole batch, packed: commits and scratchpads |
| `commit` | the slots that end a patch, packed in the same order |
| `head` | attention heads |
| `head_dim` | features of one head |
| `byte_dim` | features of a byte state |
| `trunk_dim` | features of a slot |
| `layer` | local decoder layers |
| `vocab` | 257 outcomes: 256 bytes and the end of the document |
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

ByteIds = Int[Tensor, "batch byte"]
ByteInts = Int[Tensor, "batch byte"]
ByteMask = Bool[Tensor, "batch byte"]
ByteFloats = Float[Tensor, "batch byte"]
ByteStates = Float[Tensor, "batch byte byte_dim"]
Logits = Float[Tensor, "batch byte vocab"]
SlotStates = Float[Tensor, "slot trunk_dim"]
SlotInts = Int[Tensor, " slot"]
SlotMask = Bool[Tensor, " slot"]
