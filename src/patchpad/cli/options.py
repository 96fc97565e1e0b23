"""Option types that several commands share."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

RunPath = Annotated[Path, Parameter(name="RUN", help="A run, or one of its step folders (RUN/checkpoints/step-N).")]
OptionalRunPath = Annotated[
    Path | None,
    Parameter(
        name="RUN", help="A run, or one of its step folders; without it, the small model that ships with patchpad."
    ),
]
DataPaths = Annotated[
    list[str], Parameter(name="--data", negative=(), help="File, glob or directory; may be repeated.")
]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print one JSON object.")]
Device = Annotated[str, Parameter(name="--device", help="auto, cpu, cuda, cuda:N or mps.")]
