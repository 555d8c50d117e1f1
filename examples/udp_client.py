"""Ask a datagram server: ``python examples/udp_client.py [HOST] [PORT]``."""

from __future__ import annotations

import sys

from twisted.internet.task import react

from twisted_net.net import Reactor
from twisted_net.udp import DatagramClient, DatagramError


async def main(
    reactor: Reactor,
    host: str = "127.0.0.1",
    port: str = "9999",
) -> None:
    """Ask each kind of question, and print the answers."""
    async with DatagramClient(reactor, host, int(port)) as client:
        try:
            await client.ping()
            print("it answers PING")
            print("its time:", await client.time())
            print("echo:", await client.echo("hello"))
            print("41 + 1 =", await client.increment(41))
            print("datagrams so far:", (await client.stats())["total_packets"])
        except DatagramError as error:
            raise SystemExit(f"{error.code}: {error}") from None


if __name__ == "__main__":
    react(main, sys.argv[1:])
