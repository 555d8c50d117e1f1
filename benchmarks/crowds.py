"""Crowds of clients that mean harm, for :mod:`benchmarks.attacks`: each in a process of its own."""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from heapq import heappop, heappush
from itertools import chain, count, repeat
from multiprocessing.connection import Connection
from struct import pack

from attrs import define, field, frozen

from benchmarks.attacked import DEAF_TOKEN, MEMBER_TOKEN, NAME
from benchmarks.coap_crowds import option_messages
from benchmarks.hostile_origin import ADDRESS as HOSTILE_ORIGIN
from benchmarks.hostile_origin import PAGES
from benchmarks.layer_crowds import key_updates, single_byte_records, tiny_frames

_KINDS = {False: socket.SOCK_STREAM, True: socket.SOCK_DGRAM}

Script = Callable[[int], Iterator[bytes]]
"""What the connection of a number sends, piece by piece; it holds still at the end."""

OPENINGS_PER_ROUND = 64
"""Connections that are begun between two looks at the others."""

SENDS_PER_ROUND = 64
"""Pieces that one connection sends between two looks at the others."""

FINISH_TIME = 3.0
"""Seconds in which the server ends those who are there, where a crowd finishes."""

PER_PAGE = 16
"""Clients that fetch the same page of a hostile server."""

SECRET = b"~"
"""A byte of a message that only some may get; no server says it on its own account."""


@frozen
class Crowd:
    """
    Clients that keep at it until they are stopped.

    :param script: what each sends.
    :param size: connections at one time.
    :param reads: whether the connection of a number reads what it gets.
    :param source: the address that the connection of a number comes from.
    :param most: connections that are opened in all; those that end are replaced up to that.
    :param leaves: whether a client closes its connection as soon as it has an answer.
    :param pause: seconds between two pieces of one connection; none if 0.
    :param may_hear: whether the connection of a number may get the :data:`SECRET`.
    :param finishes: whether, when it is stopped, those who are there stay until the server ends
        them, for :data:`FINISH_TIME` at most.
    :param together: where given, all leave at once when as many as can be there have been so for so
        many seconds, every second time by a reset; then they come again.
    :param datagrams: whether each sends datagrams, a piece in each; all that it gets is dropped.
    :param opening: where given, it opens each connection, which is blocking until then, and
        returns what is sent on it in place of the script.
    """

    script: Script
    size: int
    reads: Callable[[int], bool] = lambda number: True
    source: Callable[[int], str] = lambda number: "127.0.0.1"
    most: int = 0
    leaves: bool = False
    pause: float = 0.0
    may_hear: Callable[[int], bool] = lambda number: True
    finishes: bool = False
    together: float = 0.0
    datagrams: bool = False
    opening: Callable[[socket.socket], Iterator[bytes]] | None = None


@define(eq=False)
class _Client:
    number: int
    sock: socket.socket
    pieces: Iterator[bytes]
    left: memoryview = field(factory=lambda: memoryview(b""))
    rests: bool = False
    wanted: int = 0


@define
class Counts:
    """
    What a crowd did: connections that it began, and bytes.

    :param ended: connections that the server ended.
    :param heard: bytes of the secret that came to those who may hear it.
    :param leaked: bytes of the secret that came to others.
    """

    opened: int = 0
    failed: int = 0
    ended: int = 0
    sent: int = 0
    received: int = 0
    heard: int = 0
    leaked: int = 0


class Running:
    """
    A crowd that attacks a port.

    :ivar counts: what it has done so far.
    """

    def __init__(self, crowd: Crowd, port: int) -> None:
        self.counts = Counts()
        self._crowd = crowd
        self._port = port
        self._poll = select.epoll()
        self._clients: dict[int, _Client] = {}
        self._numbers = count()
        self._resting: list[tuple[float, int, _Client]] = []
        self._full_since: float | None = None
        self._leavings = 0
        self._least = 2 if crowd.together else 0

    def run(self, stop: Callable[[], bool], complete: Callable[[], object]) -> None:
        """
        Attack until told to stop; tell when as many have come as are to be there at once.

        Of a crowd that leaves together, tell when it has left in both ways.
        """
        crowd, counts = self._crowd, self.counts
        most = crowd.most or crowd.size
        told = False
        while not stop():
            if not told and counts.opened >= crowd.size and self._leavings >= self._least:
                told = True
                complete()
            for _ in range(OPENINGS_PER_ROUND):
                if len(self._clients) >= crowd.size or counts.opened + counts.failed >= most:
                    break
                self._open()
            self._turn()
            if crowd.together:
                self._leave_together()
        end = time.monotonic() + FINISH_TIME * crowd.finishes
        while self._clients and time.monotonic() < end:
            self._turn()

    def _turn(self) -> None:
        for descriptor, events in self._poll.poll(0.01, 1024):
            client = self._clients.get(descriptor)
            if client is not None:
                self._serve(client, events)
        while self._resting and self._resting[0][0] <= time.monotonic():
            _, _, client = heappop(self._resting)
            if client.sock.fileno() >= 0:
                client.rests = False
                self._want(client)

    def _leave_together(self) -> None:
        """Let all leave, if all have been there for long enough."""
        now = time.monotonic()
        if len(self._clients) < self._crowd.size:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        elif now >= self._full_since + self._crowd.together:
            self._leavings += 1
            clients = list(self._clients.values())
            if self._leavings % 2:
                for client in clients:
                    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
            for client in clients:
                self._drop(client)

    def close(self) -> None:
        """End all connections."""
        for client in list(self._clients.values()):
            self._drop(client)
        self._poll.close()

    def _open(self) -> None:
        number = next(self._numbers)
        sock = socket.socket(type=_KINDS[self._crowd.datagrams])
        sock.setblocking(False)
        if not self._crowd.datagrams:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            # The port is found at the connection, so that one address has them all for itself.
            sock.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            sock.bind((self._crowd.source(number), 0))
            failure = sock.connect_ex(("127.0.0.1", self._port))
        except OSError as error:
            failure = error.errno or errno.EIO
        if failure not in (0, errno.EINPROGRESS):
            sock.close()
            self.counts.failed += 1
            return
        pieces = self._crowd.script(number)
        if self._crowd.opening is not None:
            try:
                pieces = self._crowd.opening(sock)
            except OSError:
                sock.close()
                self.counts.failed += 1
                return
        self.counts.opened += 1
        client = _Client(number, sock, pieces)
        self._clients[sock.fileno()] = client
        client.wanted = select.EPOLLOUT
        self._poll.register(sock, client.wanted)
        self._want(client)

    def _want(self, client: _Client) -> None:
        """Listen for what this client needs next."""
        wanted = select.EPOLLIN if self._crowd.reads(client.number) else 0
        if not client.rests:
            wanted |= select.EPOLLOUT
        if wanted != client.wanted:
            client.wanted = wanted
            self._poll.modify(client.sock, wanted)

    def _serve(self, client: _Client, events: int) -> None:
        try:
            if events & select.EPOLLIN:
                data = client.sock.recv(262_144)
                self._take(client, data)
                if not data or self._crowd.leaves:
                    self.counts.ended += not data
                    self._drop(client)
                    return
            elif events & (select.EPOLLHUP | select.EPOLLERR):
                self.counts.ended += 1
                self._drop(client)
                return
            if events & select.EPOLLOUT:
                self._send(client)
        except BlockingIOError:
            pass
        except OSError:
            self.counts.ended += 1
            self._drop(client)

    def _take(self, client: _Client, data: bytes) -> None:
        counts = self.counts
        counts.received += len(data)
        if secret := data.count(SECRET):
            if self._crowd.may_hear(client.number):
                counts.heard += secret
            else:
                counts.leaked += secret

    def _send(self, client: _Client) -> None:
        for _ in range(SENDS_PER_ROUND):
            if not client.left:
                piece = next(client.pieces, None)
                if piece is None:
                    client.rests = True
                    break
                client.left = memoryview(piece)
            sent = client.sock.send(client.left)
            self.counts.sent += sent
            client.left = client.left[sent:]
            if self._crowd.pause and not client.left:
                client.rests = True
                due = time.monotonic() + self._crowd.pause
                heappush(self._resting, (due, client.number, client))
                break
        self._want(client)

    def _drop(self, client: _Client) -> None:
        del self._clients[client.sock.fileno()]
        client.sock.close()


def attack(crowd_name: str, port: int, core: int | None, pipe: Connection) -> None:
    """
    Run a crowd until the other end of the pipe says so, then send what it did.

    :param core: the processor that it runs on, behind all others that want it.
    """
    if core is not None:
        os.sched_setaffinity(0, {core})
    os.nice(10)
    running = Running(crowd_of(crowd_name), port)
    with suppress(BrokenPipeError):
        pipe.send(None)
        running.run(pipe.poll, lambda: pipe.send(None))
        running.close()
        pipe.send(running.counts)


# --- what they send ---


def scattered(number: int) -> str:
    """Give an address of which there are 20 clients, and 100 of its /24, as securing.rst allows."""
    return f"127.1.{number // 100 % 250}.{number // 20 % 5 + 1}"


def scattered_singly(number: int) -> str:
    """Return an address that no other client has, of a /24 that few have."""
    return f"127.2.{number % 8}.{number // 8 % 200 + 1}"


def nothing(number: int) -> Iterator[bytes]:
    """Send nothing."""
    return iter([])


def half_lines(number: int) -> Iterator[bytes]:
    """Begin a line, and go on with a byte now and then."""
    return chain([b"ECHO slow"], repeat(b"x"))


def half_handshakes(number: int) -> Iterator[bytes]:
    """Send a whole ClientHello, or half of one, and then nothing."""
    return iter([_CLIENT_HELLO if number % 2 else _CLIENT_HELLO[:100]])


def _client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


_CLIENT_HELLO = _client_hello()


def over_and_over(line: bytes, size: int = 65_536) -> Script:
    """Send one line, as often as fits into *size* bytes, again and again."""
    block = line * (size // len(line))
    return lambda number: repeat(block)


def in_single_bytes(number: int) -> Iterator[bytes]:
    """Send lines, each byte in a segment of its own."""
    while True:
        for i in range(len(_SHORT)):
            yield _SHORT[i : i + 1]


_SHORT = b"ECHO hello world\n"


def wrong_passwords(number: int) -> Iterator[bytes]:
    """Try to log in, without waiting for what comes of it."""
    for i in count():
        yield f"AUTH root wrong{number}-{i}\n".encode()


def mixed(number: int) -> str:
    """Return one of 500 addresses: of one /24, of as many /24s of one /16, and of all /16s."""
    i = number % 500
    if i < 100:
        return f"127.3.0.{i + 1}"
    if i < 300:
        return f"127.4.{i - 100}.7"
    return f"127.{i - 280}.5.9"


def guesses(number: int) -> Iterator[bytes]:
    """Guess a password of a user that there is, or is not; the user who logs in is among them."""
    names = ("root", NAME, f"nobody{number}")
    return iter([f"AUTH {names[number % 3]} guess{number}\n".encode()])


def slow_calls(number: int) -> Iterator[bytes]:
    """Call commands that each block a thread for seconds, as many as the server takes."""
    return chain([_AS_MEMBER], repeat(b"SLOW 3\n"))


def unknown_names(number: int) -> Iterator[bytes]:
    """Fetch of servers whose names nobody resolves, each another one."""
    fetches = (f"FETCH http://h{number}-{i}.example.com/\n".encode() for i in count())
    return chain([_AS_MEMBER], fetches)


def strangers(number: int) -> Iterator[bytes]:
    """Say nothing; the first one broadcasts, ten others are members, ten hear nothing."""
    if number == 0:
        return chain([_AS_MEMBER], repeat(b"BROADCAST " + SECRET * 100 + b"\n"))
    if number <= 20:
        return iter([_AS_MEMBER if number <= 10 else _AS_DEAF])
    return iter([])


_AS_MEMBER = f"AUTH {MEMBER_TOKEN}\n".encode()
_AS_DEAF = f"AUTH {DEAF_TOKEN}\n".encode()


def page_requests(number: int) -> Iterator[bytes]:
    """Send one request as a browser does when a page asks it to; commands are in its body."""
    return iter([_PAGES[number % len(_PAGES)]])


def _page_requests() -> Iterator[bytes]:
    body = b"PUBLISH news hello\nBROADCAST hello\nFETCH http://192.0.2.1/\nKILL user ann\n"
    fields = (
        b"Host: localhost:8888\r\nConnection: keep-alive\r\nContent-Length: %d\r\n"
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nContent-Type: text/plain\r\n"
        b"Accept: */*\r\nOrigin: https://page.example\r\nReferer: https://page.example/\r\n\r\n"
    ) % len(body)
    for method in (b"POST", b"PUT", b"OPTIONS"):
        # As long as no line, longer than a line before a login, and longer than any line.
        for length in (0, 1100, 17_000, 70_000):
            yield b"%b /?%b HTTP/1.1\r\n" % (method, b"a" * length) + fields + body


_PAGES = tuple(_page_requests())


def new_topics(number: int) -> Iterator[bytes]:
    """Subscribe to 10 000 topics, none of which anybody else has."""
    for i in range(0, 10_000, 500):
        yield b"".join(f"SUBSCRIBE flood.{number}.{j}\n".encode() for j in range(i, i + 500))


def audience(number: int) -> Iterator[bytes]:
    """Subscribe to news; the first one makes them, ten messages a second."""
    if number:
        return iter([b"SUBSCRIBE news\n"])
    return repeat(b"PUBLISH news " + b"n" * 1000 + b"\n")


def holders(number: int) -> Iterator[bytes]:
    """Subscribe, and wait for commands; one of eight asks for much that it does not read."""
    topics = b"".join(f"SUBSCRIBE mass.{number}.{i}\n".encode() for i in range(4))
    return iter([topics + (b"WAIT\n" * 8 if number % 8 else b"HELP\n" * 200)])


def long_urls(number: int) -> Iterator[bytes]:
    """Fetch URLs as long as a line may be: of no form, that are refused, and of a closed port."""
    begin = (b"", b"http://127.0.0.2/", b"http://127.0.0.1:9/")[number % 3]
    line = b"FETCH " + begin
    return repeat(line + b"a" * (16_384 - len(line)) + b"\n")


def broadcasts(number: int) -> Iterator[bytes]:
    """Broadcast as often as a client may at one time; whoever hears any of it leaves."""
    return iter([b"BROADCAST " + b"b" * 4000 + b"\n"] * 64)


def hostile_fetches(number: int, page: str = "") -> Iterator[bytes]:
    """Fetch one of the pages of a hostile server, or this one, again and again, past all caches."""
    page = page or [*PAGES][number % len(PAGES)]
    host, port = HOSTILE_ORIGIN
    return (f"FETCH http://{host}:{port}/{page}?{number}-{i}\n".encode() for i in count())


def full_listings(number: int) -> Iterator[bytes]:
    """Ask for a listing of all clients again and again, or be one of those that it lists."""
    return repeat(b"CLIENTS 1000\n" * 64) if number < 50 else iter([])


def lying_headers(number: int) -> Iterator[bytes]:
    """Send a PROXY header that is wrong, endless or untrue, then a command."""
    return iter([_LIES[number % len(_LIES)], b"PING\n"])


_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_LIES = (
    b"PROXY TCP4 127.0.0.1 127.0.0.1 1 1\r\n",  # that it is of this machine
    b"PROXY TCP4 999.0.0.1 127.0.0.1 1 1\r\n",
    b"PROXY TCP4 127.0.0.1 " + b"1" * 5000,
    b"PROXY UNKNOWN" + b" " * 500,
    b"PROXY TCP4 192.0.2.1 192.0",  # and no more
    _V2 + b"\x21\x11" + pack(">H", 65_535) + b"x" * 10,
    _V2 + b"\x21\x11" + pack(">H", 4) + b"\x7f\x00\x00\x01",
    _V2 + b"\x3f\xff" + pack(">H", 12) + b"\x00" * 12,
    b"PING\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
)


def proxied(number: int) -> str:
    """Give an address that is a trusted proxy, 127.0.0.1, or is none."""
    return "127.0.0.1" if number % 2 else "127.2.0.1"


CROWDS: dict[str, Callable[[], Crowd]] = {
    "slowloris": lambda: Crowd(half_lines, 10_000, source=scattered, most=40_000, pause=5.0),
    "slowloris_tls": lambda: Crowd(half_handshakes, 10_000, source=scattered, most=40_000),
    "never_reading": lambda: Crowd(
        over_and_over(b"ECHO " + b"n" * 1000 + b"\n"), 200, reads=lambda number: False
    ),
    "single_bytes": lambda: Crowd(in_single_bytes, 100),
    "flood_ping": lambda: Crowd(over_and_over(b"PING\n"), 50),
    "flood_help": lambda: Crowd(over_and_over(b"HELP\n"), 50),
    "flood_clients": lambda: Crowd(full_listings, 1000),
    "flood_limited": lambda: Crowd(over_and_over(b"PING\n"), 100, source=scattered),
    "flood_auth": lambda: Crowd(wrong_passwords, 500, source=scattered, most=100_000),
    "guessers": lambda: Crowd(guesses, 500, source=mixed, most=1_000_000, leaves=True),
    "slow_handlers": lambda: Crowd(slow_calls, 16, source=scattered_singly, pause=0.02),
    "dead_name_server": lambda: Crowd(unknown_names, 32, source=scattered_singly, pause=0.02),
    "flood_connections": lambda: Crowd(
        lambda number: iter([b"PING\n"]), 500, source=scattered, most=100_000, leaves=True
    ),
    "flood_subscribe": lambda: Crowd(new_topics, 100),
    "broadcast_leavers": lambda: Crowd(broadcasts, 200, most=1_000_000, leaves=True),
    "mass_ends": lambda: Crowd(
        holders, 3000, reads=lambda number: number % 8 > 0, most=1_000_000, together=1.0
    ),
    "coap_options": lambda: Crowd(
        option_messages, 200, source=scattered_singly, pause=0.02, datagrams=True
    ),
    "fetch_long": lambda: Crowd(long_urls, 50),
    "fanout": lambda: Crowd(audience, 10_001, reads=lambda number: number % 2 == 0, pause=0.1),
    "strangers": lambda: Crowd(
        strangers, 5021, source=scattered, pause=0.05, may_hear=lambda number: number <= 10
    ),
    "page": lambda: Crowd(page_requests, 200, source=scattered, most=1_000_000, finishes=True),
    "endless_lines": lambda: Crowd(lambda number: repeat(b"x" * 65_536), 100),
    "proxy_lies": lambda: Crowd(lying_headers, 500, source=proxied, most=100_000),
    "tls_records": lambda: Crowd(nothing, 20, pause=0.05, opening=single_byte_records),
    "ws_frames": lambda: Crowd(tiny_frames, 20),
    "hostile_pages": lambda: Crowd(hostile_fetches, PER_PAGE * len(PAGES), pause=0.1),
    "key_updates": lambda: Crowd(nothing, 5, most=2000, pause=0.05, opening=key_updates),
}
"""The crowds by the names of their attacks."""


def crowd_of(name: str) -> Crowd:
    """
    Return the crowd of an attack.

    :param name: ``hostile_pages:NAME`` is the part of that attack which fetches one page.
    """
    attack_name, _, page = name.partition(":")
    if page:
        return Crowd(partial(hostile_fetches, page=page), PER_PAGE, pause=0.1)
    return CROWDS[attack_name]()
