"""Templates: text with fields of a row in it. They are data, not code: a fixed list of formats, and no expressions.

`{question}` is a field, `{choices[0]}` an item of one, `{question:stripped}` and `{sentence:after=_:stripped}` a field
with formats that are applied from left to right; `{{` and `}}` are braces.
"""

import re
import string
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from patchpad.errors import ConfigError, DataError, near_matches

Change = Callable[[str], str]
"""What noise does to a text."""

LETTERS = string.ascii_uppercase
_PARTS = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_FIELD = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:\[(?P<index>[0-9]+)\])?(?P<formats>(?::.*)?)", re.DOTALL)


def _each(change: Change) -> Callable[[Any], Any]:
    """Returns a format that changes a text, and each text of a list."""
    return lambda value: [change(one) for one in value] if isinstance(value, list) else change(value)


def _before(mark: str) -> Callable[[str], str]:
    return lambda text: _split(text, mark)[0]


def _after(mark: str) -> Callable[[str], str]:
    return lambda text: _split(text, mark)[1]


def _split(text: str, mark: str) -> tuple[str, str]:
    before, found, after = text.partition(mark)
    if not found:
        raise ValueError(f"has no {mark!r}")
    return before, after


FORMATS: dict[str, Callable[[Any], Any]] = {
    "stripped": _each(str.strip),
    "capitalized": _each(str.capitalize),
    "lowercase": _each(str.lower),
    "spaced": _each(lambda text: text.replace("_", " ")),
    "led": _each(lambda text: f" {text}" if text else ""),
}
"""Formats without an argument: white space at both ends goes; the first letter large and all others small; small
letters; underscores become spaces; a space before the text unless it is empty."""

FORMATS_WITH_MARK: dict[str, Callable[[str], Callable[[str], str]]] = {"before": _before, "after": _after}
"""Formats with an argument, as in `{sentence:before=_}`: what stands before or after the first mark of that kind."""

FORMATS_OF_LISTS: dict[str, Callable[[Sequence[str]], Any]] = {
    "lettered": lambda values: "\n".join(f"{LETTERS[n]}. {value}" for n, value in enumerate(values)),
    "letters": lambda values: list(LETTERS[: len(values)]),
    "lines": "\n".join,
}
"""Formats of lists: a line `A. first choice` for each item; the letters alone; a line for each item."""


@dataclass(frozen=True)
class _Field:
    """A field in braces."""

    written: str
    name: str
    index: int | None
    formats: tuple[tuple[str, str | None], ...]

    def value(self, values: Mapping[str, Any], change: Change | None) -> Any:
        """Returns the text or the list of texts that stands for the field; noise comes before letters and lines.

        Raises:
            ValueError: what is wrong with the value, as the end of a sentence.
        """
        value = values[self.name]
        if self.index is not None:
            if not isinstance(value, list):
                raise ValueError(f"is {_shown(value)}; allowed: a list")
            if self.index >= len(value):
                raise ValueError(f"has {len(value)} items")
            value = value[self.index]
        value = [_text(one) for one in value] if isinstance(value, list) else _text(value)
        is_changed = change is None
        for name, mark in self.formats:
            if name in FORMATS_OF_LISTS:
                if not isinstance(value, list) or len(value) > len(LETTERS):
                    raise ValueError(f"is {_shown(value)}; allowed: a list of at most {len(LETTERS)}")
                if change is not None and not is_changed and name != "letters":
                    value = _each(change)(value)
                is_changed = True
                value = FORMATS_OF_LISTS[name](value)
            elif mark is not None:
                value = _each(FORMATS_WITH_MARK[name](mark))(value)
            else:
                value = FORMATS[name](value)
        if change is not None and not is_changed:
            value = _each(change)(value)
        return value


class Template:
    """A template, parsed once.

    Args:
        text: of the template.
        source: file and key, named in errors.

    Raises:
        ConfigError: a brace without its partner, or an unknown format.
    """

    def __init__(self, text: str, source: str) -> None:
        self.text, self.source = text, source
        self._parts: list[str | _Field] = []
        end = 0
        for found in _PARTS.finditer(text):
            self._parts.append(text[end : found.start()])
            self._parts.append(found[0][0] if found[0] in ("{{", "}}") else self._field(found))
            end = found.end()
        self._parts.append(text[end:])
        self._parts = [part for part in self._parts if part]

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that a row must have, in order, each once."""
        return tuple(dict.fromkeys(part.name for part in self._parts if isinstance(part, _Field)))

    def render(self, values: Mapping[str, Any], change: Change | None = None, *, keep: Container[str] = ()) -> str:
        """Returns the text for a row.

        Args:
            values: a row, or one with further values.
            change: noise; it reaches what the fields hold and not what the template says itself.
            keep: fields that noise does not reach.

        Raises:
            DataError: a field that the row lacks, or one that is a list or has no such item.
        """
        return "".join(
            part if isinstance(part, str) else self._text_of(part, values, None if part.name in keep else change)
            for part in self._parts
        )

    def render_each(self, values: Mapping[str, Any]) -> list[str]:
        """Returns one text, or one for each item where the template is nothing but a field that holds a list.

        The errors are those of `render`.
        """
        if len(self._parts) == 1 and isinstance(self._parts[0], _Field):
            value = self._value_of(self._parts[0], values, None)
            return value if isinstance(value, list) else [value]
        return [self.render(values)]

    def _field(self, found: re.Match[str]) -> _Field:
        parsed = _FIELD.fullmatch(found[1] or "")
        if parsed is None:
            raise ConfigError(
                f"{self.source}: `{found[0]}` in {self.text!r} is not a field; allowed: {{field}}, {{field[0]}}, "
                "{field:format}, and {{ and }} for braces",
                hint="Fix the template.",
            )
        formats = []
        for written in filter(None, parsed["formats"].split(":")):
            name, has_mark, mark = written.partition("=")
            with_mark = name in FORMATS_WITH_MARK
            if with_mark != bool(mark) or (has_mark and not mark) or name not in all_formats():
                known = near_matches(name, all_formats()) if name not in all_formats() else "Fix the template."
                needs = "needs a mark, as in `before=_`" if with_mark else "takes no argument"
                what = f"format `{name}` {needs}" if name in all_formats() else f"unknown format `{name}`"
                raise ConfigError(f"{self.source}: {what}, in `{found[0]}`", hint=known)
            formats.append((name, mark if has_mark else None))
        index = None if parsed["index"] is None else int(parsed["index"])
        return _Field(found[0], parsed["name"], index, tuple(formats))

    def _text_of(self, field: _Field, values: Mapping[str, Any], change: Change | None) -> str:
        value = self._value_of(field, values, change)
        if isinstance(value, list):
            lists = ", ".join(f"{{{field.name}:{name}}}" for name in FORMATS_OF_LISTS)
            raise _bad_row(
                values, self.source, field.written, f"is a list; allowed here: {lists} or {{{field.name}[0]}}"
            )
        return value

    def _value_of(self, field: _Field, values: Mapping[str, Any], change: Change | None) -> Any:
        if field.name not in values:
            raise _bad_row(values, self.source, field.written, "is missing")
        try:
            return field.value(values, change)
        except ValueError as error:
            raise _bad_row(values, self.source, field.written, str(error)) from error


def all_formats() -> tuple[str, ...]:
    """Returns the names of all formats."""
    return (*FORMATS, *FORMATS_WITH_MARK, *FORMATS_OF_LISTS)


def as_bytes(text: str) -> bytes:
    """Returns text as UTF-8, with the bytes that noise has put into it as they are."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # other lone surrogates, which the row itself had
        return text.encode("utf-8", "surrogatepass")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"holds {_shown(value)}; allowed: text, numbers, and lists of these")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _bad_row(values: Mapping[str, Any], source: str, written: str, problem: str) -> DataError:
    place = getattr(values, "place", None) or "a row"
    return DataError(f"{place}: `{written}` of {source} {problem}", hint="Fix the row or the template.")
