"""Sections whose `kind` is built in or comes from a plug-in, which may have options of its own."""

import dataclasses
import logging
import math
from typing import Any, ClassVar

from patchpad.config.checks import Section
from patchpad.config.conversion import Words, wrong_value
from patchpad.config.plain_values import build_section
from patchpad.files import without_infinities
from patchpad.registry import Registry

logger = logging.getLogger(__name__)

RECORDS = ("plugin", "tracker_plugins")
"""Fields in which a configuration says which plug-in a name came from."""


def words_of(registry: Registry) -> Words:
    """Returns the annotation of a field that names something of a registry."""
    return Words(registry.names)


class PluggedSection(Section):
    """A section with the fields `kind`, `options` and `plugin`."""

    REGISTRY: ClassVar[Registry]

    @property
    def _fields(self) -> Any:
        """The section itself, whose fields each subclass declares."""
        return self

    def check(self) -> None:
        """Checks the kind and its options, and takes note of the plug-in that it comes from."""
        kind, recorded = self._fields.kind, self._recorded()
        self.REGISTRY.require(kind, f"{self.SECTION}.kind", recorded)
        found = self.REGISTRY.of_plugin(kind)
        if found is not None and recorded is not None and _stem(found.plugin) != _stem(recorded):
            logger.warning(
                "%s.kind is %r, which was a %s of the plug-in %s when this was saved, and is now one of %s",
                *(self.SECTION, kind, self.REGISTRY.what, recorded, found.plugin),
            )
        object.__setattr__(self._fields, "plugin", None if found is None else found.plugin)
        options = self.parsed_options()
        if options is not None:
            object.__setattr__(self._fields, "options", _plain(dataclasses.asdict(options), f"{self.SECTION}.options"))

    def _recorded(self) -> str | None:
        plugin = self._fields.plugin
        if plugin is not None:
            self.require(
                plugin.isprintable() and 0 < len(plugin) <= 200 and not {"/", "\\"} & set(plugin),
                f"plugin is {plugin!r}",
                "the name of a module or of a .py file, as patchpad writes it; or leave it out",
            )
        return plugin

    @property
    def plugged(self) -> Any:
        """The class of a plug-in; None where the kind is built in."""
        found = self.REGISTRY.of_plugin(self._fields.kind)
        return None if found is None else found.target

    def parsed_options(self) -> Any:
        """Returns the options as the plug-in's class has them in `Options`, checked; None for a kind without any.

        Raises:
            ConfigError: an option that the kind does not have, or a value that it does not take.
        """
        declared, given = None if self.plugged is None else self.plugged.Options, self._fields.options
        if declared is not None:
            return build_section(declared, given, f"{self.SECTION}.options")
        self.require(
            not given,
            f"options is {given} with the {self.REGISTRY.what} `{self._fields.kind}`",
            "{}: it has no options there",
        )
        return None


def _stem(plugin: str) -> str:
    """Returns what the names of a module and of its file have in common."""
    return plugin.removesuffix(".py").rpartition(".")[2]


def _plain(value: Any, name: str) -> Any:
    """Returns a value as JSON will give it back.

    Raises:
        ConfigError: JSON cannot hold it.
    """
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and not math.isnan(value)):
        return value
    raise wrong_value(name, value, "numbers, text, true, false, null, and lists or keys of these")


def plain_section(section: Any, *, with_plugins: bool = True) -> dict[str, Any]:
    """Returns a section as JSON has it: infinities as text, and nothing of plug-ins where none is used.

    Args:
        section: any section, or the whole configuration.
        with_plugins: False leaves out by which module a plug-in was loaded, for values that are compared.
    """
    values = without_infinities(dataclasses.asdict(section))
    return _without_unused(values, () if with_plugins else RECORDS)


def _without_unused(values: dict[str, Any], left_out: tuple[str, ...]) -> dict[str, Any]:
    kept = {
        key: value
        for key, value in values.items()
        if key not in left_out and (value or key not in ("options", *RECORDS))
    }
    return {
        key: _without_unused(value, left_out) if isinstance(value, dict) and key != "options" else value
        for key, value in kept.items()
    }


__all__ = ["PluggedSection", "plain_section", "words_of"]
