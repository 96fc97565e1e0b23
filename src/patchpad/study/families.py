"""Arms that cut text in the same way are a family: one colour in every plot of a study. Torch-free."""

from collections.abc import Iterable, Mapping
from typing import Any

PATCHIFIER_NAMES = {"spacebyte": "SpaceByte", "entropy": "entropy patches", "hnet": "H-Net"}
MODEL_NAMES = {"bpe": "BPE tokens", "byte": "byte-level Transformer"}


def family_of(result: Mapping[str, Any]) -> str:
    """Returns in words how an arm cuts text, from one of its results."""
    model = result["config"]["model"]
    kind = model.get("kind", "patch")
    if kind != "patch":
        return MODEL_NAMES.get(kind, kind)
    patchifier = model["patchifier"]
    if patchifier["kind"] == "fixed":
        size = patchifier["target_patch_size"]
        return "one byte per patch" if size == 1 else f"{size}-byte patches"
    return PATCHIFIER_NAMES.get(patchifier["kind"], f"{patchifier['kind']} patches")


def family_numbers(results: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Returns family -> its number, in the order in which they first come."""
    numbers: dict[str, int] = {}
    for result in results:
        numbers.setdefault(family_of(result), len(numbers))
    return numbers
