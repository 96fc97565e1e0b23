"""`patchpad cost`. Imports no torch."""

from dataclasses import replace
from typing import Annotated, Any

from cyclopts import Parameter

from patchpad.cli.options import Json
from patchpad.cli.streams import print_json
from patchpad.config import Config, load_config
from patchpad.cost import cost as compute_cost
from patchpad.cost import default_rates, fitted, training_memory
from patchpad.cost.memory import GPU_GIB
from patchpad.errors import ConfigError


def cost(
    *,
    config: Annotated[str, Parameter(help="Name of a preset (see `patchpad configs`) or a YAML file.")],
    context: Annotated[int | None, Parameter(help="Bytes of context; default: the configuration's.")] = None,
    mean_patch_size: Annotated[float | None, Parameter(help="Bytes per patch; default: the target.")] = None,
    scratchpads_per_byte: Annotated[float | None, Parameter(help="Default: what training aims at.")] = None,
    dtype: Annotated[str, Parameter(help="Of the caches: float32, bfloat16 or float16.")] = "float32",
    json: Json = False,
) -> None:
    """Parameters, FLOPs per byte, cache bytes and training memory, from a configuration alone; nothing is allocated."""
    settings = load_config(config)
    if mean_patch_size is not None and not mean_patch_size >= 1:
        raise ConfigError(f"--mean-patch-size is {mean_patch_size}; allowed: a number of at least 1")
    patches, scratchpads = default_rates(
        settings,
        patches_per_byte=None if mean_patch_size is None else 1 / mean_patch_size,
        scratchpads_per_byte=scratchpads_per_byte,
    )
    result = compute_cost(
        settings.model,
        context_bytes=settings.model.context_bytes if context is None else context,
        patches_per_byte=patches,
        scratchpads_per_byte=scratchpads,
        dtype=dtype,
    ).to_dict()
    if context is not None:
        settings = replace(settings, model=replace(settings.model, context_bytes=context))
    result["training_memory"] = describe_memory(settings, patches, scratchpads)
    if json:
        print_json(result)
        return
    from patchpad.cli.tables import print_cost

    print_cost(result)


def describe_memory(config: Config, patches: float, scratchpads: float) -> dict[str, Any]:
    """Returns what training takes on CUDA, and which passes fit a GPU of 80 GiB; None where none do."""
    rates = {"patches_per_byte": patches, "scratchpads_per_byte": scratchpads}
    memory, found = training_memory(config, **rates), fitted(config, **rates)
    return {
        **memory.to_dict(),
        **_passes(config),
        "gpu_gib": GPU_GIB,
        "fits": memory.fits(),
        "fits_with": found and _passes(found),
    }


def _passes(config: Config) -> dict[str, Any]:
    keys = ("batch_rows", "accumulation_steps", "activation_checkpointing")
    return {key: getattr(config.train, key) for key in keys}
