"""Commands as CoAP resources: arguments out of a request, payloads and codes out of answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from twisted_net.coap.codec import JSON, LINK_FORMAT, TEXT, Code, RequestOptions
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
    RateLimited,
    TooBusy,
    TwistedNetError,
    UnknownCommand,
)

EVENTS = "events"
"""The path of the resource that is the last event broadcast to clients."""

CORE = ".well-known/core"
"""The path of the list of resources (RFC 6690)."""

LONGEST_DIAGNOSTIC = 256
"""Bytes of a diagnostic payload, so that an error fits one datagram with all its options."""

MOST_FILTERS = 8
"""Filters in one request for the list of resources, each of which is held against every link."""

RETRY_AFTER = 5
"""Seconds in which a client that found the server busy may come again (Max-Age of 4.29, 5.03)."""


class Refused(Exception):
    """A request is refused for what it is, with this code, before anything was run."""

    def __init__(self, code: Code, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class Reply:
    """
    A response, before it is known how it travels.

    :ivar content_format: None for the diagnostic payload of an error, or for no payload.
    :ivar max_age: seconds, or None for the 60 of RFC 7252 §5.10.5.
    """

    __slots__ = ("code", "content_format", "max_age", "payload")

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

    def __len__(self) -> int:
        """The bytes that it is worth in a store of bodies."""
        return len(self.payload)


def find_command(commands: Commands, path: Sequence[str], admin: bool = False) -> Command:
    """
    Give the command whose name is this path, in any case.

    :param admin: whether it may be an administrative one.
    :raises Refused: where there is none.
    """
    command = commands.get(path[0]) if len(path) == 1 else None
    if command is None or not (is_served(command) or (admin and not command.alone)):
        raise Refused(Code.NOT_FOUND, f"no resource /{'/'.join(path)}; see /{CORE}")
    return command


def is_served(command: Command) -> bool:
    """
    Tell whether a command is a resource.

    Administrative ones are not, nor are those that change what a client may do: a peer is known
    by an address that others can forge, so that nobody can log in. Over DTLS a certificate may
    name a user, who then has the administrative ones, unlisted.
    """
    return not command.admin and not command.alone


def check_request(
    method: int, options: RequestOptions, formats: tuple[int, ...], *, safe: bool, post: bool
) -> None:
    """
    Check what can be checked of a request before it is run.

    :param formats: in which an answer can be given.
    :param safe: whether GET is allowed.
    :param post: whether POST is.
    :raises Refused: with the code of RFC 7252 §5.8, §5.9 or §5.10.
    """
    if not (method == _GET and safe) and not (method == _POST and post):
        allowed = " or ".join(name for name, is_ in (("GET", safe), ("POST", post)) if is_)
        raise Refused(Code.METHOD_NOT_ALLOWED, f"this resource takes {allowed}")
    if options.accept is not None and options.accept not in formats:
        offered = ", ".join(map(str, formats))
        raise Refused(Code.NOT_ACCEPTABLE, f"content formats here: {offered}")
    # Resources exist, and have no ETag that lasts (RFC 7252 §5.10.8).
    if options.if_none_match or (options.if_match and b"" not in options.if_match):
        raise Refused(Code.PRECONDITION_FAILED, "the resource is there, without an ETag to match")


def arguments(options: RequestOptions, payload: bytes) -> list[str]:
    """
    Give a command's arguments: each query of the URI is one, and those of the payload follow.

    A payload of text is split as a line is, its end dropped; one of JSON is an array of
    texts, numbers and booleans, each one argument.

    :raises Refused: for a content format other than these.
    :raises NotUTF8, ControlCharacter, BadQuotes: for text that no line could hold.
    :raises BadArguments: for JSON that is no such array.
    """
    queries = list(options.queries)
    if not payload:
        return queries
    if options.content_format == JSON:
        return queries + _json_arguments(payload)
    if options.content_format not in (None, TEXT):
        raise Refused(
            Code.UNSUPPORTED_CONTENT_FORMAT, f"content formats taken here: {TEXT}, {JSON}"
        )
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise NotUTF8(error.start, payload[error.start]) from None
    return queries + split_arguments(text.removesuffix("\n").removesuffix("\r"))


def reply_with(method: int, line: bytes, accept: int | None) -> Reply:
    """
    Make a reply of a command's answer.

    :param line: as TCP sends it. As JSON it is the payload, without its end. As text the payload
        is the result; the JSON of it where that is no text.
    :param accept: None for text where the result is text, else JSON.
    """
    code = _CONTENT if method == _GET else _CHANGED
    if accept == JSON:
        return Reply(code, line[:-1], JSON)
    # Most answers are a text without quotes: that is found sooner than it is decoded.
    before, result_follows, rest = line.partition(b'","result":"')
    plain = rest.endswith(b'"}\n') and rest.find(b'"') == len(rest) - 3 and _BACKSLASH not in rest
    if result_follows and plain and before.count(b'"') == 3:
        return Reply(code, rest[:-3], TEXT)
    result = _decode_line(line).result
    if type(result) is str:
        return Reply(code, result.encode(), TEXT)
    if accept is None:
        return Reply(code, line[:-1], JSON)
    return Reply(code, line[:-1] if result is msgspec.UNSET else _encode(result), TEXT)


def refusal(error: TwistedNetError, command: str | None, accept: int | None) -> Reply:
    """
    Make a reply of the error with which a command ended: the sentence, as a diagnostic payload.

    A client that accepts JSON gets what TCP clients get, with the error's stable code.
    """
    code = _code_of(error)
    later = code in (Code.SERVICE_UNAVAILABLE, Code.TOO_MANY_REQUESTS)
    max_age = RETRY_AFTER if later else None
    if accept == JSON:
        return Reply(code, encode_error(error, command)[:-1], JSON, max_age)
    return Reply(code, diagnostic(str(error)), None, max_age)


def diagnostic(sentence: str) -> bytes:
    """Give a sentence as a diagnostic payload, cut between characters where it is too long."""
    payload = sentence.encode()
    if len(payload) <= LONGEST_DIAGNOSTIC:
        return payload
    return payload[: LONGEST_DIAGNOSTIC - 3].decode(errors="ignore").encode() + "…".encode()


def links(commands: Commands, observable: Iterable[str], queries: Sequence[str]) -> bytes:
    """
    List the resources in link format (RFC 6690).

    :param observable: paths of those that can be observed.
    :param queries: filters (§4.1): ``href=/time`` or ``title=The*``; a link must pass each one.
    :raises Refused: for a query that is no filter, and for more than :data:`MOST_FILTERS`.
    """
    if len(queries) > MOST_FILTERS:
        raise Refused(Code.BAD_REQUEST, f"at most {MOST_FILTERS} filters, not {len(queries)}")
    filters = []
    for query in queries:
        name, equals, value = query.partition("=")
        if not equals:
            raise Refused(Code.BAD_REQUEST, f"a filter is name=value, not {query[:64]}")
        filters.append((name, value))
    watched = set(observable)
    shown = []
    for target, attributes in _links(commands):
        if target[1:] in watched:
            attributes["obs"] = ""
        if all(_passes(target, attributes, *filter_) for filter_ in filters):
            parts = [f"<{target}>"]
            for name, value in attributes.items():
                parts.append(f'{name}="{value}"' if value else name)
            shown.append(";".join(parts))
    return ",".join(shown).encode()


def _links(commands: Commands) -> Iterator[tuple[str, dict[str, str]]]:
    yield f"/{CORE}", {"ct": str(LINK_FORMAT)}
    for command in filter(is_served, commands):
        title = command.help.replace("\\", "\\\\").replace('"', '\\"')
        methods = "get post" if command.safe else "post"
        formats = f"{TEXT} {JSON}"
        yield f"/{command.name.lower()}", {"title": title, "if": methods, "ct": formats}
    yield (
        f"/{EVENTS}",
        {"title": "The last event, as clients get it.", "if": "get", "ct": str(JSON)},
    )


def _passes(target: str, attributes: dict[str, str], name: str, wanted: str) -> bool:
    value = target if name == "href" else attributes.get(name)
    if value is None:
        return False
    # Attributes such as "if" and "ct" are lists of words, of which one has to match.
    candidates = [value] if name in ("href", "title") else value.split() or [""]
    if wanted.endswith("*"):
        return any(candidate.startswith(wanted[:-1]) for candidate in candidates)
    return wanted in candidates


def observable_commands(commands: Commands, names: Iterable[str]) -> dict[str, Command]:
    """Give those of the named commands that can be observed, by path: safe and never waiting."""
    found = {}
    for name in names:
        command = commands.get(name)
        if (
            command is not None
            and is_served(command)
            and command.safe
            and command.kind is Kind.PLAIN
        ):
            found[command.name.lower()] = command
    return found


class _Line(msgspec.Struct):
    result: Any = msgspec.UNSET  # Any: whatever a command gave


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_array = msgspec.json.Decoder(list[str | bool | int | float]).decode
_encode = msgspec.json.Encoder().encode


def _json_arguments(payload: bytes) -> list[str]:
    try:
        values = _decode_array(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadArguments(
            f"a JSON payload is an array of texts, numbers and booleans: {error}"
        ) from None
    return [value if isinstance(value, str) else _encode(value).decode() for value in values]


_GET, _POST, _CONTENT, _CHANGED = Code.GET, Code.POST, Code.CONTENT, Code.CHANGED
_BACKSLASH = ord("\\")  # a number, as bytes in bytes take ten times as long to find

# The most special first: the first that fits is taken.
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
    (CommandTimeout, Code.GATEWAY_TIMEOUT),
    (Internal, Code.INTERNAL_SERVER_ERROR),
)


# By their names on the wire: the wing of HTTP, where they are raised, is not known here.
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
    # A refusal of the command's own, for a reason that is not the form of the request.
    return Code.FORBIDDEN
