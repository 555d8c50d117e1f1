"""A request as hooks and functions for ``auth`` see it, before it is sent."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, NoReturn

from attrs import Attribute, define, field
from twisted.web.http_headers import Headers
from typing_extensions import override

from twisted_net.config.type_checks import shown
from twisted_net.http.fields import TOKEN


class RequestFields(MutableMapping[str, str]):
    """
    The header fields of a request, which can be changed: ``fields["X-Name"] = "value"``.

    Names are in any case. The lines of a field are joined by ``", "``; setting it replaces them
    all.

    :param headers: Twisted's, which it reads and changes.
    """

    def __init__(self, headers: Headers) -> None:
        self._headers = headers

    @override
    def __getitem__(self, name: str) -> str:
        values = self._headers.getRawHeaders(name.encode())
        if not values:
            raise KeyError(name)
        return ", ".join(value.decode("latin-1") for value in values)

    @override
    def __setitem__(self, name: str, value: str) -> None:
        """
        Replace a field.

        :raises TypeError: for a value that is not text.
        :raises ValueError: for a line break or a surrogate in it, or a name that is none.
        """
        if not isinstance(value, str):
            raise TypeError(f"headers: the value of {name} must be text, not {shown(value)}")
        self.set_bytes(name, encoded_text(value, f"headers: the value of {name}"))

    def set_bytes(self, name: str, value: bytes) -> None:
        """Replace a field by a value as it is sent; see :meth:`__setitem__`."""
        check_field(name, value, "headers")
        self._headers.setRawHeaders(name.encode(), [value])

    @override
    def __delitem__(self, name: str) -> None:
        if not self._headers.hasHeader(name.encode()):
            raise KeyError(name)
        self._headers.removeHeader(name.encode())

    @override
    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._headers.hasHeader(name.encode())

    @override
    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1").lower() for name, _ in self._headers.getAllRawHeaders())

    @override
    def __len__(self) -> int:
        return sum(1 for _ in self._headers.getAllRawHeaders())


def is_token(text: str) -> bool:
    """Return whether a text is a token (RFC 9110 §5.6.2), as names of fields and methods are."""
    return TOKEN.fullmatch(text) is not None


def check_field(name: object, value: object, label: str) -> None:
    """
    Check a header field of a request (RFC 9110 §5).

    :param label: of the argument, for messages.
    :raises TypeError: for a name or value that is neither text nor bytes.
    :raises ValueError: for a name that is no token, and for line breaks and NUL in the value.
    """
    if not isinstance(name, str | bytes):
        raise TypeError(f"{label}: the name of a field must be text, not {shown(name)}")
    text = name if isinstance(name, str) else name.decode("latin-1")
    if not is_token(text):
        raise ValueError(f"{label}: {text[:40]!r} is no name of a field: a word of ASCII is one")
    if not isinstance(value, str | bytes):
        raise TypeError(f"{label}: the value of {text} must be text, not {shown(value)}")
    for control in ("\r", "\n", "\0"):
        if (control if isinstance(value, str) else control.encode()) in value:  # type: ignore[operator]  # both of one type
            # Its value may be a secret, and is not shown.
            raise ValueError(f"{label}: the value of {text} must have no line break and no NUL")


def encoded_text(value: str | bytes, label: str) -> bytes:
    """
    Return a text as it is sent, as UTF-8, and bytes unchanged.

    :param label: what it is, for messages.
    :raises ValueError: for a surrogate in it, which UTF-8 has no form for.
    """
    if isinstance(value, bytes):
        return value
    try:
        return value.encode()
    except UnicodeEncodeError:
        # The text may be a secret, and is not shown.
        raise ValueError(f"{label} has a surrogate, which is no character") from None


def _refuse_change(request: HttpRequest, attribute: Attribute[Any], value: object) -> NoReturn:
    raise AttributeError(f"HttpRequest: only its headers can be changed, not {attribute.name}")


@define(eq=False, on_setattr=_refuse_change)
class HttpRequest:
    """
    A request of a call, before its cookies are added and it is sent.

    A hook and a function for ``auth`` may change the fields in :attr:`headers`, and nothing else.

    :param method: in upper case.
    :param url: absolute and encoded, without user name and password.
    :param headers: its fields, which may be secret: they are not shown by ``repr``.
    :param body: in memory; None if there is none, or if it is read from a file or an iterator.
    """

    method: str
    url: str
    headers: RequestFields = field(repr=False)
    body: bytes | None = field(default=None, repr=False)
