"""Session registry: the clients that are connected, and counters since the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from twisted_net.broadcasts import Broadcasts, Delivery
from twisted_net.config.type_checks import check_arguments
from twisted_net.net.addresses import ClientNames, format_address
from twisted_net.ops.instruments import Instruments
from twisted_net.ops.timestamps import iso_time
from twisted_net.reasons import Audited, Caller, End, Refusal
from twisted_net.sessions.by_user import SessionsByUser
from twisted_net.sessions.counters import Closed, SessionCounters
from twisted_net.sessions.doors import Doors
from twisted_net.sessions.hooks import SessionHooks
from twisted_net.sessions.session import Connection, Session
from twisted_net.topics.registry import Topics
from twisted_net.turns.steps import CLIENTS_AT_ONCE, FairPacing, Pacing, in_steps, unpaced


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
    :param by_user: that of other servers, so that :meth:`of_user` finds the sessions of all of
        them; its own if None.
    :param hooks: an application's, which several servers may share; none if None.
    :param doors: that of other servers, so that CLIENTS, CLOSED and KILL see the clients of all of
        them; its own if None.
    :param door: the name of this one there.
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
        by_user: SessionsByUser | None = None,
        hooks: SessionHooks | None = None,
        doors: Doors | None = None,
        door: str = "lines",
    ) -> None:
        self.wall = wall
        self.topics = Topics() if topics is None else topics
        self.topics.use_wall(wall, iso_time)
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
        self.by_user = SessionsByUser() if by_user is None else by_user
        self.hooks = SessionHooks() if hooks is None else hooks
        self.door = door
        self.doors = Doors() if doors is None else doors
        self.doors.join(self)
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

    def of_user(self, name: str) -> list[Session]:
        """
        Return the open sessions of a user, the one that logged in first at the beginning.

        Those of servers that share :attr:`by_user` are among them: of all ports of a service.
        """
        return self.by_user.of(name)

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
        """
        Remove a session; its name is free again. Idempotent: the first reason is counted.

        What was received and sent is counted as of now.
        """
        if self._open.get(session.name) is not session:
            return
        session.end()
        self.instruments.monitors.remove(session)
        counters = self.counters
        counters.messages += session.messages
        counters.received += session.received
        counters.sent += session.sent
        ended = self.wall()
        del self._open[session.name]
        self._names.release(session.name)
        counters.ended[end] += 1
        counters.closed.append(
            Closed(
                session.name,
                session.user,
                session.connected,
                ended,
                session.messages,
                end,
                self.door,
            )
        )
        self.doors.presence.remove(session, ended)
        if session.shown:
            session.shown = False
            self.hooks.closed(session, end)

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
                if session.opening:
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
    *("refused", "undelivered", "topics", "uptime", "clients"),
}
_INFO_MEMBERS = _PROTOCOL_MEMBERS | {"bans", "clients", "commands", "topics", "latency"}
