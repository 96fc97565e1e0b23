"""Prompts from a file: one per line, or JSON lines."""

import json
from pathlib import Path

from patchpad.errors import DataError
from patchpad.text import encode_text


def read_prompts(path: str | Path) -> list[bytes]:
    r"""Reads prompts.

    Args:
        path: a `.jsonl` file, each line a JSON string or an object with a string `prompt`; any other file is text of
            any encoding, a prompt per line without its `\n` or `\r\n`. An empty line of text is an empty prompt.

    Raises:
        DataError: not readable, no prompt, or a line that is not a prompt.
    """
    file = Path(path)
    try:
        data = file.read_bytes()
    except OSError as error:
        reason = "it is a directory" if file.is_dir() else error.strerror or str(error)
        raise DataError(f"cannot read prompts from {file}: {reason}", hint="Give a file of prompts.") from error
    return parse_prompts(data, str(file), json_lines=file.suffix.lower() == ".jsonl")


def parse_prompts(data: bytes, name: str, *, json_lines: bool) -> list[bytes]:
    """Splits the content of a file of prompts; `read_prompts` says how.

    Raises:
        DataError: no prompt, or a line that is not a prompt.
    """
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    prompts = [line.removesuffix(b"\r") for line in (lines[:-1] if lines[-1] == b"" else lines)]
    if json_lines:
        prompts = [_prompt_of(line, f"{name}, line {number}") for number, line in enumerate(prompts, 1) if line.strip()]
    if not prompts:
        raise DataError(f"{name} holds no prompt", hint="Write one prompt per line.")
    return prompts


def _prompt_of(line: bytes, where: str) -> bytes:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}", hint="Fix the line.") from error
    if isinstance(value, dict):
        value = value.get("prompt")
    if not isinstance(value, str):
        raise DataError(f"{where} is neither a string nor an object with a string `prompt`", hint="Fix the line.")
    return encode_text(value)
