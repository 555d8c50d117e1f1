"""Request bodies: what ``json``, ``data`` and ``files`` of a call become."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from inspect import isawaitable
from os import PathLike
from types import AsyncGeneratorType, GeneratorType
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import msgspec
from attrs import field, frozen
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer

from twisted_net.config.type_checks import shown
from twisted_net.http.bodies import BytesProducer
from twisted_net.http.calls.http_request import encoded_text
from twisted_net.http.calls.multipart import Files, multipart_form
from twisted_net.http.calls.upload import (
    PieceProducer,
    ReadableFile,
    check_readable,
    file_length,
    file_pieces,
)

FormValue = str | bytes | int | float | bool | None
Form = (
    Mapping[str, FormValue | Sequence[FormValue]]
    | Sequence[tuple[str, FormValue | Sequence[FormValue]]]
)
"""A form or query: names and values, by mapping or in pairs; a list stands for several values."""

Data = (
    bytes
    | bytearray
    | memoryview
    | str
    | Form
    | ReadableFile
    | Iterator[bytes | str]
    | AsyncIterable[bytes | str]
    | IBodyProducer
)
"""What ``data`` may be; see :class:`~twisted_net.http.calls.options.RequestOptions`."""

FORM_TYPE = "application/x-www-form-urlencoded"


@frozen(slots=True)
class RequestBody:
    """
    The body of a request.

    :param data: in memory, which can be sent any number of times.
    :param once: returns the producer of a body that can be sent once.
    """

    data: bytes | None = None
    once: Callable[[], IBodyProducer] | None = field(default=None, repr=False)

    @property
    def replayable(self) -> bool:
        """Whether it can be sent again."""
        return self.once is None

    def producer(self) -> IBodyProducer | None:
        """Return what sends it; None for an empty body, which is sent as none."""
        if self.once is not None:
            return self.once()
        return BytesProducer(self.data) if self.data else None


NO_BODY = RequestBody()


def request_body(options: Mapping[str, Any], headers: Headers) -> RequestBody:  # Any: of all types
    """
    Return the body for the options of a call; its type is added to *headers* if it has one.

    :raises TypeError: for options that exclude each other, and for data in no known form.
    :raises ValueError: for data that has nothing to send: a closed file, a generator that has
        ended; and for a text with a surrogate.
    """
    data, files = options.get("data"), options.get("files")
    if "json" in options:
        if data is not None or files:
            raise TypeError("Client: json cannot be combined with data or files")
        _set_type(headers, "application/json")
        return json_body(options["json"])
    if files:
        return _with_files(data, files, headers)
    if data is None:
        return NO_BODY
    if isinstance(data, bytes):
        return RequestBody(data)
    if isinstance(data, str):
        return RequestBody(encoded_text(data, "Client: data"))
    if isinstance(data, bytearray | memoryview):
        return RequestBody(bytes(data))
    if isinstance(data, Mapping | list | tuple):
        _set_type(headers, FORM_TYPE)
        return RequestBody(encoded_form(form_pairs(data, "data")).encode())
    return _sent_once(data)


def json_body(value: Any) -> RequestBody:  # Any: whatever msgspec encodes
    """
    Return a value as a body.

    :raises TypeError: for a value that JSON does not have.
    """
    try:
        return RequestBody(msgspec.json.encode(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"Client: json cannot be encoded: {error}") from None


def _with_files(data: object, files: Files, headers: Headers) -> RequestBody:
    fields = [] if data is None else form_pairs(data, "data")
    form = multipart_form(fields, files, secrets.token_hex(16))
    # It replaces any other: the receiver needs the boundary.
    headers.setRawHeaders(b"content-type", [form.content_type.encode()])
    whole = form.in_memory()
    if whole is not None:
        return RequestBody(whole)
    return RequestBody(once=lambda: PieceProducer(form.pieces(), form.length()))


def _sent_once(data: Any) -> RequestBody:  # Any: what a caller passed
    if IBodyProducer.providedBy(data):
        return RequestBody(once=lambda: data)
    if _is_used_up(data):
        raise ValueError("Client: data is a generator that is used up: call its function again")
    if isinstance(data, AsyncIterable):
        # Before files: a StreamedResponse, and files of asynchronous libraries, have a read(), too.
        return RequestBody(once=lambda: PieceProducer(data))
    if callable(getattr(data, "read", None)):
        check_readable(data, "Client: data")
        return RequestBody(once=lambda: PieceProducer(file_pieces(data), file_length(data)))
    if isinstance(data, Iterator):
        return RequestBody(once=lambda: PieceProducer(data))
    if isawaitable(data):
        hint = "; await it first"
    elif isinstance(data, PathLike):
        hint = '; open it: open(path, "rb")'
    elif callable(data):
        hint = "; call it, if it returns the body"
    elif isinstance(data, Iterable):
        # A set, a range: rarely meant to be a body, and in no order that is promised.
        hint = "; pass iter(…) of it, if its items are the pieces of the body"
    else:
        hint = "; json=… sends any value as JSON"
    raise TypeError(
        "Client: data must be bytes, text, a form (a mapping or a list of pairs), a file, or an"
        f" iterator of bytes, not {shown(data)}{hint}"
    )


def _is_used_up(data: object) -> bool:
    """Return whether a generator has ended: it would be sent as an empty body."""
    if isinstance(data, AsyncGeneratorType):
        return data.ag_frame is None
    return isinstance(data, GeneratorType) and data.gi_frame is None


def form_pairs(form: object, label: str) -> list[tuple[str, str]]:
    """
    Return the names and values of a form or a query, in order, several values one by one.

    None stands for no value at all; true and false are written so.

    :param label: of the argument, for messages.
    :raises TypeError: for anything that is no :data:`Form`.
    """
    pairs: list[tuple[str, str]] = []
    for name, value in _items(form, label):
        values = value if isinstance(value, list | tuple) else [value]
        pairs += [
            (_word(name, label), _word(each, f"{label}: the value of {name}"))
            for each in values
            if each is not None
        ]
    return pairs


def form_names(form: object) -> set[str]:
    """Return the names of a form that was checked."""
    return {_word(name, "") for name, _ in _items(form, "")}


def encoded_form(pairs: list[tuple[str, str]]) -> str:
    """Encode a form (WHATWG URL §5): a space is a plus sign."""
    return urlencode(pairs, errors="surrogateescape", quote_via=quote_plus)


def add_params(url: str, pairs: list[tuple[str, str]]) -> str:
    """Return a URL with names and values added to its query, in UTF-8 with percent-encoding."""
    if not pairs:
        return url
    base, hash_sign, fragment = url.partition("#")
    joint = "&" if "?" in base else "?"
    if base.endswith(("?", "&")):
        joint = ""
    query = urlencode(pairs, errors="surrogateescape", quote_via=quote, safe="")
    return f"{base}{joint}{query}{hash_sign}{fragment}"


def _items(form: object, label: str) -> list[tuple[Any, Any]]:  # Any: checked by the caller
    if isinstance(form, Mapping):
        return list(form.items())
    if isinstance(form, list | tuple):
        for item in form:
            if not isinstance(item, list | tuple) or len(item) != 2:
                raise TypeError(f"Client: {label}: a list must be of pairs of a name and a value")
        return [(name, value) for name, value in form]
    raise TypeError(f"Client: {label} must be a mapping or a list of pairs, not {shown(form)}")


def _word(value: object, label: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        _check_octets(value, label)
        return value
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    raise TypeError(
        f"Client: {label} must be text, bytes, a number, true or false, not {shown(value)}"
    )


def _check_octets(text: str, label: str) -> None:
    try:
        # As it is sent: the octets of a name of a file that is not UTF-8 are, too.
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError(f"Client: {label} has a surrogate, which is no character") from None


def _set_type(headers: Headers, content_type: str) -> None:
    if not headers.hasHeader(b"content-type"):
        headers.setRawHeaders(b"content-type", [content_type.encode()])
