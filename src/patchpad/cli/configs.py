"""`patchpad configs`. Imports no torch."""

import sys
from typing import Annotated, Any

from cyclopts import Parameter

from patchpad.cli.options import Json
from patchpad.cli.streams import print_json
from patchpad.config import load_config, preset_names, preset_text
from patchpad.cost import cost, count_parameters, default_rates
from patchpad.errors import ConfigError, near_matches


def configs(
    preset: Annotated[str | None, Parameter(name="NAME", help="Print this preset's YAML, to copy and change.")] = None,
    /,
    *,
    json: Json = False,
) -> None:
    """List the presets: configurations that ship with patchpad and that --config takes by name.

    FLOPs are forward, at the preset's own context and rates of patches and scratchpads.

    To start from one: patchpad configs NAME > my.yaml
    """
    names = preset_names()
    if preset is None:
        rows = sorted(map(describe, names), key=lambda row: row["num_params"])
        if json:
            print_json({"presets": rows})
        else:
            from patchpad.cli.tables import print_presets

            print_presets(rows)
        return
    if preset not in names:
        raise ConfigError(f"there is no preset {preset!r}", hint=near_matches(preset, names))
    if json:
        print_json(load_config(preset).to_dict())
    else:
        sys.stdout.write(preset_text(preset))


def describe(name: str) -> dict[str, Any]:
    """Returns what the list says of a preset; None where a model has no such part, or where the text decides."""
    config = load_config(name)
    model = config.model
    has_patches = model.kind in ("patch", "megabyte")
    try:
        patches, scratchpads = default_rates(config)
    except ConfigError:  # tokens per byte of a bpe model depend on the text
        flops = None
    else:
        flops = cost(
            model, context_bytes=model.context_bytes, patches_per_byte=patches, scratchpads_per_byte=scratchpads
        ).flops_per_byte
    return {
        "name": name,
        "kind": model.kind,
        "patchifier": model.patchifier.kind if has_patches else None,
        "target_patch_size": model.patchifier.target_patch_size if has_patches else None,
        "trigger": model.trigger.kind if model.kind == "patch" else None,
        "context_bytes": model.context_bytes,
        "num_params": sum(count_parameters(model).values()),
        "flops_per_byte": flops,
    }
