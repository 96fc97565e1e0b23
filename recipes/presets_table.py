"""Writes docs/presets.md: parameters, FLOPs and cache of every preset.

Usage: python recipes/presets_table.py
"""

from pathlib import Path

from patchpad.config import load_config, preset_names
from patchpad.cost import Cost, cost, default_rates
from patchpad.files import write_atomically

ROOT = Path(__file__).parent.parent
SIZES = ("tiny", "small-cpu", "bundled-1m", "100m", "350m", "1b", "2b")
KINDS = ("fixed1-never", "fixed16-never")
TEXT = """# Presets

`--config NAME` takes a preset, `patchpad configs` lists them, and `patchpad configs NAME > my.yaml` gives you one to
change. The name says size, patchifier with its patch size if that is fixed, and trigger. `fixed1-never` is the byte
model, `fixed16-never` are plain patches, `fixed16-entropy` adds scratchpads at 3/16 per byte: 1/4 trunk call per byte.
`spacebyte`, `entropy` and `hnet` stand at 6 bytes per patch and scratchpads at 1/8 per byte; where SpaceByte's patches
end, the text decides. `tiny-byte`, `tiny-bpe` and `tiny-megabyte4` are [baselines](baselines.md), left out here.
Written by `recipes/presets_table.py` from the configurations alone, at their own context and these rates; nothing here
is measured, and the sizes from 100m up have not been trained by us. FLOPs are forward, multiply and add as 2; caches in
bf16.

Local parts of small-cpu, 100m, 350m and 1b have a quarter of the trunk's width, those of 2b 0.3 of it. In our trials
at about 2M parameters a half was much better for scratchpads ([log](log.md)), where it cost a third of the byte model
instead of a quarter; at 100m it would be 18 instead of 15 %. At these sizes neither has been tried.

| preset | parameters | context, bytes | FLOPs per byte | against the byte model | trunk KV bytes per byte |
|---|---|---|---|---|---|
"""


def table() -> str:
    """Returns the page."""
    rows = []
    names = sorted(preset_names(), key=lambda name: (_size_index(name), name))
    for name in names:
        config = load_config(name)
        if config.model.kind != "patch":
            continue
        flops = costs_of(name).flops_per_byte
        byte_model = f"{SIZES[_size_index(name)]}-fixed1-never"
        ratio = f"{costs_of(byte_model).flops_per_byte / flops:.2f}x fewer" if byte_model in names else ""
        rows.append(
            f"| {name} | {costs_of(name).num_params:,} | {config.model.context_bytes:,} | {flops:,.0f} | "
            f"{'' if name == byte_model else ratio} | {costs_of(name).trunk_cache_bytes_per_byte:,.0f} |"
        )
    return TEXT + "\n".join(rows) + "\n"


def costs_of(name: str) -> Cost:
    """Returns the cost of a preset at its own context and rates."""
    config = load_config(name)
    patches_per_byte, scratchpads_per_byte = default_rates(config)
    return cost(
        config.model,
        context_bytes=config.model.context_bytes,
        patches_per_byte=patches_per_byte,
        scratchpads_per_byte=scratchpads_per_byte,
        dtype="bfloat16",
    )


def _size_index(name: str) -> int:
    return next(index for index, size in enumerate(SIZES) if name.startswith(size + "-"))


if __name__ == "__main__":
    write_atomically(ROOT / "docs" / "presets.md", table())
