"""From a configuration to the model of its kind."""

from patchpad.config import ModelConfig
from patchpad.model.byte_lm import ByteLM
from patchpad.model.language_model import LanguageModel


def build_model(config: ModelConfig, *, seed: int = 0) -> LanguageModel:
    """Returns a new model of `config.kind`, its weights drawn from `seed`."""
    if config.kind == "patch":
        return ByteLM(config, seed=seed)
    from patchpad.model.baselines import BpeTransformer, ByteTransformer, MegaByte

    kinds = {"byte": ByteTransformer, "bpe": BpeTransformer, "megabyte": MegaByte}
    return kinds[config.kind](config, seed=seed)
