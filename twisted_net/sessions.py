"""Session registry: the clients that are connected, and counters since the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from twisted_net.auth.users import NOBODY, Permissions
from twisted_net.broadcasts import Broadcasts, Delivery, encode_event
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import AuthRequired, CommandError, HandlersOverdue, NotPermitted
from twisted_net.net.addresses import ClientNames, client_prefix, format_address
from twisted_net.ops.instruments import Instruments
from twisted_net.reasons import Audited, Caller, End, Refusal
from twisted_net.session_counters import Closed, SessionCounters
from twisted_net.topics import Mailbox, Topics
from twisted_net.turns.steps import CLIENTS_AT_ONCE, FairPacing, Pacing, in_steps, unpaced


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
    :ivar identity: the name that its certificate proved in a TLS handshake, empty if it has none
        that could be a user's; None without a certificate.
    :ivar permissions: of its user; None if no users are configured and everybody may do everything.
        Those of a user change by :meth:`log_in` alone.
    :ivar proof: the hash of the password or token by which the client logged in, if a users file
        has it.
    :ivar administrative: whether it may use administrative commands, if permissions is None.
    :ivar admit: called with the permissions of a user who logs in; raises to refuse.
    :ivar reviewed: called after the permissions of its user have changed, with the name that it had
        before; it has none any more if it was logged out.
    :ivar overdue: its handlers that still run although their commands were answered ``timeout``.
    :ivar login_refused: whether its login has come to nothing, though its answer is held back.
    :ivar connected: when it connected, in seconds of the wall clock.
    :ivar messages: lines received, or requests of CoAP, the refused ones included.
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
        "login_refused",
        "mailbox",
        "messages",
        "name",
        "overdue",
        "permissions",
        "proof",
        "received",
        "reviewed",
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
        self.proof: str | None = None
        self.administrative = True
        self.admit: Callable[[Permissions], None] | None = None
        self.reviewed: Callable[[str], None] | None = None
        self.overdue = 0
        self.login_refused = False
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
        """Count a line received, or a request."""
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

    @property
    def subscriptions(self) -> int:
        """How many patterns of topics it is subscribed to."""
        return 0 if self.mailbox is None else self.sessions.topics.count(self.mailbox)

    @property
    def owner(self) -> str:
        """Whose share its work counts in: its user's, or else its address's (an IPv6 /64's)."""
        user = self.user
        return client_prefix(self.client[0]) if user is None else f"user {user}"

    def log_in(self, permissions: Permissions, proof: str | None = None) -> None:
        """
        Log the client in: this user's permissions hold from its next line on.

        It is as a new connection, also for one that is logged in already: subscriptions, with the
        messages that wait, MONITOR and :attr:`data` end.

        :param proof: see :attr:`proof`; without it, the login is valid as long as the user exists.
        :raises HandlersOverdue: while handlers run that are :attr:`overdue`; nothing has changed.
        :raises CommandError: if the transport accepts no more connections of this user; then
            nothing has changed.
        """
        # They began as another user, and may subscribe or keep state for this session. Nor may an
        # AUTH that was answered so log in later on.
        if self.overdue:
            raise HandlersOverdue(self.overdue)
        if self.admit is not None:
            self.admit(permissions)
        self._become(permissions, proof)

    def log_in_by_certificate(self, permissions: Permissions | None) -> None:
        """
        Log the client in as the user whose name its certificate has proved, and audit it.

        :param permissions: of that user. None if there is no such user: then nothing but AUTH is
            permitted, which is less than to a client without a certificate.
        :raises CommandError: as :meth:`log_in` does; it is not audited.
        """
        if permissions is None:
            self._become(NOBODY, None)
            self.sessions.audit("refused", self, f"by certificate: no user {self.identity}")
        else:
            self.log_in(permissions)
            self.sessions.audit("login", self, "by certificate")

    def log_out(self) -> str | None:
        """
        Take the client's login from it: nothing but AUTH is permitted until it logs in again.

        :return: the name of the user that it was.
        """
        before = self.user
        self._become(NOBODY, None)
        return before

    def review(self) -> None:
        """
        End what the permissions, which have changed, no longer allow, and tell the client.

        It is logged out if its user was removed, or no longer has its password or token.
        Subscriptions that are no longer permitted end, with all messages that wait, and so does
        MONITOR.
        """
        permissions = self.permissions
        if permissions is None or self not in permissions.holders:
            return
        if not permissions.accepts(self.proof):
            code = "user_removed" if permissions.withdrawn else "proof_removed"
            self.log_out()
            self.deliver(encode_event({"event": "logged_out", "code": code}))
            self._reviewed_as(permissions)
            return
        ended: list[bytes] = []
        monitors = self.sessions.instruments.monitors
        if not permissions.allows_command("MONITOR", admin=True) and monitors.remove(self):
            ended.append(_UNWATCHED)
        if self.mailbox is not None:
            ended += self._end_subscriptions(self.mailbox, permissions)
        if ended:
            self.deliver(b"".join(ended))
        self._reviewed_as(permissions)

    def may_run(self, name: str, admin: bool) -> bool:
        """
        Whether the client may run a command, which exists; *name* in capitals.

        :param admin: whether it is administrative.
        """
        if self.permissions is not None:
            return self.permissions.allows_command(name, admin)
        return self.administrative or not admin

    def _reviewed_as(self, permissions: Permissions) -> None:
        if self.reviewed is not None and permissions.name is not None:
            self.reviewed(permissions.name)

    def _become(self, permissions: Permissions, proof: str | None) -> None:
        """Be the session of this user, with nothing left of the one before."""
        self.sessions.instruments.monitors.remove(self)
        if self.mailbox is not None:
            self.mailbox.reset()
        self._data = None
        if self.permissions is not None:
            self.permissions.holders.pop(self, None)
        self.permissions = permissions
        self.proof = proof
        # A login may succeed after the client has left: nobody would remove it.
        if permissions.name is not None and self._deliver is not _gone:
            permissions.holders[self] = None

    def _end_subscriptions(self, mailbox: Mailbox, permissions: Permissions) -> list[bytes]:
        """End the subscriptions that are not permitted; return the event for each."""
        topics = self.sessions.topics
        refused = [
            pattern
            for pattern in topics.patterns(mailbox)
            if not permissions.allows_subscribe(pattern)
        ]
        if refused:
            # Messages are encoded, and may be of any topic: those that wait are dropped.
            mailbox.drop_messages()
        for pattern in refused:
            topics.unsubscribe(mailbox, pattern)
        return [
            encode_event({"event": "unsubscribed", "pattern": pattern, "code": NotPermitted.code})
            for pattern in refused
        ]

    @property
    def data(self) -> dict[str, object]:
        """State that handlers keep between the lines of this client, until it ends or logs in."""
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

        :raises AuthRequired: if the client was logged out: a handler may still run.
        :raises CommandError: if the transport cannot deliver messages.
        """
        if self.permissions is NOBODY:
            raise AuthRequired
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
        if self.permissions is not None:
            self.permissions.holders.pop(self, None)
        self.reviewed = None
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


@check_arguments
class Sessions:
    """
    The open sessions of one server, by name.

    :param wall: returns the seconds of the wall clock.
    :param topics: the subscriptions; its own, with the default bounds, if None.
    :param instruments: what observes the sessions; its own, with the defaults, if None.
    :param pacing: spreads an event to many clients over turns of the reactor; if None, that of the
        first server which uses these sessions.
    :param broadcasts: those of other servers, so that an event reaches their clients, too; its own,
        with *pacing*, if None.
    :ivar memory: counts what is kept for the clients; the ledger of *topics*.
    :ivar pacing: spreads what an operator does with many sessions over turns of the reactor; not
        that of the broadcasts, which may have many to send before.
    :ivar counters: of all sessions that ever were.
    :ivar figures: what STATS shows beside these, by name; see :meth:`add_figure`.
    :ivar sections: what INFO shows beside these, by section; see :meth:`add_section`.
    """

    def __init__(
        self,
        wall: Callable[[], float],
        topics: Topics | None = None,
        instruments: Instruments | None = None,
        pacing: FairPacing | None = None,
        broadcasts: Broadcasts | None = None,
    ) -> None:
        self.wall = wall
        self.topics = Topics() if topics is None else topics
        self.memory = self.topics.memory
        self.instruments = Instruments() if instruments is None else instruments
        self.counters = SessionCounters()
        self.figures: dict[str, Callable[[], object]] = {}
        self.sections: dict[str, Callable[[], Mapping[str, object]]] = {}
        self.sections["memory"] = self.memory.figures
        self._seconds: Callable[[], float] | None = None
        self._started = 0.0
        self.pacing: Pacing = unpaced
        self._relief: Pacing = unpaced
        self.broadcasts = Broadcasts(pacing) if broadcasts is None else broadcasts
        self.broadcasts.join(self)
        self._open: dict[str, Session] = {}
        self._names = ClientNames(self._open)

    def __len__(self) -> int:
        return len(self._open)

    @property
    def messages(self) -> int:
        """Lines and requests received by all sessions, the ended ones included."""
        # Added up when asked, so that each line counts one integer and not two.
        return self.counters.messages + sum([session.messages for session in self._open.values()])

    def use_pacing(
        self, new_pacing: Callable[[], Pacing], new_fair_pacing: Callable[[], FairPacing]
    ) -> None:
        """
        Spread over turns what touches many clients, unless another server was first.

        :param new_pacing: called for each kind of work, so that none waits for another.
        :param new_fair_pacing: the same for broadcasts.
        """
        if self.pacing is unpaced:
            self.pacing, self._relief = new_pacing(), new_pacing()
            self.memory.use_pacing(lambda work: self._relief(in_steps(work)))
        self.broadcasts.use_pacing(new_fair_pacing)
        self.topics.use_pacing(new_pacing())

    async def settle(self) -> None:
        """Wait for the work that is spread over turns, but for events."""
        await self.topics.settle()
        await self._relief(())
        await self.pacing(())

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
        name = self._names.free_name(host, port)
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
        self._names.release(session.name)
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
        self.audit("refused", Caller(format_address(host, port)), end.value)

    def refuse_line(self, client: Audited, refusal: Refusal, what: str) -> None:
        """Count and audit a command that was refused; *what* names it."""
        self.counters.refusals[refusal] += 1
        self.audit("refused", client, f"{refusal.value}: {what}")

    def audit(self, event: str, client: Audited, what: str) -> None:
        """Write a line of the audit; see :data:`~twisted_net.reasons.AuditLog`."""
        self.instruments.audit(event, client, what)

    def broadcast(self, event: Mapping[str, object]) -> Delivery:
        """
        Send an event to every client now, those of servers that share its broadcasts included.

        Where users are configured, only to those that may subscribe to
        :data:`~twisted_net.topics.BROADCAST`.

        :param event: its members; ``event`` names its kind.
        """
        return self.broadcasts.send(event)

    async def spread(self, event: Mapping[str, object], sender: Session | None = None) -> Delivery:
        """
        Do as :meth:`broadcast` does, some clients in each turn of the reactor.

        :param sender: the client that asks for it; None for the application itself.
        :raises TooBusy: if too many wait.
        """
        return await self.broadcasts.spread(event, "" if sender is None else sender.owner)

    def send_event(self, line: bytes, failures: dict[str, str]) -> Iterator[int]:
        """Send an event to these sessions, see :class:`~twisted_net.broadcasts.Audience`."""
        everybody = list(self)
        for begin in range(0, len(everybody), CLIENTS_AT_ONCE):
            delivered = 0
            for session in everybody[begin : begin + CLIENTS_AT_ONCE]:
                permissions = session.permissions
                if permissions is not None and not permissions.hears_broadcasts:
                    continue
                failure = session.deliver(line)
                if failure is None:
                    delivered += 1
                else:
                    failures[session.name] = failure
            yield delivered


# What these answers have anyway: a figure of the same name would hide it, or make them fail.
_PROTOCOL_MEMBERS = frozenset({"command", "error", "code", "event"})
_STATS_MEMBERS = _PROTOCOL_MEMBERS | {
    *("message_count", "connections", "connections_opened", "connections_ended"),
    *("refused", "undelivered", "topics", "uptime"),
}
_INFO_MEMBERS = _PROTOCOL_MEMBERS | {"clients", "commands", "topics", "latency"}


def _gone(line: bytes) -> str:
    """Deliver nothing: the connection is lost."""
    return "closing"


_UNWATCHED = encode_event({"event": "unwatched", "code": NotPermitted.code})
