"""Session registry: the clients that are connected, and counters since the start."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Protocol

import msgspec
from attrs import frozen

from twisted_net.auth.users import Permissions
from twisted_net.errors import CommandError
from twisted_net.net.addresses import format_address
from twisted_net.ops.instruments import Instruments
from twisted_net.reasons import Audited, End, Refusal, RefusedClient
from twisted_net.topics import Mailbox, Topics

CLIENTS_AT_ONCE = 64
"""
Clients that an event is sent to in one turn of the reactor.

These take 1 ms; 9,000 at once kept all others waiting for 0.1 s.
"""

CLOSED_KEPT = 1000
"""Connections that are remembered after their end, the latest ones."""


class Connection(Protocol):
    """The connection that carries a session: it delivers messages of topics, and can be ended."""

    def open_mailbox(self, topics: Topics) -> Mailbox:
        """Return a mailbox whose messages it sends to the client; called once at most."""
        ...

    def kill(self) -> None:
        """Announce the end to the client, and end the connection."""
        ...

    def figures(self) -> Mapping[str, object]:
        """Return what CLIENTS shows of the connection beside the session's own figures."""
        ...


class Session:
    """
    One client, for as long as it is connected.

    :ivar name: ``host:port``, unique among the open sessions.
    :ivar client: the address as the transport tells it: host and port.
    :ivar identity: the name that its certificate proved in a TLS handshake; None without one.
    :ivar permissions: of its user; None if no users are configured and everybody may do everything.
    :ivar administrative: whether it may use administrative commands, if permissions is None.
    :ivar admit: called with the permissions of a user who logs in; raises to refuse.
    :ivar connected: when it connected, in seconds of the wall clock.
    :ivar messages: lines received, the refused ones included.
    :ivar received: bytes received, unfinished lines included.
    :ivar written: bytes of answers and events, without messages of topics.
    :ivar undelivered: events that were not sent, since the client did not read.
    :ivar mailbox: the messages of topics that wait for it; None until it subscribes.
    :ivar sessions: all the sessions of the same server.
    """

    __slots__ = (
        "_connection",
        "_data",
        "_deliver",
        "administrative",
        "admit",
        "client",
        "connected",
        "identity",
        "mailbox",
        "messages",
        "name",
        "permissions",
        "received",
        "sessions",
        "undelivered",
        "written",
    )

    def __init__(
        self,
        sessions: Sessions,
        name: str,
        client: tuple[str, int],
        deliver: Callable[[bytes], str | None],
        connection: Connection | None = None,
    ) -> None:
        self.sessions = sessions
        self.name = name
        self.client = client
        self.identity: str | None = None
        self.permissions: Permissions | None = None
        self.administrative = True
        self.admit: Callable[[Permissions], None] | None = None
        self.connected = sessions.wall()
        self.messages = 0
        self.received = 0
        self.written = 0
        self.undelivered = 0
        self._deliver = deliver
        self._connection = connection
        self.mailbox: Mailbox | None = None
        self._data: dict[str, object] | None = None

    def count(self) -> None:
        """Count a line received."""
        self.messages += 1

    @property
    def sent(self) -> int:
        """Bytes of answers, events and messages."""
        # Each counts its own: a message to thousands is to touch as little of them as it can.
        return self.written if self.mailbox is None else self.written + self.mailbox.sent

    @property
    def user(self) -> str | None:
        """The name of the user who has logged in, if one has."""
        return None if self.permissions is None else self.permissions.name

    def log_in(self, permissions: Permissions) -> None:
        """
        Log the client in: this user's permissions hold from its next line on.

        Subscriptions that it made as another user end.

        :raises CommandError: if the transport accepts no more connections of this user; then
            nothing has changed.
        """
        if self.admit is not None:
            self.admit(permissions)
        if self.mailbox is not None and self.user != permissions.name:
            self.sessions.topics.unsubscribe_all(self.mailbox)
        self.permissions = permissions

    @property
    def data(self) -> dict[str, object]:
        """State that handlers keep between the lines of this client, until the connection ends."""
        if self._data is None:
            self._data = {}
        return self._data

    @property
    def has_connection(self) -> bool:
        """Whether a connection carries it, so that events can be sent to this client alone."""
        return self._connection is not None

    def open_mailbox(self) -> Mailbox:
        """
        Return the mailbox by which the client subscribes to topics; made at the first call.

        :raises CommandError: if the transport cannot deliver messages.
        """
        # Asked first: a handler may outlive the connection, and subscribe for nobody.
        if self._connection is None:
            raise CommandError("messages of topics cannot be sent to this client")
        if self.mailbox is None:
            self.mailbox = self._connection.open_mailbox(self.sessions.topics)
        return self.mailbox

    def close_mailbox(self) -> None:
        """End all subscriptions; messages that still wait are dropped and counted."""
        if self.mailbox is not None:
            self.mailbox.close()

    def end(self) -> None:
        """
        Drop the reference to the connection, which is lost.

        The two would otherwise live until the cyclic garbage collector runs: after tens of
        thousands of connections of an attacker, one collection takes 60 ms.
        """
        self.close_mailbox()
        self._deliver = _gone
        self._connection = None

    def kill(self) -> bool:
        """End the client's connection; return False if it has none that can be ended."""
        if self._connection is None:
            return False
        self._connection.kill()
        return True

    def figures(self) -> Mapping[str, object]:
        """Return what CLIENTS shows of the connection."""
        return {} if self._connection is None else self._connection.figures()

    def deliver(self, line: bytes) -> str | None:
        """
        Send a line that is no answer.

        :param line: complete, with its LF.
        :return: None, or in a word why the client does not get it; then it is counted.
        """
        failure = self._deliver(line)
        if failure is not None:
            self.undelivered += 1
            self.sessions.counters.undelivered += 1
        return failure


@frozen
class Closed:
    """A connection that has ended; times in seconds of the wall clock."""

    name: str
    user: str | None
    connected: float
    ended: float
    messages: int
    end: End


@frozen
class Delivery:
    """The outcome of an event: how many clients got it, and why others did not, by name."""

    delivered: int
    failures: Mapping[str, str]


class SessionCounters:
    """
    Counters of all sessions of one server.

    :ivar opened: sessions that were ever opened.
    :ivar ended: connections that ended, by reason; those refused before they had a session are
        counted here alone.
    :ivar closed: the sessions that ended last, oldest first, up to :data:`CLOSED_KEPT`.
    :ivar refusals: commands that were refused, by reason.
    :ivar undelivered: events that clients did not get.
    :ivar failures: commands whose handler ended by a bug.
    :ivar overdue: handlers that run although their commands were answered ``timeout``; this one
        also falls.
    :ivar messages: lines received by sessions that have ended.
    :ivar received: bytes received by sessions that have ended.
    :ivar sent: bytes sent to sessions that have ended.
    """

    def __init__(self) -> None:
        self.opened = 0
        self.ended = dict.fromkeys(End, 0)
        self.closed: deque[Closed] = deque(maxlen=CLOSED_KEPT)
        self.refusals = dict.fromkeys(Refusal, 0)
        self.undelivered = 0
        self.failures = 0
        self.overdue = 0
        self.messages = 0
        self.received = 0
        self.sent = 0


Pacing = Callable[[Iterable[int]], Awaitable[list[int]]]
"""Goes through an iterable, one step in each turn of the reactor, and returns all values."""


async def unpaced(steps: Iterable[int]) -> list[int]:
    """Go through an iterable at once: the :data:`Pacing` of a server without a reactor."""
    return list(steps)


class Sessions:
    """
    The open sessions of one server, by name.

    :param wall: returns the seconds of the wall clock.
    :param topics: the subscriptions; its own, with the default bounds, if None.
    :param instruments: what observes the sessions; its own, with the defaults, if None.
    :param pacing: spreads an event to many clients over turns of the reactor; if None, that of the
        first server which uses these sessions.
    :ivar counters: of all sessions that ever were.
    :ivar figures: what STATS shows beside these, by name; see :meth:`add_figure`.
    :ivar sections: what INFO shows beside these, by section; see :meth:`add_section`.
    """

    def __init__(
        self,
        wall: Callable[[], float],
        topics: Topics | None = None,
        instruments: Instruments | None = None,
        pacing: Pacing | None = None,
    ) -> None:
        self.wall = wall
        self.topics = Topics() if topics is None else topics
        self.instruments = Instruments() if instruments is None else instruments
        self.counters = SessionCounters()
        self.figures: dict[str, Callable[[], object]] = {}
        self.sections: dict[str, Callable[[], Mapping[str, object]]] = {}
        self._pacing = pacing
        self._seconds: Callable[[], float] | None = None
        self._started = 0.0
        self._open: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def messages(self) -> int:
        """Lines received by all sessions, the ended ones included."""
        # Added up when asked, so that each line counts one integer and not two.
        return self.counters.messages + sum([session.messages for session in self._open.values()])

    def use_pacing(self, pacing: Pacing) -> None:
        """Spread events by this, unless a pacing was given or another server was first."""
        if self._pacing is None:
            self._pacing = pacing

    def use_clock(self, seconds: Callable[[], float]) -> None:
        """Count :attr:`uptime` by this steady clock, unless another server was first."""
        if self._seconds is None:
            self._seconds = seconds
            self._started = seconds()

    @property
    def uptime(self) -> float:
        """Seconds since the first server was made that uses these sessions; 0 without one."""
        return 0.0 if self._seconds is None else self._seconds() - self._started

    def add_figure(self, name: str, figure: Callable[[], object]) -> None:
        """
        Show a figure in STATS.

        :param figure: returns its value, any JSON, when STATS is asked.
        :raises ValueError: if the name is taken.
        """
        if name in self.figures or name in _STATS_MEMBERS:
            raise ValueError(f"STATS shows a figure {name} already")
        self.figures[name] = figure

    def add_section(self, name: str, section: Callable[[], Mapping[str, object]]) -> None:
        """
        Show a section in INFO.

        :param section: returns its members when INFO is asked.
        :raises ValueError: if the name is taken.
        """
        if name in self.sections or name in _INFO_MEMBERS:
            raise ValueError(f"INFO has a section {name} already")
        self.sections[name] = section

    def get(self, name: str) -> Session | None:
        """Return the open session of this name, or None."""
        return self._open.get(name)

    def __iter__(self) -> Iterator[Session]:
        """Iterate over the open sessions, oldest first; they may end meanwhile."""
        return iter(list(self._open.values()))

    def open(
        self,
        host: str,
        port: int,
        deliver: Callable[[bytes], str | None],
        connection: Connection | None = None,
    ) -> Session:
        """
        Register a client that has connected.

        :param deliver: sends one line, or returns in a word why it cannot.
        :param connection: carries the session; without one the client can neither subscribe nor
            use MONITOR nor be killed.
        """
        name = format_address(host, port)
        # One client port may connect to two ports of ours.
        taken = 1
        while name in self._open:
            taken += 1
            name = f"{name.partition('#')[0]}#{taken}"
        session = self._open[name] = Session(self, name, (host, port), deliver, connection)
        self.counters.opened += 1
        return session

    def close(self, session: Session, end: End) -> None:
        """Remove a session; its name is free again."""
        session.end()
        self.instruments.monitors.remove(session)
        counters = self.counters
        counters.messages += session.messages
        counters.received += session.received
        counters.sent += session.sent
        del self._open[session.name]
        counters.ended[end] += 1
        counters.closed.append(
            Closed(
                session.name, session.user, session.connected, self.wall(), session.messages, end
            )
        )

    def refused(self, end: End) -> None:
        """Count a connection that never became a session."""
        self.counters.ended[end] += 1

    def turned_away(self, end: End, host: str, port: int) -> None:
        """Count and audit a client that was refused before it had a session."""
        self.refused(end)
        self.audit("refused", RefusedClient(format_address(host, port)), end.value)

    def refuse_line(self, session: Session, refusal: Refusal, what: str) -> None:
        """Count and audit a command that was refused; *what* names it."""
        self.counters.refusals[refusal] += 1
        self.audit("refused", session, f"{refusal.value}: {what}")

    def audit(self, event: str, client: Audited, what: str) -> None:
        """Write a line of the audit; see :data:`~twisted_net.reasons.AuditLog`."""
        self.instruments.audit(event, client, what)

    def broadcast(self, event: Mapping[str, object]) -> Delivery:
        """
        Send an event to every client now, encoded once; one failure does not affect the others.

        :param event: its members; ``event`` names its kind.
        """
        failures: dict[str, str] = {}
        return Delivery(sum(self._sending(encode_event(event), failures)), failures)

    async def spread(self, event: Mapping[str, object]) -> Delivery:
        """
        Send an event to every client, to :data:`CLIENTS_AT_ONCE` in each turn of the reactor.

        Events are sent one after the other, each to those that are connected when its turn
        comes. Cancelling the wait does not stop the event.
        """
        failures: dict[str, str] = {}
        pacing = self._pacing or unpaced
        delivered = await pacing(self._sending(encode_event(event), failures))
        return Delivery(sum(delivered), failures)

    def _sending(self, line: bytes, failures: dict[str, str]) -> Iterator[int]:
        """Send to some in each step, whose value is how many got it; note the failures."""
        everybody = list(self)
        for begin in range(0, len(everybody), CLIENTS_AT_ONCE):
            delivered = 0
            for session in everybody[begin : begin + CLIENTS_AT_ONCE]:
                failure = session.deliver(line)
                if failure is None:
                    delivered += 1
                else:
                    failures[session.name] = failure
            yield delivered


# What these answers have anyway: a figure of the same name would hide it, or make them fail.
_PROTOCOL_MEMBERS = frozenset({"command", "error", "code", "event"})
_STATS_MEMBERS = _PROTOCOL_MEMBERS | {
    "message_count",
    "connections",
    "connections_opened",
    "connections_ended",
    "refused",
    "undelivered",
    "topics",
    "uptime",
}
_INFO_MEMBERS = _PROTOCOL_MEMBERS | {"clients", "commands", "topics", "latency"}


def _gone(line: bytes) -> str:
    """Deliver nothing: the connection is lost."""
    return "closing"


_encode = msgspec.json.Encoder().encode


def encode_event(event: Mapping[str, object]) -> bytes:
    """Encode an event as the line that goes over the wire."""
    return _encode(event) + b"\n"
