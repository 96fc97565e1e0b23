"""`patchpad generate`."""

import base64
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from patchpad.cli.options import Device, Draft, Json, KeptWeights, OptionalRunPath, argument_bytes, draft_option
from patchpad.cli.streams import BytesPrinter, print_json, read_stdin
from patchpad.errors import ConfigError

if TYPE_CHECKING:
    from patchpad.inference.generator import Completion, Generation

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


def generate(
    run: OptionalRunPath = None,
    /,
    *,
    prompt: Annotated[
        list[str] | None,
        Parameter(negative=(), allow_leading_hyphen=True, help="Text to continue; repeat it for several."),
    ] = None,
    prompts: Annotated[
        Path | None,
        Parameter(
            allow_leading_hyphen=True,
            help="File of prompts, one per line, or .jsonl of strings or of objects with `prompt`. - is stdin.",
        ),
    ] = None,
    max_new_bytes: Annotated[int, Parameter(help="The most bytes to write for each prompt.")] = 200,
    stop: Annotated[
        list[str] | None,
        Parameter(negative=(), allow_leading_hyphen=True, help="Stop before this text. May be repeated."),
    ] = None,
    scratchpad_threshold: Annotated[
        float | None, Parameter(help="In nats, inf or -inf. Default: the stored threshold.")
    ] = None,
    compute: Annotated[
        float | None, Parameter(help="Trunk calls per byte instead. The calibration translates them.")
    ] = None,
    temperature: Annotated[float, Parameter(help="0 is greedy.")] = 0.8,
    top_k: Annotated[int | None, Parameter(help="Draw from the k most likely bytes only.")] = None,
    top_p: Annotated[
        float | None, Parameter(help="Draw from the most likely bytes up to this total probability.")
    ] = None,
    seed: Annotated[int, Parameter(help="Prompt i draws from seed + i.")] = 0,
    batch_rows: Annotated[int, Parameter(help="The most prompts at once. Others follow when these end.")] = 32,
    compile: Annotated[
        bool,
        Parameter(negative=(), help="Compile the steps first (CUDA: capture graphs). Worth it for long texts."),
    ] = False,
    draft: Draft = "auto",
    weights: KeptWeights = "fp32",
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Continue one or several prompts. Without RUN, the small model that ships with patchpad is used.

    A file or pipe gets the exact bytes. On a terminal, control characters are shown as escapes.
    """
    from patchpad.data.prompts import parse_prompts, read_prompts
    from patchpad.inference.generator import Generation
    from patchpad.training.checkpoint import load

    if (prompt is None) == (prompts is None):
        found = "neither --prompt nor --prompts was" if prompt is None else "both --prompt and --prompts were"
        raise ConfigError(f"{found} given; allowed: one of the two", hint='Try: patchpad generate --prompt "It was"')
    if prompt is not None:
        given = [argument_bytes(text) for text in prompt]
    elif str(prompts) == "-":
        given = parse_prompts(read_stdin("Name a file with --prompts."), "stdin", json_lines=False)
    else:
        given = read_prompts(prompts or "")
    generation = Generation(
        load(run, device=device, weights=weights),
        given,
        max_new_bytes=max_new_bytes,
        stop=[argument_bytes(text) for text in stop or ()],
        scratchpad_threshold_nats=scratchpad_threshold,
        compute=compute,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        batch_rows=batch_rows,
        compile=compile,
        draft=draft_option(draft),
    )
    if json:
        _print_json(generation)
    elif len(given) == 1:
        _print_stream(generation)
    else:
        _print_in_order(generation)


def _print_stream(generation: "Generation") -> None:
    printer = BytesPrinter()  # over prompt and continuation: a character may begin in one and end in the other
    printer.print(generation.prompts[0])
    for new in generation:
        printer.print(new.data)
    printer.print(b"", end=True)


def _print_in_order(generation: "Generation") -> None:
    """Prints each prompt with its continuation as soon as it and all before it have ended."""
    num_printed = 0
    for _ in _with_progress(generation):
        while num_printed < len(generation.rows) and generation.rows[num_printed].stop_reason is not None:
            number = f"--- {num_printed + 1}\n".encode()
            data = bytes(generation.rows[num_printed].data)
            BytesPrinter().print(number + generation.prompts[num_printed] + data, end=True)
            num_printed += 1


def _print_json(generation: "Generation") -> None:
    try:
        for _ in _with_progress(generation):
            pass
    finally:  # what there is when the user interrupts, too
        values = [completion_values(completion) for completion in generation.completions()]
        print_json({"completions": values, **generation.passes._asdict()})


def completion_values(completion: "Completion") -> dict[str, Any]:
    """Returns the JSON of one completion."""
    return {
        "text": completion.text,
        "bytes_base64": base64.b64encode(completion.data).decode("ascii"),
        "num_bytes": len(completion.data),
        "trunk_calls": completion.trunk_calls,
        "trunk_cache_entries": completion.trunk_cache_entries,
        "stop_reason": completion.stop_reason,
    }


def _with_progress(generation: "Generation") -> Iterator[None]:
    """Runs a generation, and says on stderr how far it is where that takes long."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from patchpad.training.progress import shows_bar

    total = len(generation.rows)
    num_ended = num_bytes = 0
    began = told = time.monotonic()
    with Progress(
        TextColumn("generating"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total} prompts  {task.fields[rate]:,.0f} bytes/s"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not shows_bar(),
    ) as bar:
        task = bar.add_task("generating", total=total, rate=0.0)
        for new in generation:
            num_ended += new.is_last
            num_bytes += len(new.data)
            now = time.monotonic()
            rate = num_bytes / max(now - began, 1e-9)
            bar.update(task, completed=num_ended, rate=rate)
            if bar.disable and now - told > SECONDS_BETWEEN_LINES:
                told = now
                logger.info("%d of %d prompts done, %.0f bytes/s", num_ended, total, rate)
            yield
