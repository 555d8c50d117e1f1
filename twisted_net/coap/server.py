"""CoAP server: the commands of a registry as resources (RFC 7252, 7641, 7959, 9175)."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeAlias

from twisted.internet.defer import Deferred
from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
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
)
from twisted_net.coap.echo import AddressVerifier, StrangerLimit
from twisted_net.coap.endpoint import CoapEndpoint
from twisted_net.coap.exchange import (
    Event,
    IncomingMessage,
    MessageAcknowledged,
    MessageFailed,
)
from twisted_net.coap.notifications import Notifier
from twisted_net.coap.observe import Observer
from twisted_net.coap.peers.hook_gate import HookGate
from twisted_net.coap.peers.peer_sessions import (
    SESSION_LIFETIME,
    PeerSessions,
    PermissionsOf,
)
from twisted_net.coap.peers.resource_access import ResourceAccess
from twisted_net.coap.resources import (
    CORE,
    EVENTS,
    RequestRefused,
    ResourceResponse,
    check_format,
    check_request,
    check_texts,
    command_arguments,
    command_response,
    diagnostic,
    error_response,
    observable_commands,
)
from twisted_net.coap.responses import ResponseBuilder, ServerRequest
from twisted_net.coap.settings import CoapLimits
from twisted_net.coap.topics import TopicResources, path_of, text_of, topic_of
from twisted_net.coap.waiting_requests import WaitingRequests
from twisted_net.commands.execution import discard
from twisted_net.commands.failures import loggable_failure
from twisted_net.commands.registry import ANSWERED, Command, Commands
from twisted_net.commands.runner import CommandRunner, Permit, RunnerLimits
from twisted_net.config.type_checks import check_arguments
from twisted_net.errors import CommandError, Internal
from twisted_net.net.addresses import Source
from twisted_net.net.log_limiter import TracebackRate
from twisted_net.reasons import End
from twisted_net.sessions.registry import Sessions
from twisted_net.turns.broadcast_scheduler import pacings
from twisted_net.turns.steps import in_steps
from twisted_net.udp.responder import DatagramCounts


@check_arguments
class CoapServer(CoapEndpoint):
    """
    Serves commands to CoAP clients, on the port that :func:`~.listen_coap` opens.

    Each command is a resource, such as ``/echo``, for POST, and for GET if it is declared
    ``safe``. ``/.well-known/core`` lists them; ``/events`` is the last event that was broadcast;
    ``/topics/<topic>`` is the last message of a topic: it can be observed, and published to.
    A command runs once however often its request arrives. The request of one that waits is
    acknowledged first, and answered by a separate response.

    Peers have sessions as TCP clients do, until
    :data:`~twisted_net.coap.peers.peer_sessions.SESSION_LIFETIME` after their last request; a
    broadcast reaches those that observe ``/events``.

    :param observable: names of commands that can be observed, safe ones that do not wait; if None,
        STATS and those declared so. They are notified every ``refresh_interval``, and by
        :meth:`notify`.
    :param sessions: to share with another server; None for sessions of its own.
    :param permit: called before a command runs; it raises a
        :class:`~twisted_net.errors.CommandError` if the peer may not run it. None permits all.
    :param permissions_of: returns the permissions of a user whom the certificate of a DTLS peer
        names, None if there is no such user; for None, those of a peer without a certificate. With
        it, administrative commands are served to users who have the permission.
    :param topics: whether topics are served also if *commands* has no SUBSCRIBE or PUBLISH.
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
        topics: bool = False,
        reviewed: Callable[[Source], None] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.limits = limits = limits or CoapLimits()
        self.sessions = Sessions(time.time) if sessions is None else sessions
        memory = self.sessions.memory
        verifier = AddressVerifier(os.urandom(16), limits.max_peers, SESSION_LIFETIME)
        self._strangers = StrangerLimit(verifier, limits.amplification)
        first_id, admits = int(chance() * 65_536), self._strangers.is_verified
        super().__init__(reactor, limits, first_id, memory, self._relieved, admits)
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
        bounds = limits.max_transfers, limits.max_transfer_bytes, limits.exchange_lifetime
        self._assembler = RequestAssembler(TransferTable(*bounds, memory), limits.max_body)
        self._responses = ResponseBuilder(limits, TransferTable(*bounds, memory))
        self._topics = TopicResources(
            self.sessions.topics,
            limits.max_topics,
            limits.max_topic_bytes,
            self._notifier.observers.is_observed,
            self._notifier.notify,
        )
        self._peers = PeerSessions(
            self.sessions,
            limits.max_peers,
            permissions_of,
            self._deliver,
            self._review,
            self._notifier.dismiss_peer,
            self._notifier.observers.has_peer,
        )
        runs = RunnerLimits(limits.command_timeout, limits.max_blocking, limits.blocking_threads)
        self.runner = CommandRunner(reactor, commands, self.sessions, runs, permit)
        self._access = ResourceAccess(commands, self.runner, permissions_of is not None, topics)
        self._waiting = WaitingRequests(reactor, limits, memory)
        self._gate = HookGate(self.runner, self._waiting, self._peers.close)
        self._draining = False
        self._expiry: IDelayedCall | None = None
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
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self._notifier.close()
        self._topics.close()
        for _ in self._peers.close_all():
            pass  # few, after a drain

    def notify(self, path: str, *arguments: str) -> None:
        """
        Notify those that observe a command, such as ``stats``; ValueError if nobody can.

        :param arguments: notify those that observe it with these arguments alone; with none, all.
        """
        self._notifier.notify_command(path, arguments)

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
        await self.sessions.hooks.settle()

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
            "observers_refused": self._notifier.observers.refused,
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
        verified = self._strangers.is_verified(source, now, options.echo)
        # Without the option, it was known when the message was received.
        if verified and options.echo is not None and not self.layer.admit(incoming, now):
            self.layer.send_response(incoming, None, now)
            return
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
        if request.verified:
            request.session = self._peers.of(request.source, now)
            if self._expiry is None:
                self._expiry = self._reactor.callLater(SESSION_LIFETIME, self._end_idle)
        else:
            request.session = self._peers.stranger(request.source)
        if incoming is not None and not request.resumed:
            # As each line is, whatever becomes of it.
            request.session.count()
        self._access.check_user(request)
        opening = self._gate.opening(request)
        if opening is not None:
            request.resumed = True
            resume = partial(self._resume, request, payload)
            self._wait(request, _name(options), opening, resume, len(payload))
            return None
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
        check_texts(options)
        # Before a body is taken: it would be for nothing if the request is refused.
        respond = self._resource(request, payload)
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
            if request.method != Code.GET and not (request.method == Code.FETCH and payload):
                raise RequestRefused(
                    Code.REQUEST_ENTITY_INCOMPLETE,
                    "the response is no longer kept; repeat the request from its first block",
                )
        return respond(payload)

    def _resource(self, request: ServerRequest, payload: bytes) -> Respond:
        """
        Return what makes the response of the requested resource, once its body is complete.

        :param payload: the first block of the body.
        :raises RequestRefused, CommandError: as far as the request is refused without its body.
        """
        options, method = request.options, request.method
        path = options.path
        if path == _CORE_PATH:
            check_request(method, options, (LINK_FORMAT,), _READ)
            return lambda body: self._links(request)
        if path == _EVENTS_PATH:
            self._access.check_events(request.session)
            check_request(method, options, (JSON,), _READ)
            last = self._peers.last_event(request.session)
            return lambda body: ResourceResponse(Code.CONTENT, last[:-1], JSON, 0)
        topic = topic_of(path)
        if topic is not None:
            return self._topic(request, topic, payload)
        command = self._access.command(request, path, payload)
        check_request(method, options, _FORMATS, _SAFE if command.safe else _UNSAFE)
        if payload:
            check_format(options)
        return lambda body: self._run(request, command, command_arguments(options, body, command))

    def _resume(self, request: ServerRequest, payload: bytes, _: bytes) -> ResourceResponse | None:
        """Serve a request whose peer was to wait for hooks."""
        return self._answer(request, payload, self._seconds())

    def _links(self, request: ServerRequest) -> ResourceResponse:
        """Return the list of resources."""
        links = self._access.links(request, [*self._observable, EVENTS], self._topics.latest())
        return ResourceResponse(Code.CONTENT, links, LINK_FORMAT)

    def _topic(self, request: ServerRequest, topic: str, payload: bytes) -> Respond:
        """Return what reads the last message of a topic, as SUBSCRIBE may, or publishes one."""
        options = request.options
        name = "SUBSCRIBE" if request.method == Code.GET else "PUBLISH"
        command = self._access.topic_command(request, name, payload)
        check_request(request.method, options, _FORMATS, _READ_OR_POST)
        if request.method != Code.GET:
            return lambda body: self._run(request, command, [topic, text_of(body)], topic)

        def read(body: bytes) -> ResourceResponse | None:
            self._access.admit(request, command, [topic])
            self._access.check_topic(request, command, topic)
            decided = self._gate.subscribing(request, topic)
            if decided is None:
                return self._topics.response(topic, options.accept)
            respond = partial(self._topics.response, topic, options.accept)
            self._wait(request, name, decided, lambda _: respond(), 0)
            return None

        return read

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
        session = request.session
        self._access.admit(request, command, arguments)
        if topic is not None:
            self._access.check_topic(request, command, topic)
            self._topics.subscribe(topic)
        answer = self.runner.execute(command, arguments, session)
        if isinstance(answer, bytes):
            response = command_response(request.method, answer, request.options.accept)
            if request.method != Code.POST:
                response.max_age = 0
            return response
        try:
            with self.runner.refusals_counted(command.name, session):
                self._waiting.admit(request)
        except (RequestRefused, CommandError):
            discard(answer)
            raise
        show = partial(self.runner.commands.shown_call, command, arguments)
        result = self.runner.start(answer, session, show)
        to_response = partial(command_response, request.method, accept=request.options.accept)
        self._wait(request, command.name, result, to_response, sum(map(len, arguments)))
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
                # A body is of one format (RFC 7959 §2.9.2); later blocks of a response have none.
                (request.key, request.options.content_format),
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

    def _wait(
        self,
        request: ServerRequest,
        name: str | None,
        result: Deferred[bytes],
        to_response: Callable[[bytes], ResourceResponse | None],
        size: int,
    ) -> None:
        """Respond later, see :meth:`~.waiting_requests.WaitingRequests.wait`."""
        self._waiting.wait(request, name, result, to_response, self._respond_now, size)

    def _respond_now(self, request: ServerRequest, response: ResourceResponse) -> None:
        assert request.incoming is not None  # a notification does not wait
        self._respond(request, request.incoming, response, self._seconds())
        self.flush()

    def _respond(
        self,
        request: ServerRequest,
        incoming: IncomingMessage,
        response: ResourceResponse,
        now: float,
    ) -> None:
        """Send a response, or the requested block of it; a challenge if it may not be sent."""
        options = request.options
        ignored = options.unrecognized is not None and not incoming.confirmable
        nothing_to_say = incoming.group and (response.code >= 128 or not response.payload)
        if ignored or nothing_to_say:
            # A non-confirmable request with an unknown critical option is ignored (RFC 7252
            # §5.4.1); a multicast request is answered only with something useful (§8.2).
            self.layer.send_response(incoming, None, now)
            return
        if options.no_response is not None and options.suppresses(response.code):
            if request.verified and options.observe == 1:
                self._notifier.observers.deregister(incoming.source, incoming.token)
            self.layer.acknowledge(incoming, now)
            return
        message = self._responses.message(request, response, now)
        if not request.verified:
            message = self._strangers.limited(request, incoming, message, now)
            if incoming.group and message.code == Code.UNAUTHORIZED:
                self.layer.send_response(incoming, None, now)
                return
        elif response.code < 128 and options.observe is not None and request.method == Code.GET:
            self._observe(request, incoming, message)
        delay = self._chance() * self.limits.leisure if incoming.group else 0.0
        self.layer.send_response(incoming, message, now, self._chance(), delay)

    def _end_idle(self) -> None:
        """End the sessions of peers that were idle for long, also while nobody else comes."""
        self._expiry = None
        left = self._peers.end_idle(self._seconds())
        if left is not None:
            self._expiry = self._reactor.callLater(left, self._end_idle)

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
        if options.observe == 1:
            self._notifier.observers.deregister(incoming.source, incoming.token)
        elif options.observe == 0 and not incoming.group and not self._draining:
            if topic is not None and not self._topics.try_subscribe(topic):
                self._notifier.observers.refused += 1
                return
            arguments = tuple(options.queries)
            observer = self._notifier.register(path, incoming, options.options, arguments)
            if observer is not None:
                self._notifier.add_observe_option(message)

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
        self._notifier.dismiss_peer(source)

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


Respond: TypeAlias = Callable[[bytes], ResourceResponse | None]

_READ = (Code.GET,)
_READ_OR_POST = (Code.GET, Code.POST)
_SAFE = (Code.GET, Code.FETCH, Code.POST)
_UNSAFE = (Code.POST,)
_CORE_PATH = CORE.split("/")
_EVENTS_PATH = [EVENTS]
_FORMATS = (TEXT, JSON)


def _name(options: CoapRequestOptions) -> str | None:
    return options.path[0].upper() if len(options.path) == 1 else None
