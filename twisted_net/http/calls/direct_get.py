"""
Direct GETs and POSTs: the shortest way from a call to an idle wire, past all other coroutines.

Most requests need none of what these can do. One that does, and one whose response does, goes on
with them as if it had begun there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from attrs import define
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from twisted_net.errors import FetchError
from twisted_net.http.attempts import Attempts
from twisted_net.http.bodies import BodyResponse, BufferedResponse
from twisted_net.http.cache.collapse import (
    CollapsedRequest,
    CollapseKey,
    WaitOutcome,
    shared_outcome,
)
from twisted_net.http.cache.missed_gets import MissedGets
from twisted_net.http.call import Call, Deadline
from twisted_net.http.calls.body import RequestBody
from twisted_net.http.calls.outcomes import canceller, error_of, started
from twisted_net.http.content_coding import with_accepted_fields
from twisted_net.http.errors import name_url
from twisted_net.http.fields import NO_FIELDS, HeaderFields
from twisted_net.http.h1.exchange import MAX_KEPT, Exchange, buffered_response, headers_due
from twisted_net.http.h1.messages import read_whole
from twisted_net.http.h1.wire import MAX_COPIED, Wire
from twisted_net.http.request import OutgoingRequest, Send
from twisted_net.http.response import Response, Trace
from twisted_net.http.retry.circuit_breaker import CircuitState
from twisted_net.http.retry.retrier import BegunAttempt, Retrier, buffered
from twisted_net.http.urls import HttpTarget
from twisted_net.net.bounded_table import BoundedTable

MAX_PREPARED = 1024
"""Limit of the requests that are kept prepared: as many as of parsed URLs."""

Show = Callable[[BodyResponse, Call], BodyResponse]


@define(eq=False)
class BegunCall:
    """
    A call that reads the body of its response to the end.

    :param at: when it began.
    :param body: that of its first request, if that is a POST.
    :param response: to its first request, if that was sent directly; else None.
    """

    call: Call
    at: float
    body: RequestBody | None = None
    response: BodyResponse | None = None

    def followed_by(self, send: Send) -> Send:
        """Return what has the response to the first request of the call, and sends the others."""
        if self.response is None:
            return send
        first = [self.response]

        async def next_response(request: OutgoingRequest, call: Call) -> BodyResponse:
            return first.pop() if first else await send(request, call)

        return next_response

    def result(self, received: BufferedResponse, trace: Trace, now: float) -> Response:
        """
        Return what the call returns for the response to its first request.

        :param trace: what it is to know of that request.
        """
        call = self.call
        return Response(
            "GET" if self.body is None else "POST",
            call.url,
            received.code,
            received.phrase.decode("latin-1"),
            received.fields,
            received.body,
            call.attempts,
            now - self.at,
            call.age,
            trace,
        )


@define(eq=False)
class PreparedGet:
    """
    All of a GET without a body that is the same each time; or a POST.

    :param head: as it is sent, with the body of a POST.
    :param closes: whether it says that the connection is closed after the response.
    :param key: by which others may share its response; None where the cache is off, and for a POST.
    """

    request: OutgoingRequest
    head: bytes
    closes: bool
    key: CollapseKey | None


class DirectGets:
    """
    Sends GETs directly.

    :param attempts: makes the attempts that *retrier* makes.
    :param cache: its cache forwards to *retrier*.
    :param show: returns a response as a call has it.
    """

    def __init__(self, attempts: Attempts, retrier: Retrier, cache: MissedGets, show: Show) -> None:
        self._attempts = attempts
        self.retrier = retrier
        self.cache = cache
        self.show = show
        self.limits = attempts.limits
        self.headers_timeout = attempts.headers_timeout
        self._fields = NO_FIELDS  # those of the prepared ones
        self._prepared: BoundedTable[str, PreparedGet] = BoundedTable(MAX_PREPARED)

    def send(
        self, target: HttpTarget, fields: HeaderFields, call: Call, now: float
    ) -> DirectGet | SharedGet | None:
        """
        Send a GET without a body, if that takes no more than an idle wire; or wait for another's.

        :param fields: with none of :data:`~twisted_net.http.cache.entry.CACHE_RELEVANT_FIELDS`.
        :param call: a new one.
        :param now: by the clock of *retrier*.
        :return: None where it takes more, such as a stored response or an open circuit breaker:
            then nothing was done.
        """
        origin = self.retrier.origins.get(target.origin)
        if (
            not origin.idle
            or origin.breaker.state is not CircuitState.CLOSED
            or call.retry.hedge_after is not None
        ):
            return self._shared(target, fields, call)
        prepared = self._find(target, fields)
        if prepared is None:
            return None
        rules, key = call.rules, prepared.key
        if rules is not None and (key is None or not self.cache.is_missed(key)):
            return self._shared(target, fields, call)
        wire = self._attempts.idle_wire(target, call, origin, now)
        if wire is None:
            return None
        call.url = target.url
        call.attempts = 1
        return DirectGet(self, prepared, call, wire, now)

    def post(
        self, target: HttpTarget, fields: HeaderFields, body: RequestBody, call: Call, now: float
    ) -> DirectGet | None:
        """
        Send a POST in one piece, if that takes no more than an idle wire.

        :param body: in memory.
        :param call: as of :meth:`send`.
        :return: as of :meth:`send`.
        """
        origin = self.retrier.origins.get(target.origin)
        content = body.data or b""
        if (
            not origin.idle
            or origin.breaker.state is not CircuitState.CLOSED
            or len(content) > MAX_COPIED
        ):
            return None
        request = OutgoingRequest("POST", target, with_accepted_fields(fields), body.producer())
        encoded = self._attempts.encode_direct(request)
        wire = None if encoded is None else self._attempts.idle_wire(target, call, origin, now)
        if encoded is None or wire is None:
            return None
        call.url = target.url
        call.attempts = 1
        head, closes = encoded
        prepared = PreparedGet(request, head + content, closes, None)
        return DirectGet(self, prepared, call, wire, now)

    def _shared(self, target: HttpTarget, fields: HeaderFields, call: Call) -> SharedGet | None:
        """Return a GET that waits for another caller's, or None if it cannot."""
        if call.rules is None:
            return None
        prepared = self._find(target, fields)
        if prepared is None or prepared.key is None:
            return None
        waiting = self.cache.wait(prepared.key, prepared.request, call)
        if waiting is None:
            return None
        call.url = target.url
        return SharedGet(self, prepared.request, call, waiting)

    def _find(self, target: HttpTarget, fields: HeaderFields) -> PreparedGet | None:
        """Return a GET, whose fields are most often those of the last one; None for no direct."""
        if fields is not self._fields and fields.pairs != self._fields.pairs:
            self._prepared.clear()
            self._fields = fields
        prepared = self._prepared.get(target.url)
        return self._prepare(target, fields) if prepared is None else prepared

    def _prepare(self, target: HttpTarget, fields: HeaderFields) -> PreparedGet | None:
        request = OutgoingRequest("GET", target, with_accepted_fields(fields))
        encoded = self._attempts.encode_direct(request)
        if encoded is None:
            return None
        prepared = PreparedGet(request, *encoded, self.cache.key(request))
        self._prepared[target.url] = prepared
        return prepared


class SharedGet:
    """
    A GET whose response another caller has requested.

    :ivar done: as of :class:`DirectGet`; cancelling it leaves the request to the others.
    :ivar outcome: as of :class:`DirectGet`; None if it takes more. Then the call knows what it has
        waited for.
    """

    __slots__ = ("_call", "_request", "_steps", "done", "outcome")

    def __init__(
        self,
        steps: DirectGets,
        request: OutgoingRequest,
        call: Call,
        waiting: Deferred[WaitOutcome],
    ) -> None:
        self._steps = steps
        self._request = request
        self._call = call
        self.outcome: BodyResponse | BaseException | None = None
        self.done: Deferred[None] = waiting.addBoth(self._end)

    def _end(self, ended: WaitOutcome | Failure) -> None:
        call, steps = self._call, self._steps
        if isinstance(ended, Failure):
            self.outcome = error_of(ended)
            return
        try:
            response = steps.cache.serve_awaited(ended, self._request, call)
            if response is None:
                call.awaited = ended
            else:
                self.outcome = steps.show(response, call)
        except FetchError as error:
            name_url(error, call.url)
            self.outcome = error.with_traceback(None)


class DirectGet:
    """
    A GET or a POST that is sent over a wire, whose exchange it is.

    It reads a response that comes whole at once; for anything else it makes an
    :class:`~twisted_net.http.h1.exchange.Exchange`. Nobody else can wait for its response until
    somebody asks for that, see :class:`~twisted_net.http.cache.collapse.LoneRequest`.

    :ivar done: fires with None when it is over; cancelling it gives the response up.
    :ivar outcome: what came of it, then: the response, as it is shown, or the error.
    :ivar due: when it is too late for the response.
    """

    # What most never have.
    _kept = b""  # what was read and waits for its turn
    _left = False  # its caller has
    # What others wait for, once they do, and what its caller waits for then.
    _collapsed: CollapsedRequest | None = None
    _work: Deferred[BodyResponse] | None = None
    _following: Deferred[None] | None = None
    # What brings the response, where this does not.
    _running: Deferred[BodyResponse] | None = None
    outcome: BodyResponse | BaseException | None = None
    invalidated = False

    def __init__(
        self, steps: DirectGets, prepared: PreparedGet, call: Call, wire: Wire, now: float
    ) -> None:
        self._steps = steps
        self._prepared = prepared
        self._wire = wire
        self._at = now
        self._ticket = wire.origin.breaker.acquire(now) or 0
        self.call = call
        self.done: Deferred[None] = Deferred(canceller(self._cancelled, fires=True))
        if call.rules is not None and prepared.key is None:
            self._sent_at = steps.cache.now()
        elif call.rules is not None and prepared.key is not None:
            self.key = prepared.key
            self.terms: Hashable = call.rules.storing_terms(prepared.key[0])
            self._sent_at = steps.cache.begin(self, now)
        self.due = headers_due(now, steps.headers_timeout, call.deadline)
        wire.begin(self, prepared.head)

    # --- what the wire does ---

    def received(self, data: bytes) -> None:
        """Take what the connection has read."""
        owner = self._wire.owner
        turns = owner.turns
        if (turns.busy and not turns.running) or self._kept:
            # As an exchange does.
            if self._kept or len(data) > MAX_KEPT:
                self._hand_over().received(data)
            else:
                self._kept = data
                turns.add(self)
            return
        began = owner.seconds()
        self._read(data, began)
        if not turns.running:
            turns.spend(began, owner.seconds())

    def take_turn(self) -> None:
        """Read what was kept; the turn of it has come."""
        data, self._kept = self._kept, b""
        self._read(data, self._wire.owner.seconds())

    def lost(self, reason: Failure) -> None:
        """The connection is lost."""
        self._hand_over().lost(reason)

    def expire(self, now: float) -> None:
        """It is too late for the response."""
        self._hand_over().expire(now)

    # --- what those do who ask for the same ---

    def shared(self) -> CollapsedRequest:
        """Return the request that others may wait for; see :class:`.LoneRequest`."""
        collapsed = self._collapsed
        if collapsed is None:
            call = self.call
            # As in the steps: a body that its caller reads is not read by the deadline alone.
            deadline = call.deadline if call.buffer_body else None
            work: Deferred[BodyResponse] = Deferred(self._give_up)
            self._work = work
            collapsed, waiting = self._steps.cache.collapse(self, work, deadline)
            self._collapsed = collapsed
            if waiting is not work and deadline is not None:
                own = Deadline(deadline.at, deadline.total)
                waiting = started(shared_outcome(collapsed, waiting, call, own))
            self._following = waiting.addBoth(self._conclude)
        return collapsed

    def cancel(self) -> None:
        """Drop the response, as nobody may wait for it any more."""
        self.done.cancel()

    # --- within ---

    def _read(self, data: bytes, now: float) -> None:
        wire, call = self._wire, self.call
        owner = wire.owner
        try:
            whole = read_whole(data, owner.max_head, call.max_body)
        except FetchError:
            whole = None  # where it is read again, that is treated as it has to be
        if whole is None:
            self._hand_over().received(data)
            return
        head, body = whole
        owner.timeouts.discard(self)
        wire.release(reusable=head.persistent and not self._prepared.closes)
        outcome: BodyResponse | Deferred[BodyResponse]
        try:
            outcome = self._settle(buffered_response(head, body), now)
        except BaseException:
            # As of a coroutine: it belongs to the caller, who would hear of nothing else.
            outcome = fail()
        if isinstance(outcome, BodyResponse):
            self._end(outcome)
        else:
            self._running = outcome
            outcome.addBoth(self._end)

    def _hand_over(self) -> Exchange:
        """Return the exchange that goes on in the place of this."""
        wire, prepared = self._wire, self._prepared
        owner = wire.owner
        owner.timeouts.discard(self)
        exchange = wire.exchange = Exchange(
            wire,
            prepared.request.method,
            self._steps.limits(self.call),
            closes=prepared.closes,
            target=prepared.request.target,
            began=self._at,
        )
        self._running = exchange.answered
        exchange.answered.addCallbacks(self._answered, self._failed).addBoth(self._end)
        if self._kept:
            owner.turns.discard(self)
            kept, self._kept = self._kept, b""
            exchange.received(kept)
        return exchange

    def _answered(self, response: BodyResponse) -> BodyResponse | Deferred[BodyResponse]:
        """Go on with what the exchange has brought: with all of it, if only its body is missing."""
        call = self.call
        if type(response) is BodyResponse and call.buffer_body and self._is_final(response.code):
            return buffered(response, call).addCallbacks(self._answered, self._failed)
        return self._settle(response, self._wire.owner.seconds())

    def _is_final(self, code: int) -> bool:
        """Return whether a response is the last one, and complete if its body is."""
        return code != 206 and code not in self.call.retry.statuses

    def _settle(self, response: BodyResponse, now: float) -> BodyResponse | Deferred[BodyResponse]:
        """Do with a response what the steps do that it has passed, or go on with them."""
        call, steps = self.call, self._steps
        if type(response) is not BufferedResponse or not self._is_final(response.code):
            return self._go_on(succeed(response))
        request = self._prepared.request
        origin = self._wire.origin
        steps.retrier.succeed(request, call, origin, self._at, self._ticket, response, now)
        if call.rules is None:
            return response
        if self._prepared.key is None:
            return steps.cache.serve_post(request, call, response, self._sent_at)
        return steps.cache.serve(self, request, call, response, self._sent_at)

    def _failed(self, failure: Failure) -> Deferred[BodyResponse]:
        return self._go_on(fail(failure))

    def _go_on(self, answered: Deferred[BodyResponse]) -> Deferred[BodyResponse]:
        """Go on with the steps that it has passed."""
        call, request, steps = self.call, self._prepared.request, self._steps
        begun = BegunAttempt(self._at, self._ticket, answered)
        attempts = steps.retrier.go_on(request, call, self._wire.origin, begun)
        if call.rules is None:
            return started(attempts)
        collapsed = None if self._prepared.key is None else self.shared()
        return started(steps.cache.go_on(request, call, attempts, self._sent_at, collapsed))

    def _end(self, outcome: BodyResponse | Failure) -> None:
        """End the work, of which others may have to hear first."""
        if self._running is not None:
            self._running = None
        if self._collapsed is not None:
            work, self._work = self._work, None
            if work is None or work.called:
                return
            if isinstance(outcome, Failure):
                work.errback(outcome)
            else:
                work.callback(outcome)
            return
        if self.call.rules is not None and self._prepared.key is not None:
            self._steps.cache.end(self)
        self._conclude(outcome)

    def _conclude(self, outcome: BodyResponse | Failure) -> None:
        """Let its caller have the outcome."""
        if self._following is not None:
            self._following = None
        if isinstance(outcome, Failure):
            self.outcome = error_of(outcome)
        else:
            try:
                self.outcome = self._steps.show(outcome, self.call)
            except BaseException:  # as above
                self.outcome = error_of(Failure())
        if isinstance(self.outcome, FetchError):
            name_url(self.outcome, self.call.url)
        if not self._left:
            self.done.callback(None)

    def _cancelled(self, _: Deferred[None]) -> None:
        """
        Its caller has left.

        It is woken after this, not below these frames: its error refers to all that are.
        """
        self._left = True
        following = self._following
        if following is None:
            self._give_up(None)
        else:
            following.cancel()

    def _give_up(self, _: object) -> None:
        """Nobody waits for the response."""
        running = self._running
        if running is None:
            self._hand_over()
            running = self._running
        assert running is not None
        running.cancel()
