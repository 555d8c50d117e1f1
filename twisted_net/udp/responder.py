"""Datagram responder: answers each datagram, keeps the counts and the table of clients."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

import msgspec

from twisted_net.config.type_checks import check_arguments
from twisted_net.net.addresses import Source, format_address
from twisted_net.net.bounded_table import BoundedTable
from twisted_net.udp.limits import DatagramLimits

DatagramHandler: TypeAlias = Callable[[bytes, Source], bytes | None]
"""Returns the answer to a datagram, or None for none. It runs in the reactor and must not block."""

Wall: TypeAlias = Callable[[], float]
"""Returns seconds since 1970; a function, as few datagrams ask for the time."""

ANSWER_TOO_LONG = b"ERROR: the answer is longer than a datagram can be"


class DatagramCounts:
    """
    Counters of a datagram server since its start; each only grows.

    :ivar received: all datagrams received.
    :ivar refused: of these, those over ``max_datagram``, whether the kernel cut them or not.
    :ivar failed: of these, those whose handler raised or whose answer was too long to be sent.
    :ivar unanswered: of these, those for which the handler returned None.
    :ivar ignored: of these, those from a source port that is never answered (guarded sockets).
    :ivar rate_limited: of these, those over the rate limit of their network (guarded sockets).
    :ivar too_short: of these, those not longer than their answer (guarded sockets).
    :ivar dropped: answers that the kernel did not accept and the send queue had no room for.
    :ivar read_errors: reads that failed with a transient error.
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
        """Datagrams that the kernel dropped before they were read; not included in ``received``."""
        return self._ended + sum(meter() for meter in self._meters)

    def add_meter(self, meter: Callable[[], int]) -> None:
        """Add a function that returns how many datagrams the kernel has dropped at one socket."""
        self._meters.append(meter)

    def end_meter(self, meter: Callable[[], int]) -> None:
        """Add the last value of a meter and remove it: its socket is about to be closed."""
        self._meters.remove(meter)
        self._ended += meter()


class ClientRecord:
    """What is kept of one client: first and last seen (seconds of a steady clock), packets."""

    __slots__ = ("first_seen", "last_seen", "packets")

    def __init__(self, now: float) -> None:
        self.first_seen = now
        self.last_seen = now
        self.packets = 1


class ClientTable:
    """
    Bounded table of clients, the least recently seen first.

    At its limit the table evicts the client that has been silent for longest and counts it in
    :attr:`evicted`; if that client comes back, its figures start again.

    :param limit: clients kept, at least 1.
    """

    def __init__(self, limit: int) -> None:
        self._clients: BoundedTable[Source, ClientRecord] = BoundedTable(limit, self._count_evicted)
        self._latest: ClientRecord | None = None
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._clients)

    def get(self, source: Source) -> ClientRecord | None:
        """Return the record of *source*, or None."""
        return self._clients.get(source)

    def record(self, source: Source, now: float) -> None:
        """Count one packet from *source*."""
        client = self._clients.get(source)
        if client is None:
            self._latest = self._clients[source] = ClientRecord(now)
            return
        client.packets += 1
        client.last_seen = now
        if client is not self._latest:
            self._clients.move_to_end(source)
            self._latest = client

    def recent(self, count: int) -> list[tuple[Source, ClientRecord]]:
        """Return up to *count* clients, the most recently seen first."""
        return self._clients.newest(count)

    def _count_evicted(self, source: Source, client: ClientRecord) -> None:
        self.evicted += 1


@check_arguments
class DatagramResponder:
    """
    Answers datagrams and counts them, in total and per client.

    Without a handler: text (valid UTF-8, the empty datagram included) is a command, ``PING``,
    ``TIME`` or ``STATS`` in any ASCII case, surrounding white space ignored; other text is echoed,
    stripped. Anything else is binary: the answer is its first four bytes as a big-endian unsigned
    integer, plus one, modulo 2**32, or ``INVALID`` if it is shorter. A datagram over the limit is
    counted and answered with an error; no part of it reaches a handler.

    :param handler: replaces these answers; :meth:`answer` raises what it raises.
    :ivar counts: shared with the port, which counts drops and read errors.
    """

    def __init__(self, limits: DatagramLimits, handler: DatagramHandler | None = None) -> None:
        self.counts = DatagramCounts()
        self.clients = ClientTable(limits.max_clients)
        self._handler = handler
        self._max_datagram = limits.max_datagram
        self._refusal = b"ERROR: datagram longer than %d bytes" % limits.max_datagram

    def answer(self, data: bytes, source: Source, now: float, wall: Wall) -> bytes | None:
        """
        Return the answer to one datagram, or None where its handler returns None.

        :param data: the complete datagram; one that may be truncated is longer than the limit.
        :param now: seconds of a steady clock.
        :param wall: called for ``TIME``.
        """
        self.counts.received += 1
        self.clients.record(source, now)
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
            # Upper-cased as bytes, which changes ASCII only: a long s (U+017F) is not an S here.
            command = data.upper()
            if command == b"PING":
                return b"PONG"
            if command == b"TIME":
                return datetime.fromtimestamp(wall(), UTC).isoformat().encode()
            if command == b"STATS":
                return msgspec.json.encode(self.statistics())
        return b"ECHO: " + data

    def statistics(self) -> dict[str, int]:
        """Return the figures of ``STATS``; the datagram being answered is included."""
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
            "forgotten_clients": self.clients.evicted,
        }

    def recent_clients(self, now: float, count: int = 5) -> list[dict[str, str | int | float]]:
        """
        Describe up to *count* clients, the most recently seen first.

        :return: for each, ``client`` (``host:port``), ``packets``, and the seconds since it was
            last (``age``) and first (``known_for``) seen.
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
    Return the first four bytes as a big-endian unsigned integer, plus one, modulo 2**32.

    ``INVALID`` if *data* is shorter.
    """
    if len(data) < 4:
        return b"INVALID"
    return ((int.from_bytes(data[:4], "big") + 1) & 0xFFFFFFFF).to_bytes(4, "big")


_LONGEST_COMMAND = len(b"STATS")
