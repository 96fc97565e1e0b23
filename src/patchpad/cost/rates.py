"""Patches and scratchpads per byte: what a configuration aims at, and which rates can be."""

import math

from patchpad.config import Config, ModelConfig
from patchpad.cost.baselines import baseline_patches_per_byte
from patchpad.cost.costs import DTYPE_BYTES
from patchpad.errors import ConfigError

RATE_TOLERANCE = 1e-9
"""Slack for rates that come out of a division."""


def default_rates(
    config: Config, *, patches_per_byte: float | None = None, scratchpads_per_byte: float | None = None
) -> tuple[float, float]:
    """Returns the patches and scratchpads per byte that a configuration aims at, as far as they are not given.

    Patches have the target size. How many scratchpads there can be, `most_scratchpads` says.

    Raises:
        ConfigError: a rate depends on the text, so it has to be given.
    """
    if patches_per_byte is None:
        is_patch = config.model.kind == "patch"
        patches_per_byte = (
            1 / config.model.patchifier.target_patch_size if is_patch else baseline_patches_per_byte(config.model)
        )
    if scratchpads_per_byte is None:
        scratchpads_per_byte = _default_scratchpads_per_byte(config, patches_per_byte)
    return patches_per_byte, scratchpads_per_byte


def _default_scratchpads_per_byte(config: Config, patches_per_byte: float) -> float:
    patchifier, trigger = config.model.patchifier, config.model.trigger
    most = most_scratchpads(config.model, patches_per_byte)
    rate: float | None = None
    if config.model.kind != "patch" or trigger.kind == "never" or most == 0:
        rate = 0.0
    elif trigger.kind == "always":
        rate = most
    elif trigger.kind == "random":
        rate = trigger.scratchpads_per_byte
    elif trigger.kind == "stride" and patchifier.kind == "fixed":
        # Multiples of the stride inside a patch; one that falls on its last byte is the commit.
        rate = ((patchifier.target_patch_size - 1) // trigger.stride) / patchifier.target_patch_size
    elif trigger.threshold_in_nats:
        rate = config.train.scratchpads_per_byte
    if rate is None:
        fixed = " at a fixed threshold" if trigger.threshold_in_nats else ""
        raise ConfigError(
            f"scratchpads_per_byte depends on the text for the trigger `{trigger.kind}`{fixed} with "
            f"`{patchifier.kind}` patches; allowed: a rate from 0 to {most:.6g}",
            hint="Pass --scratchpads-per-byte, as measured by `patchpad evaluate`.",
        )
    return min(rate, most)


def most_scratchpads(model: ModelConfig, patches_per_byte: float, positions_per_byte: float = 1.0) -> float:
    """Returns the most scratchpads per byte: one at every position that ends no patch.

    With `tokens` patches, which end before the byte that commits them: one at every byte.
    """
    return 1.0 if model.patchifier.commits_tokens else positions_per_byte - patches_per_byte


def check_rates(
    model: ModelConfig,
    context_bytes: int,
    patches: float,
    scratchpads: float,
    positions: float,
    dtype: str,
    is_measured: bool,
) -> None:
    """Checks what `cost` is given; its arguments are those of `cost`.

    Raises:
        ConfigError: a rate, a context or a dtype that cannot be.
    """
    if dtype not in DTYPE_BYTES:
        allowed = ", ".join(DTYPE_BYTES)
        raise ConfigError(f"the cache's dtype is {dtype!r}; allowed: {allowed}", hint="Choose one of these types.")
    if not 1 <= context_bytes < 2**63:
        raise ConfigError(
            f"context_bytes is {context_bytes}; allowed: an integer of at least 1, below 2^63",
            hint="Change --context.",
        )
    if not 1 <= positions < math.inf:
        raise ConfigError(f"positions_per_byte is {positions}; allowed: a number of at least 1")
    if not (0 < patches <= positions + RATE_TOLERANCE or (patches == 0 and is_measured)):
        raise ConfigError(
            f"patches_per_byte is {patches}; allowed: above 0, at most 1",
            hint="Change --mean-patch-size (1 or more bytes).",
        )
    most = most_scratchpads(model, patches, positions)
    if not 0 <= scratchpads <= most + RATE_TOLERANCE:
        raise ConfigError(
            f"scratchpads_per_byte is {scratchpads} with {patches:.6g} patches per byte; allowed: 0 to {most:.6g} "
            f"({'one at each byte' if model.patchifier.commits_tokens else 'no scratchpad where a patch ends'})",
            hint="Change --scratchpads-per-byte, or --mean-patch-size.",
        )
