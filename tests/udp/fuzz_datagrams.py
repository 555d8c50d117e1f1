"""
Feeds the datagram server, and times it: ``python -m tests.udp.fuzz_datagrams 200000``.

It makes datagrams of up to 1 KB, random ones and those that are hard to read (text that is nearly
UTF-8, white space of all kinds, names of commands, long numbers), and ends with an error at the
first exception that leaves, or where one costs more than :data:`MOST`. What is timed is the best of
some tries, so that another process's turn is not taken for ours.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from functools import partial

from twisted_net.net.addresses import Source
from twisted_net.udp.amplification_guard import AmplificationGuard
from twisted_net.udp.limits import DatagramLimits
from twisted_net.udp.responder import DatagramResponder

MOST = 0.001
"""Seconds that one datagram may cost."""

_LONGEST = 1024
_TRIES = 5
_PIECES = (
    *(b"PING", b"TIME", b"STATS", b"ECHO: ", b"ERROR: ", b"PAD", b"PONG"),
    *(b" ", b"\t\r\n", b"\x00", b"\x1c\x85", "\u3000\u2003\u00a0".encode(), "\u017f".encode()),
    *(b"\xff", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", "\U0010ffff".encode()),
)


def datagrams(count: int, chance: random.Random) -> Iterator[bytes]:
    """Make so many datagrams, half of them out of pieces that are repeated."""
    for _ in range(count // 2):
        yield chance.randbytes(chance.randrange(_LONGEST + 1))
        parts = [chance.choice(_PIECES) * chance.randrange(1, 200) for _ in range(3)]
        yield b"".join(parts)[: chance.randrange(_LONGEST + 1)]


def sources(chance: random.Random) -> Iterator[Source]:
    """Make sources of all kinds for ever, few of them twice."""
    while True:
        port = chance.randrange(65_536)
        number = chance.randrange(1 << 32)
        yield ".".join(map(str, number.to_bytes(4, "big"))), port
        yield f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1", port
        yield f"::ffff:192.0.{number % 256}.1", port
        yield f"fe80::{number & 0xFFFF:x}%{1 + number % 3}", port


def main(count: str = "200000", seed: str = "1") -> None:
    """Feed both servers, guarded and not, and print the highest cost of one datagram."""
    chance = random.Random(int(seed))
    limits = DatagramLimits(max_clients=1000)
    responder = DatagramResponder(limits)
    answers = {
        "not guarded": responder.answer,
        "guarded": AmplificationGuard(responder, limits).answer,
    }
    worst = dict.fromkeys(answers, 0.0)
    senders = sources(chance)
    for i, data in enumerate(datagrams(int(count), chance)):
        source = next(senders)
        for name, answer in answers.items():
            cost = 1.0
            for _ in range(_TRIES):
                began = time.perf_counter()
                answer(data, source, i / 1000, partial(float, i * 1000))
                cost = min(cost, time.perf_counter() - began)
                if cost < worst[name]:
                    break
            worst[name] = max(worst[name], cost)
            if cost > MOST:
                sys.exit(f"{data!r} from {source} costs {cost * 1e6:.0f} µs, {name}")
    for name, cost in worst.items():
        print(f"{name}: at most {cost * 1e6:.1f} µs for one of {count} datagrams")  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
