"""Configuration records: frozen, checked when they are made, with their bounds in words."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from decimal import Decimal
from difflib import get_close_matches
from enum import Enum
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta


class RecordType(msgspec.StructMeta):
    """Class of records: their fields are passed by name, and another name is refused as such."""

    def __call__(self, *args: object, **fields: object) -> Any:  # Any: an instance
        """
        Make a record.

        :raises TypeError: for arguments by position, and for names that are no fields.
        """
        known = self.__struct_fields__
        if args:
            raise TypeError(
                f"{self.__name__} takes its fields by name, such as {self.__name__}({known[0]}=…)"
            )
        for name in fields:
            if name not in known:
                near = _meant_fields(self, name)
                mean = f"; did you mean {near[0]}?" if near else "."
                raise TypeError(
                    f"{self.__name__} has no field {name}{mean} It has: {', '.join(known)}"
                )
        return super().__call__(**fields)


class Record(
    msgspec.Struct, metaclass=RecordType, frozen=True, kw_only=True, forbid_unknown_fields=True
):
    """
    A frozen record whose fields are checked against their annotations when it is made.

    msgspec checks what it decodes; this also checks what Python code passes, so that every
    instance is valid. Bounds are written once, in the annotation::

        class Limits(Record, frozen=True):
            max_line: Annotated[int, Meta(ge=64, description="longest line, in bytes")] = 16_384

    No text has a NUL (U+0000): the system takes none in names of files, hosts and the like.

    :raises ValueError: for a field outside its bounds, naming the field and what is allowed.
    :raises TypeError: for a field that there is not, for arguments by position, and for a dict in
        place of another record.
    """

    def __post_init__(self) -> None:
        for name, annotation in field_types(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, Record):
                # Of a subclass, too, which msgspec would refuse.
                allowed = _records_of(annotation)
                if not isinstance(value, allowed):
                    wanted = " or ".join(kind.__name__ for kind in allowed)
                    raise TypeError(
                        f"{type(self).__name__}.{name} must be "
                        f"{f'an instance of {wanted}' if wanted else describe(annotation)}, "
                        f"not an instance of {type(value).__name__}"
                    )
                continue
            try:
                converted = msgspec.convert(value, annotation)
            except msgspec.ValidationError:
                found = "this secret" if is_secret(annotation) else repr(value)
                wanted = describe(annotation)
                for kind in _records_of(annotation):
                    # A table is what a file has.
                    wanted = wanted.replace("a table", f"an instance of {kind.__name__}", 1)
                raise ValueError(
                    f"{type(self).__name__}.{name} must be {wanted}, not {found}"
                ) from None
            if _has_null(converted):
                raise ValueError(
                    f"{type(self).__name__}.{name} must have no NUL character (U+0000)"
                )
            replaced = _record_for_dict(value, converted)
            if replaced is not None:
                raise TypeError(
                    f"{type(self).__name__}.{name} must be an instance of {replaced}, not a dict; "
                    f"write {replaced}(**…)"
                )


def near_names(name: str, known: Sequence[str]) -> list[str]:
    """Return those of the known names that one may stand for: it is nearly one, or begins one."""
    near = get_close_matches(name, known, 1)
    return near or [one for one in known if len(name) > 2 and one.startswith(name)]


def _meant_fields(record: Any, name: str) -> list[str]:  # Any: a class of records
    """Return what a field that a record does not have may be: one of a record inside it, first."""
    inside = [
        f"{outer}={kind.__name__}({name}=…)"
        for outer, annotation in field_types(record).items()
        for kind in _records_of(annotation)
        if name in kind.__struct_fields__
    ]
    return inside + near_names(name, record.__struct_fields__)


@cache
def field_types(record: type[msgspec.Struct]) -> dict[str, Any]:  # Any: annotations are of any form
    """Return the annotation of each field of *record*, in order, its bounds included."""
    hints = get_type_hints(record, include_extras=True)
    return {name: hints[name] for name in record.__struct_fields__}


def describe(annotation: Any) -> str:  # Any: annotations are of any form
    """
    Describe in words which values an annotation allows.

    >>> describe(Annotated[int, Meta(ge=1, le=9)])
    'an integer from 1 to 9'
    """
    base, meta = split_meta(annotation)
    origin = get_origin(base)
    if origin is Literal:
        values = [repr(value) for value in get_args(base)]
        return values[0] if len(values) == 1 else "one of " + ", ".join(values)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(part) for part in get_args(base))
    if origin in (tuple, list):
        return "a list, each item " + describe(get_args(base)[0])
    if isinstance(base, type) and issubclass(base, Record):
        return "a table"
    if isinstance(base, type) and issubclass(base, Enum):
        return "one of " + ", ".join(repr(member.value) for member in base)
    if base in _NUMBERS:
        return _NUMBERS[base] + _range(meta)
    if base is str:
        return "text" + "".join(_text_bounds(meta))
    return _WORDS.get(origin or base, getattr(base, "__name__", str(base)))


def is_secret(annotation: Any) -> bool:  # Any: annotations are of any form
    """Whether the values must never be shown: ``Meta(extra={"secret": True})``."""
    base, meta = split_meta(annotation)
    if get_origin(base) in (Union, types.UnionType):
        return any(is_secret(part) for part in get_args(base))
    return bool(meta.extra and meta.extra.get("secret"))


def split_meta(annotation: Any) -> tuple[Any, Meta]:  # Any: annotations are of any form
    """Split an annotation into its type and its bounds, which may be empty."""
    metadata = getattr(annotation, "__metadata__", ())
    metas = [item for item in metadata if isinstance(item, Meta)]
    base = get_args(annotation)[0] if metadata else annotation
    return base, metas[0] if metas else Meta()


def _records_of(annotation: Any) -> tuple[type[Record], ...]:  # Any: as above
    """Return the records that an annotation allows."""
    base, _ = split_meta(annotation)
    parts = get_args(base) if get_origin(base) in (Union, types.UnionType) else (base,)
    return tuple(part for part in parts if isinstance(part, type) and issubclass(part, Record))


def _has_null(value: object) -> bool:
    """Return whether a value, or anything in it, is a text with a NUL."""
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(map(_has_null, (*value, *value.values())))
    return isinstance(value, list | tuple) and any(map(_has_null, value))


def _record_for_dict(value: object, converted: object) -> str | None:
    """Return the name of the record that a value has a dict in place of, or None."""
    if isinstance(converted, Record):
        return None if isinstance(value, Record) else type(converted).__name__
    if isinstance(value, list | tuple) and isinstance(converted, list | tuple):
        found = (_record_for_dict(*pair) for pair in zip(value, converted, strict=True))
        return next((name for name in found if name is not None), None)
    return None


_NUMBERS = {int: "an integer", float: "a number"}
_WORDS = {
    bool: "true or false",
    type(None): "nothing",
    bytes: "bytes",
    Decimal: "a decimal number",
    dict: "a table",
}


def _range(meta: Meta) -> str:
    if meta.ge is not None and meta.le is not None:
        return f" from {meta.ge} to {meta.le}"
    bounds = [
        f"{words} {bound}"
        for words, bound in (
            ("of at least", meta.ge),
            ("above", meta.gt),
            ("of at most", meta.le),
            ("below", meta.lt),
        )
        if bound is not None
    ]
    return " " + " and ".join(bounds) if bounds else ""


def _text_bounds(meta: Meta) -> Iterator[str]:
    if meta.min_length is not None:
        yield f" of at least {meta.min_length} characters"
    if meta.max_length is not None:
        yield f" of at most {meta.max_length} characters"
    if meta.pattern is not None:
        yield f" that matches {meta.pattern}"
