"""`patchpad prepare`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from patchpad.cli.options import Json, TextField, TextFormat
from patchpad.cli.streams import print_json, print_text
from patchpad.config import TextConfig
from patchpad.errors import ConfigError

USAGE = "Write: patchpad prepare TEXT... --out CORPUS"


def prepare(
    *inputs: Annotated[str, Parameter(name="TEXT", help="Files, globs, directories or URLs.")],
    out: Annotated[Path | None, Parameter(help="Folder of the corpus to make. It must be absent or empty.")] = None,
    validation_data: Annotated[
        list[str] | None, Parameter(negative=(), help="Text to hold out. May be repeated. Default: a part of TEXT.")
    ] = None,
    validation_fraction: Annotated[float, Parameter(help="Share of the bytes to hold out. 0: none.")] = 0.1,
    format: TextFormat = "auto",
    text_field: TextField = "text",
    most_bad_records: Annotated[int, Parameter(help="How many records without text may be skipped.")] = 0,
    remove_duplicates: Annotated[
        bool, Parameter(negative=(), help="Skip documents that equal an earlier one byte for byte.")
    ] = False,
    shard_bytes: Annotated[int, Parameter(help="The most bytes of a shard with several documents.")] = 1 << 30,
    processes: Annotated[int, Parameter(help="How many processes read files at once.")] = 1,
    verify: Annotated[
        Path | None, Parameter(help="Check a prepared corpus: read all of it and compare checksums.")
    ] = None,
    json: Json = False,
) -> None:
    """Turn texts of any format into a corpus that training opens at once and does not hold in memory.

    If it is stopped, give the same command again: it continues.
    """
    from patchpad.data import prepared
    from patchpad.data.items import absolute_paths
    from patchpad.data.prepare import prepare as prepare_corpus

    if verify is not None:
        if inputs or out is not None:
            raise ConfigError("--verify was given with texts or --out; allowed: --verify alone", hint="Leave them out.")
        manifest = prepared.verify(verify)
    else:
        missing = " and ".join(name for name, given in (("TEXT", inputs), ("--out", out)) if not given)
        if missing or out is None:
            raise ConfigError(f"{missing} is missing", hint=USAGE)
        for option, value in (("--shard-bytes", shard_bytes), ("--processes", processes)):
            if value < 1:
                raise ConfigError(f"{option} is {value}; allowed: an integer of at least 1", hint=USAGE)
        settings = TextConfig(
            paths=absolute_paths(inputs),
            validation_paths=absolute_paths(validation_data or ()),
            format=format,
            text_field=text_field,
            most_bad_records=most_bad_records,
            remove_duplicates=remove_duplicates,
            **({"validation_fraction": validation_fraction} if validation_fraction else {}),
        )
        manifest = prepare_corpus(
            settings, out, hold_out=validation_fraction != 0, shard_bytes=shard_bytes, num_processes=processes
        )
    if json:
        print_json({key: manifest[key] for key in ("parts", "left_out")})
        return
    corpus = verify if verify is not None else out
    assert corpus is not None
    print_text(f"{corpus}: every byte is as it was prepared" if verify is not None else f"{corpus} is prepared")
    for line in prepared.shown_counts(manifest):
        print_text(line)
    if verify is None:
        print_text(prepared.next_command(corpus))
