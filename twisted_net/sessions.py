"""Who is connected, and what became of those who were."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Protocol

import msgspec
from attrs import frozen

from twisted_net.auth.users import Permissions
from twisted_net.errors import CommandError
from twisted_net.net.addresses import format_address
from twisted_net.ops.latency import Latency
from twisted_net.ops.monitor import Monitors
from twisted_net.ops.slowlog import SlowLog
from twisted_net.reasons import Audited, End, Refusal, RefusedClient
from twisted_net.topics import Mailbox, Recipient, Topics

CLIENTS_AT_ONCE = 64
"""
Clients that an event is sent to before others have their turn.

These take 1 ms; 9,000 in one go kept everybody waiting for 0.1 s.
"""

CLOSED_KEPT = 1000
"""Connections that are remembered after their end, the latest ones."""


class Connection(Recipient, Protocol):
    """What carries a session: it brings messages of topics, and can be ended."""

    def kill(self) -> None:
        """Tell the client that it is sent away, and end the connection."""
        ...

    def figures(self) -> Mapping[str, object]:
        """Give what CLIENTS shows of the connection beside what its session knows."""
        ...


class Session:
    """
    One client, for as long as it is connected.

    :ivar name: ``host:port``, unique among the open sessions.
    :ivar client: the address as the transport tells it: host and port.
    :ivar identity: the name that its certificate proved in a TLS handshake; None without one.
    :ivar permissions: what it may do, and as which user; None where everybody may do everything.
    :ivar administrative: whether it may use administrative commands, where permissions do not say.
    :ivar admit: called with the permissions of a user who logs in; raises to refuse.
    :ivar connected: when it came, in seconds of the wall clock.
    :ivar messages: lines received, the refused ones included.
    :ivar received: bytes that came, halves of lines included.
    :ivar written: bytes of answers and events, but for messages of topics.
    :ivar undelivered: events that were not sent, since the client did not read.
    :ivar mailbox: the messages of topics that wait for it; None where it never subscribed.
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
        Let the client do what this user may, from its next line on.

        What it was subscribed to as another user it is no more.

        :raises CommandError: where the transport takes no more connections of this user; then
            nothing has changed.
        """
        if self.admit is not None:
            self.admit(permissions)
        if self.mailbox is not None and self.user != permissions.name:
            self.sessions.topics.forget(self.mailbox)
        self.permissions = permissions

    @property
    def data(self) -> dict[str, object]:
        """What handlers keep between the lines of this client; gone with the connection."""
        if self._data is None:
            self._data = {}
        return self._data

    def open_mailbox(self) -> Mailbox:
        """
        Give the mailbox by which the client subscribes to topics; it is made at the first call.

        :raises CommandError: where the transport cannot bring messages.
        """
        if self.mailbox is None:
            if self._connection is None:
                raise CommandError("messages of topics cannot be sent to this client")
            self.mailbox = Mailbox(self.sessions.topics, self._connection)
        return self.mailbox

    def close_mailbox(self) -> None:
        """Subscribe to nothing any more; messages that still wait are dropped and counted."""
        if self.mailbox is not None:
            self.mailbox.close()

    def end(self) -> None:
        """
        Let go of the connection, which is lost.

        The two would otherwise keep each other until the garbage collector comes: what tens of
        thousands leave behind, whom an attacker sends, makes it hold up everybody for 60 ms.
        """
        self.close_mailbox()
        self._deliver = _gone
        self._connection = None

    def kill(self) -> bool:
        """Send the client away; False where what carries it has no end of its own."""
        if self._connection is None:
            return False
        self._connection.kill()
        return True

    def figures(self) -> Mapping[str, object]:
        """Give what the connection tells of itself, as CLIENTS shows it."""
        return {} if self._connection is None else self._connection.figures()

    def deliver(self, line: bytes) -> str | None:
        """
        Send a line that the client did not ask for.

        :param line: whole, with its LF.
        :return: None, or in a word why the client does not get it; then it is counted.
        """
        failure = self._deliver(line)
        if failure is not None:
            self.undelivered += 1
            self.sessions.undelivered += 1
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
    """How an event fared: to how many it went, and why not to the others, by name."""

    delivered: int
    failures: Mapping[str, str]


class Sessions:
    """
    The open sessions of one server, by name, and the figures of all that ever were.

    :param wall: gives the seconds of the wall clock.
    :param topics: who listens to what; of its own, with the default bounds, where None is given.
    :param slow_log: which commands took long; of its own, with the defaults, where None is given.
    :ivar monitors: the clients that watch what the others ask.
    :ivar latency: how late the reactor is, where somebody times it.
    :ivar started: when the server was made, in seconds of the wall clock.
    :ivar opened: sessions that ever began.
    :ivar ended: how many connections ended, by reason; those refused at once are here alone.
    :ivar closed: the sessions that ended last, oldest first, up to :data:`CLOSED_KEPT`.
    :ivar refusals: how many lines were refused, by reason.
    :ivar audit: called with what happened (``refused``, ``command``, …), the session and more
        about it in words, for all that an auditor wants to know.
    :ivar undelivered: events that clients did not get.
    :ivar received: bytes that came from sessions that have ended.
    :ivar sent: bytes that went to these.
    :ivar pace: goes through an iterable, a step a turn, and gives all of it; a server sets it.
    :ivar figures: what STATS shows beside these: by name, what gives the figure when asked.
    :ivar info: what INFO shows beside these: by section, what gives its members when asked.
    """

    def __init__(
        self,
        wall: Callable[[], float],
        topics: Topics | None = None,
        slow_log: SlowLog | None = None,
    ) -> None:
        self.wall = wall
        self.topics = Topics() if topics is None else topics
        self.slow_log = SlowLog() if slow_log is None else slow_log
        self.monitors = Monitors()
        self.latency = Latency()
        self.started = wall()
        self.opened = 0
        self.undelivered = 0
        self.received = 0
        self.sent = 0
        self.ended = dict.fromkeys(End, 0)
        self.closed: deque[Closed] = deque(maxlen=CLOSED_KEPT)
        self.refusals = dict.fromkeys(Refusal, 0)
        self.audit: Callable[[str, Audited, str], None] = _unheard
        self.pace: Callable[[Iterable[int]], Awaitable[list[int]]] = _now
        self.figures: dict[str, Callable[[], object]] = {}
        self.info: dict[str, Callable[[], Mapping[str, object]]] = {}
        self._open: dict[str, Session] = {}
        self._messages = 0  # of those that have ended

    def __len__(self) -> int:
        return len(self._open)

    @property
    def messages(self) -> int:
        """Lines received by all sessions, the ended ones included."""
        # Added up when asked, so that each line counts one integer and not two.
        return self._messages + sum([session.messages for session in self._open.values()])

    def get(self, name: str) -> Session | None:
        """Give the open session of this name."""
        return self._open.get(name)

    def __iter__(self) -> Iterator[Session]:
        """Go through the open sessions, oldest first; they may end meanwhile."""
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

        :param deliver: sends one line, or gives in a word why it cannot.
        :param connection: carries the session; without one the client can neither subscribe nor
            be sent away.
        """
        name = format_address(host, port)
        # One client port may speak to two ports of ours.
        taken = 1
        while name in self._open:
            taken += 1
            name = f"{name.partition('#')[0]}#{taken}"
        session = self._open[name] = Session(self, name, (host, port), deliver, connection)
        self.opened += 1
        return session

    def close(self, session: Session, end: End) -> None:
        """Take a session out; its name is free again."""
        session.end()
        self.monitors.remove(session)
        self._messages += session.messages
        self.received += session.received
        self.sent += session.sent
        del self._open[session.name]
        self.ended[end] += 1
        self.closed.append(
            Closed(
                session.name, session.user, session.connected, self.wall(), session.messages, end
            )
        )

    def refused(self, end: End) -> None:
        """Count a connection that never became a session."""
        self.ended[end] += 1

    def turned_away(self, end: End, host: str, port: int) -> None:
        """Count a client that may not come in, and tell the auditor."""
        self.refused(end)
        self.audit("refused", RefusedClient(format_address(host, port)), end.value)

    def refuse_line(self, session: Session, refusal: Refusal, what: str) -> None:
        """Count a line that was refused, and tell the auditor; *what* says which, in words."""
        self.refusals[refusal] += 1
        self.audit("refused", session, f"{refusal.value}: {what}")

    def broadcast(self, event: Mapping[str, object]) -> Delivery:
        """
        Send an event to every client now, encoded once; one failure does not touch the others.

        :param event: its members; ``event`` names its kind.
        """
        failures: dict[str, str] = {}
        return Delivery(sum(self._sending(encode_event(event), failures)), failures)

    async def spread(self, event: Mapping[str, object]) -> Delivery:
        """
        Do the same, to :data:`CLIENTS_AT_ONCE` in a turn: thousands do not keep the others waiting.

        One event goes after the other, each to those who are connected when its turn comes. Nobody
        has to wait for it to be done: it goes on though the awaiting is cancelled.
        """
        failures: dict[str, str] = {}
        delivered = await self.pace(self._sending(encode_event(event), failures))
        return Delivery(sum(delivered), failures)

    def _sending(self, line: bytes, failures: dict[str, str]) -> Iterator[int]:
        """Send to some in each step, whose value is how many got it; note the others."""
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


async def _now(steps: Iterable[int]) -> list[int]:
    """Stand for the pace where there are no turns: all steps now."""
    return list(steps)


def _gone(line: bytes) -> str:
    """Stand for a connection that is lost: say why nothing can be sent."""
    return "closing"


def _unheard(event: str, client: Audited, what: str) -> None:
    """Stand for the auditor where there is none."""


_encode = msgspec.json.Encoder().encode


def encode_event(event: Mapping[str, object]) -> bytes:
    """Encode an event as the line that goes over the wire."""
    return _encode(event) + b"\n"
