"""`patchpad inspect`."""

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from patchpad.cli.options import Device, Json, KeptWeights, OptionalRunPath, argument_bytes
from patchpad.cli.reading_progress import ReadingProgress
from patchpad.cli.streams import print_json, print_text, read_stdin
from patchpad.errors import ConfigError, DataError, quoted

if TYPE_CHECKING:
    from patchpad.inspection.inspection import Inspection

logger = logging.getLogger(__name__)


def inspect(
    run: OptionalRunPath = None,
    /,
    *,
    text: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True,
            help="File of any bytes (.gz, .bz2, .xz are unpacked), or - for stdin. Default: an excerpt of a novel.",
        ),
    ] = None,
    words: Annotated[
        str | None, Parameter(allow_leading_hyphen=True, help="The text itself, instead of a file.")
    ] = None,
    html: Annotated[Path | None, Parameter(help="Write a page with a threshold slider here.")] = None,
    scratchpad_threshold: Annotated[
        float | None, Parameter(help="In nats, inf or -inf. Default: the stored threshold.")
    ] = None,
    compute: Annotated[
        float | None, Parameter(help="Trunk calls per byte instead. The calibration translates them.")
    ] = None,
    limit_bytes: Annotated[
        int | None,
        Parameter(help="Read at most this many bytes. 0: all. Default: 20,000, and 2,000 of the excerpt."),
    ] = None,
    weights: KeptWeights = "fp32",
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Show a text's bytes with their entropies, patch ends, scratchpads and patch lags.

    Without RUN, the small model that ships with patchpad is used. Without --text and --words, the text is the start of
    an excerpt that this model has not seen. Scratchpads help it there as much as they do on other books.
    """
    from patchpad.inference.generator import threshold_from_dials
    from patchpad.inspection.inspection import inspect as inspect_text
    from patchpad.inspection.terminal import summary_lines
    from patchpad.training.checkpoint import load
    from patchpad.training.progress import shows_bar

    if limit_bytes is not None and limit_bytes < 0:
        raise ConfigError(f"limit_bytes is {limit_bytes}; allowed: 0 for all, or a number of bytes")
    shown = _read(text, words)
    if html is not None:
        _check_writable(html, None if text is None else Path(text))
    data, notes = shown.data, []
    limit = shown.limit_bytes if limit_bytes is None else limit_bytes
    if 0 < limit < len(data):
        notes.append(f"the first {limit:,} of {len(data):,} bytes")
        logger.info("%s: %s are shown; --limit-bytes 0 shows all", shown.name, notes[0])
        data = data[:limit]
    if shown.note and run is None and limit == shown.limit_bytes and scratchpad_threshold is compute is None:
        notes.append(shown.note)
    model = load(run, device=device, weights=weights)
    threshold = threshold_from_dials(model, scratchpad_threshold, compute)
    if html is not None:
        logger.info("measuring bits per byte along the threshold")
    with ReadingProgress(shows_bar=shows_bar()) as progress:
        inspection = inspect_text(
            model, data, scratchpad_threshold_nats=threshold, with_grid=html is not None, on_progress=progress
        )
    if html is not None:
        from patchpad.inspection.page import write_page

        write_page(
            html,
            inspection,
            name=shown.name,
            model_name="shipped with patchpad" if run is None else str(run),
            note=" · ".join(notes),
        )
    if json:
        print_json(inspection.to_dict())
        return
    if html is None:
        _print_view(inspection)
        print()
    print_text("\n".join(summary_lines(inspection, shown.name)))
    if shown.note in notes:
        print_text(shown.note)
    if html is not None:
        print_text(f"page: {html}")


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """A text to inspect."""

    data: bytes
    name: str
    limit_bytes: int = 20_000
    """How much is shown where the user does not say it."""
    note: str = ""
    """What is true of so much of it for the shipped model at its stored threshold."""


def _read(text: str | None, words: str | None) -> _Shown:
    """Returns the bytes and what to call them; for neither of the two the excerpt.

    Raises:
        ConfigError: both of the two.
        DataError: no such file, one that cannot be read, no byte at all, or a closed stdin.
    """
    from patchpad.data.bundled_text import bundled_excerpt
    from patchpad.data.file_reading import read_bytes

    if text is not None and words is not None:
        raise ConfigError("both --text and --words were given; allowed: one of the two, or none for an excerpt")
    if text is None and words is None:
        one = bundled_excerpt()
        return _Shown(data=one.text, name=one.source, limit_bytes=one.shown_bytes, note=one.what_scratchpads_save())
    if words is not None:
        data, name = argument_bytes(words), "words"
    elif text == "-":
        data, name = read_stdin("Name a file with --text, or give the text itself with --words."), "stdin"
    else:
        path = Path(text or "")
        name = path.name
        if os.path.isdir(path):
            raise DataError(f"{path} is a directory; allowed: a file, or - for stdin", hint="Name a file with --text.")
        if not os.path.exists(path):
            raise DataError(
                f"no file is at {text}; --text takes a file, or - for stdin",
                hint=f"To inspect words themselves: patchpad inspect --words {quoted(text or '')}",
            )
        data = read_bytes(path)
    if not data:
        raise DataError(f"{name} is empty; allowed: at least one byte", hint="Give some text.")
    return _Shown(data=data, name=name)


def _check_writable(page: Path, text: Path | None) -> None:
    """Finds a page that cannot be written, or that would replace the text, before the model is run."""
    if page.exists() and not (page.is_dir() or page.is_file()):
        raise DataError(f"{page} is not a regular file; allowed: a file to write the page to", hint="Try page.html.")
    if text is not None and page.exists() and text.exists() and page.samefile(text):
        raise DataError(f"{page} is the text itself; the page would replace it", hint="Choose another --html path.")
    if page.is_dir():
        raise DataError(
            f"{page} is a directory; allowed: a file to write the page to", hint=f"Try {quoted(page / 'page.html')}."
        )
    if not (os.path.isdir(page.parent) and os.access(page.parent, os.W_OK)):
        exists = os.path.exists(page.parent)
        is_folder = os.path.isdir(page.parent)
        missing = "does not exist" if not exists else "cannot be written to" if is_folder else "is not a folder"
        raise DataError(f"{page.parent} {missing}, so {page.name} has no place", hint="Choose another --html path.")


def _print_view(inspection: "Inspection") -> None:
    """Prints the rows, with colour where stdout is a terminal that wants it."""
    import shutil

    from rich.console import Console
    from rich.text import Text

    from patchpad.inspection.terminal import inspection_lines

    console = Console(highlight=False)
    has_colour = console.is_terminal and not console.no_color and console.color_system is not None
    lines = inspection_lines(
        inspection,
        width=shutil.get_terminal_size((80, 24)).columns,
        encoding=sys.stdout.encoding or "ascii",
        keeps_direction=console.is_terminal,
    )
    for pieces in lines:
        if has_colour:
            console.print(Text.assemble(*pieces), soft_wrap=True)
        else:
            print("".join(text for text, _ in pieces).rstrip(" "))
