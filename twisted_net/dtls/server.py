"""DTLS 1.2 server: carries the datagrams of an inner protocol to many clients (RFC 6347)."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from attrs import define
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorFDSet,
    IReactorTime,
    IUDPTransport,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from typing_extensions import override

from twisted_net.config.type_checks import check_arguments
from twisted_net.dtls.cookies import ClientHello, CookieSecret, hello_verify_request
from twisted_net.dtls.counts import DtlsCounts
from twisted_net.dtls.errors import DtlsFailed
from twisted_net.dtls.peer import SecurePeer
from twisted_net.dtls.psk import PskServer, check_keys_given, load_keys, offers_psk
from twisted_net.dtls.records import MAX_PLAINTEXT, OVERHEAD, protected_records
from twisted_net.dtls.session import (
    DtlsSession,
    server_context,
)
from twisted_net.dtls.settings import DtlsSettings
from twisted_net.net.addresses import Source, client_prefix
from twisted_net.net.bounded_table import BoundedTable
from twisted_net.net.certificates import Certificates, identity_in
from twisted_net.net.files import is_readable_by_all
from twisted_net.net.log_limiter import limited_logger
from twisted_net.net.memory_ledger import MemoryAccount, MemoryLedger
from twisted_net.net.rate_limit import KeyedCounts
from twisted_net.net.steady_clock import steady
from twisted_net.reasons import End
from twisted_net.turns.step_scheduler import StepScheduler
from twisted_net.turns.steps import END, ENDS_AT_ONCE, in_steps
from twisted_net.udp.port import CappedPort
from twisted_net.udp.responder import DatagramCounts

_log = Logger()

TIMER_INTERVAL = 0.05
"""Shortest interval of the timer that serves all sessions, in seconds."""

SESSION_BYTES = 73_000
"""
Bytes of a session or a handshake in memory: ``python -m benchmarks.idle`` measures 69 to 73 KB.

What OpenSSL has allocated for a handshake, the session keeps.
"""


@define(eq=False)
class _Association:
    """
    A session or a handshake in the tables of a server (an association, RFC 6347 §4.2.8).

    :ivar random: of the client, by which a repeated ClientHello is recognised.
    :ivar deadline: when it ends, unless it makes progress.
    :ivar received: bytes received during the handshake.
    :ivar peer: None until the handshake is complete.
    """

    source: Source
    random: bytes
    session: DtlsSession
    deadline: float
    received: int = 0
    peer: SecurePeer | None = None

    @property
    def next_due(self) -> float:
        """When something is to be sent again, or it ends."""
        due = self.session.due
        return self.deadline if due is None else min(due, self.deadline)


@check_arguments
class DtlsServer(DatagramProtocol):
    """
    DTLS sessions with many clients on one port, and the transport of *inner*.

    The source of a datagram that *inner* receives is a :class:`~twisted_net.dtls.peer.SecurePeer`,
    one for each session; a datagram written to it goes to that session. One that is too long for
    the MTU raises :class:`~twisted.internet.error.MessageLengthError`; one to a session that has
    ended is dropped and counted.

    Sessions are found by the client's address. No state is kept of a client that has not returned
    a cookie, which is shorter than its request. A ClientHello with a valid cookie starts a new
    session and ends the previous one at this address (RFC 6347 §4.2.8), which the client has lost.

    Over ``max_handshakes`` or ``max_handshakes_per_address`` a ClientHello is ignored; the client
    sends it again. Over ``max_sessions`` the session that was silent for longest is ended. A
    client whose session is ended gets a close_notify, also when the port is closed. One timer
    serves all sessions. Of many that are to end, some end in each turn of the reactor; but those
    that are left when the port is closed end at once: :meth:`drain` is to be called before.

    :param reactor: the clock.
    :param inner: a protocol that has no other transport.
    :param certificates: made with ``context=server_context``, as :meth:`make_certificates` does.
    :param ended: called with each session that has ended, and the reason.
    :param session_limit: returns how many sessions a user may have; None for no limit. Over it,
        that user's session that was silent for longest is ended: a device that lost power could
        not close its session.
    :param memory: counts what sessions and handshakes take; a ledger of its own if None.
    :param psk: finds the keys of clients that offer a pre-shared key; None for certificates alone.
        The identity of their peers is the one that they have named.
    :ivar log: for what is wrong with a client's handshake, at a limited rate.
    :ivar counts: of handshakes and sessions.
    :ivar datagrams: counts of the port.
    """

    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        inner: DatagramProtocol,
        certificates: Certificates,
        settings: DtlsSettings | None = None,
        *,
        ended: Callable[[SecurePeer, End], None] | None = None,
        session_limit: Callable[[str], int | None] | None = None,
        memory: MemoryLedger | None = None,
        psk: PskServer | None = None,
    ) -> None:
        self._reactor = steady(reactor)
        self._seconds = reactor.seconds
        self._inner = inner
        self._certificates = certificates
        self.settings = settings or DtlsSettings()
        self._psk = check_keys_given(psk, self.settings)
        self._ended = ended
        self._session_limit = session_limit
        self.log = limited_logger(self)
        self.counts = DtlsCounts()
        self.datagrams = DatagramCounts()
        self._cookies = CookieSecret(os.urandom(32), reactor.seconds())
        self._steps = StepScheduler(reactor)
        self._reducing: set[str] = set()  # users over a limit that was lowered
        memory = memory or MemoryLedger()
        memory.use_pacing(lambda work: self._steps(in_steps(work)))
        places = self.settings.max_sessions + self.settings.max_handshakes
        self._kept: MemoryAccount[_Association] = memory.account(
            "dtls", places * SESSION_BYTES, self._relieve, last=True
        )
        self._draining = False
        self._port: IUDPTransport | None = None
        self._associations: dict[Source, _Association] = {}
        self._handshakes: OrderedDict[Source, _Association] = OrderedDict()
        # Least recently active first, as are the peers of each user.
        self._sessions: BoundedTable[SecurePeer, _Association] = BoundedTable(
            self.settings.max_sessions,
            lambda peer, association: self._end(association, End.TOO_MANY_CONNECTIONS),
        )
        self._of_user: dict[str, OrderedDict[SecurePeer, None]] = {}
        self._per_address = KeyedCounts()
        self._timer: IDelayedCall | None = None
        self._wake = 0.0

    @staticmethod
    def make_certificates(
        settings: DtlsSettings, wall: Callable[[], float] = time.time
    ) -> Certificates:
        """
        Load the certificates.

        :param wall: returns seconds since 1970.
        :raises ConfigError: with a line for each file that cannot be used.
        """
        return Certificates(settings, wall, server_context)

    @staticmethod
    def make_psk(settings: DtlsSettings) -> PskServer | None:
        """
        Load the pre-shared keys, if there is a file of them.

        A file that all users of the machine can read is logged: they may use its keys.

        :raises ConfigError: if it cannot be used.
        """
        if not settings.psk:
            return None
        keys = PskServer(load_keys(settings.psk).get, server_context)
        if is_readable_by_all(settings.psk):
            _log.warn("{path} is readable by all users of this machine", path=settings.psk)
        return keys

    # --- what Twisted calls ---

    @override
    def startProtocol(self) -> None:
        # Kept, as Twisted sets its attribute to None before stopProtocol.
        self._port = self.transport
        self._draining = False
        # Any: Twisted's transports have methods that do not apply here, such as connect().
        self._inner.makeConnection(cast(Any, self))

    @override
    def stopProtocol(self) -> None:
        self._inner.doStop()
        self._steps.stop()
        self._reducing.clear()
        for association in list(self._associations.values()):
            self._end(association, End.DRAINED)
        self._port = None

    @override
    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        now = self._seconds()
        association = self._associations.get(addr)
        hello = ClientHello.parse(datagram)
        if hello is not None and (association is None or hello.random != association.random):
            self._on_client_hello(hello, datagram, addr, now)
        elif association is None:
            self.counts.stray += 1
        elif association.peer is None:
            self._continue_handshake(association, datagram, now)
        else:
            protected = protected_records(datagram)
            if protected:
                self._receive(association, protected, now)
            else:
                self.counts.stray += 1

    # --- what the inner protocol calls, as its transport ---

    def write(self, datagram: bytes, addr: Source) -> None:
        """
        Send a datagram to a peer.

        :raises MessageLengthError: if it is empty or too long for the MTU.
        """
        association = self._sessions.get(addr) if isinstance(addr, SecurePeer) else None
        if association is None:
            self.counts.dropped += 1
            return
        try:
            association.session.send(datagram)
        except DtlsFailed:
            self._end(association, End.CONNECTION_LOST)
            return
        self._flush(association)

    def getHost(self) -> Any:  # Any: as Twisted's own
        """Return the address of the port."""
        assert self._port is not None
        return self._port.getHost()

    def stopListening(self) -> Any:  # Any: a Deferred or None, as Twisted's own
        """Close the port."""
        assert self._port is not None
        return self._port.stopListening()

    # --- what others ask for ---

    @property
    def sessions(self) -> int:
        """Number of sessions."""
        return len(self._sessions)

    @property
    def handshakes(self) -> int:
        """Number of handshakes in progress."""
        return len(self._handshakes)

    def end(self, peer: SecurePeer, reason: End) -> None:
        """End a session, if it has not ended yet, with a close_notify."""
        association = self._sessions.get(peer)
        if association is not None:
            self._end(association, reason)

    def enforce_limit(self, user: str) -> None:
        """End sessions of a user whose limit was lowered: those that were silent for longest."""
        if user not in self._reducing:
            self._reducing.add(user)
            self._steps(in_steps(self._surplus_ends(user)))

    async def drain(self) -> None:
        """
        End all sessions with a close_notify, some in each turn of the reactor; begin no new ones.

        To be called before the port is closed, which ends all that are left at once.
        """
        self._draining = True
        await self._steps(in_steps(self._ends()))

    def figures(self) -> dict[str, int]:
        """Return current numbers and counters by name."""
        counts = self.counts
        ended = {f"ended_{end.value}": count for end, count in counts.ended.items()}
        return {
            "sessions": len(self._sessions),
            "handshakes": len(self._handshakes),
            "established": counts.established,
            "challenged": counts.challenged,
            "stray": counts.stray,
            "dropped": counts.dropped,
            **ended,
        }

    # --- handshakes ---

    def _on_client_hello(
        self, hello: ClientHello, datagram: bytes, source: Source, now: float
    ) -> None:
        """Challenge a new client with a cookie; begin a handshake if it returns one."""
        if self._draining:
            self.counts.stray += 1
            return
        cookies = self._cookies
        if cookies.stale(now):
            cookies.renew(os.urandom(32), now)
        if not cookies.accept(source, hello):
            self.counts.challenged += 1
            if self._port is not None:
                self._port.write(hello_verify_request(hello, cookies.make(source, hello)), source)
            return
        before = self._associations.get(source)
        if before is not None:
            self._end(before, End.CONNECTION_LOST, notify=False)
        settings, address = self.settings, client_prefix(source[0])
        if (
            len(self._handshakes) >= settings.max_handshakes
            or self._per_address[address] >= settings.max_handshakes_per_address
        ):
            self.counts.ended[End.TOO_MANY_HANDSHAKES] += 1
            return
        psk = self._psk if offers_psk(hello.suites) else None
        connection = self._certificates.connection() if psk is None else psk.connection()
        session = DtlsSession(connection, settings.mtu, psk)
        deadline = now + settings.handshake_timeout
        association = _Association(source, hello.random, session, deadline, len(datagram))
        self._associations[source] = self._handshakes[source] = association
        self._per_address.add(address)
        try:
            session.accept(datagram, hello, now)
        except DtlsFailed as error:
            self._fail(association, error)
            return
        self._flush(association)
        self._wake_at(min(deadline, session.due or deadline))
        # Last, as it may end this one.
        self._kept.set(association, SESSION_BYTES)

    def _continue_handshake(self, association: _Association, datagram: bytes, now: float) -> None:
        """Continue a handshake."""
        session = association.session
        association.received += len(datagram)
        try:
            if association.received > self.settings.max_handshake_bytes:
                raise DtlsFailed("the handshake is too long")
            payloads = session.receive(datagram, now)
        except DtlsFailed as error:
            self._fail(association, error)
            return
        if session.established:
            self._establish(association, now)
        self._flush(association)
        if association.peer is not None:
            self._deliver(association, association.peer, payloads)
        elif session.due is not None:
            self._wake_at(session.due)

    def _establish(self, association: _Association, now: float) -> None:
        """Turn a completed handshake into a session; over a limit the oldest session is ended."""
        session = association.session
        key_of = session.psk_identity
        identity = key_of or identity_in(session.certificate)
        # First, as it may read files, and raise.
        limit = self._limit_of(identity)
        self._leave_handshakes(association)
        peer = association.peer = SecurePeer(
            association.source, identity, "pre-shared key" if key_of else "certificate"
        )
        association.deadline = now + self.settings.idle_timeout
        if identity is not None:
            # Before the session is added, so that a user at its limit takes no place of others.
            if limit is not None:
                self._end_surplus(identity, limit - 1)
            self._of_user.setdefault(identity, OrderedDict())[peer] = None
        self._sessions[peer] = association
        self.counts.established += 1
        self._wake_at(association.deadline)

    def _end_surplus(self, user: str, limit: int) -> None:
        peers = self._of_user.get(user, ())
        while len(peers) > limit:
            self._end(self._sessions[next(iter(peers))], End.USER_LIMIT)

    def _surplus_ends(self, user: str) -> Iterator[float]:
        try:
            while (limit := self._limit_of(user)) is not None:
                peers = self._of_user.get(user, ())
                if len(peers) <= limit:
                    break
                self._end(self._sessions[next(iter(peers))], End.USER_LIMIT)
                yield END
        finally:
            self._reducing.discard(user)

    def _ends(self) -> Iterator[float]:
        for association in list(self._associations.values()):
            if self._associations.get(association.source) is association:
                self._end(association, End.DRAINED)
                yield END

    def _limit_of(self, user: str | None) -> int | None:
        """Return how many sessions a user may have; None for no limit."""
        return None if user is None or self._session_limit is None else self._session_limit(user)

    def _fail(self, association: _Association, error: DtlsFailed) -> None:
        self.log.debug(
            "the handshake with {source} failed: {error}", source=association.source, error=error
        )
        # OpenSSL's alert for the client.
        self._flush(association)
        self._end(association, End.HANDSHAKE_FAILED)

    def _leave_handshakes(self, association: _Association) -> None:
        del self._handshakes[association.source]
        self._per_address.remove(client_prefix(association.source[0]))

    # --- sessions ---

    def _receive(self, association: _Association, records: bytes, now: float) -> None:
        """Process the records of a session."""
        session, peer = association.session, association.peer
        assert peer is not None
        try:
            payloads = session.receive(records, now)
        except DtlsFailed:
            self._end(association, End.CONNECTION_LOST)
            return
        # A client that did not receive the end of the handshake gets it again.
        self._flush(association)
        if payloads:
            association.deadline = now + self.settings.idle_timeout
            self._sessions.move_to_end(peer)
            if peer.identity is not None:
                self._of_user[peer.identity].move_to_end(peer)
        self._deliver(association, peer, payloads)
        if session.ended and peer in self._sessions:
            self._end(association, End.CLIENT_CLOSED)

    def _deliver(
        self, association: _Association, peer: SecurePeer, payloads: Iterable[bytes]
    ) -> None:
        for payload in payloads:
            # The inner protocol may end the session, or the port, on any datagram.
            if self._sessions.get(peer) is association:
                self._inner.datagramReceived(payload, peer)

    def _end(self, association: _Association, end: End, notify: bool = True) -> None:
        """End a session or a handshake."""
        peer = association.peer
        if peer is None:
            self._leave_handshakes(association)
        else:
            self._sessions.pop(peer)
            if peer.identity is not None:
                peers = self._of_user[peer.identity]
                del peers[peer]
                if not peers:
                    del self._of_user[peer.identity]
            if notify:
                association.session.close()
                self._flush(association)
        del self._associations[association.source]
        self._kept.set(association, 0)
        self.counts.ended[end] += 1
        if not self._associations and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if peer is not None and self._ended is not None:
            self._ended(peer, end)

    def _relieve(self, association: _Association) -> float:
        """End one, as all clients hold too much; return the share of a step that this takes."""
        self._end(association, End.BUFFERS_FULL)
        return END

    def _flush(self, association: _Association) -> None:
        port = self._port
        for datagram in association.session.datagrams():
            if port is not None:
                port.write(datagram, association.source)

    # --- the one timer ---

    def _wake_at(self, due: float) -> None:
        """Make the timer fire at *due* or before."""
        if self._timer is not None:
            if due >= self._wake:
                return
            self._timer.cancel()
        self._wake = due
        self._timer = self._reactor.callLater(
            max(TIMER_INTERVAL, due - self._seconds()), self._on_timer
        )

    def _on_timer(self) -> None:
        """Retransmit what is due, and end sessions and handshakes past their deadline."""
        self._timer = None
        now = self._seconds()
        dues: list[float] = []
        left = ENDS_AT_ONCE
        for association in list(self._handshakes.values()):
            due: float | None = association.next_due
            if association.next_due <= now and left:
                left -= 1
                due = self._advance_handshake(association, now)
            if due is not None:
                dues.append(due)
        while (oldest := self._sessions.oldest()) is not None:
            association = oldest[1]
            if association.deadline > now or not left:
                dues.append(association.deadline)
                break
            left -= 1
            self._end(association, End.IDLE_TIMEOUT)
        if not dues:
            return
        if min(dues) > now:
            self._wake_at(min(dues))
        else:
            # The others have their turn in the next one.
            self._wake = now
            self._timer = self._reactor.callLater(0, self._on_timer)

    def _advance_handshake(self, association: _Association, now: float) -> float | None:
        """End a handshake past its deadline, or retransmit; return when to look again, if ever."""
        if association.deadline <= now:
            self._end(association, End.HANDSHAKE_TIMEOUT)
            return None
        due = self._retransmit(association, now)
        return None if due is None else min(due, association.deadline)

    def _retransmit(self, association: _Association, now: float) -> float | None:
        """Retransmit if due; return when to look again, or None if the handshake failed."""
        session = association.session
        if session.due is not None and session.due <= now:
            try:
                session.retransmit(now)
            except DtlsFailed as error:
                self._fail(association, error)
                return None
            self._flush(association)
        return association.deadline if session.due is None else session.due


@check_arguments
def listen_dtls(
    reactor: IReactorFDSet,
    server: DtlsServer,
    port: int,
    interface: str = "127.0.0.1",
    *,
    datagrams_per_turn: int = 64,
    receive_buffer: int = 4 << 20,
) -> CappedPort:
    """
    Serve *server* on a UDP port, and return the listening port.

    Its ``stopListening()`` ends all sessions with a close_notify; once its Deferred fires, no
    socket and no timer is left. Call ``await server.drain()`` first where these may be many: it
    ends some in each turn of the reactor.

    :param reactor: one that watches file descriptors: epoll, asyncio, poll and select do.
    :param port: 0 for any free port.
    :param interface: a numeric address; ``""`` for all IPv4 interfaces, ``"::"`` for all IPv6
        interfaces.
    :raises CannotListenError: if the port is taken, or the address is not one of this machine.
    """
    listening = CappedPort(
        port,
        server,
        interface,
        MAX_PLAINTEXT + OVERHEAD,
        reactor,
        datagrams_per_turn=datagrams_per_turn,
        receive_buffer=receive_buffer,
        counts=server.datagrams,
    )
    listening.startListening()
    return listening
