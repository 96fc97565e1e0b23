"""`patchpad cost`. Imports no torch."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from patchpad.cli.options import Json
from patchpad.cli.streams import print_json
from patchpad.config import Config, load_config
from patchpad.cost import Devices, Plan, default_rates, fewest_devices, fitted, plan
from patchpad.cost import cost as compute_cost
from patchpad.cost.devices import Parallel
from patchpad.cost.memory import device_rows
from patchpad.errors import ConfigError


def cost(
    *,
    config: Annotated[str, Parameter(help="Name of a preset (see `patchpad configs`) or a YAML file.")],
    context: Annotated[int | None, Parameter(help="Bytes of context; default: the configuration's.")] = None,
    mean_patch_size: Annotated[float | None, Parameter(help="Bytes per patch; default: the target.")] = None,
    scratchpads_per_byte: Annotated[float | None, Parameter(help="Default: the rate that training aims at.")] = None,
    dtype: Annotated[str, Parameter(help="Data type of the caches: float32, bfloat16 or float16.")] = "float32",
    devices: Annotated[int, Parameter(help="Devices to train on, one rank each.")] = 1,
    device: Annotated[
        Literal["cuda", "cpu"] | None,
        Parameter(help="Kind of device. Default: the configuration's, or cuda if that is auto."),
    ] = None,
    device_memory_gib: Annotated[
        float | None, Parameter(help="Memory of each device. Default: 80 on CUDA, 16 on a CPU.")
    ] = None,
    parallel: Annotated[
        Parallel | None,
        Parameter(
            help="ddp: a whole model on each device; fsdp: a shard; hsdp: a shard of a copy. Default: as configured."
        ),
    ] = None,
    shard_ranks: Annotated[
        int | None, Parameter(help="With hsdp: devices that share one copy; default: the configuration's.")
    ] = None,
    json: Json = False,
) -> None:
    """Show parameters, FLOPs, caches, and the memory of training on one device or many. Nothing is allocated."""
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
    several = Devices(
        kind=device or ("cpu" if settings.train.device == "cpu" else "cuda"),
        count=devices,
        memory_gib=device_memory_gib,
        parallel=parallel or settings.train.parallel,
        shard_ranks=shard_ranks or settings.train.shard_ranks,
    )
    result["training_memory"] = describe_memory(settings, several, patches, scratchpads)
    if json:
        print_json(result)
        return
    from patchpad.cli.tables import print_cost

    print_cost(result)


def describe_memory(config: Config, devices: Devices, patches: float, scratchpads: float) -> dict[str, Any]:
    """Returns what training takes on each device, and what fits; None where nothing does."""
    rates = {"patches_per_byte": patches, "scratchpads_per_byte": scratchpads}
    planned, found = plan(config, devices, **rates), fitted(config, devices, **rates)
    return {
        **planned.memory.to_dict(),
        **planned.settings(),
        "device": devices.kind,
        "devices": devices.count,
        "device_memory_gib": devices.device_gib,
        "parallel": planned.way,
        "shard_ranks": devices.shard_ranks,
        "device_rows": device_rows(config, devices),
        "fits": planned.fits,
        "checkpointing": [_with_checkpointing(config, devices, rates, recomputes) for recomputes in (False, True)],
        "fits_with": found and _described(found),
        "fewest_devices": None if found else fewest_devices(config, devices, **rates),
    }


def _with_checkpointing(config: Config, devices: Devices, rates: dict[str, float], recomputes: bool) -> dict[str, Any]:
    chosen = replace(config, train=replace(config.train, activation_checkpointing=recomputes))
    planned = plan(chosen, devices, **rates)
    return {"activation_checkpointing": recomputes, **planned.memory.to_dict(), "fits": planned.fits}


def _described(found: Plan) -> dict[str, Any]:
    return {
        **found.settings(),
        "parallel": found.way,
        "device_rows": device_rows(found.config, found.devices),
        "peak_bytes": found.memory.peak_bytes,
    }
