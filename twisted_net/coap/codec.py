"""CoAP message codec (RFC 7252 §3), and the options of a request (§5.10)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from struct import Struct
from typing import TypeAlias

from twisted_net.coap.errors import MalformedMessage, TooManyOptions
from twisted_net.errors import NotUTF8

MAX_OPTIONS = 64
"""
Options of a message that are read; with one more it is rejected, and the rest of it is not read.

Requests have fewer than ten, and a long path a dozen. An empty option is one byte of a datagram and
takes 64 in memory, for as long as its request waits, is observed or is in block-wise transfer.
"""


class Type(IntEnum):
    """Message type (RFC 7252 §3)."""

    CON = 0
    NON = 1
    ACK = 2
    RST = 3


class Code(IntEnum):
    """Method or response code: a class in three bits, a detail in five (RFC 7252 §12.1)."""

    EMPTY = 0
    GET = 1
    POST = 2
    PUT = 3
    DELETE = 4
    FETCH = 5
    CREATED = 65
    DELETED = 66
    VALID = 67
    CHANGED = 68
    CONTENT = 69
    CONTINUE = 95
    BAD_REQUEST = 128
    UNAUTHORIZED = 129
    BAD_OPTION = 130
    FORBIDDEN = 131
    NOT_FOUND = 132
    METHOD_NOT_ALLOWED = 133
    NOT_ACCEPTABLE = 134
    REQUEST_ENTITY_INCOMPLETE = 136
    PRECONDITION_FAILED = 140
    REQUEST_ENTITY_TOO_LARGE = 141
    UNSUPPORTED_CONTENT_FORMAT = 143
    TOO_MANY_REQUESTS = 157
    INTERNAL_SERVER_ERROR = 160
    NOT_IMPLEMENTED = 161
    BAD_GATEWAY = 162
    SERVICE_UNAVAILABLE = 163
    GATEWAY_TIMEOUT = 164
    PROXYING_NOT_SUPPORTED = 165


class Option(IntEnum):
    """Known option numbers; odd ones are critical, even ones elective (RFC 7252 §5.4.1)."""

    IF_MATCH = 1
    URI_HOST = 3
    ETAG = 4
    IF_NONE_MATCH = 5
    OBSERVE = 6
    URI_PORT = 7
    LOCATION_PATH = 8
    URI_PATH = 11
    CONTENT_FORMAT = 12
    MAX_AGE = 14
    URI_QUERY = 15
    ACCEPT = 17
    LOCATION_QUERY = 20
    BLOCK2 = 23
    BLOCK1 = 27
    SIZE2 = 28
    PROXY_URI = 35
    PROXY_SCHEME = 39
    SIZE1 = 60
    ECHO = 252
    NO_RESPONSE = 258
    REQUEST_TAG = 292


TEXT = 0
LINK_FORMAT = 40
JSON = 50
"""Content formats (RFC 7252 §12.3)."""

Options: TypeAlias = Sequence[tuple[int, bytes]]
"""Number and value of each option, by ascending number; equal numbers in their order."""


class CoapMessage:
    """
    One message. Its sender or receiver owns it; it is not changed once sent.

    :ivar type: a :class:`Type`, as a number.
    :ivar code: a :class:`Code`, as a number; it may be one without a name there.
    :ivar token: 0 to 8 bytes.
    """

    __slots__ = ("code", "message_id", "options", "payload", "token", "type")

    def __init__(
        self,
        type: int,  # noqa: A002  # the RFC's word
        code: int,
        message_id: int = 0,
        token: bytes = b"",
        options: Options = (),
        payload: bytes = b"",
    ) -> None:
        self.type = type
        self.code = code
        self.message_id = message_id
        self.token = token
        self.options = options
        self.payload = payload

    @property
    def is_request(self) -> bool:
        """Whether the code is a method."""
        return 0 < self.code < 32

    @property
    def is_response(self) -> bool:
        """Whether the code is a success or an error."""
        return 64 <= self.code < 192

    def option(self, number: int) -> bytes | None:
        """Return the value of the first option with this number, or None."""
        for known, value in self.options:
            if known == number:
                return value
        return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CoapMessage) and self._fields() == other._fields()

    __hash__ = None  # type: ignore[assignment]  # mutable, so no key

    def __repr__(self) -> str:
        return (
            f"<{Type(self.type).name} {code_name(self.code)} id={self.message_id}"
            f" token={self.token.hex()} options={list(self.options)!r} payload={self.payload!r}>"
        )

    def _fields(self) -> tuple[object, ...]:
        options = [(int(number), value) for number, value in self.options]
        head = (int(self.type), int(self.code), self.message_id, self.token)
        return (*head, options, self.payload)


def code_name(code: int) -> str:
    """Return a code as text: ``4.04 Not Found``, or ``7.31`` if it has no name."""
    number = f"{code >> 5}.{code & 31:02}"
    try:
        return f"{number} {Code(code).name.replace('_', ' ').title()}"
    except ValueError:
        return number


def encode_message(message: CoapMessage) -> bytes:
    """
    Encode a message as a datagram.

    :raises ValueError: for a token over 8 bytes, options out of order, or an option over 65,804
        bytes.
    """
    token = message.token
    if len(token) > 8:
        raise ValueError(f"a token has at most 8 bytes, not {len(token)}")
    datagram = _HEADER.pack(0x40 | message.type << 4 | len(token), message.code, message.message_id)
    datagram += token
    previous = 0
    for number, value in message.options:
        delta = number - previous
        previous = number
        size = len(value)
        if 0 <= delta < 13 and size < 13:
            datagram += _BYTES[delta << 4 | size] + value
        elif delta < 0 or number > 0xFFFF:
            raise ValueError(f"option {number} is out of order or no option")
        else:
            datagram += _option_head(delta, size) + value
    return datagram + b"\xff" + message.payload if message.payload else datagram


def parse_message(datagram: bytes) -> CoapMessage:
    """
    Parse a datagram, in time linear in its length.

    :raises MalformedMessage: with the message ID to reject if RFC 7252 §4.2 requires a Reset;
        without one if the datagram is to be ignored (§3, §4.3).
    :raises TooManyOptions: the same for more than :data:`MAX_OPTIONS`, and with the token of a
        confirmable request.
    """
    length = len(datagram)
    if length < 4:
        raise MalformedMessage("it is shorter than a header")
    first, code, message_id = _HEADER.unpack_from(datagram)
    if first >> 6 != 1:
        raise MalformedMessage(f"its version is {first >> 6}")
    kind = first >> 4 & 3
    position = 4 + (first & 15)
    if code == 0:
        if length != 4 or position != 4:
            raise MalformedMessage("it is empty, but not 4 bytes long", _rejected(kind, message_id))
        return CoapMessage(kind, 0, message_id)
    if position > 12:
        raise MalformedMessage("its token is too long", _rejected(kind, message_id))
    if position > length:
        raise MalformedMessage("it ends in its token", _rejected(kind, message_id))
    if code >= 192 or 32 <= code < 64:
        raise MalformedMessage(
            f"its code {code_name(code)} is reserved", _rejected(kind, message_id)
        )
    token = datagram[4:position]
    options: list[tuple[int, bytes]] = []
    number = 0
    while position < length:
        byte = datagram[position]
        position += 1
        if byte == 0xFF:
            if position == length:
                raise MalformedMessage("no payload follows its marker", _rejected(kind, message_id))
            return CoapMessage(kind, code, message_id, token, options, datagram[position:])
        delta = byte >> 4
        size = byte & 15
        if delta > 12 or size > 12:
            delta, position = _extended(datagram, delta, position)
            size, position = _extended(datagram, size, position)
            if delta < 0 or size < 0:
                raise MalformedMessage(
                    "an option's head is not complete", _rejected(kind, message_id)
                )
        number += delta
        end = position + size
        if end > length or number > 0xFFFF:
            raise MalformedMessage(
                f"it ends in option {number}, or has none such", _rejected(kind, message_id)
            )
        if len(options) == MAX_OPTIONS:
            answered = token if kind == Type.CON and code < 32 else None
            raise TooManyOptions(MAX_OPTIONS, _rejected(kind, message_id), answered)
        options.append((number, datagram[position:end]))
        position = end
    return CoapMessage(kind, code, message_id, token, options)


def rejection(error: MalformedMessage, message_id: int) -> bytes:
    """Return the answer to a confirmable message that is not read: a Reset, or 4.02."""
    if isinstance(error, TooManyOptions) and error.token is not None:
        text = f"at most {error.limit} options".encode()
        return encode_message(
            CoapMessage(Type.ACK, Code.BAD_OPTION, message_id, error.token, payload=text)
        )
    return encode_message(CoapMessage(Type.RST, Code.EMPTY, message_id))


def encode_uint(value: int) -> bytes:
    """Encode an unsigned integer as an option value, in as few bytes as possible: 0 in none."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def uint_option(options: Options, number: int) -> int | None:
    """
    Return the first option with this number as an unsigned integer, or None.

    One of more than four bytes counts as none, as an option of a wrong length does (RFC 7252
    §5.4.3): no definition allows it.
    """
    for known, value in options:
        if known == number:
            return int.from_bytes(value, "big") if len(value) <= 4 else None
    return None


def unknown_critical_option(options: Options) -> int | None:
    """Return the first critical option of a response that is not known there, or None."""
    for number, _ in options:
        if number & 1 and number not in _CRITICAL_IN_RESPONSES:
            return number
    return None


class CoapRequestOptions:
    """
    Options of a request, parsed in one pass.

    :ivar unrecognized: number of the first critical option that is unknown, repeated against its
        definition, or of a wrong length (RFC 7252 §5.4.1, §5.4.3, §5.4.5); or None. Elective
        options of that kind are ignored.
    :ivar not_utf8: the error for a segment of the path or a query that is not UTF-8, whose bytes
        are replaced below; None if all are.
    :ivar no_response: classes of responses that are not to be sent, as bits (RFC 7967 §2.1).
    :ivar path: the Uri-Path segments.
    :ivar queries: the Uri-Query values, as text.
    """

    # Slots: defaults on the class take several times as long to look up.
    __slots__ = (
        "accept",
        "block1",
        "block2",
        "content_format",
        "echo",
        "etags",
        "if_match",
        "if_none_match",
        "no_response",
        "not_utf8",
        "observe",
        "options",
        "path",
        "proxy",
        "queries",
        "size1",
        "size2",
        "unrecognized",
    )

    def __init__(self, options: Options) -> None:
        self.options = options
        self.accept: int | None = None
        self.block1: bytes | None = None
        self.block2: bytes | None = None
        self.content_format: int | None = None
        self.echo: bytes | None = None
        self.etags: Sequence[bytes] = ()
        self.if_match: Sequence[bytes] = ()
        self.if_none_match = False
        self.no_response: int | None = None
        self.not_utf8: NotUTF8 | None = None
        self.observe: int | None = None
        self.path: Sequence[str] = ()
        self.proxy = False
        self.queries: Sequence[str] = ()
        self.size1: int | None = None
        self.size2: int | None = None
        self.unrecognized: int | None = None
        # Most requests have one option, which needs no table.
        if len(options) == 1 and options[0][0] == 11 and len(options[0][1]) < 256:
            self.path = [self._text(options[0][1])]
        else:
            self._read(options)

    def _read(self, options: Options) -> None:
        previous = -1
        for number, value in options:
            definition = _DEFINITIONS.get(number)
            if definition is None:
                if number & 1 and self.unrecognized is None:
                    self.unrecognized = number
                continue
            name, min_length, max_length, repeatable, kind = definition
            repeated = number == previous and not repeatable
            if repeated or not min_length <= len(value) <= max_length:
                if number & 1 and self.unrecognized is None:
                    self.unrecognized = number
                continue
            previous = number
            if kind is _TEXTS:
                self._append(name, self._text(value))
            elif kind is _OPAQUES:
                self._append(name, value)
            elif kind is _UINT:
                setattr(self, name, int.from_bytes(value, "big"))
            elif kind is _FLAG:
                setattr(self, name, True)
            elif kind is _OPAQUE:
                setattr(self, name, value)

    def _text(self, value: bytes) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            self.not_utf8 = NotUTF8(error.start, value[error.start])
            return value.decode(errors="replace")

    def _append(self, name: str, value: str | bytes) -> None:
        values = getattr(self, name)
        if not values:
            values = []
            setattr(self, name, values)
        values.append(value)

    def suppresses(self, code: int) -> bool:
        """Return whether a response of this code is not to be sent (RFC 7967 §2.1)."""
        # Bits 1, 3 and 4 stand for the classes 2, 4 and 5.
        return self.no_response is not None and bool(self.no_response >> ((code >> 5) - 1) & 1)

    @property
    def key(self) -> tuple[tuple[int, bytes], ...]:
        """The options that all requests of one block-wise transfer share (RFC 7959 §2.3)."""
        return tuple(pair for pair in self.options if pair[0] not in _NOT_IN_KEY)


_CRITICAL_IN_RESPONSES = frozenset((int(Option.BLOCK2), int(Option.BLOCK1)))

_HEADER = Struct(">BBH")
_BYTES = [bytes((value,)) for value in range(256)]

_UINT, _OPAQUE, _OPAQUES, _TEXTS, _FLAG, _IGNORED = "uint", "opaque", "opaques", "texts", "flag", ""

# Number: attribute, least and greatest length, repeatable, format (RFC 7252 §5.10, 7641, 7959,
# 9175, 7967).
_DEFINITIONS: dict[int, tuple[str, int, int, bool, str]] = {
    Option.IF_MATCH: ("if_match", 0, 8, True, _OPAQUES),
    # A server has the same resources under all its host names.
    Option.URI_HOST: ("", 1, 255, False, _IGNORED),
    Option.ETAG: ("etags", 1, 8, True, _OPAQUES),
    Option.IF_NONE_MATCH: ("if_none_match", 0, 0, False, _FLAG),
    Option.OBSERVE: ("observe", 0, 3, False, _UINT),
    Option.URI_PORT: ("", 0, 2, False, _IGNORED),
    Option.URI_PATH: ("path", 0, 255, True, _TEXTS),
    Option.CONTENT_FORMAT: ("content_format", 0, 2, False, _UINT),
    Option.URI_QUERY: ("queries", 0, 255, True, _TEXTS),
    Option.ACCEPT: ("accept", 0, 2, False, _UINT),
    Option.BLOCK2: ("block2", 0, 3, False, _OPAQUE),
    Option.BLOCK1: ("block1", 0, 3, False, _OPAQUE),
    Option.SIZE2: ("size2", 0, 4, False, _UINT),
    Option.PROXY_URI: ("proxy", 1, 1034, False, _FLAG),
    Option.PROXY_SCHEME: ("proxy", 1, 255, False, _FLAG),
    Option.SIZE1: ("size1", 0, 4, False, _UINT),
    Option.ECHO: ("echo", 1, 40, False, _OPAQUE),
    Option.NO_RESPONSE: ("no_response", 0, 1, False, _UINT),
}

# Not part of the cache key of RFC 7252 §5.6 and RFC 7959 §2.3. Content-Format is not either:
# requests for later blocks of a response have no payload, and so no format of one.
_NOT_IN_KEY = frozenset(
    (
        Option.OBSERVE,
        Option.CONTENT_FORMAT,
        Option.BLOCK1,
        Option.BLOCK2,
        Option.SIZE1,
        Option.SIZE2,
        Option.ECHO,
        Option.NO_RESPONSE,
    )
)


def _rejected(kind: int, message_id: int) -> int | None:
    return message_id if kind == Type.CON else None


def _extended(datagram: bytes, nibble: int, position: int) -> tuple[int, int]:
    """Read a delta or length extended by one or two bytes; -1 if it is reserved or cut off."""
    if nibble < 13:
        return nibble, position
    if nibble == 15:
        return -1, position
    end = position + nibble - 12
    if end > len(datagram):
        return -1, position
    return int.from_bytes(datagram[position:end], "big") + (13 if nibble == 13 else 269), end


def _option_head(delta: int, size: int) -> bytes:
    nibbles = 0
    more = b""
    for value, shift in ((delta, 4), (size, 0)):
        if value < 13:
            nibbles |= value << shift
        elif value < 269:
            nibbles |= 13 << shift
            more += _BYTES[value - 13]
        elif value < 65_805:
            nibbles |= 14 << shift
            more += (value - 269).to_bytes(2, "big")
        else:
            raise ValueError("an option has at most 65,804 bytes")
    return _BYTES[nibbles] + more
