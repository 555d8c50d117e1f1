"""CoAP server: the commands of a registry as resources (RFC 7252, 7641, 7959, 9175)."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable
from functools import partial

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IReactorFDSet, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

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
    CoapRequestOptions,
    Code,
    encode_message,
)
from twisted_net.coap.echo import AddressVerifier
from twisted_net.coap.endpoint import CoapEndpoint
from twisted_net.coap.exchange import (
    Event,
    IncomingMessage,
    MessageAcknowledged,
    MessageFailed,
)
from twisted_net.coap.notifications import Notifier, add_observe_option
from twisted_net.coap.observe import Observer
from twisted_net.coap.peer_sessions import (
    SESSION_LIFETIME,
    PeerSessions,
    PermissionsOf,
)
from twisted_net.coap.resource_access import ResourceAccess
from twisted_net.coap.resources import (
    CORE,
    EVENTS,
    RETRY_AFTER,
    RequestRefused,
    ResourceResponse,
    check_request,
    check_texts,
    command_arguments,
    command_response,
    diagnostic,
    error_response,
    observable_commands,
)
from twisted_net.coap.responses import ResponseBuilder, ServerRequest, echo_challenge_message
from twisted_net.coap.settings import DEFAULT_PORT, CoapLimits
from twisted_net.coap.topics import TopicResources, path_of, text_of, topic_of
from twisted_net.coap.waiting_requests import WaitingRequests
from twisted_net.commands.execution import discard
from twisted_net.commands.failures import loggable_failure
from twisted_net.commands.registry import ANSWERED, Command, Commands, Waiting
from twisted_net.commands.runner import CommandRunner, Permit, RunnerLimits
from twisted_net.config.type_checks import check_arguments
from twisted_net.dtls.peer import SecurePeer
from twisted_net.errors import CommandError, Internal, TwistedNetError
from twisted_net.net.addresses import Source, is_loopback
from twisted_net.net.log_limiter import TracebackRate
from twisted_net.reasons import End
from twisted_net.sessions import Sessions
from twisted_net.turns.broadcast_scheduler import pacings
from twisted_net.turns.steps import in_steps
from twisted_net.udp.port import CappedPort
from twisted_net.udp.responder import DatagramCounts


@check_arguments
class CoapServer(CoapEndpoint):
    """
    Serves commands to CoAP clients, on the port that :func:`listen_coap` opens.

    Each command is a resource, such as ``/echo``, for POST, and for GET if it is declared
    ``safe``. ``/.well-known/core`` lists them; ``/events`` is the last event that was broadcast;
    ``/topics/<topic>`` is the last message of a topic: it can be observed, and published to.
    A command runs once however often its request arrives. The request of one that waits is
    acknowledged first, and answered by a separate response.

    Peers have sessions as TCP clients do, until
    :data:`~twisted_net.coap.peer_sessions.SESSION_LIFETIME` after their last request; a broadcast
    reaches those that observe ``/events``.

    :param observable: names of commands that can be observed: safe ones that do not wait; if None,
        STATS, if there is one. Their observers are notified every ``refresh_interval``, and by
        :meth:`notify`.
    :param sessions: to share with another server; None for sessions of its own.
    :param permit: called before a command runs; it raises a
        :class:`~twisted_net.errors.CommandError` if the peer may not run it. None permits all.
    :param permissions_of: returns the permissions of a user whom the certificate of a DTLS peer
        names, None if there is no such user; for None, those of a peer without a certificate. With
        it, administrative commands are served to users who have the permission.
    :param reviewed: called with each peer whose user's permissions have changed.
    :param chance: returns a number drawn evenly from 0 to 1.
    :ivar layer: the message layer, with its counters.
    :ivar datagrams: the counters of the port.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        commands: Commands,
        limits: CoapLimits | None = None,
        *,
        observable: Iterable[str] | None = None,
        sessions: Sessions | None = None,
        permit: Permit | None = None,
        permissions_of: PermissionsOf | None = None,
        reviewed: Callable[[Source], None] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.limits = limits = limits or CoapLimits()
        self.sessions = Sessions(time.time) if sessions is None else sessions
        memory = self.sessions.memory
        super().__init__(reactor, limits, int(chance() * 65_536), memory, self._relieved)
        self._chance = chance
        self._on_review = reviewed
        self.commands = commands
        self.sessions.use_pacing(*pacings(reactor, memory))
        self.sessions.use_clock(reactor.seconds)
        self.datagrams = DatagramCounts()
        self._observable = observable_commands(commands, observable)
        self._notifier = Notifier(
            reactor, limits, self.layer, self._represent, self.flush, self._observable, chance
        )
        self._verifier = AddressVerifier(os.urandom(16), limits.max_peers, SESSION_LIFETIME)
        bounds = limits.max_transfers, limits.max_transfer_bytes, limits.exchange_lifetime
        self._assembler = RequestAssembler(TransferTable(*bounds, memory), limits.max_body)
        self._responses = ResponseBuilder(limits, TransferTable(*bounds, memory))
        self._topics = TopicResources(
            self.sessions.topics,
            limits.max_topics,
            limits.max_topic_bytes,
            self._notifier.observers.is_observed,
            self.notify,
        )
        self._peers = PeerSessions(
            self.sessions,
            limits.max_peers,
            permissions_of,
            self._deliver,
            self._review,
            self._notifier.remove_peer,
        )
        self.runner = CommandRunner(
            reactor,
            commands,
            self.sessions,
            RunnerLimits(limits.command_timeout, limits.max_blocking, limits.blocking_threads),
            permit,
        )
        self._access = ResourceAccess(commands, self.runner, permissions_of is not None)
        self._waiting = WaitingRequests(reactor, limits, memory)
        self._draining = False
        self._tracebacks = TracebackRate()

    # --- the service's calls ---

    @override
    def startProtocol(self) -> None:
        self._draining = False
        self.runner.start_threads()

    @override
    def stopProtocol(self) -> None:
        self._waiting.cancel()
        self.runner.stop_threads()
        super().stopProtocol()
        self._notifier.close()
        self._topics.close()
        for _ in self._peers.close_all():
            pass  # few, after a drain

    def notify(self, path: str) -> None:
        """Notify the observers of a resource, such as ``stats``, that it has changed."""
        self._notifier.notify(path)

    async def drain(self, timeout: float) -> None:
        """
        Refuse further commands, end all observations, and wait for the commands that run.

        Call it before the port is closed. Commands that still run after *timeout* seconds are
        cancelled.
        """
        self._draining = True
        await self._notifier.terminate()
        await self._waiting.ended(timeout)
        await self.sessions.pacing(in_steps(self._peers.close_all()))

    def peer_lost(self, peer: Source, end: End) -> None:
        """Close the session of a peer whose DTLS session has ended, and cancel its commands."""
        self._notifier.remove_peer(peer)
        self._waiting.cancel_of(peer)
        self._peers.close(peer, end)

    @property
    def observers(self) -> int:
        """Number of observers of all resources."""
        return len(self._notifier.observers)

    def figures(self) -> dict[str, int]:
        """Return the counters of the message layer and of handlers, and the observers, by name."""
        counters = self.sessions.counters
        return {
            **self.layer.figures(),
            "observers": self.observers,
            "failures": counters.failures,
            "overdue": counters.overdue,
        }

    # --- requests ---

    @override
    def _handle_event(self, event: Event, now: float) -> None:
        if isinstance(event, IncomingMessage):
            self._handle_request(event, now)
        elif isinstance(event, MessageAcknowledged):
            self._notifier.acknowledged(event.outgoing, now)
        elif isinstance(event, MessageFailed):
            self._notifier.failed(event.outgoing)

    @override
    def _datagram_too_long(self, error: MessageLengthError) -> None:
        # A network would drop it too, after fragmentation.
        self.datagrams.dropped += 1

    def _handle_request(self, incoming: IncomingMessage, now: float) -> None:
        message = incoming.message
        assert message is not None
        source = incoming.source
        options = CoapRequestOptions(message.options)
        verified = self._is_verified(source, options.echo, now)
        request = ServerRequest(source, message.code, options, verified, incoming)
        answer = self._answer(request, message.payload, now)
        if answer is not None:
            self._respond(request, incoming, answer, now)

    def _answer(
        self, request: ServerRequest, payload: bytes, now: float
    ) -> ResourceResponse | None:
        """Return the response to a request, an error too; None if it follows later."""
        try:
            return self._serve(request, payload, now)
        except RequestRefused as error:
            return ResourceResponse(error.code, diagnostic(str(error)))
        except ANSWERED as error:
            return error_response(error, _name(request.options), request.options.accept)
        # A bug outside of the handlers, as in a permit; the runner answers those of handlers.
        except BaseException:
            return self._failed(request)

    def _serve(self, request: ServerRequest, payload: bytes, now: float) -> ResourceResponse | None:
        """
        Return the response of the requested resource; None if it follows later.

        :raises RequestRefused, CommandError, FetchError: with the error to respond with.
        """
        options = request.options
        incoming = request.incoming
        request.session = self._peers.of(request.source, now)
        if incoming is not None:
            # As each line is, whatever becomes of it.
            request.session.count()
        self._access.check_user(request)
        request.parse_blocks()
        if incoming is not None and incoming.size > self.limits.max_datagram:
            # The rest of it was cut off when it was read.
            raise RequestRefused(
                Code.REQUEST_ENTITY_TOO_LARGE,
                f"a datagram holds at most {self.limits.max_datagram} bytes here; send blocks",
            )
        if options.unrecognized is not None:
            raise RequestRefused(
                Code.BAD_OPTION, f"option {options.unrecognized} is unknown, or wrong here"
            )
        if options.proxy:
            raise RequestRefused(Code.PROXYING_NOT_SUPPORTED, "this server is not a proxy")
        if request.block1 is not None:
            body = self._assemble(request, request.block1, payload, now)
            if body is None:
                return ResourceResponse(Code.CONTINUE)
            payload = body
        # A notification is of the present state, whichever block of it was asked for.
        if incoming is not None and request.block2 is not None and request.block2.number:
            kept = self._responses.kept_response(request, now)
            if kept is not None:
                return kept
            if request.method != _GET:
                raise RequestRefused(
                    Code.REQUEST_ENTITY_INCOMPLETE,
                    "the response is no longer kept; repeat the request from its first block",
                )
        check_texts(options)
        path = options.path
        if path == _CORE_PATH:
            check_request(request.method, options, (LINK_FORMAT,), safe=True, post=False)
            observable = [*self._observable, EVENTS]
            body = self._access.links(request, observable)
            return ResourceResponse(Code.CONTENT, body, LINK_FORMAT)
        if path == _EVENTS_PATH:
            self._access.check_events(request.session)
            check_request(request.method, options, (JSON,), safe=True, post=False)
            return ResourceResponse(Code.CONTENT, self.sessions.broadcasts.last[:-1], JSON, 0)
        topic = topic_of(path)
        if topic is not None:
            return self._serve_topic(request, topic, payload)
        command = self._access.command(request, path, payload)
        check_request(request.method, options, _FORMATS, safe=command.safe, post=True)
        return self._run(request, command, command_arguments(options, payload))

    def _serve_topic(
        self, request: ServerRequest, topic: str, payload: bytes
    ) -> ResourceResponse | None:
        """Return the last message of a topic, or publish one; permitted as SUBSCRIBE, PUBLISH."""
        options = request.options
        name = "SUBSCRIBE" if request.method == _GET else "PUBLISH"
        command = self._access.topic_command(request, name, payload)
        check_request(request.method, options, _FORMATS, safe=True, post=True)
        if request.method == _GET:
            session = request.session
            self._access.admit(request, command, [topic])
            if session.permissions is not None:
                with self.runner.refusals_counted(command.name, session):
                    session.permissions.check_subscribe(topic)
            return self._topics.response(topic, options.accept)
        return self._run(request, command, [topic, text_of(payload)], topic)

    def _run(
        self,
        request: ServerRequest,
        command: Command,
        arguments: list[str],
        topic: str | None = None,
    ) -> ResourceResponse | None:
        """
        Run a command, and return its response; None if it waits.

        :param topic: the topic that it publishes to.
        """
        if self._draining:
            raise RequestRefused(Code.SERVICE_UNAVAILABLE, "the server is stopping")
        if not request.verified and not command.safe:
            # Before it runs: it may have effects, and the request may be forged.
            return ResourceResponse(Code.UNAUTHORIZED)
        source, session = request.source, request.session
        self._access.admit(request, command, arguments)
        if topic is not None:
            if session.permissions is not None:
                with self.runner.refusals_counted(command.name, session):
                    session.permissions.check_publish(topic)
            self._topics.subscribe(topic)
        answer = self.runner.execute(command, arguments, session)
        if isinstance(answer, bytes):
            response = command_response(request.method, answer, request.options.accept)
            if request.method == _GET:
                response.max_age = 0
            return response
        incoming = request.incoming
        try:
            if not request.verified:
                # A separate response is retransmitted: several datagrams for one that may be
                # forged.
                raise RequestRefused(Code.UNAUTHORIZED, "")
            if incoming is None or incoming.group:
                raise RequestRefused(
                    Code.NOT_IMPLEMENTED, "commands that wait do not answer multicast requests"
                )
            with self.runner.refusals_counted(command.name, session):
                self._waiting.check(source)
        except (RequestRefused, CommandError):
            discard(answer)
            raise
        show = partial(self.runner.commands.shown_call, command, arguments)
        result = self.runner.start(answer, session, show)
        size = sum(map(len, arguments))
        self._waiting.start(source, self._respond_later(request, incoming, answer, result), size)
        return None

    def _assemble(
        self, request: ServerRequest, block: Block, payload: bytes, now: float
    ) -> bytes | None:
        """Add a block to a request's body, and return the whole body with the last one."""
        if not request.verified:
            raise RequestRefused(Code.UNAUTHORIZED, "")
        try:
            return self._assembler.add(
                request.source,
                request.key,
                block,
                payload,
                request.options.size1,
                now,
            )
        except RequestIncomplete as error:
            raise RequestRefused(Code.REQUEST_ENTITY_INCOMPLETE, str(error)) from None
        except RequestBodyTooLarge as error:
            raise RequestRefused(Code.REQUEST_ENTITY_TOO_LARGE, str(error)) from None

    # --- responses ---

    async def _respond_later(
        self,
        request: ServerRequest,
        incoming: IncomingMessage,
        waiting: Waiting,
        result: Deferred[bytes],
    ) -> None:
        accept = request.options.accept
        try:
            response = command_response(request.method, await result, accept)
        except TwistedNetError as error:
            response = error_response(error, waiting.name, accept)
        except CancelledError:
            # By stopProtocol, by drain, as all clients hold too much, or as the peer is lost.
            reason = "the server is stopping, or short of memory"
            unavailable = Code.SERVICE_UNAVAILABLE
            response = ResourceResponse(unavailable, diagnostic(reason), None, RETRY_AFTER)
        self._respond(request, incoming, response, self._seconds())
        self.flush()

    def _respond(
        self,
        request: ServerRequest,
        incoming: IncomingMessage,
        response: ResourceResponse,
        now: float,
    ) -> None:
        """Send a response, or the requested block of it; a challenge if it may not be sent."""
        ignored = request.options.unrecognized is not None and not incoming.confirmable
        nothing_to_say = incoming.group and (response.code >= 128 or not response.payload)
        if ignored or nothing_to_say:
            # A non-confirmable request with an unknown critical option is ignored (RFC 7252
            # §5.4.1); a multicast request is answered only with something useful (§8.2).
            self.layer.send_response(incoming, None, now)
            return
        message = self._responses.message(request, response, now)
        if not request.verified:
            message = self._limit_amplification(request, incoming, message, now)
            if incoming.group and message.code == Code.UNAUTHORIZED:
                self.layer.send_response(incoming, None, now)
                return
        elif response.code < 128 and request.options.observe is not None:
            self._observe(request, incoming, message)
        delay = self._chance() * self.limits.leisure if incoming.group else 0.0
        self.layer.send_response(incoming, message, now, self._chance(), delay)

    def _is_verified(self, source: Source, echo: bytes | None, now: float) -> bool:
        if isinstance(source, SecurePeer):
            # It has returned a cookie, and completed a handshake.
            return True
        if not self.limits.amplification or is_loopback(source[0]):
            return True
        return self._verifier.verify(source, echo, now)

    def _limit_amplification(
        self, request: ServerRequest, incoming: IncomingMessage, message: CoapMessage, now: float
    ) -> CoapMessage:
        """Return the message if it may be sent to an unverified address, else a challenge."""
        limit = int(self.limits.amplification * incoming.size) - len(incoming.token)
        # An observer would receive any number of notifications.
        allowed = request.options.observe != 0 and len(encode_message(message)) <= limit
        if allowed and message.code != Code.UNAUTHORIZED:
            return message
        return echo_challenge_message(self._verifier.challenge(incoming.source, now), limit)

    # --- observers ---

    def _observe(
        self, request: ServerRequest, incoming: IncomingMessage, message: CoapMessage
    ) -> None:
        """Register or deregister an observer, if its request asks for it and the resource can."""
        options = request.options
        topic = topic_of(options.path)
        path = options.path[0].lower() if len(options.path) == 1 else ""
        if topic is not None:
            path = path_of(topic)
        elif path != EVENTS and path not in self._observable:
            return
        if request.method != _GET:
            return
        if options.observe == 1:
            self._notifier.observers.deregister(incoming.source, incoming.token)
        elif options.observe == 0 and not incoming.group and not self._draining:
            if topic is not None and not self._subscribe(topic):
                return
            observer = self._notifier.register(path, incoming, options.options)
            if observer is not None:
                add_observe_option(message, observer)

    def _subscribe(self, topic: str) -> bool:
        """Subscribe to a topic that is to be observed; return whether a limit allows it."""
        try:
            self._topics.subscribe(topic)
        except CommandError:
            return False
        return True

    def _represent(self, observer: Observer, now: float) -> CoapMessage:
        """Return the notification of an observer: the response to its request as of now."""
        options = CoapRequestOptions(observer.options)
        request = ServerRequest(observer.source, Code.GET, options, True)
        response = self._answer(request, b"", now)
        assert response is not None
        return self._responses.message(request, response, now)

    def _deliver(self, source: Source, line: bytes) -> str | None:
        """Notify a peer of the last event if it observes ``/events``; return why it was not."""
        return None if self._notifier.notify_peer(source, EVENTS) else "not_observing"

    def _relieved(self, source: Source) -> None:
        """End the observations of a peer for which too much is kept."""
        self._notifier.drop_peer(source)

    def _review(self, source: Source) -> None:
        """End the observations of a peer that its changed permissions no longer allow."""
        self._responses.drop_kept(source)
        self._notifier.renew_peer(source)
        if self._on_review is not None:
            self._on_review(source)

    def _failed(self, request: ServerRequest) -> ResourceResponse:
        """Log the exception that is being handled, and return the response for it."""
        name = _name(request.options)
        if self._tracebacks.take(self._seconds()):
            command = self.runner.commands.get(name or "")
            self.log.failure(
                "the request for {command} failed",
                loggable_failure(Failure(), command, self.runner.commands),
                command="no command" if command is None else command.name,
            )
        return error_response(Internal(), name, request.options.accept)


@check_arguments
def listen_coap(
    reactor: IReactorFDSet,
    server: CoapServer,
    port: int = DEFAULT_PORT,
    interface: str = "127.0.0.1",
) -> CappedPort:
    """
    Open a UDP port for *server*, and return it.

    ``stopListening()`` of the port stops the server; once its Deferred fires, no socket and no
    timer is left. Call ``await server.drain(seconds)`` first to finish the commands that run.

    :param reactor: one that watches descriptors: epoll, asyncio, poll and select do.
    :param port: 0 for any free port.
    :param interface: a numeric address; ``""`` for all of IPv4, ``"::"`` for all of IPv6.
    :raises CannotListenError: if the port is taken, or the address is not of this machine.
    """
    limits = server.limits
    listening = CappedPort(
        port,
        server,
        interface,
        # One byte over the limit, to recognise longer datagrams.
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


def _name(options: CoapRequestOptions) -> str | None:
    return options.path[0].upper() if len(options.path) == 1 else None
