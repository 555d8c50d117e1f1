"""The CoAP server: the registry of commands as resources (RFC 7252, 7641, 7959, 9175)."""

from __future__ import annotations

import os
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from typing_extensions import override

from twisted_net.coap.access import PermissionsOf, check_user, enter
from twisted_net.coap.blockwise import (
    Block,
    RequestAssembler,
    RequestBodyTooLarge,
    RequestIncomplete,
    TransferTable,
)
from twisted_net.coap.codec import (
    JSON,
    LINK_FORMAT,
    TEXT,
    CoapMessage,
    Code,
    Option,
    RequestOptions,
    Type,
    encode_message,
    encode_uint,
)
from twisted_net.coap.echo import AddressProofs
from twisted_net.coap.exchange import (
    Event,
    IncomingMessage,
    MessageAcknowledged,
    MessageFailed,
    OutgoingMessage,
)
from twisted_net.coap.messages import MessageLayer
from twisted_net.coap.observe import Observation, Observers
from twisted_net.coap.resources import (
    CORE,
    EVENTS,
    Refused,
    Reply,
    arguments,
    check_request,
    diagnostic,
    find_command,
    links,
    observable_commands,
    refusal,
    reply_with,
)
from twisted_net.coap.responses import Question, Replies, challenge, insert_option
from twisted_net.coap.settings import DEFAULT_PORT, CoapLimits
from twisted_net.coap.topics import TopicStates, resource_of, text_of, topic_of
from twisted_net.coap.waiting import WaitingRequests
from twisted_net.commands.registry import ANSWERED, Command, Commands, Waiting
from twisted_net.commands.runner import CommandRunner, Permit, RunnerLimits
from twisted_net.dtls.peer import SecurePeer, identity_of
from twisted_net.errors import CoapError, CommandError, Internal, TwistedNetError
from twisted_net.net.addresses import Source, is_loopback
from twisted_net.reasons import End
from twisted_net.sessions import Session, Sessions
from twisted_net.udp.port import CappedPort
from twisted_net.udp.responder import DatagramCounts

SESSION_LIFETIME = 600.0
"""Seconds after its last request that a peer has its session; as long as an idle TCP client's."""

# A flood that makes a handler fail must not fill the disk with tracebacks.
_SECONDS_BETWEEN_TRACEBACKS = 1.0


class CoapServer(DatagramProtocol):
    """
    Serves commands to CoAP clients; :func:`listen_coap` gives it a port.

    Each command is a resource, such as ``/echo``, for POST, and for GET where it is declared
    ``safe``. ``/.well-known/core`` lists them; ``/events`` is the last event that was broadcast;
    ``/topics/<topic>`` is the last message of a topic, to be observed, and to be published to.
    A command runs once however often its request comes. One that waits is acknowledged first and
    answered by a message of its own.

    Peers are sessions as TCP clients are, for :data:`SESSION_LIFETIME` after their last request;
    a broadcast reaches those that observe ``/events``.

    :param reactor: whose time it uses; its threads too, for blocking commands.
    :param observable: names of commands that can be observed: safe ones that do not wait. They
        are looked at every ``refresh_interval``, and whenever :meth:`notify` is called.
    :param sessions: to be shared with another server; its own where None is given.
    :param permit: called before a command runs; it raises a
        :class:`~twisted_net.errors.CommandError` where the peer may not. Without one all may.
    :param permissions_of: gives what the user may do whom a peer's certificate names, over DTLS;
        and, for None, what a peer may without one. Administrative commands are served where there
        is such a user, and only if it may use them.
    :param chance: gives a number from 0 to 1, drawn evenly.
    :ivar layer: has the counts of messages.
    :ivar datagrams: has what the port counts.
    """

    log = Logger()
    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        commands: Commands,
        limits: CoapLimits | None = None,
        *,
        observable: Iterable[str] = ("STATS",),
        sessions: Sessions | None = None,
        permit: Permit | None = None,
        permissions_of: PermissionsOf | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._reactor = reactor
        self._seconds = reactor.seconds
        self._chance = chance
        self._permissions_of = permissions_of
        self.commands = commands
        self.limits = limits = limits or CoapLimits()
        self.sessions = Sessions(time.time) if sessions is None else sessions
        self.datagrams = DatagramCounts()
        self.layer = MessageLayer(limits, int(chance() * 65_536))
        self._observable = observable_commands(commands, observable)
        self._observers = Observers(limits.max_observers, limits.max_observers_per_peer)
        self._notifications: dict[OutgoingMessage, Observation] = {}
        self._proofs = AddressProofs(os.urandom(16), limits.max_peers, SESSION_LIFETIME)
        lifetime = limits.exchange_lifetime
        self._uploads = RequestAssembler(
            TransferTable(limits.max_transfers, limits.max_transfer_bytes, lifetime),
            limits.max_body,
        )
        self._replies = Replies(
            limits, TransferTable(limits.max_transfers, limits.max_transfer_bytes, lifetime)
        )
        self._topics = TopicStates(
            self.sessions.topics,
            limits.max_topics,
            limits.max_topic_bytes,
            self._observers.observed,
            self.notify,
        )
        self._known: OrderedDict[Source, tuple[Session, float]] = OrderedDict()
        self._event = b"{}"
        self.runner = CommandRunner(
            reactor,
            commands,
            self.sessions,
            RunnerLimits(limits.command_timeout, limits.max_blocking),
            permit,
        )
        self._waiting = WaitingRequests(reactor, limits)
        self._draining = False
        self._timer: IDelayedCall | None = None
        self._wake = 0.0
        self._refreshing: IDelayedCall | None = None
        self._next_traceback = float("-inf")

    # --- what Twisted calls ---

    @override
    def startProtocol(self) -> None:
        self._draining = False

    @override
    def stopProtocol(self) -> None:
        self._waiting.cancel()
        for timer in (self._timer, self._refreshing):
            if timer is not None:
                timer.cancel()
        self._timer = self._refreshing = None
        for observation in self._observers.all():
            self._observers.drop(observation)
        self._topics.close()
        for session, _ in self._known.values():
            self.sessions.close(session, End.DRAINED)
        self._known.clear()

    @override
    def datagramReceived(self, datagram: bytes, addr: Source) -> None:
        self.take(datagram, addr)

    def take(self, datagram: bytes, source: Source, group: bool = False) -> None:
        """
        Take in a datagram.

        :param group: whether it came to a multicast address, on a socket of its own. Answers
            leave through this server's transport, after a random leisure; errors are not told.
        """
        if self.transport is None:
            return
        now = self._seconds()
        for event in self.layer.receive(datagram, source, now, group):
            self._heard(event, now)
        self._flush()

    # --- what others ask for ---

    def notify(self, path: str) -> None:
        """Tell the observers of a resource, such as ``stats``, that it has changed."""
        now = self._seconds()
        for observation in self._observers.of(path):
            if self._observers.changed(observation):
                self._tell(observation, now)
        self._flush()

    async def drain(self, timeout: float) -> None:
        """
        Refuse further requests, tell observers that it is over, answer what is under way.

        Call it before the port stops to listen. What is under way after *timeout* is cancelled.
        """
        self._draining = True
        now = self._seconds()
        for observation in self._observers.all():
            self._observers.drop(observation)
            gone = CoapMessage(Type.NON, Code.SERVICE_UNAVAILABLE, token=observation.token)
            self._send(gone, observation.source, now)
        self._flush()
        await self._waiting.ended(timeout)

    def peer_lost(self, peer: Source, end: End) -> None:
        """Forget a peer whose DTLS session is over, and cancel what waits for it."""
        for observation in self._observers.of_peer(peer):
            self._observers.drop(observation)
        self._waiting.cancel(peer)
        known = self._known.pop(peer, None)
        if known is not None:
            self.sessions.close(known[0], end)

    @property
    def observers(self) -> int:
        """How many observations there are."""
        return len(self._observers)

    # --- events of the message layer ---

    def _heard(self, event: Event, now: float) -> None:
        if isinstance(event, IncomingMessage):
            self._answer(event, now)
        elif isinstance(event, MessageAcknowledged):
            observation = self._notifications.pop(event.outgoing, None)
            if observation is not None and self._observers.delivered(observation):
                self._tell(observation, now)
        elif isinstance(event, MessageFailed):
            observation = self._notifications.pop(event.outgoing, None)
            if observation is not None:
                # It has gone, or rejects us: RFC 7641 §4.5.
                self._observers.drop(observation)

    def _advance(self) -> None:
        self._timer = None
        now = self._seconds()
        for event in self.layer.advance(now):
            self._heard(event, now)
        self._flush()

    def _flush(self) -> None:
        """Write what is due, and set the one timer of all peers."""
        transport = self.transport
        if transport is None:
            return
        for datagram, source in self.layer.messages_to_send():
            try:
                transport.write(datagram, source)
            except MessageLengthError:
                # The network would drop it too, but after it was cut in pieces.
                self.datagrams.dropped += 1
        due = self.layer.next_timeout()
        if due is None or (self._timer is not None and due >= self._wake):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._wake = due
        self._timer = self._reactor.callLater(max(0.0, due - self._seconds()), self._advance)

    # --- from a request to a reply ---

    def _answer(self, incoming: IncomingMessage, now: float) -> None:
        message = incoming.message
        assert message is not None
        options = RequestOptions(message.options)
        try:
            block1 = None if options.block1 is None else Block.parse(options.block1)
            block2 = None if options.block2 is None else Block.parse(options.block2)
        except ValueError as error:
            question = Question(incoming.source, message.code, options, False, incoming)
            self._reply(question, Reply(Code.BAD_REQUEST, diagnostic(str(error))), now)
            return
        proven = self._is_proven(incoming.source, options.echo, now)
        question = Question(
            incoming.source, message.code, options, proven, incoming, block1, block2
        )
        reply: Reply | None
        try:
            reply = self._serve(question, message.payload, now)
        except Refused as error:
            reply = Reply(error.code, diagnostic(str(error)))
        except ANSWERED as error:
            reply = refusal(error, _name(options), options.accept)
        # A bug of a handler ends here, or in _wait.
        except Exception:
            reply = self._failed(question)
        if reply is not None:
            self._reply(question, reply, now)

    def _serve(self, question: Question, payload: bytes, now: float) -> Reply | None:
        """Give the reply to a request, or None where it comes later or never."""
        options = question.options
        source = question.source
        incoming = question.incoming
        if incoming is not None and incoming.size > self.limits.max_datagram:
            # All but its beginning was lost when it was read.
            raise Refused(
                Code.REQUEST_ENTITY_TOO_LARGE,
                f"a datagram holds at most {self.limits.max_datagram} bytes here; send blocks",
            )
        if options.unrecognized is not None:
            raise Refused(
                Code.BAD_OPTION, f"option {options.unrecognized} is unknown, or wrong here"
            )
        if options.proxy:
            raise Refused(Code.PROXYING_NOT_SUPPORTED, "this server is no proxy")
        if question.block1 is not None:
            whole = self._assemble(question, question.block1, payload, now)
            if whole is None:
                return Reply(Code.CONTINUE)
            payload = whole
        if question.block2 is not None and question.block2.number:
            kept = self._replies.kept(question, now)
            if kept is not None:
                return kept
            if question.method != _GET:
                raise Refused(
                    Code.REQUEST_ENTITY_INCOMPLETE, "the answer is kept no longer; ask anew"
                )
        path = options.path
        if path == _CORE_PATH:
            check_request(question.method, options, (LINK_FORMAT,), safe=True, post=False)
            body = links(self.commands, [*self._observable, EVENTS], options.queries)
            return Reply(Code.CONTENT, body, LINK_FORMAT)
        if path == _EVENTS_PATH:
            check_request(question.method, options, (JSON,), safe=True, post=False)
            check_user(self._session(source, now))
            return Reply(Code.CONTENT, self._event, JSON, 0)
        topic = topic_of(path)
        if topic is not None:
            return self._topic(question, topic, payload, now)
        known = self._permissions_of is not None and identity_of(source) is not None
        command = find_command(self.commands, path, admin=known)
        check_request(question.method, options, _FORMATS, safe=command.safe, post=True)
        return self._run(question, command, arguments(options, payload), now)

    def _topic(self, question: Question, topic: str, payload: bytes, now: float) -> Reply | None:
        """Give the last message of a topic, or publish one, as SUBSCRIBE and PUBLISH allow it."""
        options = question.options
        check_request(question.method, options, _FORMATS, safe=True, post=True)
        name = "SUBSCRIBE" if question.method == _GET else "PUBLISH"
        command = self.commands.get(name)
        if command is None:
            raise Refused(Code.NOT_FOUND, "there are no topics")
        if question.method == _GET:
            session = self._session(question.source, now)
            self.runner.admit(command, [topic], session)
            if session.permissions is not None:
                with self.runner.refusals_counted(command.name, session):
                    session.permissions.check_subscribe(topic)
            return self._topics.reply(topic, options.accept)
        return self._run(question, command, [topic, text_of(payload)], now, topic)

    def _run(
        self,
        question: Question,
        command: Command,
        words: list[str],
        now: float,
        topic: str | None = None,
    ) -> Reply | None:
        """
        Run a command.

        :param topic: the one that is followed from now on, if the peer may publish to it.
        """
        options, source = question.options, question.source
        if self._draining:
            raise Refused(Code.SERVICE_UNAVAILABLE, "the server is stopping")
        if not question.proven and not command.safe:
            # Before it runs: what it does must not be done for somebody who was not asking.
            return Reply(Code.UNAUTHORIZED)
        session = self._session(source, now)
        self.runner.admit(command, words, session)
        if topic is not None:
            if session.permissions is not None:
                with self.runner.refusals_counted(command.name, session):
                    session.permissions.check_publish(topic)
            self._topics.follow(topic)
        answer = self.runner.execute(command, words, session)
        if isinstance(answer, bytes):
            reply = reply_with(question.method, answer, options.accept)
            if question.method == _GET:
                reply.max_age = 0
            return reply
        if not question.proven:
            # Its answer may be a message of its own, which is sent again and again.
            return Reply(Code.UNAUTHORIZED)
        if question.incoming is not None and question.incoming.group:
            raise Refused(Code.NOT_IMPLEMENTED, "a group is not answered by commands that wait")
        with self.runner.refusals_counted(command.name, session):
            self._waiting.check(source)
        show = partial(command.shown, words)
        result = self.runner.start(answer, session, show)
        self._waiting.start(source, self._wait(question, answer, result))
        return None

    def _assemble(
        self, question: Question, block: Block, payload: bytes, now: float
    ) -> bytes | None:
        """Take in a block of a request's body, and give the whole of it with the last one."""
        if not question.proven:
            raise Refused(Code.UNAUTHORIZED, "")
        try:
            return self._uploads.add(
                question.source,
                question.key,
                block,
                payload,
                question.options.size1,
                now,
            )
        except RequestIncomplete as error:
            raise Refused(Code.REQUEST_ENTITY_INCOMPLETE, str(error)) from None
        except RequestBodyTooLarge as error:
            raise Refused(Code.REQUEST_ENTITY_TOO_LARGE, str(error)) from None

    # --- commands that wait ---

    async def _wait(self, question: Question, waiting: Waiting, result: Deferred[bytes]) -> None:
        accept = question.options.accept
        try:
            reply = reply_with(question.method, await result, accept)
        except TwistedNetError as error:
            reply = refusal(error, waiting.name, accept)
        except CancelledError:
            # By stopProtocol, by drain, or because the peer is lost.
            reply = refusal(Internal(), waiting.name, accept)
        self._reply(question, reply, self._seconds())
        self._flush()

    # --- from a reply to a message ---

    def _reply(self, question: Question, reply: Reply, now: float) -> None:
        """Send a reply: a block of it where it is long, a challenge where it may not be sent."""
        incoming = question.incoming
        assert incoming is not None
        refused_in_silence = question.options.unrecognized is not None and not incoming.confirmable
        nothing_to_say = incoming.group and (reply.code >= 128 or not reply.payload)
        if refused_in_silence or nothing_to_say:
            # Who asks a group wants to hear from those that have something (RFC 7252 §8.2); what
            # is not confirmable and not understood is passed over (§5.4.1).
            self.layer.send_response(incoming, None, now)
            return
        message = self._replies.message(question, reply, now)
        if not question.proven:
            message = self._affordable(question, incoming, message, now)
            if incoming.group and message.code == Code.UNAUTHORIZED:
                self.layer.send_response(incoming, None, now)
                return
        elif reply.code < 128 and question.options.observe is not None:
            self._observe(question, incoming, message)
        delay = self._chance() * self.limits.leisure if incoming.group else 0.0
        self.layer.send_response(incoming, message, now, self._chance(), delay)

    # --- addresses that may be forged ---

    def _is_proven(self, source: Source, echo: bytes | None, now: float) -> bool:
        if isinstance(source, SecurePeer):
            # It has returned a cookie, and finished a handshake.
            return True
        if not self.limits.amplification or is_loopback(source[0]):
            return True
        return self._proofs.proven(source, echo, now)

    def _affordable(
        self, question: Question, incoming: IncomingMessage, message: CoapMessage, now: float
    ) -> CoapMessage:
        """Give the message if its address may get it, else a challenge."""
        most = int(self.limits.amplification * incoming.size) - len(incoming.token)
        observes = question.options.observe == 0
        affordable = not observes and len(encode_message(message)) <= most
        if affordable and message.code != Code.UNAUTHORIZED:
            return message
        return challenge(self._proofs.challenge(incoming.source, now), most)

    # --- observers ---

    def _observe(self, question: Question, incoming: IncomingMessage, message: CoapMessage) -> None:
        """Begin or end an observation, as the request wishes and the resource can."""
        options = question.options
        topic = topic_of(options.path)
        path = options.path[0].lower() if len(options.path) == 1 else ""
        if topic is not None:
            path = resource_of(topic)
        elif path != EVENTS and path not in self._observable:
            return
        if question.method != _GET:
            return
        if options.observe == 1:
            self._observers.cancel(incoming.source, incoming.token)
        elif options.observe == 0 and not incoming.group and not self._draining:
            if topic is not None and not self._follows(topic):
                return
            kept = [pair for pair in options.options if pair[0] not in _NOT_REPEATED]
            observation = self._observers.register(path, incoming.source, incoming.token, kept)
            if observation is None:
                return
            self._number(observation, message)
            if self._refreshing is None and self.limits.refresh_interval:
                self._refreshing = self._reactor.callLater(
                    self.limits.refresh_interval, self._refresh
                )

    def _follows(self, topic: str) -> bool:
        """Follow a topic that is to be observed, if there is room for it."""
        try:
            self._topics.follow(topic)
        except CommandError:
            return False
        return True

    def _refresh(self) -> None:
        """Look at the resources that change by themselves, while there are observers."""
        self._refreshing = None
        if len(self._observers):
            self._refreshing = self._reactor.callLater(self.limits.refresh_interval, self._refresh)
        for path in self._observable:
            self.notify(path)

    def _tell(self, observation: Observation, now: float) -> None:
        """Send an observer what is true now."""
        source = observation.source
        options = RequestOptions(observation.options)
        block2 = None if options.block2 is None else Block.parse(options.block2)
        question = Question(source, Code.GET, options, True, block2=block2)
        reply: Reply | None
        try:
            reply = self._serve(question, b"", now)
            assert reply is not None
        except ANSWERED as error:
            reply = refusal(error, _name(options), options.accept)
        except Exception:
            reply = self._failed(question)
        message = self._replies.message(question, reply, now)
        message.type = Type.CON
        message.token = observation.token
        if message.code < 128:
            self._number(observation, message)
        else:
            # An error ends the observation (RFC 7641 §4.2).
            self._observers.drop(observation)
        outgoing = self._send(message, source, now)
        if outgoing is None:
            self._observers.drop(observation)
        else:
            self._notifications[outgoing] = observation

    def _send(self, message: CoapMessage, source: Source, now: float) -> OutgoingMessage | None:
        try:
            return self.layer.send_request(message, source, now, self._chance())
        except CoapError:
            return None

    def _number(self, observation: Observation, message: CoapMessage) -> None:
        """Put the Observe option into a notification, and take out what would make it stale."""
        options = [pair for pair in message.options if pair[0] != Option.MAX_AGE]
        insert_option(options, Option.OBSERVE, encode_uint(observation.next_sequence()))
        message.options = options

    def _deliver(self, source: Source, line: bytes) -> str | None:
        """Send an event to one peer, if it observes ``/events``."""
        self._event = line[:-1]
        now = self._seconds()
        failure: str | None = "not_observing"
        for observation in self._observers.of_peer(source):
            if observation.resource == EVENTS:
                failure = None
                if self._observers.changed(observation):
                    self._tell(observation, now)
        self._flush()
        return failure

    # --- sessions and failures ---

    def _session(self, source: Source, now: float) -> Session:
        """Give the session of a peer, which begins with its first request."""
        known = self._known.get(source)
        if known is not None:
            self._known[source] = known[0], now
            self._known.move_to_end(source)
            return known[0]
        while self._known:
            oldest, (session, heard) = next(iter(self._known.items()))
            if heard + SESSION_LIFETIME > now and len(self._known) < self.limits.max_peers:
                break
            del self._known[oldest]
            for observation in self._observers.of_peer(oldest):
                self._observers.drop(observation)
            self.sessions.close(session, End.IDLE_TIMEOUT)
        session = self.sessions.open(source[0], source[1], partial(self._deliver, source))
        enter(session, source, self._permissions_of)
        self._known[source] = session, now
        return session

    def _failed(self, question: Question) -> Reply:
        """Log the exception that is being handled, which is a bug of a handler's."""
        name = _name(question.options)
        now = self._seconds()
        if now >= self._next_traceback:
            self._next_traceback = now + _SECONDS_BETWEEN_TRACEBACKS
            self.log.failure("the handler of {command} failed", command=name)
        return refusal(Internal(), name, question.options.accept)


def listen_coap(
    reactor: IReactorFDSet,
    server: CoapServer,
    port: int = DEFAULT_PORT,
    interface: str = "127.0.0.1",
) -> CappedPort:
    """
    Serve *server* on a UDP port of its own, and give that port.

    ``stopListening()`` of it ends it; once its Deferred fires, no socket and no timer is left.
    Let ``await server.drain(seconds)`` come first where answers under way are to be sent.

    :param reactor: one that watches descriptors: epoll, asyncio, poll and select do.
    :param port: 0 for any that is free.
    :param interface: a numeric address; ``""`` for every IPv4 and ``"::"`` for every IPv6 one.
    :raises CannotListenError: where the port is taken, or the address is not of this machine.
    """
    limits = server.limits
    listening = CappedPort(
        port,
        server,
        interface,
        # One byte more than the limit, by which a longer datagram is known.
        limits.max_datagram + 1,
        reactor,
        datagrams_per_turn=limits.datagrams_per_turn,
        receive_buffer=limits.receive_buffer,
        counts=server.datagrams,
    )
    listening.startListening()
    return listening


_GET = Code.GET
_CORE_PATH = CORE.split("/")
_EVENTS_PATH = [EVENTS]
_FORMATS = (TEXT, JSON)
_NOT_REPEATED = (Option.OBSERVE, Option.ECHO, Option.ETAG)


def _name(options: RequestOptions) -> str | None:
    return options.path[0].upper() if len(options.path) == 1 else None
