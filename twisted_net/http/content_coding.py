"""
Content codings (RFC 9110 §8.4.1): what is asked for, and the decompression of response bodies.

gzip and deflate are always decoded. Brotli (RFC 7932) and zstd (RFC 8878) are decoded where their
packages are installed: ``brotli``, and ``backports.zstd`` or Python 3.14. The extra ``compression``
installs both.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Protocol, cast

from twisted.internet.interfaces import IProtocol, ITransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH
from typing_extensions import override

from twisted_net.errors import FetchError
from twisted_net.http.bodies import (
    BodyRelay,
    BodyResponse,
    BufferedResponse,
    discard,
    is_complete,
)
from twisted_net.http.call import Deadline
from twisted_net.http.errors import BadResponse, BodyTooLarge, name_url
from twisted_net.http.fields import HeaderFields
from twisted_net.http.request import OutgoingRequest
from twisted_net.turns.paced_reads import Pace, PacedReads, PacedTransport

CHUNK = 64 * 2**10
"""Bytes of output that are decompressed at a time."""

INPUT_CHUNK = 4 * 2**10
"""
Bytes of input that are decompressed at a time.

zlib copies the input that is left after each chunk of output and each gzip member. With all of a
large body as the input these copies would take time quadratic in its size.
"""

MAX_PIECES = 4
"""Pieces in which a body that is decompressed at once may come: each is a step, empty or not."""

FREE_MEMBERS, MEMBER_SIZE = 1000, 64
"""
Members that a gzip body may have, and bytes of it that allow for one more.

A member has 20 bytes at least, and takes 5 us even if it is empty.
"""

WINDOW_LOG = 23
"""Base-2 logarithm of the largest window that a zstd body may ask for: the 8 MiB of RFC 9659."""

MAX_CODINGS = 3
"""Limit of codings applied to one body. Well-behaved servers apply one."""

MAX_LISTED = 64
"""Limit of the members of ``Content-Encoding``, empty ones included, which are no codings."""

_GZIP_MAGIC = b"\x1f\x8b"


class _Decoder(Protocol):
    """Decompresses one coding, piece by piece."""

    @property
    def ended(self) -> bool:
        """Whether the end of the compressed data has been reached."""
        ...

    def decode(self, data: bytes) -> Iterator[bytes]:
        """
        Take *data* and yield what it decompresses to, in pieces of at most :data:`CHUNK` bytes.

        A piece is decompressed when it is asked for, so that a caller who has reached a limit
        stops in time. It may be empty, so that other work can be done.

        :raises Exception: one of :data:`_ERRORS`, where the input is damaged.
        """
        ...


class _Deflate:
    """``deflate`` (RFC 1950). What follows the end is padding, and dropped."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj()
        self._started = False

    @property
    def ended(self) -> bool:
        return self._inflate.eof

    def decode(self, data: bytes) -> Iterator[bytes]:
        if not self._started and data:
            self._started = True
            # RFC 9110 §8.4.1.2: some servers send deflate without its zlib wrapper, whose first
            # byte always has 8 as its low half.
            if data[0] & 0x0F != 8:
                self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        while not self._inflate.eof:
            piece = self._inflate.decompress(data, CHUNK)
            if piece:
                yield piece
            data = self._inflate.unconsumed_tail
            # A full piece may leave output inside the decompressor, its input all used up.
            if not data and len(piece) < CHUNK:
                return


class TooManyMembers(Exception):
    """A gzip body has more members than :data:`FREE_MEMBERS` and its size allow for."""


class _Gzip:
    """``gzip`` (RFC 1952): one member or more. What follows and is none is padding, and dropped."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._after = b""
        self._members = 1
        self._size = 0

    @property
    def ended(self) -> bool:
        return self._inflate.eof

    def decode(self, data: bytes) -> Iterator[bytes]:
        while True:
            if self._inflate.eof:
                data = self._after + data
                self._after = data if len(data) < len(_GZIP_MAGIC) else b""
                if not data.startswith(_GZIP_MAGIC):
                    return
                self._members += 1
                if self._members > FREE_MEMBERS + self._size // MEMBER_SIZE:
                    raise TooManyMembers
                self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
            piece = self._inflate.decompress(data, CHUNK)
            self._size += len(piece)
            if piece or self._inflate.eof:
                yield piece
            data = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            if not data and len(piece) < CHUNK:
                return


class _Brotli:
    def __init__(self) -> None:
        self._inner = _brotli.Decompressor()

    @property
    def ended(self) -> bool:
        return bool(self._inner.is_finished())

    def decode(self, data: bytes) -> Iterator[bytes]:
        piece = self._inner.process(data, output_buffer_limit=CHUNK)
        while piece:
            yield piece
            if self.ended or len(piece) < CHUNK:
                return
            piece = self._inner.process(b"", output_buffer_limit=CHUNK)


class _Zstd:
    def __init__(self) -> None:
        limits = {_zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
        self._inner = _zstd.ZstdDecompressor(options=limits)

    @property
    def ended(self) -> bool:
        return bool(self._inner.eof)

    def decode(self, data: bytes) -> Iterator[bytes]:
        piece = self._inner.decompress(data, CHUNK)
        while piece:
            yield piece
            if self.ended or len(piece) < CHUNK:
                break
            piece = self._inner.decompress(b"", CHUNK)
        if self._inner.unused_data:
            raise EOFError("data after the end of the frame")


def _load(*names: str) -> Any:  # Any: a module, which may be absent
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    return None


_brotli = _load("brotli")
_zstd = _load("compression.zstd", "backports.zstd")

DECODERS: dict[str, Callable[[], _Decoder]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Deflate,
}
"""The decoder of each coding that can be decoded in this installation."""

_ERRORS: tuple[type[Exception], ...] = (zlib.error, TooManyMembers)
if _brotli is not None:
    DECODERS["br"] = _Brotli
    _ERRORS += (_brotli.error,)
if _zstd is not None:
    DECODERS["zstd"] = _Zstd
    _ERRORS += (_zstd.ZstdError, EOFError)

ACCEPTED = ", ".join(coding for coding in DECODERS if coding != "x-gzip")
"""The codings that :func:`decode_response` decodes, as ``Accept-Encoding`` lists them."""

_ACCEPTED = [ACCEPTED]
_NOTHING_ELSE = HeaderFields([("Accept-Encoding", ACCEPTED)])  # one object, encoded once


def with_accepted_codings(request: OutgoingRequest) -> OutgoingRequest:
    """
    Return a request with the ``Accept-Encoding`` that it is sent with.

    Lines of its caller stay. With ``Range`` it asks for no coding otherwise: the range is one of
    the encoded bytes (RFC 9110 §14.2), of which a part cannot be decoded.
    """
    fields = with_accepted_fields(request.fields)
    return request if fields is request.fields else request.with_fields(fields)


def with_accepted_fields(fields: HeaderFields) -> HeaderFields:
    """Return the fields of a request as :func:`with_accepted_codings` does."""
    if not fields.pairs:
        return _NOTHING_ELSE
    lines = fields.get_all("accept-encoding")
    wanted = lines
    if lines and lines != _ACCEPTED and lines[-1] == "gzip":
        wanted = lines[:-1]  # treq adds this line to those of its caller
    if not wanted or wanted == _ACCEPTED:
        wanted = ["identity"] if "range" in fields else _ACCEPTED
    if wanted == lines:
        return fields
    return fields.replaced([("Accept-Encoding", line) for line in wanted])


def decode_response(
    response: BodyResponse,
    limit: int,
    pace: Pace,
    deadline: Deadline | None = None,
    url: str = "",
) -> BodyResponse:
    """
    Return *response* with its body decompressed, nested codings too.

    It is decompressed piece by piece, in the turns of *pace*; meanwhile its connection is not read.
    A small one that is in memory is decompressed at once, to at most :data:`CHUNK` bytes.
    Decoding stops at a coding that is unknown here; it stays in ``Content-Encoding``. The part of a
    206 is not decoded.

    :param limit: bytes that the body may grow to. Beyond them it ends with
        :class:`~twisted_net.http.errors.BodyTooLarge`, and no more is decompressed.
    :param deadline: by the clock of *pace*; the body ends with its error.
    :param url: of the response, for the errors of its body.
    :raises BadResponse: for more than :data:`MAX_CODINGS` codings.
    """
    if response.length == 0 or response.code == 206:
        return response
    stated = response.fields.joined("content-encoding")
    if stated is None:
        return response
    listed = stated.split(",", MAX_LISTED)
    if len(listed) > MAX_LISTED:
        discard(response)
        raise BadResponse(f"its body has more than {MAX_CODINGS} codings")
    codings = [name.strip().lower() for name in listed if name.strip()]
    if not codings or codings[-1] not in DECODERS:
        return response
    if len(codings) > MAX_CODINGS:
        discard(response)
        raise BadResponse(f"its body has more than {MAX_CODINGS} codings")
    fields = response.fields.without(("content-length", "content-encoding"))
    if isinstance(response, BufferedResponse) and len(codings) == 1:
        body = _decoded_at_once(response.body, codings[0], limit)
        if body is not None:
            return BufferedResponse(
                response.code,
                response.phrase,
                fields,
                body,
                minor=response.version[2],
                complete=response.complete,
            )
    deliver: Callable[[IProtocol], None] = response.deliverBody
    while codings and codings[-1] in DECODERS:
        deliver = _deliver_decoded(deliver, codings.pop(), limit, pace, deadline, url)
    if codings:
        fields = fields.added("Content-Encoding", ", ".join(codings))
    return BodyResponse.like(response, deliver, fields=fields, length=UNKNOWN_LENGTH)


def _decoded_at_once(body: bytes, coding: str, limit: int) -> bytes | None:
    """
    Return a body that is small before and after it is decompressed; None for any other.

    What is damaged, or over the limit, is none: it is decompressed again, in pieces, to its error.
    """
    if len(body) > INPUT_CHUNK:
        return None
    decoder = DECODERS[coding]()
    pieces: list[bytes] = []
    size = 0
    try:
        for piece in decoder.decode(body):
            pieces.append(piece)
            size += len(piece)
            if size >= min(CHUNK, limit + 1) or len(pieces) > MAX_PIECES:
                return None
    except _ERRORS:
        return None
    return b"".join(pieces) if decoder.ended else None


def _deliver_decoded(
    deliver: Callable[[IProtocol], None],
    coding: str,
    limit: int,
    pace: Pace,
    deadline: Deadline | None,
    url: str,
) -> Callable[[IProtocol], None]:
    return lambda receiver: deliver(ContentDecoder(receiver, coding, limit, pace, deadline, url))


class ContentDecoder(BodyRelay):
    """
    Relays a body decompressed, piece by piece, and never holds more than one piece.

    What is not decompressed yet is kept, and its end is relayed after it.
    """

    def __init__(
        self,
        receiver: IProtocol,
        coding: str,
        limit: int,
        pace: Pace,
        deadline: Deadline | None = None,
        url: str = "",
    ) -> None:
        super().__init__(receiver)
        self._url = url
        self._coding = coding
        self._decoder = DECODERS[coding]()
        self._limit = limit
        self._pace = pace
        self._deadline = deadline
        self._total = 0
        self._started = False

    @override
    def connectionMade(self) -> None:
        pieces = _Pieces(self._decoder, self._damaged)
        source = cast(Any, self.transport)  # Any: the transport of a body, which has no interface
        self._reads = PacedReads(self._pace, source, pieces, self._relay, self.finish)
        self._receiver.makeConnection(cast(ITransport, PacedTransport(source, self._reads)))

    @override
    def dataReceived(self, data: bytes) -> None:
        if not self._over:
            self._started = self._started or bool(data)
            self._reads.received(data)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not is_complete(reason):
            self._reads.drop()
        self._reads.end(reason)

    def _damaged(self, error: Exception) -> None:
        many = "has too many members" if isinstance(error, TooManyMembers) else "is damaged"
        self.fail(BadResponse(f"its {self._coding} body {many}"))

    def _relay(self, piece: bytes) -> None:
        """Relay a piece, or fail at a limit."""
        self._total += len(piece)
        deadline = self._deadline
        if self._total > self._limit:
            self.fail(BodyTooLarge(self._limit, decoded=True))
        elif deadline is not None and self._pace.seconds() >= deadline.at:
            self.fail(deadline.exceeded("body"))
        elif piece and not self._over:
            self._receiver.dataReceived(piece)

    @override
    def fail(self, error: FetchError) -> None:
        self._reads.drop()
        super().fail(error)

    @override
    def finish(self, reason: Failure) -> None:
        if not self._over and is_complete(reason) and self._started and not self._decoder.ended:
            reason = Failure(BadResponse(f"its {self._coding} body ends early"))
        name_url(reason.value, self._url)
        super().finish(reason)


class _Pieces:
    """
    What a decoder makes of a stream, cut into its pieces, each of them a unit.

    :param damaged: called with the error of a decoder; nothing comes after it.
    """

    def __init__(self, decoder: _Decoder, damaged: Callable[[Exception], None]) -> None:
        self._decoder = decoder
        self._damaged = damaged
        self._kept = b""
        self._begin = 0  # what is before it has been taken
        self._decoding: Iterator[bytes] | None = None

    def __len__(self) -> int:
        """How many bytes are kept, compressed."""
        return len(self._kept) - self._begin

    @property
    def ready(self) -> bool:
        """Whether there may be another piece."""
        return self._begin < len(self._kept) or self._decoding is not None

    def keep(self, data: bytes) -> None:
        """Keep what is to be decompressed."""
        self._kept = self._kept[self._begin :] + data if self._begin < len(self._kept) else data
        self._begin = 0

    def take(self, limit: int) -> tuple[bytes, int]:
        """Take a piece, which may be empty."""
        try:
            if self._decoding is None:
                begin, self._begin = self._begin, self._begin + INPUT_CHUNK
                self._decoding = self._decoder.decode(self._kept[begin : self._begin])
                if self._begin >= len(self._kept):
                    self._kept, self._begin = b"", 0
            for piece in self._decoding:
                return piece, 1
            self._decoding = None
        except _ERRORS as error:
            self.clear()
            self._damaged(error)
        return b"", 1

    def clear(self) -> None:
        """Drop what is kept."""
        self._kept, self._begin, self._decoding = b"", 0, None
