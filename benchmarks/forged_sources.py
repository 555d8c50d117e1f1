"""
What a crowd of forged sources costs: ``python -m benchmarks.forged_sources``.

A CoAP server gets datagrams of 100, 6,000 and 50,000 sources, in turn: plain requests, blocks in
both directions, and registrations of observers. The sources are of 198.18.0.0/15, which have not
verified their addresses, and, with ``--verified``, of this machine, for which what they send is
kept: one that is new then takes a session. Printed are the CPU time of a datagram, the least of
several rounds, its ratio to that with 100 sources, and what is kept after each crowd: peers,
messages, sessions, bodies, observers and the bytes of all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from time import process_time
from typing import Any, cast

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from benchmarks.amplification import request
from benchmarks.options import bounded_number
from twisted_net.coap.blockwise import Block
from twisted_net.coap.codec import Code, Option
from twisted_net.coap.server import CoapServer
from twisted_net.commands.standard import standard_commands
from twisted_net.net.addresses import Source

CROWDS = (100, 6_000, 50_000)
"""Sources of each crowd; the first one is what the others are compared with."""

MOST = 1.3
"""Times the CPU time of the smallest crowd that a datagram of a larger one may take."""

KINDS = {
    "GET /ping": (request("ping", token=b"t"),),
    "Block2": (
        request("help", options=[(Option.BLOCK2, Block(0, False, 16).encode())], token=b"t"),
    ),
    "Block1": (
        request(
            "echo",
            Code.POST,
            options=[(Option.BLOCK1, Block(0, True, 16).encode())],
            payload=b"a" * 16,
            token=b"t",
        ),
    ),
    "Observe": (request("events", options=[(Option.OBSERVE, b"")], token=b"t"),),
}


@frozen
class Cost:
    """CPU time of a datagram in µs, and what was kept of the crowd in the end."""

    microseconds: float
    kept: dict[str, int]


class _Nowhere:
    """A transport that drops what is sent."""

    def write(self, datagram: bytes, addr: Source) -> None:
        pass


def _sources(count: int, verified: bool) -> list[Source]:
    network = "127" if verified else "198"
    return [(f"{network}.18.{i >> 8 & 255}.{i & 255}", 1024 + (i >> 16)) for i in range(count)]


def measure(datagrams: Sequence[bytes], crowd: int, verified: bool, rounds: int) -> Cost:
    """
    Return what the datagrams of a crowd cost a server, once each source has sent one.

    :param rounds: of 2000 datagrams each; the fastest one counts.
    """
    clock = Clock()
    server = CoapServer(cast(IReactorTime, clock), standard_commands(), chance=lambda: 0.5)
    server.transport = cast(Any, _Nowhere())  # Any: a fake
    sources = _sources(crowd, verified)
    incoming: Iterator[tuple[bytes, Source]] = zip(cycle(datagrams), cycle(sources), strict=False)
    identities = cycle(range(65_536))

    def send(count: int) -> None:
        for datagram, source in islice(incoming, count):
            # An ID of its own, else it would be taken for a repeated one.
            number = next(identities).to_bytes(2, "big")
            server.receive(datagram[:2] + number + datagram[4:], source)
            clock.advance(0.0001)

    send(crowd)
    best = float("inf")
    for _ in range(rounds):
        began = process_time()
        send(2000)
        best = min(best, process_time() - began)
    memory = server.sessions.memory
    sizes = server.layer.sizes
    bodies = len(server._assembler._bodies) + len(server._responses._bodies)
    kept = {
        "peers": sizes["peers"],
        "messages": sizes["exchanges"],
        "sessions": len(server.sessions),
        "bodies": bodies,
        "observers": server.observers,
        "bytes": memory.total,
    }
    server.stopProtocol()
    return Cost(best / 2000 * 1e6, kept)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each kind and crowd; return 1 if forged ones are over :data:`MOST`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forged_sources")
    parser.add_argument("--verified", action="store_true", help="sources whose messages are kept")
    parser.add_argument("--rounds", type=bounded_number(int, 1, 1000), default=9)
    parser.add_argument(
        "--crowds",
        type=bounded_number(int, 1, 1_000_000),
        nargs="+",
        default=CROWDS,
        help="sources of each",
    )
    options = parser.parse_args(arguments)
    worst = 0.0
    print(f"{'datagrams':12}{'sources':>9}{'CPU µs':>9}{'ratio':>7}  kept")
    for name, datagrams in KINDS.items():
        few = None
        for crowd in options.crowds:
            cost = measure(datagrams, crowd, options.verified, options.rounds)
            few = few or cost.microseconds
            ratio = cost.microseconds / few
            worst = max(worst, ratio)
            kept = ", ".join(f"{size:,} {what}" for what, size in cost.kept.items() if size)
            shown = kept or "nothing"
            print(f"{name:12}{crowd:>9,}{cost.microseconds:>9.1f}{ratio:>7.2f}  {shown}")
    print(f"worst ratio: {worst:.2f}; at most {MOST:g}")
    return int(worst > MOST and not options.verified)


if __name__ == "__main__":
    sys.exit(main())
