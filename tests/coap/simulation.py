"""
Two kinds of endpoints on a network that loses, doubles, delays and reorders, on a clock of its own.

``python -m tests.coap.simulation 100000`` runs so many exchanges and prints what became of them.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush

from attrs import define, field

from twisted_net.coap.codec import CoapMessage, Code, Type
from twisted_net.coap.errors import CoapTimeout
from twisted_net.coap.exchange import (
    IncomingMessage,
    MessageFailed,
    OutgoingMessage,
    ResponseReceived,
)
from twisted_net.coap.messages import MessageLayer
from twisted_net.coap.settings import TransmissionParameters
from twisted_net.net.addresses import Source


@define
class Network:
    """
    Carries datagrams, each with its own fate, and tells the time.

    :param loss: share of datagrams that vanish.
    :param doubled: share of datagrams that arrive twice.
    :param delay: seconds that one takes at most; each draws its own, so that they overtake.
    """

    chance: random.Random
    loss: float = 0.3
    doubled: float = 0.1
    delay: float = 0.5
    now: float = 0.0
    carried: int = 0
    _queue: list[tuple[float, int, Callable[[], None]]] = field(factory=list)

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call something at a time."""
        self.carried += 1
        heappush(self._queue, (when, self.carried, call))

    def send(self, arrive: Callable[[], None]) -> None:
        """Carry a datagram, if it is lucky."""
        for _ in range(1 + (self.chance.random() < self.doubled)):
            if self.chance.random() >= self.loss:
                self.at(self.now + self.chance.random() * self.delay, arrive)

    def run(self) -> None:
        """Let time pass until nothing is due."""
        while self._queue:
            self.now, _, call = heappop(self._queue)
            call()


class Node:
    """An endpoint: a message layer, its timer, and what it does with events."""

    def __init__(self, network: Network, address: Source, limits: TransmissionParameters) -> None:
        self.network = network
        self.address = address
        self.layer = MessageLayer(limits, network.chance.randrange(65_536))
        self.nodes: dict[Source, Node] = {}
        self._wake: float | None = None

    def arrive(self, datagram: bytes, source: Source) -> None:
        """Take in a datagram."""
        for event in self.layer.receive(datagram, source, self.network.now):
            self.heard(event)
        self.flush()

    def heard(self, event: object) -> None:
        """Do something with an event."""
        raise NotImplementedError

    def flush(self) -> None:
        """Send what is due, and keep the timer."""
        network = self.network
        for datagram, to in self.layer.messages_to_send():
            network.send(partial(self.nodes[to].arrive, datagram, self.address))
        due = self.layer.next_timeout()
        if due is not None and (self._wake is None or due < self._wake):
            self._wake = due
            network.at(due, lambda: self._timeout(due))

    def _timeout(self, due: float) -> None:
        if self._wake == due:
            self._wake = None
            for event in self.layer.advance(self.network.now):
                self.heard(event)
            self.flush()


class Server(Node):
    """Runs a command for each request: at once, or, for one in four, after a while."""

    def __init__(self, network: Network, address: Source, limits: TransmissionParameters) -> None:
        super().__init__(network, address, limits)
        self.runs: dict[bytes, int] = {}
        self.largest: dict[str, int] = {}
        self._limits = limits

    def arrive(self, datagram: bytes, source: Source) -> None:
        super().arrive(datagram, source)
        for name, size in self.layer.sizes.items():
            self.largest[name] = max(size, self.largest.get(name, 0))

    def over_limits(self) -> dict[str, int]:
        """Return what was ever held beyond its limit: requests still being answered may be."""
        limits = self._limits
        bounds = {
            "peers": limits.max_peers,
            "exchanges": limits.max_exchanges,
            "exchange_bytes": limits.max_exchange_bytes,
        }
        return {name: self.largest[name] for name in bounds if self.largest[name] > bounds[name]}

    def heard(self, event: object) -> None:
        if not isinstance(event, IncomingMessage):
            return
        assert event.message is not None
        payload = event.message.payload
        self.runs[payload] = self.runs.get(payload, 0) + 1
        chance = self.network.chance
        if chance.random() < 0.25:
            when = self.network.now + chance.random() * 2
            self.network.at(when, lambda: self._answer(event, payload))
        else:
            self._answer(event, payload)

    def _answer(self, incoming: IncomingMessage, payload: bytes) -> None:
        answer = CoapMessage(Type.ACK, Code.CHANGED, payload=b"done " + payload)
        self.layer.send_response(incoming, answer, self.network.now, self.network.chance.random())
        self.flush()


class Client(Node):
    """Asks one question after the other, as many at a time as NSTART allows."""

    def __init__(
        self,
        network: Network,
        address: Source,
        limits: TransmissionParameters,
        server: Source,
        count: int,
    ) -> None:
        super().__init__(network, address, limits)
        self._server = server
        self._left = count
        self._asked: dict[OutgoingMessage, bytes] = {}
        self.right = 0
        self.failed: list[bytes] = []
        self.wrong: list[str] = []

    def ask(self) -> None:
        """Ask the next question, where one is left."""
        if not self._left:
            return
        self._left -= 1
        payload = f"{self.address[1]} {self._left}".encode()
        token = self.network.chance.randbytes(4)
        message = CoapMessage(Type.CON, Code.POST, token=token, payload=payload)
        network = self.network
        outgoing = self.layer.send_request(
            message, self._server, network.now, network.chance.random()
        )
        self._asked[outgoing] = payload
        self.flush()

    def heard(self, event: object) -> None:
        if isinstance(event, ResponseReceived):
            payload = self._asked.pop(event.outgoing)
            if event.message.payload == b"done " + payload:
                self.right += 1
            else:
                self.wrong.append(f"{payload!r} was answered with {event.message!r}")
        elif isinstance(event, MessageFailed):
            payload = self._asked.pop(event.outgoing)
            if isinstance(event.error, CoapTimeout):
                self.failed.append(payload)
            else:
                self.wrong.append(f"{payload!r} ended with {event.error!r}")
        self.ask()


@define
class Outcome:
    """What became of the exchanges of one simulation."""

    right: int
    failed: int
    wrong: list[str]
    ran_twice: list[bytes]
    never_ran: int
    lost_answers: int
    evicted: int
    largest: dict[str, int]
    over_limits: dict[str, int]
    left: dict[str, int]
    datagrams: int
    duplicates: int
    seconds: float


def simulate(
    exchanges: int,
    seed: int,
    *,
    clients: int = 100,
    loss: float = 0.3,
    nstart: int = 4,
    limits: TransmissionParameters | None = None,
) -> Outcome:
    """Run so many exchanges of so many clients with one server, to the end."""
    network = Network(random.Random(seed), loss)
    limits = limits or TransmissionParameters(nstart=nstart)
    server = Server(network, ("server", 5683), limits)
    asking = [
        Client(network, ("client", number), limits, server.address, exchanges // clients)
        for number in range(clients)
    ]
    for client in asking:
        client.nodes[server.address] = server
        server.nodes[client.address] = client
        for _ in range(nstart):
            network.at(network.chance.random(), client.ask)
    network.run()
    right = sum(client.right for client in asking)
    failed = [payload for client in asking for payload in client.failed]
    return Outcome(
        right=right,
        failed=len(failed),
        wrong=[wrong for client in asking for wrong in client.wrong],
        ran_twice=[payload for payload, runs in server.runs.items() if runs != 1],
        never_ran=sum(payload not in server.runs for payload in failed),
        lost_answers=sum(payload in server.runs for payload in failed),
        evicted=server.layer.figures()["evicted"],
        largest=server.largest,
        over_limits=server.over_limits(),
        left=server.layer.sizes,
        datagrams=network.carried,
        duplicates=server.layer.counts.duplicates,
        seconds=network.now,
    )


def main(exchanges: str = "100000", seed: str = "1") -> None:
    """
    Run one simulation, print it, and fail where a promise is broken.

    Each command ran once, each answer is right or a clear failure, nothing was ever held beyond
    its limit, and nothing is left at the end.
    """
    began = time.perf_counter()
    outcome = simulate(int(exchanges), int(seed))
    print(f"{time.perf_counter() - began:.1f} s of real time, {outcome.seconds:.0f} s simulated")  # noqa: T201
    print(outcome)  # noqa: T201
    ended = outcome.right + outcome.failed == int(exchanges)
    broken = outcome.wrong or outcome.ran_twice or outcome.over_limits or any(outcome.left.values())
    sys.exit(bool(broken or not ended))


if __name__ == "__main__":
    main(*sys.argv[1:])
