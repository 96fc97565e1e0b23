"""The paper's baselines: a Transformer over bytes, the same over BPE tokens, and MegaByte."""

from patchpad.model.baselines.baseline import Baseline, BaselineOutput
from patchpad.model.baselines.bpe_tokens import BpeTokens
from patchpad.model.baselines.bpe_transformer import BpeTransformer
from patchpad.model.baselines.byte_transformer import ByteTransformer
from patchpad.model.baselines.megabyte import MegaByte

__all__ = ["Baseline", "BaselineOutput", "BpeTokens", "BpeTransformer", "ByteTransformer", "MegaByte"]
