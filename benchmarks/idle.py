"""
Bytes of memory that an idle connection holds: ``python -m benchmarks.idle [server ...]``.

For each kind of listener (plain TCP, a PROXY header, a Unix socket, TLS, WebSocket, both) the
service, as an operator starts it, and rivals of the same kind get connections, and this prints how
much the resident memory of the process grows for each of them:

- ``connected``: that have done their handshakes and said nothing;
- ``asked``: that have sent three commands one after the other, got the answers, and are idle since;
- ``burst``: that have sent 64 KiB of commands in one piece, got the answers, and are idle since.

A process of its own is measured for each, in which some connections of the same sort came before,
as what the first ones bring along is not theirs. ``limit`` is what ours is held to.
"""

from __future__ import annotations

import argparse
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import field, frozen, mutable

from benchmarks.attacked import certify
from benchmarks.servers import Server, free_ports, raise_descriptor_limit, started

FIRST, CONNECTIONS = 200, 2000
"""Connections that come before, and those that are measured."""

PING = b"PING\n"
BURST = (b"ECHO " + b"x" * 1018 + b"\n") * 64
STATES = {"connected": [], "asked": [PING] * 3, "burst": [BURST]}
"""What each client sends, piece by piece, each after the answers to the one before."""

SETTLED = 0.5
"""Seconds in which the server must not grow or shrink before it is measured."""

PATIENCE = 30.0

CONFIG = """
[udp]
enabled = false
[tcp]
port = {port}
"""

PAIR = 'tls = {{ certificate = "{folder}/cert.pem", key = "{folder}/key.pem" }}\n'


@frozen
class Kind:
    """
    A kind of listener.

    :param listener: its settings, where it is not that of ``[tcp]``.
    :param limit: bytes of an idle connection that ours must not exceed, if there is a bound.
    :param rivals: servers of :mod:`benchmarks.idle_rivals`.
    """

    listener: str = ""
    limit: int | None = None
    rivals: tuple[str, ...] = ()
    tls: bool = False
    websocket: bool = False
    unix: bool = False
    proxy: bool = False


KINDS = {
    "plain": Kind(limit=2000, rivals=("twisted", "uvloop")),
    "proxy": Kind('port = {other}\nproxy = ["127.0.0.1"]\n', proxy=True),
    "unix": Kind('path = "{folder}/socket"\n', unix=True),
    "tls": Kind("port = {other}\n" + PAIR, 28_000, ("twisted-tls", "uvloop-tls"), tls=True),
    "ws": Kind(
        'port = {other}\nprotocol = "websocket"\n', 7500, ("websockets", "aiohttp"), websocket=True
    ),
    "wss": Kind(
        'port = {other}\nprotocol = "websocket"\n' + PAIR,
        33_000,
        ("websockets-tls", "aiohttp-tls"),
        tls=True,
        websocket=True,
    ),
}


@mutable
class Client:
    """A connection to a server of some kind, which sends lines and reads as many answers."""

    kind: Kind
    sock: socket.socket
    _rest: bytes = field(init=False, default=b"")

    def ask(self, lines: bytes) -> None:
        """Send lines in one piece, and read an answer to each."""
        if self.kind.websocket:
            self.sock.sendall(b"".join(map(_masked, lines.splitlines())))
        else:
            self.sock.sendall(lines)
        answers = 0
        while answers < lines.count(b"\n"):
            self._rest += self._receive()
            answers += self._take_message() if self.kind.websocket else self._take_lines()

    def upgrade(self) -> None:
        """Do the handshake of WebSocket."""
        self.sock.sendall(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        while b"\r\n\r\n" not in self._rest:
            self._rest += self._receive()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise RuntimeError(f"no WebSocket: {head!r}")

    def _receive(self) -> bytes:
        data = self.sock.recv(65_536)
        if not data:
            raise RuntimeError("the server has closed the connection")
        return data

    def _take_lines(self) -> int:
        lines, _, self._rest = self._rest.rpartition(b"\n")
        return lines.count(b"\n") + 1 if lines else 0

    def _take_message(self) -> int:
        """Take the whole messages, which a server does not mask (RFC 6455 §5.2)."""
        taken = 0
        while len(self._rest) >= 4:
            size, begin = self._rest[1], 2
            if size == 126:
                size, begin = int.from_bytes(self._rest[2:4]), 4
            if len(self._rest) < begin + size:
                break
            self._rest = self._rest[begin + size :]
            taken += 1
        return taken


def _masked(line: bytes) -> bytes:
    """Give a line as a message of a client, masked with zeros."""
    size = len(line)
    head = bytes([0x81, 0x80 | size]) if size < 126 else b"\x81\xfe" + size.to_bytes(2)
    return head + b"\0\0\0\0" + line


def connect(kind: Kind, place: int | str, context: ssl.SSLContext | None = None) -> Client:
    """
    Connect to a server, and do the handshakes.

    :param place: a port, or the path of a Unix socket.
    """
    if isinstance(place, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(place)
    else:
        sock = socket.create_connection(("127.0.0.1", place), timeout=PATIENCE)
    if kind.proxy:
        # An address of this machine, as there are no users.
        sock.sendall(b"PROXY TCP4 127.0.0.2 127.0.0.1 %d 8888\r\n" % sock.getsockname()[1])
    if context is not None:
        sock = context.wrap_socket(sock, server_hostname="localhost")
    client = Client(kind, sock)
    if kind.websocket:
        client.upgrade()
    return client


@contextmanager
def serving(name: str, kind: Kind, reactor: str) -> Iterator[tuple[Server, Callable[[], Client]]]:
    """Run a server, and give it with what opens a connection whose handshakes are done."""
    tcp_port, _ = free_ports()
    other, _ = free_ports()
    with tempfile.TemporaryDirectory() as folder:
        certify(folder)
        if name == "ours":
            where = {"port": tcp_port, "other": other, "folder": folder}
            listener = f"[[listeners]]\n{kind.listener.format(**where)}" if kind.listener else ""
            config = Path(folder, "net.toml")
            config.write_text(CONFIG.format(port=tcp_port) + listener)
            twistd = str(Path(sys.executable).with_name("twistd"))
            words = [twistd, f"--reactor={reactor}", "-n", "--pidfile=", "net"]
            command, port = [*words, f"--config={config}"], other if listener else tcp_port
        else:
            words = [sys.executable, "-m", "benchmarks.idle_rivals", name]
            command, port = [*words, str(tcp_port), folder], tcp_port
        context = ssl.create_default_context(cafile=f"{folder}/cert.pem") if kind.tls else None

        place: int | str = f"{folder}/socket" if kind.unix else port
        with started(name, command, tcp_port) as server:
            yield server, lambda: connect(kind, place, context)


def measure(name: str, kind: Kind, pieces: Sequence[bytes], reactor: str) -> float:
    """Give the bytes of one connection that has sent these pieces."""
    with serving(name, kind, reactor) as (server, connect), ExitStack() as opened:

        def open_more(count: int) -> int:
            for _ in range(count):
                client = connect()
                opened.callback(client.sock.close)
                for piece in pieces:
                    client.ask(piece)
            return _settled(server)

        before = open_more(FIRST)
        return (open_more(CONNECTIONS) - before) / CONNECTIONS


def _settled(server: Server) -> int:
    """Give the memory of a server once it has stayed the same for a while."""
    size, since = server.resident(), time.monotonic()
    while time.monotonic() < since + SETTLED:
        time.sleep(SETTLED / 10)
        if (now := server.resident()) != size:
            size, since = now, time.monotonic()
    return size


def main() -> int:
    """Measure what is asked for, and print it; the status tells whether ours is within bounds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="kind", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--reactor", default="quiet", help="of the service: quiet, epoll, asyncio")
    parser.add_argument("--ours", action="store_true", help="leave the rivals out")
    options = parser.parse_args()
    raise_descriptor_limit()
    within = True
    print(
        f"{'bytes a connection':28}" + "".join(f"{state:>12}" for state in STATES) + "       limit"
    )
    for title in options.kinds or KINDS:
        kind = KINDS[title]
        for name in ("ours", *(() if options.ours else kind.rivals)):
            found = [measure(name, kind, pieces, options.reactor) for pieces in STATES.values()]
            limit = kind.limit if name == "ours" else None
            within = within and (limit is None or max(found) <= limit)
            shown = "".join(f"{size:12,.0f}" for size in found)
            print(f"{title:8}{name:20}{shown}{'' if limit is None else f'{limit:12,}'}", flush=True)
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
