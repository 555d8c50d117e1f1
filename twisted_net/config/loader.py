"""Configuration loader: reads a record from TOML, environment and options; writes it as TOML."""

from __future__ import annotations

import json
import math
import re
import tomllib
import types
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Generic, TypeVar, Union, get_args, get_origin

import msgspec
from attrs import field, frozen

from twisted_net.config.record import (
    Record,
    describe,
    field_types,
    is_secret,
    near_names,
    split_meta,
)
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import ConfigError

NONE = "none"
"""How every layer spells None, which TOML lacks, for a setting that may be None."""

MASK = "***"
"""Shown in place of a secret."""

MAX_SHOWN = 64
"""Characters of a wrong value that an error message repeats, at most."""

R = TypeVar("R", bound=Record)


@frozen
class Setting:
    """
    One value that an operator may set: a field of a record, or of a record inside it.

    :param path: the names from the outermost record to the field.
    :param default: its value if no layer sets it.
    """

    path: tuple[str, ...]
    annotation: Any  # of any form that msgspec takes
    default: object

    @property
    def key(self) -> str:
        """Its name in a file, a TOML dotted key: ``tcp.max_line``."""
        return ".".join(self.path)

    @property
    def option(self) -> str:
        """Its name on the command line, without the leading hyphens: ``tcp-max-line``."""
        return "-".join(self.path).replace("_", "-")

    def variable(self, prefix: str) -> str:
        """Its name in the environment: ``TWISTED_NET_TCP__MAX_LINE``."""
        return prefix + "__".join(self.path).upper()

    @property
    def item(self) -> type[Record] | None:
        """The record type of tables in this list; None if its items are no tables."""
        for part in _union(self.annotation):
            base, _ = split_meta(part)
            if get_origin(base) in (list, tuple):
                for kind in _union(get_args(base)[0]):
                    if isinstance(kind, type) and issubclass(kind, Record):
                        return kind
        return None

    @property
    def secret(self) -> bool:
        """Whether its value must never be shown."""
        return is_secret(self.annotation)

    @property
    def description(self) -> str:
        """Its description in the record; empty if there is none."""
        return next((meta.description for meta in _metas(self.annotation) if meta.description), "")

    @property
    def allowed(self) -> str:
        """The values that it accepts, in words."""
        parts = _union(self.annotation)
        if type(None) not in parts:
            return describe(self.annotation)
        return " or ".join([*(describe(part) for part in parts if part is not type(None)), NONE])

    def from_toml(self, value: object) -> object:
        """
        Check a value from TOML, whose type must be exact.

        :raises ValueError: if the value is not allowed.
        """
        return self._convert(value, strict=True)

    def from_text(self, text: str) -> object:
        """
        Parse the text of an environment variable or an option.

        Numbers and booleans are parsed. A list is JSON if it begins with ``[``, else its items
        separated by commas; white space around an item is ignored, and empty text is the
        empty list. A table is JSON.

        :raises ValueError: if the text is not allowed.
        """
        text.encode()  # UnicodeEncodeError, a ValueError, for bytes that were not UTF-8
        if self._is_none(text):
            return None
        origins = {get_origin(split_meta(part)[0]) for part in _union(self.annotation)}
        is_list = bool(origins & {list, tuple})
        if dict in origins or (is_list and text.lstrip().startswith("[")):
            return self._convert(_decode_json(text), strict=True)
        if is_list:
            items = [item.strip() for item in text.split(",")] if text.strip() else []
            return self._convert(items, strict=False)
        return self._convert(text, strict=False)

    def _convert(self, value: object, strict: bool) -> object:
        if self._is_none(value):
            return None
        converted = msgspec.convert(value, self.annotation, strict=strict)
        if isinstance(converted, float) and not math.isfinite(converted):
            raise ValueError("not a finite number")
        return converted

    def _is_none(self, value: object) -> bool:
        return value == NONE and type(None) in _union(self.annotation)


def settings(record: Record) -> Iterator[Setting]:
    """
    Iterate over the settings of a record and of the records in it, in the order of fields.

    :param record: an instance with all defaults.
    """
    return _settings(record, ())


@frozen
class Loaded(Generic[R]):
    """
    The result of all layers.

    :param origins: the layer that set a value, by dotted key; defaults are not among them.
    """

    record: R
    origins: Mapping[str, str] = field(factory=dict)


@check_arguments
class Layers(Generic[R]):
    """
    Collects values for a record, layer by layer; a later layer overrides an earlier one.

    Mistakes are collected, a line each, and :meth:`load` raises them together.

    :param defaults: the record with all defaults.
    :param prefix: of the names of its environment variables.
    :param within: the key of the record itself, if it is an item of a list: ``listeners[0]``.
    """

    def __init__(self, defaults: R, prefix: str, within: str = "") -> None:
        self._defaults = defaults
        self._prefix = prefix
        self._within = within
        self._settings = {setting.path: setting for setting in settings(defaults)}
        self._sections = {path[:i] for path in self._settings for i in range(len(path))}
        self._values: dict[tuple[str, ...], object] = {}
        self._origins: dict[tuple[str, ...], str] = {}
        self._wrong: set[tuple[str, ...]] = set()
        self._mistakes: list[str] = []

    def add_toml(self, text: str, name: str) -> None:
        """
        Add the text of a TOML file; its values must have the types of their settings.

        :param name: of the file, for error messages.
        """
        try:
            table = tomllib.loads(text)
        except RecursionError:
            self._mistakes.append(f"{name}: nested too deeply")
        except ValueError as error:
            self._mistakes.append(_not_toml(name, str(error)))
        else:
            self._take_table(table, (), name)

    def add_table(self, table: Mapping[str, Any], name: str) -> None:  # Any: of TOML
        """
        Add a table that was read from TOML before.

        :param name: where it came from, for error messages.
        """
        self._take_table(dict(table), (), name)

    def add_environment(self, environ: Mapping[str, str]) -> None:
        """Add the variables whose names begin with the prefix; ignore all others."""
        known = {setting.variable(self._prefix): setting for setting in self._settings.values()}
        for variable, text in environ.items():
            if not variable.startswith(self._prefix):
                continue
            setting = known.get(variable)
            if setting is not None:
                self._take_text(setting, text, variable)
                continue
            path = tuple(variable.removeprefix(self._prefix).lower().split("__"))
            if path in self._sections:
                what = f"{'.'.join(path)} is a section; its variables begin with {variable}__"
            else:
                what = "there is no such setting" + _suggest(variable, known, self._prefix)
            self._mistakes.append(f"{variable}: {what}")

    def add_options(self, options: Mapping[str, str]) -> None:
        """
        Add the texts of options.

        :param options: by :attr:`Setting.option`; an unknown name is a bug of the caller.
        """
        known = {setting.option: setting for setting in self._settings.values()}
        for option, text in options.items():
            self._take_text(known[option], text, f"--{option}")

    def add_mistake(self, line: str) -> None:
        """Add a mistake found elsewhere, such as a file that cannot be read."""
        self._mistakes.append(line)

    def load(self) -> Loaded[R]:
        """
        Make the record.

        A ValueError of a record itself, such as two values that contradict each other, is a
        mistake too; it is checked once all its values are valid one by one.

        :raises ConfigError: with the mistakes of all layers, if there are any.
        """
        record = self._build(self._defaults, ())
        if self._mistakes or record is None:
            raise ConfigError(self._mistakes)
        return Loaded(record, {".".join(path): where for path, where in self._origins.items()})

    def _take_table(self, table: dict[str, Any], path: tuple[str, ...], name: str) -> None:
        for key, value in table.items():
            here = (*path, key)
            if here in self._settings:
                self._take(self._settings[here], value, name)
            elif here not in self._sections:
                self._mistakes.append(f"{name}: {self._unknown(here)}")
            elif isinstance(value, dict):
                self._take_table(value, here, name)
            else:
                self._refuse(here, f"{_shown(value)}, must be a table", name)

    def _take(self, setting: Setting, value: object, where: str) -> None:
        if setting.item is not None and isinstance(value, list):
            value = self._take_items(setting.item, setting, value, where)
            if value is None:
                return
        try:
            converted = setting.from_toml(value)
        except ValueError:
            self._refuse_value(setting, value, where)
        else:
            self._keep(setting.path, converted, where)

    def _take_items(
        self, record: type[Record], setting: Setting, items: list[object], where: str
    ) -> list[object] | None:
        """Make records of the items that are tables; return None if one has a mistake."""
        made: list[object] = []
        sound = True
        for i, item in enumerate(items):
            if isinstance(item, dict):
                layers = Layers(record(), self._prefix, f"{self._key(setting.path)}[{i}]")
                layers._take_table(item, (), where)
                try:
                    made.append(layers.load().record)
                except ConfigError as error:
                    self._mistakes += error.mistakes
                    self._wrong.add(setting.path)
                    sound = False
            else:
                made.append(item)
        return made if sound else None

    def _take_text(self, setting: Setting, text: str, where: str) -> None:
        try:
            if setting.item is not None and text.lstrip().startswith("["):
                self._take(setting, _decode_json(text), where)
                return
            converted = setting.from_text(text)
        except ValueError:
            self._refuse_value(setting, text, where)
        else:
            self._keep(setting.path, converted, where)

    def _keep(self, path: tuple[str, ...], value: object, where: str) -> None:
        self._values[path] = value
        self._origins[path] = where

    def _refuse_value(self, setting: Setting, value: object, where: str) -> None:
        found = "wrong" if setting.secret else _shown(value)
        self._refuse(setting.path, f"{found}, must be {setting.allowed}", where)

    def _refuse(self, path: tuple[str, ...], what: str, where: str) -> None:
        self._wrong.add(path)
        self._mistakes.append(f"{where}: {self._key(path)} is {what}")

    def _key(self, path: tuple[str, ...]) -> str:
        """Return the dotted key of *path*, from the outermost record on."""
        return ".".join((self._within, *path) if self._within else path)

    def _unknown(self, path: tuple[str, ...]) -> str:
        """Return that there is no such setting, and which one may be meant."""
        section, name = path[:-1], path[-1]
        known = [*self._settings, *self._sections]
        beside = [other[-1] for other in known if other and other[:-1] == section]
        meant = [(*section, near) for near in near_names(name, beside)]
        meant += [other for other in self._settings if other[-1] == name]
        hint = f"; did you mean {self._key(meant[0])}?" if meant else ""
        return f"there is no setting {_cut(self._key(path))}{hint}"

    def _build(self, default: Any, path: tuple[str, ...]) -> Any:  # Any: a record of any type
        """Make a record; return None if it or a record inside it has a mistake."""
        parts: dict[str, object] = {}
        broken = any(wrong[: len(path)] == path for wrong in self._wrong)
        record: type[Record] = type(default)
        for name in field_types(record):
            here = (*path, name)
            value = getattr(default, name)
            if here in self._sections:
                parts[name] = self._build(value, here)
                broken = broken or parts[name] is None
            else:
                parts[name] = self._values.get(here, value)
        if broken:
            return None
        try:
            return record(**parts)
        except ValueError as error:
            within = [known for known in self._origins if known[: len(path)] == path]
            origins = ", ".join(dict.fromkeys(self._origins[known] for known in within))
            # A record names its field as Limits.max_line; the operator knows it by its key.
            message = str(error).removeprefix(f"{record.__name__}.")
            separator = "." if message != str(error) else ": "
            section = self._key(path)
            section = f"{section}{separator}" if section else ""
            self._mistakes.append(f"{origins}: {section}{message}")
            return None


@check_arguments
def to_toml(record: Record, origins: Mapping[str, str] | None = None) -> str:
    """
    Return every setting of *record* as the text of a TOML file that reads back as an equal record.

    A secret that is set is replaced by a comment. Above each setting stands its description and
    what is allowed, behind it the layer that set it.

    :param origins: as in :class:`Loaded`; settings that are not in it are marked as defaults.
    """
    origins = origins or {}
    # The outermost record's own settings first: below a heading they would be that table's.
    sections: dict[tuple[str, ...], list[str]] = {(): []}
    for setting in settings(record):
        about = f"{setting.description} ({setting.allowed})".lstrip()
        sections.setdefault(setting.path[:-1], []).extend(
            [
                f"# {_comment(about)}",
                _assignment(setting) + f"  # {_comment(origins.get(setting.key, 'default'))}",
                "",
            ]
        )
    lines = sections.pop(())
    for section, its_lines in sections.items():
        lines += [f"[{'.'.join(section)}]", *its_lines]
    return "\n".join(lines)


def _assignment(setting: Setting) -> str:
    name = setting.path[-1]
    if setting.secret and setting.default:
        return f"# {name} = {MASK}"
    return f"{name} = {_literal(setting.default)}"


def _settings(record: Record, path: tuple[str, ...]) -> Iterator[Setting]:
    for name, annotation in field_types(type(record)).items():
        value = getattr(record, name)
        if isinstance(value, Record):
            yield from _settings(value, (*path, name))
        else:
            yield Setting((*path, name), annotation, value)


def _union(annotation: Any) -> tuple[Any, ...]:  # Any: annotations are of any form
    """Return the types of a union, their bounds included, or the single type."""
    base, _ = split_meta(annotation)
    if get_origin(base) in (Union, types.UnionType):
        return get_args(base)
    return (annotation,)


def _metas(annotation: Any) -> Iterator[msgspec.Meta]:  # Any: as above
    yield split_meta(annotation)[1]
    for part in _union(annotation):
        yield split_meta(part)[1]


def _decode_json(text: str) -> object:
    try:
        decoded: object = msgspec.json.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return decoded


def _not_toml(name: str, message: str) -> str:
    """Return tomllib's message, with its position in front."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message)
    if found is None:
        return f"{name}: this is not TOML: {message}"
    what, line, column = found.groups()
    place = f"line {line}, column {column}" if line else "at its end"
    return f"{name}, {place}: this is not TOML: {what[:1].lower()}{what[1:]}"


def _suggest(name: str, known: Mapping[str, object], prefix: str) -> str:
    # Without the prefix, which all have in common and which would make every name look alike.
    names = [other.removeprefix(prefix) for other in known]
    near = get_close_matches(name.removeprefix(prefix).upper(), names, 1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def _shown(value: object) -> str:
    try:
        return _cut(_literal(value))
    except TypeError:
        return _cut(str(value))  # a date or a time


def _comment(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def _differences(record: Record) -> dict[str, object]:
    """Return the fields of a record that differ from the defaults, without secret ones."""
    types, plain = field_types(type(record)), type(record)()
    return {
        name: getattr(record, name)
        for name, annotation in types.items()
        if getattr(record, name) != getattr(plain, name) and not is_secret(annotation)
    }


def _literal(value: object) -> str:
    """
    Return a value as TOML.

    :raises TypeError: for a value of a type that settings do not have.
    """
    match value:
        case None:
            return f'"{NONE}"'
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            # JSON's escapes are TOML's, but for two: TOML also wants DEL escaped, and takes
            # no surrogates, so that only the ASCII controls may be escaped.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list() | tuple():
            return f"[{', '.join(map(_literal, value))}]"
        case Record():
            return _literal(_differences(value))
        case dict():
            pairs = (f"{_literal(str(key))} = {_literal(item)}" for key, item in value.items())
            return f"{{{', '.join(pairs)}}}"
    raise TypeError(f"TOML has no {type(value).__name__}")
