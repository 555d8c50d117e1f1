"""Commands as CoAP resources: arguments from a request, response codes and payloads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2s
from itertools import chain
from typing import Any
from urllib.parse import quote

import msgspec

from twisted_net.coap.codec import JSON, LINK_FORMAT, TEXT, CoapRequestOptions, Code
from twisted_net.commands.arguments import split_arguments
from twisted_net.commands.registry import Command, Commands, Kind, encode_error
from twisted_net.errors import (
    AuthRequired,
    BadArguments,
    BadQuotes,
    BadTopic,
    CommandTimeout,
    ControlCharacter,
    EmptyMessage,
    FetchError,
    Internal,
    NotUTF8,
    OutOfThreads,
    RateLimited,
    TooBusy,
    TwistedNetError,
    UnknownCommand,
)
from twisted_net.net.characters import check_control_characters, decode_utf8
from twisted_net.net.untrusted_json import JsonDecoder
from twisted_net.sessions.session import Session

EVENTS = "events"
"""Path of the resource that is the last event broadcast to clients."""

TOPICS = "topics"
"""First segment of the path of each topic; the topic is the second: ``/topics/shop.orders``."""

CORE = ".well-known/core"
"""Path of the list of resources (RFC 6690)."""

MAX_DIAGNOSTIC = 256
"""Bytes of the longest diagnostic payload: an error fits one datagram with all its options."""

MAX_FILTERS = 8
"""Filters in one request for the list of resources; each is compared with every link."""

RETRY_AFTER = 5
"""Seconds after which a client may retry: Max-Age of 4.29 and 5.03 (RFC 7252 §5.9.3.4)."""


class RequestRefused(Exception):
    """A request is answered with this error code, before a command runs."""

    def __init__(self, code: Code, diagnostic: str) -> None:
        super().__init__(diagnostic)
        self.code = code


class ResourceResponse:
    """
    Response of a resource, before its blocks, its message type and its token are chosen.

    :ivar content_format: None for the diagnostic payload of an error, or for no payload.
    :ivar max_age: seconds, or None for the default of 60 (RFC 7252 §5.10.5).
    """

    __slots__ = ("_etag", "code", "content_format", "max_age", "payload")

    def __init__(
        self,
        code: int,
        payload: bytes = b"",
        content_format: int | None = None,
        max_age: int | None = None,
    ) -> None:
        self.code = code
        self.payload = payload
        self.content_format = content_format
        self.max_age = max_age
        self._etag: bytes | None = None

    @property
    def etag(self) -> bytes:
        """Value of the ETag option: 6 bytes of a digest of the payload."""
        # Made once: each block has it, and a peer may ask for 65,536 blocks of one body.
        if self._etag is None:
            self._etag = blake2s(self.payload, digest_size=6).digest()
        return self._etag

    def __len__(self) -> int:
        """Bytes of the payload, for the limit of bodies in transfer."""
        return len(self.payload)


def find_command(commands: Commands, path: Sequence[str], admin: bool = False) -> Command:
    """
    Return the command whose name is this path, in any case.

    :param admin: whether it may be an administrative one.
    :raises RequestRefused: if there is none.
    """
    command = commands.get(path[0]) if len(path) == 1 else None
    if command is None or not is_served(command, admin):
        raise RequestRefused(Code.NOT_FOUND, f"no resource /{'/'.join(path)}; see /{CORE}")
    return command


def is_served(command: Command, admin: bool = False) -> bool:
    """
    Return whether a command is a resource.

    Those that need a connection are not: a peer is identified by an address that can be forged, so
    that it cannot log in, and it has topics and events as resources of their own.

    :param admin: whether administrative ones are too: for a user, whom a certificate names.
    """
    return not command.connected and (admin or not command.admin)


def check_request(
    method: int, options: CoapRequestOptions, formats: tuple[int, ...], methods: tuple[Code, ...]
) -> None:
    """
    Check the method, Accept and the preconditions of a request.

    :param formats: content formats of the resource.
    :param methods: those that are allowed.
    :raises RequestRefused: with the code of RFC 7252 §5.8, §5.9 or §5.10.
    """
    if method not in methods:
        allowed = " or ".join(each.name for each in methods)
        raise RequestRefused(Code.METHOD_NOT_ALLOWED, f"this resource takes {allowed}")
    if options.accept is not None and options.accept not in formats:
        offered = ", ".join(map(str, formats))
        raise RequestRefused(Code.NOT_ACCEPTABLE, f"content formats here: {offered}")
    # All resources exist, and their ETags do not last (RFC 7252 §5.10.8).
    if options.if_none_match or (options.if_match and b"" not in options.if_match):
        raise RequestRefused(
            Code.PRECONDITION_FAILED, "the resource exists, and has no ETag to match"
        )


def check_texts(options: CoapRequestOptions) -> None:
    """
    Check the path and the queries of a request as a line is checked.

    :raises NotUTF8, ControlCharacter: for the first of them that is not valid as a line.
    """
    if options.not_utf8 is not None:
        raise options.not_utf8
    for text in options.path:
        check_control_characters(text)
    for text in options.queries:
        check_control_characters(text)


def check_format(options: CoapRequestOptions) -> None:
    """
    Check the content format of a payload of a command.

    :raises RequestRefused: if it is not text or JSON.
    """
    if options.content_format not in (None, TEXT, JSON):
        raise RequestRefused(
            Code.UNSUPPORTED_CONTENT_FORMAT, f"content formats taken here: {TEXT}, {JSON}"
        )


def command_arguments(
    options: CoapRequestOptions, payload: bytes, command: Command | None = None
) -> list[str]:
    """
    Return the arguments of a command: each Uri-Query is one, and those of the payload follow.

    A JSON payload may have arrays and objects, too, for a command that takes JSON.

    A text payload is split as a line is, without its line end; a JSON payload is an array of
    strings, numbers and booleans, each one argument.

    :raises RequestRefused: for another content format.
    :raises NotUTF8, ControlCharacter, BadQuotes: for text that is not valid as a line, also in a
        query or a string.
    :raises BadArguments: for JSON that is not such an array.
    """
    queries = list(options.queries)
    if queries:
        check_texts(options)
    if not payload:
        return queries
    tail = 0 if command is None else command.tail
    if options.content_format == JSON:
        return queries + _json_arguments(payload, nested=tail > 0)
    check_format(options)
    text = decode_utf8(payload).removesuffix("\n").removesuffix("\r")
    return queries + split_arguments(text, max(tail - len(queries), 0))


def command_response(method: int, line: bytes, accept: int | None) -> ResourceResponse:
    """
    Return the response that carries the answer of a command.

    :param line: the answer as it is sent over TCP. As JSON it is the payload, without its line
        end. As text the payload is its result; the result's JSON if that is not a string.
    :param accept: the requested format; None for text if the result is a string, else JSON.
    """
    code = _CHANGED if method == _POST else _CONTENT
    if accept == JSON:
        return ResourceResponse(code, line[:-1], JSON)
    # Most results are strings without quotes: finding this out is faster than decoding.
    before, result_follows, rest = line.partition(b'","result":"')
    plain = rest.endswith(b'"}\n') and rest.find(b'"') == len(rest) - 3 and _BACKSLASH not in rest
    if result_follows and plain and before.count(b'"') == 3:
        return ResourceResponse(code, rest[:-3], TEXT)
    result = _decode_line(line).result
    if type(result) is str:
        return ResourceResponse(code, result.encode(), TEXT)
    if accept is None:
        return ResourceResponse(code, line[:-1], JSON)
    return ResourceResponse(code, line[:-1] if result is msgspec.UNSET else _encode(result), TEXT)


def error_response(
    error: TwistedNetError, command: str | None, accept: int | None
) -> ResourceResponse:
    """
    Return the response for an error of a command: its message as a diagnostic payload.

    With JSON the payload is what TCP clients receive, with the error's stable code.
    """
    if isinstance(error, AuthRequired):
        error = AuthRequired(_HOW_TO_LOG_IN)  # AUTH is no resource
    code = _code_of(error)
    later = code in (Code.SERVICE_UNAVAILABLE, Code.TOO_MANY_REQUESTS)
    max_age = RETRY_AFTER if later else None
    if accept == JSON:
        return ResourceResponse(code, encode_error(error, command)[:-1], JSON, max_age)
    return ResourceResponse(code, diagnostic(str(error)), None, max_age)


def diagnostic(sentence: str) -> bytes:
    """Return a message as a diagnostic payload; a long one is cut between characters."""
    payload = sentence.encode()
    if len(payload) <= MAX_DIAGNOSTIC:
        return payload
    return payload[: MAX_DIAGNOSTIC - 3].decode(errors="ignore").encode() + "…".encode()


def link_format(
    commands: Commands,
    observable: Iterable[str],
    queries: Sequence[str],
    session: Session | None = None,
    topics: Iterable[str] = (),
) -> bytes:
    """
    Return the list of resources in link format (RFC 6690).

    :param observable: paths of the resources that can be observed, beside the topics.
    :param queries: filters (§4.1): ``href=/time`` or ``title=The*``; a link must match all.
    :param session: of the peer, where users are configured: what it may not use is not listed.
    :param topics: the topics to list.
    :raises RequestRefused: for a query that is not a filter, and for over :data:`MAX_FILTERS`.
    """
    if len(queries) > MAX_FILTERS:
        raise RequestRefused(Code.BAD_REQUEST, f"at most {MAX_FILTERS} filters, not {len(queries)}")
    filters = []
    for query in queries:
        name, equals, value = query.partition("=")
        if not equals:
            raise RequestRefused(Code.BAD_REQUEST, f"a filter is name=value, not {query[:64]}")
        filters.append((name, value))
    observed = set(observable)
    shown = []
    for target, attributes in chain(_links(commands, session), _topic_links(topics)):
        if target[1:] in observed:
            attributes["obs"] = ""
        if all(_matches(target, attributes, *filter_) for filter_ in filters):
            parts = [f"<{target}>"]
            for name, value in attributes.items():
                parts.append(f'{name}="{value}"' if value else name)
            shown.append(";".join(parts))
    return ",".join(shown).encode()


def _links(commands: Commands, session: Session | None) -> Iterator[tuple[str, dict[str, str]]]:
    yield f"/{CORE}", {"ct": str(LINK_FORMAT)}
    for command in commands:
        if not (is_served(command) if session is None else _is_usable(command, session)):
            continue
        title = command.help.replace("\\", "\\\\").replace('"', '\\"')
        methods = "get fetch post" if command.safe else "post"
        formats = f"{TEXT} {JSON}"
        attributes = {"title": title} if title else {}
        yield f"/{command.name.lower()}", {**attributes, "if": methods, "ct": formats}
    permissions = None if session is None else session.permissions
    if permissions is None or permissions.hears_broadcasts:
        yield (
            f"/{EVENTS}",
            {"title": "The last event broadcast to clients.", "if": "get", "ct": str(JSON)},
        )


def _topic_links(topics: Iterable[str]) -> Iterator[tuple[str, dict[str, str]]]:
    formats = f"{TEXT} {JSON}"
    for topic in topics:
        target = f"/{TOPICS}/{quote(topic, safe='')}"
        yield target, {"if": "get post", "ct": formats, "obs": ""}


def _is_usable(command: Command, session: Session) -> bool:
    is_resource = is_served(command, admin=session.user is not None)
    return is_resource and session.may_run(command.name, command.admin)


def _matches(target: str, attributes: dict[str, str], name: str, wanted: str) -> bool:
    value = target if name == "href" else attributes.get(name)
    if value is None:
        return False
    # Attributes such as "if" and "ct" are lists of words, one of which must match.
    candidates = [value] if name in ("href", "title") else value.split() or [""]
    if wanted.endswith("*"):
        return any(candidate.startswith(wanted[:-1]) for candidate in candidates)
    return wanted in candidates


def observable_commands(
    commands: Commands, names: Iterable[str] | None = None
) -> dict[str, Command]:
    """
    Return the commands that can be observed, by path: safe ones that never wait.

    :param names: of those commands; None for those that are declared so, and STATS.
    :raises ValueError: for a name of anything else.
    """
    found = {}
    declared = [command.name for command in commands if command.observable]
    for name in ("STATS", *declared) if names is None else names:
        command = commands.get(name)
        if (
            command is not None
            and is_served(command)
            and command.safe
            and command.kind is Kind.PLAIN
            and command.rate is None
        ):
            found[command.name.lower()] = command
        elif names is not None:
            raise ValueError(
                f"observable: {name} cannot be observed; name a command that is safe, and whose "
                "handler is a plain function"
            )
    return found


class _CommandAnswer(msgspec.Struct):
    result: Any = msgspec.UNSET  # Any: any JSON


_decode_line = msgspec.json.Decoder(_CommandAnswer).decode
_decode_nested: JsonDecoder[list[str | bool | int | float | list[object] | dict[str, object]]] = (
    JsonDecoder(list[str | bool | int | float | list[object] | dict[str, object]])
)
_decode_array: JsonDecoder[list[str | bool | int | float]] = JsonDecoder(
    list[str | bool | int | float]
)
_encode = msgspec.json.Encoder().encode


def _json_arguments(payload: bytes, *, nested: bool = False) -> list[str]:
    try:
        values = _decode_nested(payload) if nested else _decode_array(payload)
    except ValueError as error:
        raise BadArguments(
            f"a JSON payload is an array of strings, numbers and booleans: {error}"
        ) from None
    for value in values:
        if isinstance(value, str):
            check_control_characters(value)
    return [value if isinstance(value, str) else _encode(value).decode() for value in values]


_HOW_TO_LOG_IN = "over DTLS, with the certificate or the pre-shared key of a user"

_POST, _CONTENT, _CHANGED = Code.POST, Code.CONTENT, Code.CHANGED
_BACKSLASH = ord("\\")  # an int: looking for bytes in bytes takes ten times as long

# Subclasses before their bases: the first match is used.
_CODES: tuple[tuple[type[TwistedNetError], Code], ...] = (
    (BadArguments, Code.BAD_REQUEST),
    (BadQuotes, Code.BAD_REQUEST),
    (BadTopic, Code.BAD_REQUEST),
    (EmptyMessage, Code.BAD_REQUEST),
    (NotUTF8, Code.BAD_REQUEST),
    (ControlCharacter, Code.BAD_REQUEST),
    (AuthRequired, Code.UNAUTHORIZED),
    (RateLimited, Code.TOO_MANY_REQUESTS),
    (UnknownCommand, Code.NOT_FOUND),
    (TooBusy, Code.SERVICE_UNAVAILABLE),
    (OutOfThreads, Code.SERVICE_UNAVAILABLE),
    (CommandTimeout, Code.GATEWAY_TIMEOUT),
    (Internal, Code.INTERNAL_SERVER_ERROR),
)


# By their codes on the wire: this package does not import twisted_net.http, which raises them.
_FETCH_CODES = {
    "invalid_url": Code.BAD_REQUEST,
    "address_refused": Code.FORBIDDEN,
    "fetch_timeout": Code.GATEWAY_TIMEOUT,
}


def _code_of(error: TwistedNetError) -> Code:
    if isinstance(error, FetchError):
        return _FETCH_CODES.get(error.code, Code.BAD_GATEWAY)
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    # An error of the command's own, for a reason other than the form of the request.
    return Code.FORBIDDEN
