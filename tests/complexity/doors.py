"""The doors through which strangers send bytes, with inputs that can be made as long as wanted."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from wsproto import ConnectionType, WSConnection
from wsproto.events import Request

from tests.due_calls import call_due
from tests.http.fakes import ServerSide
from tests.http.test_content_coding import compressors
from tests.tcp.memory import Reactor
from twisted_net.coap.codec import CoapMessage, Code, Option, encode_message
from twisted_net.coap.server import CoapServer
from twisted_net.commands.standard import standard_commands
from twisted_net.discovery.announcements import Collector
from twisted_net.dtls.cookies import ClientHello
from twisted_net.dtls.records import protected_records
from twisted_net.errors import FetchError, TwistedNetError
from twisted_net.http.cache import CacheSettings
from twisted_net.http.calls.authentication import DigestAuth
from twisted_net.http.calls.lines import LineDecoder
from twisted_net.http.calls.server_sent_events import EventParser
from twisted_net.http.client import Client
from twisted_net.http.errors import InvalidURL
from twisted_net.http.h1.messages import ResponseReader, read_whole
from twisted_net.http.proxies import tunnel_opened
from twisted_net.http.response import Response
from twisted_net.http.retry.settings import RetryPolicy
from twisted_net.http.settings import HttpSettings
from twisted_net.http.streaming import StreamedResponse, slices
from twisted_net.http.urls import MAX_URL, resolve
from twisted_net.net.addresses import Source
from twisted_net.net.charsets import codec_of_mark, decode_beginning, decode_text
from twisted_net.net.untrusted_json import decode_json, decoded_size
from twisted_net.tcp.handshakes import Handshakes
from twisted_net.tcp.limits import ClientSettings, Limits
from twisted_net.tcp.pipeline import Pipeline
from twisted_net.tcp.proxy_header import parse_header
from twisted_net.tcp.server import CommandFactory
from twisted_net.tcp.websocket import WebSocketFactory
from twisted_net.turns.paced_input import UNITS_PER_LOOK, UNITS_PER_TURN
from twisted_net.turns.paced_reads import LineCutter, Pace, PacedReads
from twisted_net.turns.tls_records import RecordCutter
from twisted_net.udp.server import DatagramServer

PEER: Source = ("192.0.2.1", 40_000)

Feed = Callable[[bytes], object]
"""What is called with the bytes."""


@frozen
class Input:
    """
    Bytes of any length: a begin, a piece that is repeated, and an end.

    :param make: makes of the repeated piece what is sent, such as a frame around it.
    :param longest: bytes at which it is too long for its door; there it is one unit of work.
    """

    begin: bytes
    piece: bytes
    end: bytes = b""
    make: Callable[[bytes], bytes] = bytes
    longest: int = 0

    def of_size(self, size: int) -> bytes:
        """Return an input of about so many bytes."""
        room = max(size - len(self.begin) - len(self.end), 0)
        return self.begin + self.make(self.piece * (room // len(self.piece))) + self.end


@frozen
class Door:
    """
    One way in.

    :param open: makes what strangers speak to, as it is when they come.
    :param by_byte: whether the bytes come one by one.
    """

    open: Callable[[], Feed]
    inputs: tuple[Input, ...]
    by_byte: bool = False

    def feed(self, feed: Feed, data: bytes) -> None:
        """Send bytes. What the door says of them is no matter here."""
        pieces = [data[i : i + 1] for i in range(len(data))] if self.by_byte else [data]
        with suppress(ValueError, TwistedNetError):
            for piece in pieces:
                feed(piece)


TURNS = frozenset({call_due.__code__})
"""The function with which a turn begins."""

# --- lines ---

LINE = Limits().max_line


def lines() -> Feed:
    """Be a client of the command protocol; each segment comes in a turn of its own."""
    reactor = Reactor()

    async def fetch(url: str) -> dict[str, object]:
        return {"url": url}

    connection = reactor.connect(CommandFactory(reactor, standard_commands(fetch), Limits()))

    def feed(data: bytes) -> None:
        connection.send(data)
        reactor.settle()

    return feed


def proven_lines() -> Feed:
    """Be such a client, after its first answer."""
    feed = lines()
    feed(b"PING\n")
    return feed


def line(begin: bytes, piece: bytes, end: bytes = b"\n") -> Input:
    """Return a line of which a part is as long as is wanted."""
    return Input(begin, piece, end, longest=LINE)


LINES = (
    line(b"ECHO ", b"x"),
    line(b"ECHO ", b"x "),
    line(b"ECHO ", b'"'),
    line(b'ECHO "', b"\\"),
    line(b'ECHO "', b'\\"'),
    line(b"ECHO ", "\u00e9".encode()),
    line(b"", b"x"),
    line(b"", b" "),
    line(b"", b"x y="),
    line(b"AUTH ", b"x"),
    line(b"AUTH x ", b"x"),
    line(b"PUBLISH t ", b"x"),
    line(b"PUBLISH ", b"a."),
    line(b"SUBSCRIBE ", b"a."),
    line(b"SUBSCRIBE ", b"*."),
    line(b"BROADCAST ", b"x"),
    line(b"HELP ", b"x "),
    line(b"INFO ", b"x "),
    line(b"FETCH http://h/", b"a"),
    line(b"FETCH http://h/?", b"token=x&"),
    line(b"FETCH ", b"a"),
    line(b"FETCH ", b"a:"),
    line(b"FETCH ", b"@"),
    line(b"FETCH http://", b"a:b@"),
    line(b"FETCH http://h/", b"%25"),
    line(b"FETCH http://h/", b"../"),
    line(b"KILL ", b"x "),
    line(b"\xff", b"\xff"),
    line(b"ECHO ", b"\x01"),
)

MANY_LINES = (
    Input(b"", b"PING\n"),
    Input(b"", b"\n"),
    Input(b"", b"\r\n"),
    Input(b"", b"nothing\n"),
    Input(b"", b"ECHO x\n"),
    Input(b"", b"x" * (LINE + 1) + b"\n"),
    Input(b"", b"SUBSCRIBE a\nUNSUBSCRIBE a\n"),
)


# --- TLS ---


def tls_records() -> Feed:
    """Be a client of TLS: what it sends is cut into records."""
    cutter, clock = RecordCutter(), Clock()

    def feed(data: bytes) -> None:
        cutter.has_alert(data)
        cutter.keep(data)
        while cutter.ready:
            call_due(clock)
            for _ in range(UNITS_PER_TURN // UNITS_PER_LOOK):
                cutter.take(UNITS_PER_LOOK)

    return feed


RECORDS = (
    Input(b"", b"\x17\x03\x03\x00\x01x"),
    Input(b"", b"\x16\x03\x01\x00\x00"),
    Input(b"", b"\x17\x03\x03\x40\x00" + b"x" * 16_384),
    Input(b"", b"GET "),
)


# --- WebSocket ---


def websocket_handshake() -> Feed:
    """Be a client of a WebSocket that begins to shake hands."""
    reactor = Reactor()
    commands = CommandFactory(reactor, standard_commands(), Limits())
    handshakes = Handshakes(reactor, 10.0, 100, commands.sessions.refused)
    connection = reactor.connect(WebSocketFactory(commands, handshakes, reactor, []))

    def feed(data: bytes) -> None:
        connection.send(data)
        reactor.settle()

    return feed


def websocket() -> Feed:
    """Be one that has shaken hands."""
    feed = websocket_handshake()
    feed(WSConnection(ConnectionType.CLIENT).send(Request(host="a.test", target="/")))
    return feed


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a frame of a client (RFC 6455 section 5.2), with a mask of zeros."""
    size = len(payload)
    if size < 126:
        head = bytes([opcode, 0x80 | size])
    elif size < 65_536:
        head = struct.pack(">BBH", opcode, 0x80 | 126, size)
    else:
        head = struct.pack(">BBQ", opcode, 0x80 | 127, size)
    return head + bytes(4) + payload


FRAMES = (
    Input(b"", b"x", make=lambda text: frame(0x81, b"ECHO " + text), longest=LINE),
    Input(b"", frame(0x81, b"PING")),
    Input(b"", frame(0x89, b"")),
    Input(b"", frame(0x8A, b"x")),
    Input(b"", frame(0x81, b"")),
    Input(frame(0x01, b"ECHO "), frame(0x00, b"x"), frame(0x80, b"")),
)

REQUEST = b"GET /chat HTTP/1.1\r\nHost: a.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
HANDSHAKES = (
    Input(REQUEST, b"X: y\r\n", b"\r\n", longest=8192),
    Input(REQUEST + b"X:", b" ", b"\r\n\r\n", longest=8192),
    Input(REQUEST + b"X: ", b"a,", b"\r\n\r\n", longest=8192),
    Input(REQUEST + b"Origin: ", b"a", b"\r\n\r\n", longest=8192),
    Input(b"GET /", b"a", b" HTTP/1.1\r\n\r\n", longest=8192),
    Input(b"GET /", b"\r\n", b"", longest=8192),
)

# --- the PROXY protocol ---

PROXY = (
    Input(b"PROXY TCP4 ", b"1", b"\r\n", longest=107),
    Input(b"PROXY UNKNOWN", b" ", b"\r\n", longest=107),
    Input(
        b"",
        b"\x04\x00\x00",  # an empty TLV
        make=lambda parts: (
            b"\r\n\r\n\x00\r\nQUIT\n\x21\x11"
            + struct.pack(">H", min(12 + len(parts), 65_535))
            + bytes(12)
            + parts
        ),
        longest=65_535,
    ),
)

# --- datagrams ---


def datagrams() -> Feed:
    """Send to the datagram handler."""
    server = DatagramServer(cast(IReactorTime, Clock()))
    server.transport = cast(Any, _Sink())  # Any: Twisted's type of a port
    return lambda data: server.datagramReceived(data, PEER)


def coap() -> Feed:
    """Send to a CoAP server."""

    async def fetch(url: str) -> dict[str, object]:
        return {"url": url}

    server = CoapServer(cast(IReactorTime, Clock()), standard_commands(fetch))
    server.transport = cast(Any, _Sink())  # Any: as above
    server.startProtocol()
    return lambda data: server.datagramReceived(data, PEER)


class _Sink:
    """Where answers go."""

    def write(self, datagram: bytes, addr: Source) -> None:
        """Forget it."""


DATAGRAM = 65_507
"""Bytes of the longest datagram over IPv4."""

DATAGRAMS = tuple(
    Input(b"", piece, longest=DATAGRAM)
    for piece in (b"x", b" ", b"\xff", b"\x00", b"PING", b"9", "\u3000".encode(), b"ECHO: ")
)


def request(path: str = "", payload: bytes = b"") -> bytes:
    """Return a CoAP request."""
    options = [(int(Option.URI_PATH), part.encode()) for part in path.split("/") if part]
    return encode_message(CoapMessage(0, Code.POST, 7, b"t", options, payload))


COAP = (
    Input(request(), b"\x00", longest=DATAGRAM),  # empty options of the number before
    Input(request(), b"\x10", longest=DATAGRAM),  # of the next number
    Input(request(), b"\xb0" + b"\x00" * 7, longest=DATAGRAM),
    Input(request("ECHO"), b"\x01a", longest=DATAGRAM),
    Input(request("ECHO") + b"\xff", b"x", longest=DATAGRAM),
    Input(request("ECHO") + b"\xff", b"x ", longest=DATAGRAM),
    Input(request("ECHO") + b"\xff", b'"', longest=DATAGRAM),
    Input(request("ECHO") + b'\x10\x32\xff["', b"x", b'"]', longest=DATAGRAM),  # JSON
    Input(request("ECHO") + b"\x10\x32\xff", b"[", longest=DATAGRAM),
    Input(request("ECHO") + b'\x10\x32\xff["",', b'"",', b'""]', longest=DATAGRAM),
    Input(request("FETCH") + b"\xffhttp://h/", b"a:b@", longest=DATAGRAM),
    Input(request("topics/a") + b"\xff", b"x", longest=DATAGRAM),
    Input(request("ECHO") + b"\xd1\x03\x0e\xff", b"x", longest=1024),  # the first block
    Input(b"", b"\x40", longest=DATAGRAM),
    Input(b"\x60\x00\x00\x07", b"\xff", longest=DATAGRAM),
)

DTLS = (
    Input(b"", b"\x16\xfe\xfd" + bytes(8) + b"\x00\x01\x01", longest=DATAGRAM),
    Input(b"", b"\x17\xfe\xfd" + b"\x00\x01" + bytes(6) + b"\x00\x00", longest=DATAGRAM),
    Input(b"\x16\xfe\xfd", b"\x00", longest=DATAGRAM),
)


def announcements() -> Feed:
    """Announce to those who look for servers."""
    collector = Collector()
    return lambda data: collector.receive(data, PEER, 0.0)


ANNOUNCEMENTS = (
    Input(b"", b"[", longest=DATAGRAM),
    Input(b'{"twisted_net": 1, "name": "', b"x", b'"}', longest=DATAGRAM),
    Input(b'{"', b'a": 1, "', b'b": 1}', longest=DATAGRAM),
)

# --- what a server sends to our clients ---


def answers() -> Feed:
    """Answer a call of the command client."""
    settings = ClientSettings()
    pipeline: Pipeline[int] = Pipeline(settings.max_line, settings.max_values)
    for _ in range(3):
        pipeline.expect("ECHO", 1)

    def receive(data: bytes) -> None:
        for _ in pipeline.receive(data):
            decoded_size(pipeline.line)

    clock = Clock()
    pace = Pace.of(cast(IReactorTime, clock))
    reads = PacedReads(pace, StringTransport(), LineCutter(), receive, lambda _: None)

    def feed(data: bytes) -> None:
        reads.received(data)
        while call_due(clock):
            pass

    return feed


ANSWERS = (
    Input(b'{"command": "ECHO", "result": "', b"x", b'"}\n'),
    Input(b'{"command": "ECHO", "result": ', b"[", b"\n"),
    Input(b'{"command": "ECHO", "result": [', b"1,", b"1]}\n"),
    Input(b'{"', b'a": 1, "', b'command": "ECHO"}\n'),
    Input(b"", b'{"event": "message"}\n'),
    Input(b"", b"\n"),
    Input(b"", b" "),
)


def responses() -> Feed:
    """Answer a GET of the HTTP client, which caches."""
    reactor: Any = MemoryReactorClock()  # Any: reactors have no one type
    settings = HttpSettings(
        timeout=30.0, retry=RetryPolicy(retries=0), cache=CacheSettings(), max_body=4 * 2**20
    )
    client = Client(reactor, settings, chance=lambda: 1.0, wall=lambda: 1_795_305_600.0)
    asked = Deferred.fromCoroutine(client.get("http://1.2.3.4/"))
    asked.addErrback(lambda _: None)
    reactor.advance(0.0)
    wire = ServerSide(reactor)

    def feed(data: bytes) -> None:
        wire.send(data)
        while call_due(reactor):
            pass

    return feed


def read_responses() -> Feed:
    """Answer a request with Digest authentication, whose response is looked at."""
    read: list[object] = []

    def look(response: Response | StreamedResponse) -> None:
        read.extend((response.links, response.cookies, response.encoding, response.request))

    reactor: Any = MemoryReactorClock()  # Any: as above
    settings = HttpSettings(timeout=30.0, retry=RetryPolicy(retries=0))
    client = Client(reactor, settings, auth=DigestAuth("me", "pw"), cookies=True, on_response=look)
    asked = Deferred.fromCoroutine(client.get("http://1.2.3.4/"))
    asked.addErrback(lambda _: None)
    wire = ServerSide(reactor)

    def feed(data: bytes) -> None:
        wire.send(data)
        reactor.advance(0.0)

    return feed


def events() -> Feed:
    """Send events."""
    parser = EventParser()
    return in_slices(lambda data: list(parser.feed(data)))


def text_lines() -> Feed:
    """Send lines of a streamed body."""
    decoder = LineDecoder("utf_8", by_mark=True)
    return in_slices(lambda data: list(decoder.feed(data)))


def in_slices(feed: Feed) -> Feed:
    """Feed as a streamed response does, where each slice takes so long that others have turns."""
    clock = Clock()

    def feed_slices(data: bytes) -> None:
        for piece in slices(data):
            call_due(clock)
            feed(piece)

    return feed_slices


EVENTS = (
    Input(b"data: ", b"x", b"\n\n"),
    Input(b"", b"\n"),
    Input(b"", b"\r"),
    Input(b"", b":\n"),
    Input(b"", b"data:\n"),
    Input(b"", b"data:\n\n"),
    Input(b"id:", b"\0", b"\n\n"),
    Input(b"retry:", b"9", b"\n\n"),
    Input(b"", b"x"),
)

TEXT_LINES = (Input(b"", b"x"), Input(b"", b"\n"), Input(b"", b"\r"), Input(b"", b"\xe2"))


def compressed(coding: str, compress: Callable[[bytes], bytes], data: bytes) -> bytes:
    """Return a response with a body, compressed."""
    return coded(coding.encode(), compress(data))


OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = b"\r\nContent-Length: 0\r\n\r\n"
HEAD = HttpSettings().max_head


def field(begin: bytes, piece: bytes, end: bytes = b"") -> Input:
    """Return a response with a field as long as is wanted."""
    return Input(OK + begin, piece, end + EMPTY, longest=HEAD)


def coded(coding: bytes, data: bytes) -> bytes:
    """Return a response with a body in a coding."""
    return OK + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding, len(data)) + data


RESPONSES = (
    field(b"X: ", b"a"),
    field(b"X:", b" ", b"a\tb"),
    field(b"X: a", b"\t"),
    field(b"Cache-Control: ", b"a, "),
    field(b"Cache-Control: ", b'a="'),
    field(b"Cache-Control: ", b'"\\'),
    field(b"Cache-Control: max-age=", b"9"),
    field(b"Cache-Control: ", b","),
    field(b"CDN-Cache-Control: ", b"a=1,"),
    field(b"Vary: ", b"a,"),
    field(b"Vary: *", b" "),
    field(b"ETag: ", b'"'),
    field(b"ETag: ", b"W/"),
    field(b"Age: ", b"1"),
    field(b"Expires: ", b"Mon, "),
    field(b"Date: ", b"1"),
    field(b"Last-Modified: ", b" "),
    field(b"Content-Encoding: ", b"gzip, "),
    field(b"Set-Cookie: ", b"a=b; "),
    Input(OK, b"Set-Cookie: a=" + b"b" * 240 + b"\r\n", b"\r\n", longest=60_000),
    Input(OK, b"Set-Cookie: a=" + b"b" * 230 + b";" * 16 + b"\r\n", b"\r\n", longest=60_000),
    field(b"Set-Cookie: a=b\r\nSet-Cookie2: ", b"a=b; "),
    field(b"Set-Cookie: a=b\r\nSet-Cookie2: ", b'a="'),
    field(b"Link: ", b"<"),
    field(b"Retry-After: ", b"9"),
    Input(OK, b"X: y\r\n", b"\r\n", longest=HEAD),
    Input(OK, b"Vary: a\r\n", b"\r\n", longest=HEAD),
    Input(b"HTTP/1.1 200 ", b"a", EMPTY, longest=HEAD),
    Input(b"", b"HTTP/1.1 100 Continue\r\n\r\n", OK + EMPTY[2:]),
    Input(OK + b"Content-Length: 99999999\r\n\r\n", b"x"),
    Input(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", b"0\r\n\r\n"),
    Input(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1;", b"\r\n"),
    Input(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n", b"\r\n"),
    Input(b"", b"x", make=lambda text: coded(b"gzip", zlib.compress(text, wbits=31))),
    Input(b"", b"x", make=lambda text: coded(b"deflate", zlib.compress(text))),
    *(
        Input(b"", b"x", make=partial(compressed, coding, compress))
        for coding, compress in compressors().items()
    ),
    Input(b"", zlib.compress(b"x", wbits=31), make=partial(coded, b"gzip")),
)

AGAIN = b"HTTP/1.1 401 Unauthorized\r\n"


def challenge(begin: bytes, piece: bytes) -> Input:
    """Return a response with a challenge as long as is wanted."""
    return Input(AGAIN + b"WWW-Authenticate: " + begin, piece, EMPTY, longest=HEAD)


READ_RESPONSES = (
    field(b"Link: ", b"<"),
    field(b"Link: ", b"<a>;"),
    field(b"Link: ", b"<a>;rel=a,"),
    field(b"Link: <a>", b';a="'),
    field(b"Link: <a>", b';a="\\'),
    field(b"Link: <a>;rel=", b" a;"),
    field(b'Link: <a>;rel="', b"a ", b'"'),
    field(b"Link: <a>;rel=a;title*=UTF-8''", b"%41"),
    field(b"Set-Cookie: ", b"a=b; "),
    field(b"Set-Cookie: a=", b'"'),
    field(b"Content-Type: a/b", b";"),
    challenge(b"", b"Digest "),
    challenge(b"", b"a,"),
    challenge(b"Digest ", b'a="'),
    challenge(b"Digest ", b'a="\\'),
    challenge(b"Digest realm=a, nonce=a, qop=", b"a "),
    challenge(b'Digest realm=a, nonce=a, qop="', b"a,"),
    Input(AGAIN, b"WWW-Authenticate: Digest a=b\r\n", b"\r\n", longest=HEAD),
)


def heads_and_bodies() -> Feed:
    """Be read by the parser of our own, whose calls have a turn each."""
    reader = ResponseReader(max_body=2**30)
    clock = Clock()

    def go_on() -> None:
        if reader.advance():
            clock.callLater(0, go_on)

    def feed(data: bytes) -> None:
        if reader.feed(data):
            clock.callLater(0, go_on)
        while call_due(clock):
            pass

    return feed


def first_reads() -> Feed:
    """Be the first read of a response to a GET, which seldom takes more to be read."""

    def feed(data: bytes) -> None:
        with suppress(FetchError):
            read_whole(data, HEAD, 2**30)

    return feed


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

READER = (
    field(b"X: ", b"a"),
    field(b"X:", b" ", b"a\tb"),
    field(b"X: a", b"\t"),
    field(b"X: a", b"\r"),
    field(b"X: a", b"\r\n "),
    field(b"X", b"x"),
    field(b"", b" "),
    field(b"", b":"),
    field(b"Connection: ", b"a, "),
    field(b"Connection: ", b" ,"),
    field(b"Connection: close", b" ", b"x"),
    field(b"Connection: ", b"close"),
    field(b"Transfer-Encoding: ", b"chunked,"),
    field(b"Content-Length: ", b"0,"),
    field(b"Content-Length: ", b"0", b"x"),
    field(b"Content-Length: ", b" ", b"1"),
    Input(OK, b"X: y\r\n", b"\r\n", longest=HEAD),
    Input(OK, b"X: y\n", b"\n", longest=HEAD),
    Input(OK, b"X: y\r\n z\r\n", b"\r\n", longest=HEAD),
    Input(OK, b"\r", b"\n\r\n", longest=HEAD),
    Input(OK, b"Content-Length: 0\r\n", b"\r\n", longest=HEAD),
    Input(b"HTTP/1.1 200 ", b"a", EMPTY, longest=HEAD),
    Input(b"", b"HTTP/1.1 100 Continue\r\n\r\n", OK + EMPTY[2:]),
    Input(OK + EMPTY[2:], b"x"),
    Input(OK + b"\r\n", b"x"),
    Input(OK + b"Content-Length: 99999999\r\n\r\n", b"x"),
    Input(CHUNKED, b"1\r\nx\r\n", b"0\r\n\r\n"),
    Input(CHUNKED, b"00000001\r\nx\r\n", b"0\r\n\r\n"),
    Input(CHUNKED, b"10;a\r\n0123456789abcdef\r\n", b"0\r\n\r\n"),
    Input(CHUNKED, b"0"),
    Input(CHUNKED + b"0", b" ", b"x\r\n"),
    Input(CHUNKED + b"1", b";", b"\0\r\n"),
    Input(CHUNKED + b"FFFFFFF\r\n", b"x"),
    Input(CHUNKED + b"0\r\n", b"X: y\r\n", b"\r\n", longest=HEAD),
    Input(CHUNKED + b"0\r\n", b"X: y\r\n z\r\n", b"\r\n", longest=HEAD),
    Input(CHUNKED + b"0\r\nX: ", b"y", b"\r\n\r\n", longest=HEAD),
    Input(b"", b"x"),
    Input(b"", b"\n"),
    Input(b"HTTP/1.", b"\n"),
)

TUNNELS = (
    Input(b"HTTP/1.1 200 ", b"a", b"\r\n\r\n", longest=8192),
    Input(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", b"\r\n", longest=8192),
    Input(b"HTTP/1.1 200 OK", b"\r", b"\n\r\n", longest=8192),
)

TEXTS = tuple(Input(b"", piece) for piece in (b"x", b"\xd2", b"\xff", b"\xc3\xa9", b"\x81"))


def texts() -> Feed:
    """Send a text in one of some charsets, of which an excerpt is shown too."""

    def take(data: bytes) -> None:
        for codec in ("cp1253", "utf_8", "gb18030"):
            decode_text(data, codec_of_mark(data, codec))
            decode_beginning(data, codec, 200)

    return take


LOCATIONS = tuple(
    Input(begin, piece, longest=MAX_URL)
    for begin, piece in (
        (b"/", b"../"),
        (b"/", b"%2e%2E/"),
        (b"/", b"a/"),
        (b"/", b"\xc3\xa9 "),
        (b"/", b"\xe9"),
        (b"?", b"a=b&c+"),
        (b"//a", b".a"),
        (b"//a", b"..a"),
        (b"//", b"a"),
        (b"//", b"\xc3\xa9"),
        (b"//a:", b"0"),
        (b"//", b"1."),
        (b"//[", b":1"),
        (b"//", b"a@"),
        (b"#", b"#"),
    )
)


def locations() -> Feed:
    """Send ``Location`` in a redirect."""

    def take(data: bytes) -> None:
        with suppress(InvalidURL):
            resolve("http://h.example/a/b", data.decode("latin-1"))

    return take


JSON = (
    Input(b"[", b"1e300,", b"1]"),
    Input(b'["', b"1e300,", b'1"]'),
    Input(b"", b"["),
    Input(b'"', b"\\\\", b'"'),
    Input(b'"', b'\\"', b'"'),
    Input(b"[", b'"",', b'""]'),
    Input(b"[", b"1,", b"1]"),
)

DOORS: dict[str, Door] = {
    "a first line": Door(lines, LINES),
    "a line": Door(proven_lines, LINES),
    "many lines": Door(proven_lines, MANY_LINES),
    "a line by bytes": Door(proven_lines, (LINES[0], LINES[6]), by_byte=True),
    "many lines by bytes": Door(proven_lines, MANY_LINES[:2], by_byte=True),
    "TLS records": Door(tls_records, RECORDS),
    "TLS records by bytes": Door(tls_records, RECORDS, by_byte=True),
    "WebSocket frames": Door(websocket, FRAMES),
    "WebSocket frames by bytes": Door(websocket, FRAMES[:3], by_byte=True),
    "a WebSocket handshake": Door(websocket_handshake, HANDSHAKES),
    "a WebSocket handshake by bytes": Door(websocket_handshake, HANDSHAKES[:2], by_byte=True),
    "a PROXY header": Door(lambda: parse_header, PROXY),
    "a datagram": Door(datagrams, DATAGRAMS),
    "a CoAP message": Door(coap, COAP),
    "DTLS records": Door(lambda: protected_records, DTLS),
    "a ClientHello of DTLS": Door(lambda: ClientHello.parse, DTLS),
    "an announcement": Door(announcements, ANNOUNCEMENTS),
    "an answer": Door(answers, ANSWERS),
    "an answer by bytes": Door(answers, ANSWERS[:2], by_byte=True),
    "an HTTP response": Door(responses, RESPONSES),
    "an HTTP response by bytes": Door(responses, (RESPONSES[0], RESPONSES[21]), by_byte=True),
    "an HTTP response that is looked at": Door(read_responses, READ_RESPONSES),
    "server-sent events": Door(events, EVENTS),
    "server-sent events by bytes": Door(events, EVENTS, by_byte=True),
    "lines of a body": Door(text_lines, TEXT_LINES),
    "lines of a body by bytes": Door(text_lines, TEXT_LINES, by_byte=True),
    "a response of HTTP/1": Door(heads_and_bodies, READER),
    "a response of HTTP/1 by bytes": Door(heads_and_bodies, READER[::3], by_byte=True),
    "the first read of a response": Door(first_reads, READER),
    "a proxy's answer": Door(lambda: partial(tunnel_opened, host="proxy"), TUNNELS),
    "a text": Door(texts, TEXTS),
    "a redirect": Door(locations, LOCATIONS),
    "JSON": Door(lambda: decode_json, JSON),
}
"""All doors by name."""
