"""
What a spoofed source would get: ``python -m benchmarks.amplification``.

A CoAP server is asked things by an address that it has not seen before, and that never answers: as
if somebody else had written it into his datagrams. All that is sent to it, then and in the minutes
after, is counted against what was sent in its name: RFC 9175 §2.3 wants at most three times as
much. The address is one of 192.0.2.0/24, as those of this machine cannot be forged from outside.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import cast

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from twisted_net.coap.blockwise import Block
from twisted_net.coap.codec import CoapMessage, Code, Option, Type, encode_message
from twisted_net.coap.server import CoapServer
from twisted_net.coap.settings import CoapLimits
from twisted_net.commands.standard import standard_commands
from twisted_net.net.addresses import Source

MOST = 3.0
"""Times the bytes of a question that its answers may have (RFC 9175 §2.3)."""

VICTIM: Source = ("192.0.2.1", 40_000)
MINUTES = 10
"""Minutes for which answers are waited for: longer than anything is sent again."""


@frozen
class Kind:
    """One kind of question: datagrams in their order, and whether they go to a group."""

    name: str
    datagrams: list[bytes]
    group: bool = False


class Counting:
    """A transport that counts what would be sent to the victim."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def write(self, datagram: bytes, addr: Source) -> None:
        assert addr == VICTIM, addr
        self.sent.append(len(datagram))


def request(
    path: str,
    code: int = Code.GET,
    kind: Type = Type.CON,
    options: Iterable[tuple[int, bytes]] = (),
    payload: bytes = b"",
    message_id: int = 1,
    token: bytes = b"",
) -> bytes:
    """Return the datagram of a request."""
    segments = [(int(Option.URI_PATH), part.encode()) for part in path.split("/") if part]
    pairs = [*segments, *((int(number), value) for number, value in options)]
    # By number alone: the segments of a path stay in their order.
    pairs.sort(key=itemgetter(0))
    return encode_message(CoapMessage(kind, code, message_id, token, pairs, payload))


def kinds() -> Iterator[Kind]:
    """Return all kinds of questions."""
    core = ".well-known/core"
    for kind in (Type.CON, Type.NON):
        name = kind.name
        yield Kind(f"{name} GET /{core}", [request(core, kind=kind)])
        for path in ("ping", "time", "stats", "help", "events", "topics/a", "large", "slow"):
            yield Kind(f"{name} GET /{path}", [request(path, kind=kind)])
        for path in ("echo", "large", "slow", "publish", "topics/a", "broadcast"):
            yield Kind(f"{name} POST /{path}", [request(path, Code.POST, kind, payload=b"a b")])
        yield Kind(f"{name} GET /{core} with a token", [request(core, kind=kind, token=b"t" * 8)])
        yield Kind(f"{name} observe /stats", [request("stats", kind=kind, options=[_OBSERVE])])
        yield Kind(f"{name} observe /events", [request("events", kind=kind, options=[_OBSERVE])])
        yield Kind(
            f"{name} observe /topics/a", [request("topics/a", kind=kind, options=[_OBSERVE])]
        )
        for size in (16, 1024):
            block = (Option.BLOCK2, Block(0, False, size).encode())
            yield Kind(
                f"{name} block of {size} of /large", [request("large", kind=kind, options=[block])]
            )
        later = (Option.BLOCK2, Block(5, False, 1024).encode())
        yield Kind(f"{name} a later block", [request("large", kind=kind, options=[later])])
        for size, count in ((16, 8), (1024, 4)):
            yield Kind(f"{name} {count} blocks of {size} up", list(_upload(kind, size, count)))
        yield Kind(f"{name} no such resource", [request("x", kind=kind)])
        yield Kind(f"{name} no such method", [request("echo", Code.DELETE, kind)])
        yield Kind(f"{name} an unknown option", [request("ping", kind=kind, options=[(9, b"")])])
        yield Kind(f"{name} a proxy", [request("", kind=kind, options=[(Option.PROXY_URI, b"a")])])
        echo = (Option.ECHO, b"e" * 12)
        yield Kind(f"{name} a forged Echo", [request("stats", kind=kind, options=[echo])])
        yield Kind(f"{name} the same ten times", [request("stats", kind=kind)] * 10)
        yield Kind(f"{name} a response to nothing", [request("", Code.CONTENT, kind)])
    yield Kind("an empty datagram", [b""])
    yield Kind("a ping", [b"\x40\x00\x00\x01"])
    yield Kind("a NON ping", [b"\x50\x00\x00\x01"])
    yield Kind("an ACK of nothing", [b"\x60\x00\x00\x01"])
    yield Kind("a reset of nothing", [b"\x70\x00\x00\x01"])
    yield Kind("a header alone", [b"\x40\x01\x00\x01"])
    yield Kind("a malformed CON", [b"\x49\x01\x00\x01"])
    yield Kind("a malformed NON", [b"\x59\x01\x00\x01"])
    yield Kind("a reserved code", [b"\x40\xe0\x00\x01"])
    yield Kind("5 KB", [b"\x40\x01\x00\x01\xff" + b"a" * 5000])
    for path in (core, "ping", "stats", "large", "slow", "x"):
        yield Kind(f"a group, /{path}", [request(path, kind=Type.NON)], group=True)
    yield Kind("a group, CON", [request(core)], group=True)
    yield Kind("a group, ping", [b"\x40\x00\x00\x01"], group=True)
    yield Kind("a group, malformed", [b"\x49\x01\x00\x01"], group=True)


def _upload(kind: Type, size: int, count: int) -> Iterator[bytes]:
    for number in range(count):
        block = Block(number, number < count - 1, size)
        yield request(
            "echo",
            Code.POST,
            kind,
            [(Option.BLOCK1, block.encode())],
            b"a" * size,
            message_id=number,
        )


_OBSERVE = (int(Option.OBSERVE), b"")


def measure(kind: Kind) -> tuple[int, list[int]]:
    """Return the bytes that were sent in the victim's name, and those of each datagram to it."""
    clock = Clock()
    commands = standard_commands()
    commands.command("LARGE", safe=True)(lambda: "a" * 100_000)
    commands.command("SLOW", safe=True)(Deferred)
    server = CoapServer(cast(IReactorTime, clock), commands, CoapLimits(), chance=lambda: 0.5)
    counting = Counting()
    server.transport = counting  # type: ignore[assignment]  # a fake
    for datagram in kind.datagrams:
        server.receive(datagram, VICTIM, kind.group)
        clock.advance(0.01)
        server.sessions.topics.publish("a", "news")
        server.sessions.broadcast({"event": "news"})
    clock.pump([1.0] * 60 * MINUTES)
    server.stopProtocol()
    return sum(map(len, kind.datagrams)), counting.sent


def main() -> None:
    """Measure every kind, print a line for each, and fail where one passes the limit."""
    worst, name = 0.0, ""
    print(f"{'question':40}{'sent':>7}{'answered':>10}{'in':>4}{'ratio':>8}")
    for kind in kinds():
        asked, answers = measure(kind)
        ratio = sum(answers) / asked if asked else float(sum(answers))
        print(f"{kind.name:40}{asked:>7}{sum(answers):>10}{len(answers):>4}{ratio:>8.2f}")
        if ratio > worst:
            worst, name = ratio, kind.name
    print(f"worst: {worst:.2f} times ({name}); the rule is {MOST:g}")
    if worst > MOST:
        sys.exit("a spoofed source would get more than the rule allows")


if __name__ == "__main__":
    main()
