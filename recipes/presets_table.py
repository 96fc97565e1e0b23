"""Writes docs/presets.md: parameters, FLOPs and cache of every preset.

Usage: python recipes/presets_table.py
"""

from dataclasses import replace
from pathlib import Path

from patchpad.config import Config, PatchifierConfig, TriggerConfig, load_config, preset_names
from patchpad.cost import Cost, scheduled_cost
from patchpad.files import write_atomically

ROOT = Path(__file__).parent.parent
SIZES = ("tiny", "small-cpu", "bundled-7m", "100m", "350m", "1b", "2b")
TEXT = """# Presets

A preset is a ready configuration with a name. This page lists the presets with their sizes and computed costs.

```text
patchpad configs                      # lists the presets
patchpad train --config NAME ...      # uses one
patchpad configs NAME > my.yaml       # writes one into a file that you can change
```

A name has three parts: the size, the patchifier (for fixed patches with their length in bytes), and the trigger, which
decides where scratchpads go. [Concepts](concepts.md) explains these terms.

| name ends with | model |
|---|---|
| `fixed1-never` | the byte model: one byte per patch, so the trunk runs at every byte; no scratchpads |
| `fixed16-never` | plain 16-byte patches, no scratchpads |
| `fixed16-entropy` | 16-byte patches with scratchpads at 3/16 per byte: 1/4 trunk call per byte in all |

`spacebyte`, `entropy` and `hnet` aim at 6 bytes per patch, with scratchpads at 3/16 per byte too. With `spacebyte` the
text decides where patches end, so its patches may be longer or shorter. `tiny-byte`, `tiny-bpe` and `tiny-megabyte4`
are [baselines](baselines.md) and not listed here.

Nothing in the table is measured. `recipes/presets_table.py` computes it from the configurations, at their own context
and the rates above. We have not trained the sizes from 100m up.

- FLOPs are those of the forward pass; one multiplication plus one addition counts as 2.
- "trunk KV bytes per byte" is the size of the trunk's key-value cache per byte of context, in bf16.
- "against the byte model" compares with a byte model of the same widths and layers.

**Width of the local parts.** In small-cpu, 100m, 350m and 1b the local encoder and decoder have a quarter of the
trunk's width, in 2b they have 0.3 of it. In our trials at about 2M parameters, half the trunk's width was much better
for models with scratchpads ([log](log.md)). It raised their cost from a quarter of the byte model's FLOPs to a third.
At 100m it would raise it from {narrow:.0f} % to {wide:.0f} %. Neither width has been tried at that size or above.

| preset | parameters | context, bytes | FLOPs per byte | against the byte model | trunk KV bytes per byte |
|---|---|---|---|---|---|
"""


def page() -> str:
    """Returns the page."""
    rows = []
    for name in sorted(preset_names(), key=lambda name: (_size_index(name), name)):
        config = load_config(name)
        if config.model.kind != "patch":
            continue
        costs, byte_costs = costs_of(config), costs_of(byte_model_of(config))
        is_byte_model = config.model == byte_model_of(config).model
        ratio = "itself" if is_byte_model else f"{byte_costs.flops_per_byte / costs.flops_per_byte:.2f}x fewer"
        rows.append(
            f"| `{name}` | {costs.num_params:,} | {config.model.context_bytes:,} | {costs.flops_per_byte:,.0f} | "
            f"{ratio} | {costs.trunk_cache_bytes_per_byte:,.0f} |"
        )
    narrow = load_config("100m-fixed16-entropy")
    wide = replace(narrow, model=replace(narrow.model, byte_dim=narrow.model.trunk_dim // 2, byte_heads=6))
    return TEXT.format(narrow=_percent(narrow), wide=_percent(wide)) + "\n".join(rows) + "\n"


def byte_model_of(config: Config) -> Config:
    """Returns the byte model with the widths and layers of a configuration."""
    patchifier, trigger = PatchifierConfig(target_patch_size=1), TriggerConfig(kind="never")
    return replace(config, model=replace(config.model, patchifier=patchifier, trigger=trigger))


def costs_of(config: Config) -> Cost:
    """Returns the cost of a configuration at its own context and rates."""
    return scheduled_cost(config, dtype="bfloat16")


def _percent(config: Config) -> float:
    return 100 * costs_of(config).flops_per_byte / costs_of(byte_model_of(config)).flops_per_byte


def _size_index(name: str) -> int:
    return next(index for index, size in enumerate(SIZES) if name.startswith(size + "-"))


if __name__ == "__main__":
    write_atomically(ROOT / "docs" / "presets.md", page())
