"""Text to plain values, by rules under which nothing is dropped or read as another value.

YAML is read by the core rules of YAML 1.2, not by those of 1.1: `no` and `12:30` are text, `1_000` and `017` are not
numbers. A key that appears twice in a section is an error, and so is a number that a float cannot hold.
"""

import json
import math
import re
from typing import Any, ClassVar

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(
    r"""[-+]? (?: \.[0-9]+ | (?:0|[1-9][0-9]*) (?: \.[0-9]* )? ) (?: [eE][-+]?[0-9]+ )? \Z
      | [-+]?\.(?:inf|Inf|INF)\Z | \.(?:nan|NaN|NAN)\Z""",
    re.VERBOSE,
)
_SPECIAL = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_NULL = re.compile(r"(?:~|null|Null|NULL|)\Z")


class StrictLoader(yaml.SafeLoader):
    """Reads null, true and false, decimal numbers, text, lists and sections; nothing else, and no key twice."""

    yaml_implicit_resolvers: ClassVar[dict] = {}  # pyrefly: ignore[bad-override]
    yaml_constructors: ClassVar[dict] = {}  # pyrefly: ignore[bad-override]

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Composes a section, whose keys must differ."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise ComposerError(None, None, f"the key `{key.value}` appears twice in a section", key.start_mark)
                seen.add(key.value)
        return node

    def number(self, node: Any) -> int | float:
        """Constructs a decimal number."""
        text = self.construct_scalar(node)
        if _INT.match(text) and node.tag == _TAG + "int":
            return int(text)
        if node.tag == _TAG + "int" or not _FLOAT.match(text):
            raise ConstructorError(None, None, f"{text} is not a decimal number", node.start_mark)
        try:
            return _SPECIAL[text.lower()] if text.lower() in _SPECIAL else exact_float(text)
        except ValueError as error:
            raise ConstructorError(None, None, str(error), node.start_mark) from error


for tag, pattern, first in (
    ("null", _NULL, ["~", "n", "N", ""]),
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", re.compile(r"<<\Z"), ["<"]),
):
    StrictLoader.add_implicit_resolver(_TAG + tag, pattern, first)
for tag, constructor in (
    ("null", yaml.SafeLoader.construct_yaml_null),
    ("bool", yaml.SafeLoader.construct_yaml_bool),
    ("int", StrictLoader.number),
    ("float", StrictLoader.number),
    ("str", yaml.SafeLoader.construct_yaml_str),
    ("seq", yaml.SafeLoader.construct_yaml_seq),
    ("map", yaml.SafeLoader.construct_yaml_map),
):
    StrictLoader.add_constructor(_TAG + tag, constructor)
StrictLoader.add_constructor(None, yaml.SafeLoader.construct_undefined)  # pyrefly: ignore[bad-argument-type]


def exact_float(text: str) -> float:
    """Returns a decimal number as a float.

    Raises:
        ValueError: its float is infinite, or 0 where the number is not.
    """
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large for a number")
    if value == 0 and re.search("[1-9]", re.split("[eE]", text)[0]):
        raise ValueError(f"{text} is too small for a number")
    return value


def parse_yaml(text: str) -> tuple[Any, str]:
    """Reads YAML.

    Returns:
        The value, None for no text, and what follows it: white space and comments.

    Raises:
        ValueError: text that is not YAML, or has keys or numbers that cannot be kept as they stand.
    """
    loader = StrictLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, text
        return loader.construct_object(node, deep=True), text[node.end_mark.index :]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ValueError(where + " ".join(str(problem).split())) from error
    finally:
        loader.dispose()


def parse_json(text: str) -> Any:
    """Reads JSON as strictly.

    Raises:
        ValueError: text that is not JSON, a key twice, or a number that a float cannot hold.
    """
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=exact_float)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ValueError(f"the key `{twice}` appears twice in a section")
    return dict(pairs)


def _refuse(constant: str) -> Any:
    raise ValueError(f'{constant} is not JSON; infinities are the strings "inf" and "-inf"')
