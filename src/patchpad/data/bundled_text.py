"""The text that ships with the package: six novels by Jane Austen, one of them held out."""

from importlib import resources

from patchpad.config import DataConfig


def bundled_novels() -> DataConfig:
    """Returns five novels to train on and *Persuasion* held out."""
    folder = resources.files("patchpad") / "data" / "bundled"
    return DataConfig(
        paths=(str(folder / "austen_train.jsonl.xz"),), validation_paths=(str(folder / "austen_validation.jsonl.xz"),)
    )
