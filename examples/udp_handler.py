"""A custom UDP handler in a Twisted program: ``python examples/udp_handler.py [PORT]``."""

from __future__ import annotations

import sys

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_net.net import DatagramReactor, Source
from twisted_net.udp import DatagramServer, listen_datagrams


def shout(data: bytes, source: Source) -> bytes | None:
    """Answer in capitals; an empty datagram is not answered."""
    return data.upper() or None


async def main(reactor: DatagramReactor, port: str = "9999") -> None:
    """Serve until Ctrl-C."""
    listening = listen_datagrams(reactor, DatagramServer(reactor, handler=shout), int(port))
    address = listening.getHost()
    print(f"listening on {address.host}:{address.port}", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
