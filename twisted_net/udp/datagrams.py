"""What a datagram server decides: which answer each datagram gets, and what is counted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from twisted_net.records import Record

Source: TypeAlias = tuple[str, int]
"""Where a datagram came from: a numeric host (with ``%scope`` where IPv6 needs it) and a port."""

DatagramHandler: TypeAlias = Callable[[bytes, Source], bytes | None]
"""Gives the answer to a datagram, or None for silence. It runs in the reactor: it must not wait."""

MAX_PAYLOAD = 65_507
"""The longest datagram that IPv4 carries, in bytes: 65,535 less two headers (RFC 768, RFC 791)."""

ANSWER_TOO_LONG = b"ERROR: the answer is longer than a datagram can be"


class DatagramLimits(Record, frozen=True):
    """
    Every bound of a datagram server.

    ``max_datagram`` is the buffer of the system that this one follows. 64 datagrams a turn keep a
    flood from starving TCP: they take about half a millisecond. Four MiB of receive buffer
    took in 3 to 4 times as much of a burst as the kernel's usual 208 KiB. 10,000 clients are some
    3 MiB.
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
    summary_interval: Annotated[
        float,
        Meta(ge=0, le=86_400, description="seconds between summaries in the log; 0 for none"),
    ] = 10.0


class DatagramCounts:
    """
    What happened to datagrams since the start, in plain integers that only grow.

    :ivar received: datagrams that came in, whatever became of them.
    :ivar refused: of these, the ones over ``max_datagram``.
    :ivar failed: of these, the ones whose handler raised or whose answer could not be a datagram.
    :ivar unanswered: of these, the ones to which the handler chose to be silent.
    :ivar dropped: answers that the kernel did not take.
    :ivar read_errors: reads that failed for a reason that passes.
    """

    __slots__ = ("dropped", "failed", "read_errors", "received", "refused", "unanswered")

    def __init__(self) -> None:
        self.received = 0
        self.refused = 0
        self.failed = 0
        self.unanswered = 0
        self.dropped = 0
        self.read_errors = 0


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
            "dropped": counts.dropped,
            "read_errors": counts.read_errors,
            "forgotten_clients": self.clients.forgotten,
        }

    def recent_clients(self, now: float, count: int = 5) -> list[dict[str, str | int | float]]:
        """
        Describe the *count* clients heard last, the most recent first.

        Each has its ``client`` (:func:`source_name`), its ``packets``, and the seconds since it
        was last (``age``) and first (``known_for``) seen.
        """
        return [
            {
                "client": source_name(source),
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


def source_name(source: Source) -> str:
    """Name *source* as ``host:port``, an IPv6 host in brackets."""
    host, port = source
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_LONGEST_COMMAND = len(b"STATS")
