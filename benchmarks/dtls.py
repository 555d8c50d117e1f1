"""
What DTLS costs, and what it gives away: ``python -m benchmarks.dtls``.

For our server, and libcoap's where it is installed, each as a process:

- amplification: bytes that a ClientHello without a cookie is answered with, for each of its own.
  Whoever forges a source can make a server send so much to it. Above 1.0 it is worth while.
- ClientHellos without a cookie that a second of the server's processor time answers, each from
  a port of its own, how many are answered, and how much its memory grows by them.
- handshakes per second of processor time, with ECDSA P-256 and X25519, and what an established
  session that says nothing takes of its memory.

The clients are ours, and run beside it; only the server's processor time counts.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen
from OpenSSL import SSL

from benchmarks.options import bounded_number
from tests.tcp.issuing import Authority, write_pair
from twisted_net.dtls.session import DtlsSession, client_context
from twisted_net.dtls.settings import DtlsClientSettings

OURS = """
import sys
from twisted.internet import reactor
from twisted_net.commands.standard import standard_commands
from twisted_net.coap.server import CoapServer
from twisted_net.dtls.server import DtlsServer, listen_dtls
from twisted_net.dtls.settings import DtlsSettings

settings = DtlsSettings(
    certificate=sys.argv[2],
    max_sessions=100_000,
    max_handshakes=1000,
    max_handshakes_per_address=1000,
)
coap = CoapServer(reactor, standard_commands())
server = DtlsServer(reactor, coap, DtlsServer.make_certificates(settings), settings)
listen_dtls(reactor, server, int(sys.argv[1]))
reactor.run()
"""

HEADERS = 28
"""Bytes of the headers of IPv4 and UDP."""


PATIENCE = 5
"""Clients in a row that a server does not answer, after which no more are tried."""


@frozen
class Greeted:
    """What a server did for ClientHellos without a cookie."""

    sent: int
    answered: int
    amplification: float
    on_the_wire: float
    per_second: float
    kept: float


@frozen
class Shaken:
    """What handshakes cost a server."""

    done: int
    per_second: float
    session_bytes: float


class Client:
    """A client on a socket of its own."""

    def __init__(self, context: SSL.Context, port: int) -> None:
        self.socket = socket.socket(type=socket.SOCK_DGRAM)
        self.socket.connect(("127.0.0.1", port))
        self.socket.settimeout(0.5)
        self.session = DtlsSession(SSL.Connection(context, None), 1232)
        self.session.connect("localhost", 0.0)
        self.hello = self.session.datagrams()[0]

    def shake_hands(self) -> None:
        """Do the whole handshake."""
        self.socket.send(self.hello)
        while not self.session.established:
            self.session.receive(self.socket.recv(65_535), 0.0)
            for datagram in self.session.datagrams():
                self.socket.send(datagram)


@contextmanager
def running(words: list[str], port: int, context: SSL.Context) -> Iterator[int]:
    """Run a server until it answers, and give its process ID."""
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            client = Client(context, port)
            client.socket.settimeout(0.2)
            try:
                client.socket.send(client.hello)
                client.socket.recv(65_535)
                break
            except (TimeoutError, ConnectionRefusedError):
                time.sleep(0.1)
        else:
            raise RuntimeError(f"{words[0]} does not answer")
        yield server.pid
    finally:
        server.terminate()
        server.wait()


def greet(pid: int, port: int, context: SSL.Context, count: int) -> Greeted:
    """Say hello as many clients, of whom none returns a cookie."""
    clients = [Client(context, port) for _ in range(count)]
    memory, cpu = resident_bytes(pid), cpu_seconds(pid)
    sent: list[int] = []
    answers: list[int] = []
    silent = 0
    for client in clients:
        client.socket.send(client.hello)
        sent.append(len(client.hello))
        try:
            answers.append(len(client.socket.recv(65_535)))
            silent = 0
        except TimeoutError:
            silent += 1
            if silent == PATIENCE:
                break
    cpu, kept = cpu_seconds(pid) - cpu, resident_bytes(pid) - memory
    per_second, answered = len(sent) / cpu, len(answers)
    # Whatever else a server sends them, it has two seconds for.
    time.sleep(2.0)
    for client in clients:
        client.socket.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                answers.append(len(client.socket.recv(65_535)))
        client.socket.close()
    return Greeted(
        len(sent),
        answered,
        sum(answers) / sum(sent),
        (sum(answers) + HEADERS * len(answers)) / (sum(sent) + HEADERS * len(sent)),
        per_second,
        kept / len(sent),
    )


def shake(pid: int, port: int, context: SSL.Context, count: int) -> Shaken:
    """Do the handshakes of many clients, who then say nothing."""
    memory, cpu = resident_bytes(pid), cpu_seconds(pid)
    clients = [Client(context, port) for _ in range(count)]
    done = silent = 0
    for client in clients:
        try:
            client.shake_hands()
        except TimeoutError:
            silent += 1
            if silent == PATIENCE:
                break
        else:
            silent = 0
            done += 1
    # The last words of some handshakes may still be under way.
    time.sleep(0.2)
    cpu, kept = cpu_seconds(pid) - cpu, resident_bytes(pid) - memory
    for client in clients:
        client.socket.close()
    return Shaken(done, done / cpu, kept / max(done, 1))


def main() -> None:
    """Measure all, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hellos", type=bounded_number(int, 1, 100_000), default=500)
    parser.add_argument("--sessions", type=bounded_number(int, 1, 100_000), default=300)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority = Authority()
        ca = str(authority.write(folder / "ca.pem"))
        pair = authority.issue("localhost")
        certificate = str(write_pair(folder / "server.pem", pair))
        context = client_context(DtlsClientSettings(ca=ca))
        for title, words, offset in _servers(certificate):
            port = _free_port()
            words = [word.replace("PORT", str(port)) for word in words]
            port += offset
            # A process for each: what strangers leave behind in one is no matter of the other's.
            with running(words, port, context) as pid:
                greeted = greet(pid, port, context, arguments.hellos)
            with running(words, port, context) as pid:
                shaken = shake(pid, port, context, arguments.sessions)
            print(
                f"{title}\n"
                f"  amplification {greeted.amplification:.2f}, with the headers of IP and UDP"
                f" {greeted.on_the_wire:.2f}\n"
                f"  {greeted.per_second:.0f} ClientHellos per CPU second,"
                f" {greeted.kept:.0f} bytes kept of each;"
                f" {greeted.answered} of {greeted.sent} answered\n"
                f"  {shaken.per_second:.0f} handshakes per CPU second,"
                f" {shaken.session_bytes / 1024:.1f} KiB for an idle session;"
                f" {shaken.done} were let in"
            )


def _servers(certificate: str) -> Iterator[tuple[str, list[str], int]]:
    """Give each server's title, its words, and how far its DTLS port is from PORT."""
    yield "ours", [sys.executable, "-c", OURS, "PORT", certificate], 0
    for build in ("openssl", "gnutls"):
        path = shutil.which(f"coap-server-{build}")
        if path is None:
            print(f"coap-server-{build} is not installed (Debian: libcoap3-bin)")
            continue
        pair = ["-c", certificate, "-j", certificate, "-n"]
        yield f"coap-server-{build}", [path, "-A", "127.0.0.1", "-p", "PORT", *pair], 1


def cpu_seconds(pid: int) -> float:
    """Give the processor time of a process of one thread."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def resident_bytes(pid: int) -> int:
    """Give how much memory a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def _free_port() -> int:
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


if __name__ == "__main__":
    main()
