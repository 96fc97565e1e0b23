"""`patchpad generate`."""

import base64
import sys
from typing import Annotated

from cyclopts import Parameter

from patchpad.cli.options import Device, Json, RunPath


def generate(
    run: RunPath,
    /,
    *,
    prompt: Annotated[list[str], Parameter(negative=(), help="Text to continue; repeat it for a batch.")],
    max_new_bytes: Annotated[int, Parameter(help="Most bytes per prompt.")] = 200,
    scratchpad_threshold: Annotated[
        float | None, Parameter(help="Nats, inf or -inf; without it, the stored threshold.")
    ] = None,
    compute: Annotated[
        float | None, Parameter(help="Trunk calls per byte instead, translated by the calibration.")
    ] = None,
    temperature: Annotated[float, Parameter(help="0 is greedy.")] = 0.8,
    top_k: Annotated[int | None, Parameter(help="Keep the k likeliest bytes.")] = None,
    top_p: Annotated[float | None, Parameter(help="Keep the likeliest bytes up to this probability.")] = None,
    seed: Annotated[int, Parameter(help="Prompt i draws from seed + i.")] = 0,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Continue one or several prompts."""
    from patchpad.files import strict_json
    from patchpad.inference.generator import Generation
    from patchpad.inference.text import TextDecoder
    from patchpad.model.precision import select_device
    from patchpad.training.checkpoint import load

    model = load(run, device=select_device(device))
    generation = Generation(
        model,
        prompt,
        max_new_bytes=max_new_bytes,
        scratchpad_threshold_nats=scratchpad_threshold,
        compute=compute,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
    )
    if not json and len(prompt) == 1:  # shown as it comes
        decoder = TextDecoder()
        sys.stdout.write(prompt[0])
        for new in generation:
            sys.stdout.write(decoder.push(bytes([new.value])))
            sys.stdout.flush()
        print(decoder.push(b"", final=True))
        return
    for _ in generation:
        pass
    completions = generation.completions()
    if json:
        print(
            strict_json(
                {
                    "completions": [
                        {
                            "text": completion.text,
                            "bytes_base64": base64.b64encode(completion.data).decode("ascii"),
                            "num_bytes": len(completion.data),
                            "trunk_calls": completion.trunk_calls,
                            "trunk_cache_entries": completion.trunk_cache_entries,
                            "stop_reason": completion.stop_reason,
                        }
                        for completion in completions
                    ]
                }
            )
        )
        return
    for text, completion in zip(prompt, completions, strict=True):
        print(f"--- {text}")
        print(text + completion.text)
