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

`--config NAME` takes a preset, `patchpad configs` lists them, and `patchpad configs NAME > my.yaml` gives you one to
change. The name says size, patchifier with its patch size if that is fixed, and trigger. `fixed1-never` is the byte
model, `fixed16-never` are plain patches, `fixed16-entropy` adds scratchpads at 3/16 per byte: 1/4 trunk call per byte.
`spacebyte`, `entropy` and `hnet` aim at 6 bytes per patch, with scratchpads at 3/16 per byte too; where SpaceByte's
patches end, the text decides. `tiny-byte`, `tiny-bpe` and `tiny-megabyte4` are [baselines](baselines.md), not listed
here.

`recipes/presets_table.py` writes this page from the configurations alone, at their own context and these rates. Nothing
here is measured, and we have not trained the sizes from 100m up. FLOPs are forward, multiply and add as 2; caches in
bf16. Each preset is compared with the byte model of the same widths and layers: one byte per patch, no scratchpads.

Local parts of small-cpu, 100m, 350m and 1b have a quarter of the trunk's width, those of 2b 0.3 of it. In our trials
at about 2M parameters a half was much better for scratchpads ([log](log.md)), where it cost a third of the byte model
instead of a quarter. At 100m it would cost {wide:.0f} % of the byte model instead of {narrow:.0f} %. At these sizes
neither has been tried.

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
        ratio = "" if is_byte_model else f"{byte_costs.flops_per_byte / costs.flops_per_byte:.2f}x fewer"
        rows.append(
            f"| {name} | {costs.num_params:,} | {config.model.context_bytes:,} | {costs.flops_per_byte:,.0f} | "
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
