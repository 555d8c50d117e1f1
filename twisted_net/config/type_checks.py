"""
Type checks: arguments of public constructors and functions, by their annotations.

An embedding application that swaps two arguments, passes a dict for a record, or misspells a
keyword, learns of it where it does so, in one sentence, and not from an ``AttributeError`` in the
first connection. What runs once for each request is not checked.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache, partial, wraps
from types import CodeType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, overload

from attrs import evolve, field, frozen
from msgspec import UnsetType
from typing_extensions import Unpack

from twisted_net.config.record import Record

_T = TypeVar("_T")


@overload
def check_arguments(target: _T) -> _T: ...


@overload
def check_arguments(*, synonyms: Mapping[str, str]) -> Callable[[_T], _T]: ...


def check_arguments(
    target: Any = None,  # Any: a class or a function of any form
    *,
    synonyms: Mapping[str, str] | None = None,
) -> Any:
    """
    Decorate a class, function or method: its arguments are checked against their annotations.

    Annotations that say nothing (``Any``, ``object``, type variables), or that cannot be resolved
    while the program runs, are not checked; nor are the items of sequences and mappings.

    :param synonyms: as :class:`SignatureCheck` has them.
    :raises TypeError: when it is called with an argument of another type, with one that there is
        not, or without one that is required. The message says where, what, and what is allowed.
    """
    if target is None:
        return partial(check_arguments, synonyms=synonyms)
    if isinstance(target, type):
        made: Any = target  # Any: __init__ is assigned
        made.__init__ = _checked(made.__init__, target.__name__, synonyms, bound=True)
        return target
    bound = next(iter(inspect.signature(target).parameters), "") == "self"
    return _checked(target, target.__qualname__, synonyms, bound=bound)


def checked_seconds(value: float, name: str = "timeout") -> float:
    """
    Return a time limit.

    :raises TypeError: if it is no number.
    :raises ValueError: if it is negative, infinite or not a number (NaN).
    """
    if not _is_number(value):
        raise TypeError(f"{name} must be a number of seconds, not {shown(value)}")
    # Compared, not math.isfinite(): an integer may be too large for a float.
    if not 0 <= value <= sys.float_info.max:
        raise ValueError(f"{name} must be 0 or more seconds, and finite, not {value}")
    return value


def checked_range(value: int, name: str, low: int, high: int) -> int:
    """
    Return an integer, whose type was checked before.

    :raises ValueError: if it is less than *low* or more than *high*.
    """
    if not low <= value <= high:
        raise ValueError(f"{name} must be an integer from {low} to {high}, not {value}")
    return value


@frozen
class TypeCheck:
    """
    What an annotation allows.

    :param words: what it allows, for a person.
    :param allows: whether a value is allowed.
    :param record: the record that it allows, if it is one.
    """

    words: str
    allows: Callable[[object], bool] = field(repr=False)
    record: type[Record] | None = None

    def refusal(self, value: object) -> str:
        """Return what to say of a value that is not allowed."""
        write = self.record is not None and isinstance(value, dict)
        hint = f"; write {self.record.__name__}(**…)" if self.record is not None and write else ""
        return f"must be {self.words}, not {shown(value)}{hint}"


@frozen
class SignatureCheck:
    """
    What a function takes.

    :param names: all names that can be passed, in order.
    :param positional: how many of them, the first ones, can be passed by position.
    :param any_position: whether more values can be passed by position.
    :param required: those that must be passed.
    :param checks: by name, where the annotation can be checked.
    :param takes_any: whether it takes other names, too.
    :param synonyms: names by which its arguments, or what does the same, are known elsewhere.
    """

    names: list[str]
    positional: int
    any_position: bool
    required: list[str]
    checks: Mapping[str, TypeCheck]
    takes_any: bool
    synonyms: Mapping[str, str] = field(factory=dict)

    def check(self, label: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        """
        Check arguments.

        :param label: the name of the function, for messages.
        :raises TypeError: as :func:`check_arguments` says.
        """
        given = {**dict(zip(self.names[: self.positional], args, strict=False)), **kwargs}
        for name, value in given.items():
            check = self.checks.get(name)
            if check is not None and not check.allows(value):
                raise TypeError(f"{label}: {name} {check.refusal(value)}")
        takes = f"It takes: {', '.join(self.names) or 'nothing'}"
        for name in () if self.takes_any else kwargs:
            if name not in self.names:
                meant = self.synonyms.get(name)
                near = [meant] if meant else get_close_matches(name, self.names, 1)
                mean = f"; did you mean {near[0]}?" if near else "."
                raise TypeError(f"{label}: there is no argument {name}{mean} {takes}")
        if len(args) > self.positional and not self.any_position:
            raise TypeError(
                f"{label}: {len(args)} arguments by position, not {self.positional}. {takes}"
            )
        missing = [name for name in self.required if name not in given]
        if missing:
            raise TypeError(f"{label}: {' and '.join(missing)} must be passed. {takes}")


def signature_check(
    function: Callable[..., object],
    *,
    bound: bool = False,
    known: Mapping[str, object] | None = None,
) -> SignatureCheck:
    """
    Return what a function takes.

    :param bound: whether its first parameter is passed by the interpreter.
    :param known: annotations that are resolved already.
    """
    known = known or {}
    parameters = list(inspect.signature(function).parameters.values())[bound:]
    kind = inspect.Parameter
    named = [
        each for each in parameters if each.kind not in (kind.VAR_POSITIONAL, kind.VAR_KEYWORD)
    ]
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    checks = {
        each.name: check_of(known.get(each.name) or _resolved(each.annotation, scope))
        for each in named
    }
    others = [
        _resolved(each.annotation, scope) for each in parameters if each.kind is kind.VAR_KEYWORD
    ]
    if others and get_origin(others[0]) is Unpack:
        # Those of a TypedDict, by name.
        more = mapping_check(get_args(others[0])[0])
        others, checks = [], {**checks, **more.checks}
    else:
        more = None
    return SignatureCheck(
        names=[*(each.name for each in named), *(more.names if more else ())],
        positional=sum(each.kind is not kind.KEYWORD_ONLY for each in named),
        any_position=any(each.kind is kind.VAR_POSITIONAL for each in parameters),
        required=[each.name for each in named if each.default is each.empty],
        checks={name: check for name, check in checks.items() if check is not None},
        takes_any=bool(others),
    )


def mapping_check(
    kind: type,
    synonyms: Mapping[str, str] | None = None,
    unchecked: Collection[str] = (),
) -> SignatureCheck:
    """
    Return what a ``TypedDict`` of options may have, none of which is required.

    :param synonyms: as :class:`SignatureCheck` has them.
    :param unchecked: options whose types are not checked.
    """
    hints = get_type_hints(kind)
    checks = {name: check_of(hint) for name, hint in hints.items() if name not in unchecked}
    return SignatureCheck(
        names=list(hints),
        positional=0,
        any_position=False,
        required=[],
        checks={name: check for name, check in checks.items() if check is not None},
        takes_any=False,
        synonyms=synonyms or {},
    )


def check_of(annotation: Any) -> TypeCheck | None:  # Any: annotations are of any form
    """Return what an annotation allows, or None if that cannot be checked."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation in (None, NoneType):
        return TypeCheck("None", lambda value: value is None)
    if origin in (Union, UnionType):
        return _any_of([check_of(part) for part in parts])
    if origin is Literal:
        return TypeCheck(" or ".join(map(repr, parts)), lambda value: value in parts)
    if annotation is Callable or origin is Callable:
        return TypeCheck("callable", callable)
    if isinstance(origin, type):
        return _container(origin, parts)
    if hasattr(annotation, "providedBy"):
        return _interface(annotation)
    if not isinstance(annotation, type) or annotation in (object, Any):
        return None
    if getattr(annotation, "_is_protocol", False):
        return _protocol(annotation)
    if annotation is float:
        return TypeCheck("a number", _is_number)
    if annotation is int:
        return TypeCheck("an integer", lambda value: _is_number(value) and isinstance(value, int))
    record = annotation if issubclass(annotation, Record) else None
    return TypeCheck(_named(annotation), lambda value: isinstance(value, annotation), record)


def _checked(
    function: Callable[..., Any],
    label: str,
    synonyms: Mapping[str, str] | None,
    *,
    bound: bool,
) -> Callable[..., Any]:
    signature: SignatureCheck | None = None
    # Now, as a test of the application may replace what an annotation names while it is first
    # called; and only the names, as a check of each takes ten times as long.
    known = _resolved_annotations(function)

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:  # Any: those of the function
        nonlocal signature
        if signature is None:
            # Annotations may need names that are defined after it.
            made = signature_check(function, bound=bound, known=known)
            signature = evolve(made, synonyms=synonyms or {})
        signature.check(label, args[1:] if bound else args, kwargs)
        return function(*args, **kwargs)

    return checked


def _any_of(checks: list[TypeCheck | None]) -> TypeCheck | None:
    known = [check for check in checks if check is not None]
    if len(known) < len(checks):
        return None
    words = " or ".join(dict.fromkeys(check.words for check in known))
    record = next((check.record for check in known if check.record is not None), None)
    return TypeCheck(words, lambda value: any(check.allows(value) for check in known), record)


def _container(kind: type, parts: tuple[object, ...]) -> TypeCheck:
    if kind is type:
        return TypeCheck("a class", lambda value: isinstance(value, type))
    if issubclass(kind, Iterable) and not issubclass(kind, Mapping) and _of_pairs(parts):
        return TypeCheck(
            f"{_named(kind)} of pairs",
            lambda value: isinstance(value, kind) and not isinstance(value, str | bytes),
        )
    if issubclass(kind, Iterable) and not issubclass(kind, Mapping) and str in parts:
        # A text is a sequence of texts, too, and rarely meant to be.
        return TypeCheck(
            f"{_named(kind)} of texts",
            lambda value: isinstance(value, kind) and not isinstance(value, str | bytes),
        )
    return TypeCheck(_named(kind), lambda value: isinstance(value, kind))


def _of_pairs(parts: tuple[object, ...]) -> bool:
    return len(parts) == 1 and get_origin(parts[0]) is tuple


def _interface(interface: Any) -> TypeCheck:  # Any: of zope, which the core does not import
    name = interface.__name__
    members = list(interface.names(all=True))
    # What has the methods without declaring it will do.
    return TypeCheck(
        "a reactor" if name.startswith("IReactor") else f"an {name}",
        lambda value: (
            interface.providedBy(value)
            or (not isinstance(value, type) and all(hasattr(value, each) for each in members))
        ),
    )


def _protocol(protocol: type) -> TypeCheck:
    if protocol.__name__.endswith("Reactor"):
        return _REACTOR
    members = [
        name
        for base in protocol.__mro__
        if getattr(base, "_is_protocol", False)
        for name in vars(base)
        if not name.startswith("_") or name == "__call__"
    ]
    return TypeCheck(
        f"a {protocol.__name__}",
        lambda value: not isinstance(value, type) and all(hasattr(value, name) for name in members),
    )


def _resolved_annotations(function: Callable[..., object]) -> dict[str, object]:
    """Return the annotations of the parameters that can be resolved."""
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    annotations = getattr(function, "__annotations__", {})
    resolved = {
        name: _resolved(annotation, scope)
        for name, annotation in annotations.items()
        if name != "return"
    }
    return {name: annotation for name, annotation in resolved.items() if annotation is not Any}


def _resolved(annotation: object, scope: dict[str, Any]) -> object:
    """Return an annotation that may be text as what it means; Any if a name is not there."""
    if not isinstance(annotation, str):
        return Any if annotation is inspect.Parameter.empty else annotation
    try:
        resolved: object = eval(_compiled(annotation), scope)  # of our own source
    except (NameError, TypeError, AttributeError):
        return Any
    return resolved


@cache
def _compiled(annotation: str) -> CodeType:
    return compile(annotation, "<annotation>", "eval")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_reactor(value: object) -> bool:
    return not isinstance(value, type) and hasattr(value, "callLater") and hasattr(value, "seconds")


def _named(kind: type) -> str:
    known = _WORDS.get(kind)
    if known is not None:
        return known
    return f"{'an' if kind.__name__[0] in 'AEIOUaeiou' else 'a'} {kind.__name__}"


def shown(value: object) -> str:
    """Return what a value is, in words, for messages; not the value, which may be secret."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return _named(type(value))


_REACTOR = TypeCheck("a reactor", _is_reactor)
_WORDS: dict[type, str] = {
    NoneType: "None",
    bool: "true or false",
    bytes: "bytes",
    dict: "a dict",
    float: "a number",
    int: "an integer",
    list: "a list",
    str: "text",
    tuple: "a tuple",
    Collection: "a collection",
    Iterable: "an iterable",
    Mapping: "a mapping",
    Sequence: "a sequence",
    UnsetType: "UNSET",
}
