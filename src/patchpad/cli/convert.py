"""`patchpad convert`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from patchpad.cli.options import Json
from patchpad.cli.streams import print_json, print_text
from patchpad.registry import command_line


def convert(
    *,
    source: Annotated[
        Path,
        Parameter(
            name="--from",
            help="A model of the llama architecture: a folder of Hugging Face with safetensors, or a .gguf file (the "
            "extra `convert`).",
        ),
    ],
    config: Annotated[
        str | None,
        Parameter(
            help="Name of a preset or a YAML file. The trunk's sizes can be left out: they are the source's. Default: "
            "the defaults."
        ),
    ] = None,
    out: Annotated[Path, Parameter(help="Folder to make; must be absent or empty.")],
    json: Json = False,
) -> None:
    """Make a run at step 0 whose trunk has the layers of a trained subword model.

    The other parts get random weights from train.seed and have to be trained: start from this run with --init-from. Its
    CARD.md says where the trunk comes from and which licence it has.
    """
    from patchpad.conversion.card import taken_parameters
    from patchpad.conversion.convert import convert as convert_source
    from patchpad.cost import count_parameters

    made = convert_source(source, config, out)
    num_bytes = sum(file.stat().st_size for file in out.iterdir())
    of_source = taken_parameters(made.config.model)
    taken = sum(of_source.values())
    drawn = sum(count_parameters(made.config.model).values()) - taken
    if json:
        print_json(
            {
                "folder": str(out),
                "bytes": num_bytes,
                "source": made.source_name,
                "licence": made.licence and made.licence.name,
                "num_params_taken": taken,
                "num_params_drawn": drawn,
            }
        )
        return
    print_text(f"{out}: {num_bytes:,} bytes; {taken:,} parameters of {made.source_name}, {drawn:,} drawn fresh")
    licence = "its files state none" if made.licence is None else f"{made.licence.name} ({made.licence.place})"
    print_text(f"Licence of the source, under which this model stands too: {licence}")
    words = ["train", "--init-from", str(out), "--train.frozen", f"[{', '.join(of_source)}]"]
    print_text(f"Next: {command_line(words)} --data PATH --out RUN")
