"""Session: one client, for as long as it is connected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from twisted_net.auth.users import NOBODY, Permissions
from twisted_net.broadcasts import encode_event
from twisted_net.errors import AuthRequired, CommandError, HandlersOverdue, NotPermitted
from twisted_net.net.addresses import client_prefix
from twisted_net.reasons import End
from twisted_net.topics.mailbox import Mailbox
from twisted_net.topics.messages import EventLine
from twisted_net.topics.registry import Topics
from twisted_net.topics.settings import is_presence

if TYPE_CHECKING:
    from twisted_net.sessions.registry import Sessions


class Connection(Protocol):
    """The connection that carries a session: it delivers messages of topics, and can be ended."""

    def open_mailbox(self, topics: Topics) -> Mailbox:
        """Return a mailbox whose messages it sends to the client; called once at most."""
        ...

    def kill(self, reason: str = "") -> None:
        """
        Announce the end to the client, and end the connection.

        :param reason: shown to the client; empty for none.
        """
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
    :ivar opening: whether its ``on_open`` hooks are awaited: it runs no command, gets no event.
    :ivar shown: whether its ``on_open`` hooks were called.
    :ivar connected: when it connected, in seconds of the wall clock.
    :ivar messages: lines received, or requests of CoAP, the refused ones included.
    :ivar received: bytes received, unfinished lines included.
    :ivar written: bytes of answers and events, without messages of topics.
    :ivar leave: ends it where no connection carries it; None if it cannot be ended.
    :ivar undelivered: events that were not sent, since the client did not read.
    :ivar mailbox: the messages of topics that wait for it; None until it subscribes.
    :ivar sessions: all the sessions of the same server.
    """

    __slots__ = (
        "__weakref__",  # an application may keep more about a client
        "_connection",
        "_data",
        "_deliver",
        "administrative",
        "admit",
        "client",
        "connected",
        "identity",
        "leave",
        "login_refused",
        "mailbox",
        "messages",
        "name",
        "opening",
        "overdue",
        "permissions",
        "proof",
        "received",
        "reviewed",
        "sessions",
        "shown",
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
        self.leave: Callable[[], None] | None = None
        self.overdue = 0
        self.login_refused = False
        self.opening = self.shown = False
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
    def sender(self) -> str | None:
        """
        Whom its messages are from: its user; where there are no users, the client.

        None for a client without a login: others are not told its address.
        """
        return self.name if self.permissions is None else self.permissions.name

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
        :raises Banned: if the user is kept out.
        :raises CommandError: if the transport accepts no more connections of this user; then
            nothing has changed.
        """
        # They began as another user, and may subscribe or keep state for this session. Nor may an
        # AUTH that was answered so log in later on.
        if self.overdue:
            raise HandlersOverdue(self.overdue)
        self.sessions.doors.bans.check_user(permissions.name)
        if self.admit is not None:
            self.admit(permissions)
        self._become(permissions, proof)

    def log_in_by_certificate(
        self, permissions: Permissions | None, credential: str = "certificate"
    ) -> None:
        """
        Log the client in as the user whose name its certificate has proved, and audit it.

        :param credential: what has proved it, in words, if it was no certificate.

        :param permissions: of that user. None if there is no such user: then nothing but AUTH is
            permitted, which is less than to a client without a certificate.
        :raises CommandError: as :meth:`log_in` does; it is not audited.
        """
        if permissions is None:
            self._become(NOBODY, None)
            self.sessions.audit("refused", self, f"by {credential}: no user {self.identity}")
        else:
            self.log_in(permissions)
            self.sessions.audit("login", self, f"by {credential}")
            if self.shown:
                # A user of that name has been added since the client came, which goes on meanwhile.
                self.sessions.hooks.logged_in_meanwhile(self)

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

    def allows_subscribe(self, pattern: str) -> bool:
        """Whether the client may subscribe to a topic or pattern."""
        if is_presence(pattern) and not self.may_run("PRESENCE", admin=True):
            return False
        return self.permissions is None or self.permissions.allows_subscribe(pattern)

    def check_subscribe(self, pattern: str) -> None:
        """
        Check that the client may subscribe to a topic or pattern.

        :raises NotPermitted: if it may not.
        :raises AuthRequired: if it must log in first.
        """
        if self.permissions is not None:
            self.permissions.check_subscribe(pattern)
        if not self.allows_subscribe(pattern):
            raise NotPermitted(pattern)

    def check_publish(self, topic: str) -> None:
        """
        Check that the client may publish to a topic.

        :raises NotPermitted: if it may not.
        :raises AuthRequired: if it must log in first.
        """
        if self.permissions is not None:
            self.permissions.check_publish(topic)
        if is_presence(topic):
            raise NotPermitted(topic)

    def _reviewed_as(self, permissions: Permissions) -> None:
        if self.reviewed is not None and permissions.name is not None:
            self.reviewed(permissions.name)

    def _become(self, permissions: Permissions, proof: str | None) -> None:
        """Be the session of this user, with nothing left of the one before."""
        self.sessions.instruments.monitors.remove(self)
        if self.mailbox is not None:
            self.mailbox.reset()
        self._data = None
        self._leave_user()
        self.permissions = permissions
        self.proof = proof
        # A login may succeed after the client has left: nobody would remove it.
        if permissions.name is not None and self._deliver is not _gone:
            permissions.holders[self] = None
            self.sessions.by_user.add(self, permissions.name)
        self.sessions.doors.presence.update(self)

    def _leave_user(self) -> None:
        """Count no longer as a session of its user."""
        permissions = self.permissions
        if permissions is not None:
            permissions.holders.pop(self, None)
            if permissions.name is not None:
                self.sessions.by_user.remove(self, permissions.name)

    def _end_subscriptions(self, mailbox: Mailbox, permissions: Permissions) -> list[bytes]:
        """End the subscriptions that are not permitted; return the event for each."""
        topics = self.sessions.topics
        refused = [
            pattern for pattern in topics.patterns(mailbox) if not self.allows_subscribe(pattern)
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
            self.mailbox.owner = self
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
        if self.mailbox is not None:
            self.mailbox.owner = None
        self._leave_user()
        self.reviewed = None
        self._deliver = _gone
        self._connection = None
        self.leave = None

    @property
    def ended(self) -> bool:
        """Whether the client has gone, or is ended: a handler may still run."""
        return self._deliver is _gone

    def kill(self, reason: str = "") -> bool:
        """
        End the client's connection; return False if it has none that can be ended.

        The session of a CoAP peer is closed, and its observations end; it has a new one with its
        next request.

        The session is closed at once, although the peer may take a while to read what it has been
        sent. A client that ends itself by a line is still answered.

        :param reason: shown to the client, as ``message`` of the event; empty for none.
        """
        if self._connection is None:
            if self.leave is None:
                return False
            self.leave()
            return True
        self._connection.kill(reason)
        self.sessions.close(self, End.KILLED)
        return True

    def figures(self) -> Mapping[str, object]:
        """Return what CLIENTS shows of the connection."""
        return {} if self._connection is None else self._connection.figures()

    def send(self, event: Mapping[str, object]) -> str | None:
        """
        Send an event to this client alone, in order with the messages of its topics.

        It counts among the messages that wait for a client that reads slowly, if some do.

        :param event: its members; ``event`` names its kind.
        :return: None, or in a word why the client does not get it; then it is counted.
        :raises TypeError: as :func:`~twisted_net.broadcasts.encode_event` does.
        """
        line = encode_event(event)
        mailbox = self.mailbox
        if mailbox is None or not mailbox.waiting:
            return self.deliver(line)
        if mailbox.take(EventLine(line)):
            return None
        self._count_undelivered()
        return "queue_full"

    def deliver(self, line: bytes) -> str | None:
        """
        Send a line that is no answer; it may overtake messages of topics that wait.

        :param line: complete, with its LF.
        :return: None, or in a word why the client does not get it; then it is counted.
        """
        failure = self._deliver(line)
        if failure is not None:
            self._count_undelivered()
        return failure

    def _count_undelivered(self) -> None:
        self.undelivered += 1
        self.sessions.counters.undelivered += 1


def _gone(line: bytes) -> str:
    """Deliver nothing: the connection is lost."""
    return "closing"


_UNWATCHED = encode_event({"event": "unwatched", "code": NotPermitted.code})
