"""The servers that we compare ourselves with, each the plain way to write it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from twisted.internet.protocol import DatagramProtocol, ServerFactory
from twisted.protocols.basic import LineOnlyReceiver


class PlainLines(LineOnlyReceiver):
    """The command server as Twisted's documentation would have it."""

    delimiter = b"\n"

    def lineReceived(self, line: bytes) -> None:
        words = line.decode().split()
        command = words[0].upper()
        results: dict[str, Callable[[], str]] = {
            "ECHO": lambda: " ".join(words[1:]),
            "PING": lambda: "PONG",
            "TIME": lambda: datetime.now(UTC).isoformat(),
        }
        result = results[command]()
        assert self.transport is not None
        self.transport.write(json.dumps({"command": command, "result": result}).encode() + b"\n")


class PlainDatagrams(DatagramProtocol):
    """The datagram server as Twisted's documentation would have it."""

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        assert self.transport is not None
        self.transport.write(b"PONG" if datagram == b"PING" else b"ECHO: " + datagram, addr)


def main(tcp_port: str, udp_port: str) -> None:
    """Serve both on loopback until the process is ended."""
    from twisted.internet import reactor as installed

    reactor: Any = installed  # it is many interfaces at once
    factory = ServerFactory()
    factory.protocol = PlainLines
    reactor.listenTCP(int(tcp_port), factory, backlog=4096, interface="127.0.0.1")
    reactor.listenUDP(int(udp_port), PlainDatagrams(), interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
