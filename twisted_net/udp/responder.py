"""What a datagram server decides: which answer each datagram gets, and what is counted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from twisted_net.config.record import Record
from twisted_net.net.addresses import Source, format_address

DatagramHandler: TypeAlias = Callable[[bytes, Source], bytes | None]
"""Gives the answer to a datagram, or None for silence. It runs in the reactor: it must not wait."""

MAX_PAYLOAD = 65_507
"""The longest datagram that IPv4 carries, in bytes: 65,535 less two headers (RFC 768, RFC 791)."""

REFLECTOR_PORTS = (
    1434, 1900, 3283, 3389, 3478, 3702, 5060, 5093, 5353, 5683, 10_001, 11_211, 20_800, 27_015,
    27_960, 30_120, 32_414,
)  # fmt: skip
"""
Ports above 1023 whose services answer what is sent to them, and have been used for attacks.

SQL Server's browser, SSDP, Apple's remote desktop, RDP, STUN, WS-Discovery, SIP, Sentinel, mDNS,
CoAP, Ubiquiti's discovery, memcached, four games' and Plex: the services of US-CERT's alert
TA14-017A, and others that operators have met since. None is a port from which Linux lets clients
send on its own (32768 to 60999).
"""

ANSWER_TOO_LONG = b"ERROR: the answer is longer than a datagram can be"


class DatagramLimits(Record, frozen=True):
    """
    Every bound of a datagram server.

    ``max_datagram`` is the buffer of the system that this one follows. 64 datagrams a turn keep a
    flood from starving TCP: they take about half a millisecond. Four MiB of receive buffer
    took in 3 to 4 times as much of a burst as the kernel's usual 208 KiB. 10,000 clients are some
    3 MiB. A quarter of a MiB of answers is what the kernel's own send buffer holds, once more.

    ``guard`` and what follows it keep those who forge their address from using this server against
    others (:mod:`twisted_net.udp.amplification_guard`). On loopback no address is forged. Ports
    below 1024 belong to system services, not to clients. 1000 datagrams a second are more than any
    one site sends by hand or by timer, and no burden to whoever gets so many short answers.
    """

    max_datagram: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_PAYLOAD,
            description="longest datagram accepted, in bytes; longer ones are refused and counted",
        ),
    ] = 4096
    max_clients: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000_000,
            description="clients remembered; over it, the one silent for longest is forgotten",
        ),
    ] = 10_000
    datagrams_per_turn: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="datagrams read before other connections have their turn",
        ),
    ] = 64
    receive_buffer: Annotated[
        int,
        Meta(
            ge=4096,
            le=1 << 30,
            description="receive buffer asked of the kernel, in bytes of its own accounting",
        ),
    ] = 4 << 20
    send_buffer: (
        Annotated[
            int,
            Meta(ge=4096, le=1 << 30, description="send buffer asked of the kernel, in bytes"),
        ]
        | None
    ) = None
    send_queue: Annotated[
        int,
        Meta(
            ge=0,
            le=1 << 30,
            description="bytes of answers that wait while the kernel takes none; more are dropped",
        ),
    ] = 262_144
    summary_interval: Annotated[
        float,
        Meta(ge=0, le=86_400, description="seconds between summaries in the log; 0 for none"),
    ] = 10.0
    guard: Annotated[
        Literal["public", "always", "never"],
        Meta(description="sockets guarded against forged sources; public: those beyond loopback"),
    ] = "public"
    refusal: Annotated[
        Literal["pad", "silence"],
        Meta(description="what a question gets that is too short for its answer; guarded sockets"),
    ] = "pad"
    lowest_source_port: Annotated[
        int,
        Meta(ge=1, le=65_535, description="lowest source port answered; guarded sockets"),
    ] = 1024
    reflector_ports: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=65_535)], ...],
        Meta(description="source ports not answered, beside our own; guarded sockets"),
    ] = REFLECTOR_PORTS
    datagrams_per_network: (
        Annotated[
            float,
            Meta(gt=0, description="datagrams per second of one /24 or /64; guarded sockets"),
        ]
        | None
    ) = 1000.0
    datagram_burst: Annotated[
        int, Meta(ge=1, description="datagrams of one network that may come at once after a rest")
    ] = 2000


class DatagramCounts:
    """
    What happened to datagrams since the start, in plain integers that only grow.

    :ivar received: datagrams that came in, whatever became of them.
    :ivar refused: of these, the ones over ``max_datagram``, cut by the kernel or not.
    :ivar failed: of these, the ones whose handler raised or whose answer could not be a datagram.
    :ivar unanswered: of these, the ones to which the handler chose to be silent.
    :ivar ignored: of these, the ones from a port that is never answered (guarded sockets).
    :ivar rate_limited: of these, the ones over the rate of their network (guarded sockets).
    :ivar too_short: of these, the ones shorter than their answer may be (guarded sockets).
    :ivar dropped: answers that the kernel did not take and the queue had no room for.
    :ivar read_errors: reads that failed for a reason that passes.
    """

    __slots__ = (
        "_ended",
        "_meters",
        "dropped",
        "failed",
        "ignored",
        "rate_limited",
        "read_errors",
        "received",
        "refused",
        "too_short",
        "unanswered",
    )

    def __init__(self) -> None:
        self.received = 0
        self.refused = 0
        self.failed = 0
        self.unanswered = 0
        self.ignored = 0
        self.rate_limited = 0
        self.too_short = 0
        self.dropped = 0
        self.read_errors = 0
        self._ended = 0
        self._meters: list[Callable[[], int]] = []

    @property
    def kernel_drops(self) -> int:
        """Datagrams that the kernel dropped before they could be read; not among the received."""
        return self._ended + sum(meter() for meter in self._meters)

    def add_meter(self, meter: Callable[[], int]) -> None:
        """Let *meter* tell, whenever it is asked, what the kernel has dropped at one socket."""
        self._meters.append(meter)

    def end_meter(self, meter: Callable[[], int]) -> None:
        """Take what *meter* tells for the last time: its socket is about to be closed."""
        self._meters.remove(meter)
        self._ended += meter()


class Client:
    """
    One client: when it was first and last seen (seconds of a steady clock), and its packets.
    """

    __slots__ = ("first_seen", "last_seen", "packets")

    def __init__(self, now: float) -> None:
        self.first_seen = now
        self.last_seen = now
        self.packets = 1


class ClientTable:
    """
    The clients that sent something, the most recent last.

    At its limit the table forgets the client that has been silent for longest, and counts it in
    :attr:`forgotten`; should that client come back, its figures start anew.

    :param limit: clients kept, at least 1.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Ordered, not a plain dict: that one needs ever longer to find its oldest key.
        self._clients: OrderedDict[Source, Client] = OrderedDict()
        self._latest: Client | None = None
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._clients)

    def get(self, source: Source) -> Client | None:
        """Give what is known of *source*, or None."""
        return self._clients.get(source)

    def note(self, source: Source, now: float) -> None:
        """Count one packet of *source*."""
        client = self._clients.get(source)
        if client is None:
            if len(self._clients) >= self._limit:
                self._clients.popitem(last=False)
                self.forgotten += 1
            self._latest = self._clients[source] = Client(now)
            return
        client.packets += 1
        client.last_seen = now
        if client is not self._latest:
            self._clients.move_to_end(source)
            self._latest = client

    def recent(self, count: int) -> list[tuple[Source, Client]]:
        """Give the *count* clients heard last, the most recent first; fewer where there are."""
        return list(islice(reversed(self._clients.items()), count))


class DatagramResponder:
    """
    Answers datagrams, and counts them in total and per client.

    The answers, where no handler is given: text (valid UTF-8, the empty datagram too) ``PING``,
    ``TIME`` and ``STATS`` in any ASCII case, white space around them ignored; any other text is
    echoed, stripped. All else is binary: its first four bytes as a big-endian unsigned integer,
    plus one, modulo 2**32; ``INVALID`` where there are fewer. A datagram over the limit is never
    read in part: it is counted and answered with an error, and no handler sees it.

    :param handler: answers in place of all this; what it raises leaves :meth:`answer`.
    :ivar counts: shared with the port, which adds what it alone can see.
    """

    def __init__(self, limits: DatagramLimits, handler: DatagramHandler | None = None) -> None:
        self.counts = DatagramCounts()
        self.clients = ClientTable(limits.max_clients)
        self._handler = handler
        self._max_datagram = limits.max_datagram
        self._refusal = b"ERROR: datagram longer than %d bytes" % limits.max_datagram

    def answer(self, data: bytes, source: Source, now: float, wall: float) -> bytes | None:
        """
        Give the answer to one datagram, or None where its handler wants none.

        :param data: whole; one that may have been cut must be longer than the limit.
        :param now: seconds of a steady clock.
        :param wall: seconds since 1970, for ``TIME``.
        """
        self.counts.received += 1
        self.clients.note(source, now)
        if len(data) > self._max_datagram:
            self.counts.refused += 1
            return self._refusal
        if self._handler is not None:
            answer = self._handler(data, source)
            if answer is None:
                self.counts.unanswered += 1
            return answer
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return increment(data)
        stripped = text.strip()
        if stripped is not text:
            data = stripped.encode()
        if len(data) <= _LONGEST_COMMAND:
            # Upper-cased as bytes, which touches ASCII alone: a long s (U+017F) is no S here.
            command = data.upper()
            if command == b"PING":
                return b"PONG"
            if command == b"TIME":
                return datetime.fromtimestamp(wall, UTC).isoformat().encode()
            if command == b"STATS":
                return msgspec.json.encode(self.statistics())
        return b"ECHO: " + data

    def statistics(self) -> dict[str, int]:
        """Give the figures of ``STATS``; the datagram being answered is among them."""
        counts = self.counts
        return {
            "total_packets": counts.received,
            "active_clients": len(self.clients),
            "refused": counts.refused,
            "failed": counts.failed,
            "unanswered": counts.unanswered,
            "ignored": counts.ignored,
            "rate_limited": counts.rate_limited,
            "too_short": counts.too_short,
            "kernel_drops": counts.kernel_drops,
            "dropped": counts.dropped,
            "read_errors": counts.read_errors,
            "forgotten_clients": self.clients.forgotten,
        }

    def recent_clients(self, now: float, count: int = 5) -> list[dict[str, str | int | float]]:
        """
        Describe the *count* clients heard last, the most recent first.

        Each has its ``client`` (``host:port``), its ``packets``, and the seconds since it was last
        (``age``) and first (``known_for``) seen.
        """
        return [
            {
                "client": format_address(*source),
                "packets": client.packets,
                "age": round(now - client.last_seen, 3),
                "known_for": round(now - client.first_seen, 3),
            }
            for source, client in self.clients.recent(count)
        ]


def increment(data: bytes) -> bytes:
    """
    Give the first four bytes as a big-endian unsigned integer plus one, modulo 2**32.

    ``INVALID`` where *data* is shorter.
    """
    if len(data) < 4:
        return b"INVALID"
    return ((int.from_bytes(data[:4], "big") + 1) & 0xFFFFFFFF).to_bytes(4, "big")


_LONGEST_COMMAND = len(b"STATS")
