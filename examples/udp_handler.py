"""A UDP handler of one's own in a Twisted program: ``python examples/udp_handler.py [PORT]``."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_net.net.addresses import Source
from twisted_net.udp.server import DatagramServer, listen_datagrams


def shout(data: bytes, source: Source) -> bytes | None:
    """Answer in capitals; an empty datagram is not answered."""
    return data.upper() or None


async def main(reactor: Any, port: str = "9999") -> None:  # Any: a reactor has many interfaces
    """Serve until Ctrl-C."""
    listening = listen_datagrams(reactor, DatagramServer(reactor, handler=shout), int(port))
    address = listening.getHost()
    print(f"listening on {address.host}:{address.port}", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
