"""Exchange: one request over a wire, and its response, within the limits of the call."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, cast

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocol, ITransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer

from twisted_net.errors import FetchError
from twisted_net.http.bodies import BodyResponse, BodyTransport, BufferedResponse
from twisted_net.http.call import Deadline
from twisted_net.http.calls.outcomes import canceller
from twisted_net.http.error_translation import connection_error
from twisted_net.http.errors import ConnectionBroken, FetchTimeout, TLSFailed, name_url
from twisted_net.http.fields import HeaderFields, connection_options
from twisted_net.http.h1.heads import CHUNKED, UNTIL_CLOSE, ResponseHead
from twisted_net.http.h1.messages import ResponseReader
from twisted_net.http.h1.upload import Upload
from twisted_net.turns.turn_scheduler import TURN_BUDGET

if TYPE_CHECKING:
    from twisted_net.http.h1.wire import Wire
    from twisted_net.http.urls import HttpTarget


@define(eq=False)
class ExchangeLimits:
    """
    Limits of one exchange, which do not change.

    Not frozen, since they are made for each: that takes a quarter of the time.

    :param headers: seconds for the header to come, since the request or the last part of its body
        was written; None for no limit.
    :param silence: seconds without any of the response's body; None for no limit.
    :param deadline: of the call; None for no limit.
    :param max_body: bytes of the response's body as it is sent.
    """

    headers: float | None
    silence: float | None
    deadline: Deadline | None
    max_body: int


@define(eq=False)
class Expectation:
    """
    A request's body that waits for the server to agree to it (RFC 9110 §10.1.1).

    :param timeout: seconds after which it is sent nevertheless: a server may not know of 100.
    :ivar begun: whether some of it may have been sent.
    """

    timeout: float
    begun: bool = False


STEPS_PER_TURN = 8
"""Calls of the parser in one turn, at most: each reads 256 chunks, which takes some 0.1 ms."""

MAX_KEPT = 2**13
"""Bytes that are kept until the turn of an exchange comes, while its connection is read on."""

_OF_CONNECTION = frozenset({"keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"})
_OFTEN_HIDDEN = _OF_CONNECTION | {"connection"}
_COMMON_OPTIONS = frozenset({"close", "keep-alive"})


class Exchange:
    """
    One request, which the wire sends, and its response.

    The body is read as long as somebody takes it. What is read is parsed in turn with what all
    other connections have read, where it is more than a call of the parser takes.

    :param wire: its connection, which has no other exchange until this one is over.
    :param method: of the request, in upper case.
    :param closes: whether the request says that the connection is closed after the response.
    :param target: of the request, for the errors of its body; None if it is not known.
    :param began: when the request was sent; by default it is sent now.
    :ivar answered: fires with the response, see :meth:`~twisted_net.http.h1.wire.Wire.send`.
    :ivar due: when it is too late for whatever it waits for.
    """

    __slots__ = (
        "_aborted",
        "_agreed_by",
        "_answering",
        "_delivering",
        "_end",
        "_heard",
        "_held",
        "_host",
        "_kept",
        "_left",
        "_limits",
        "_lost",
        "_owner",
        "_paused",
        "_pieces",
        "_reader",
        "_receiver",
        "_stopped",
        "_target",
        "_upload",
        "_wire",
        "_withheld",
        "answered",
        "due",
    )

    def __init__(
        self,
        wire: Wire,
        method: str,
        limits: ExchangeLimits,
        *,
        closes: bool,
        target: HttpTarget | None = None,
        began: float | None = None,
    ) -> None:
        self._owner = owner = wire.owner
        self._wire: Wire | None = wire  # until the exchange is over
        self._host = wire.origin.host
        self._target = target
        self._reader = ResponseReader(
            method, max_head=owner.max_head, max_body=limits.max_body, close=closes
        )
        self._limits = limits
        self.answered: Deferred[BodyResponse] = Deferred(canceller(self._cancel))
        self._answering = True  # until it has fired
        self._upload: Upload | None = None  # while the request's body is being sent
        # The request's body, which waits for a 100, and until when it does.
        self._held: tuple[IBodyProducer, ITransport, Expectation] | None = None
        self._agreed_by = inf
        self._withheld = False  # it was not sent at all
        # When the server has last done something.
        self._heard = owner.seconds() if began is None else began
        self._left = False  # something has been read and is not parsed
        self._kept = b""  # of this, what the reader has not got
        self._stopped = False  # the connection is not read
        self._lost = self._aborted = False
        self._pieces: deque[bytes] = deque()  # of the body, which were not delivered yet
        self._end: Failure | None = None  # of the body, after these
        self._receiver: IProtocol | None = None
        self._paused = True  # the receiver takes nothing, or there is none
        self._delivering = False
        # As _watch does, on the path of each request.
        self.due = headers_due(self._heard, limits.headers, limits.deadline)
        if self.due < inf:
            owner.timeouts.add(self)

    def upload(self, producer: IBodyProducer, transport: ITransport) -> None:
        """Send the body of the request."""
        length = CHUNKED if producer.length is UNKNOWN_LENGTH else cast(int, producer.length)
        self._upload = Upload(producer, transport, length, self._note_life, self._uploaded)
        self._upload.start()

    def hold(
        self, producer: IBodyProducer, transport: ITransport, expectation: Expectation
    ) -> None:
        """Send the body of the request when the server agrees; not if it answers before that."""
        self._held = producer, transport, expectation
        self._agreed_by = self._heard + expectation.timeout
        self._watch(self._limits.headers)

    # --- what the connection does ---

    def received(self, data: bytes) -> None:
        """Take what the connection has read."""
        if self._aborted:
            return
        owner = self._owner
        turns = owner.turns
        began = owner.seconds()
        if self._reader.phase == "body":
            # The limit of the header is for the whole, however slowly it comes.
            self._heard = began
        if (turns.busy and not turns.running) or self._kept:
            # What other servers have sent has cost much already: even a small response takes more
            # than all lines that a connection of a server may run as they arrive. In a turn, as
            # TLS has its own, it is part of that.
            self._keep(data)
            return
        try:
            left = self._reader.feed(data)
        except FetchError as error:
            self._fail(error)
            return
        self._go_on(left)
        if not turns.running:
            turns.spend(began, owner.seconds())

    def take_turn(self) -> None:
        """Parse more of what has been read; the turn of this exchange has come."""
        if self._aborted:
            return
        reader, seconds = self._reader, self._owner.seconds
        until = seconds() + TURN_BUDGET
        try:
            left = self._feed_kept() or reader.advance()
            for _ in range(STEPS_PER_TURN - 1):
                if not left or seconds() >= until:
                    break
                left = reader.advance()
        except FetchError as error:
            self._fail(error)
            return
        try:
            self._go_on(left)
        except BaseException:
            # As the reactor ends a connection whose receiver fails while it reads.
            self.abort()
            raise

    def lost(self, reason: Failure) -> None:
        """The connection is lost."""
        self._lost = True
        if self._aborted:
            self._finish(self._translated(reason))
            return
        cause = None if reason.check(ConnectionDone) else reason.getErrorMessage().rstrip(".")
        error = self._translated(reason)
        try:
            if isinstance(error.value, TLSFailed):
                raise error.value
            self._feed_kept()
            left = self._reader.end(cause)
        except FetchError as failed:
            self._fail(failed)
            return
        self._go_on(left)

    def expire(self, now: float) -> None:
        """End the exchange if it is too late, see :class:`~twisted_net.http.h1.timeouts.Timed`."""
        limits, phase = self._limits, self._reader.phase
        deadline = limits.deadline
        if deadline is not None and now >= deadline.at:
            self._fail(deadline.exceeded(phase, now - self._heard))
            return
        if phase == "body" and self._paused:
            # The silence of a server does not count while nobody listens.
            self._heard = now
        if self._held is not None:
            if now >= self._agreed_by:
                self._send_held()
            else:
                self.due = self._next_due(limits.headers)
            return
        limit = limits.headers if phase == "headers" else limits.silence
        if limit is not None and now >= self._heard + limit:
            self._fail(FetchTimeout(phase, limit))
        else:
            self.due = self._next_due(limit)

    # --- what the receiver of the body does ---

    def deliver(self, receiver: IProtocol) -> None:
        """Deliver the body to *receiver*, see ``IResponse.deliverBody``."""
        self._receiver = receiver
        self._paused = False
        self._note_life()
        receiver.makeConnection(cast(ITransport, BodyTransport(self, self.abort)))
        self._deliver()

    def pauseProducing(self) -> None:
        """Deliver nothing for now, and read no more."""
        self._paused = True
        self._settle()

    def resumeProducing(self) -> None:
        """Go on."""
        self._paused = False
        self._note_life()
        self._deliver()

    def abort(self) -> None:
        """Drop the rest of the body, and the connection if it is not over."""
        left = Failure(ConnectionBroken("body", "its reader has left"))
        if self._pieces and self._end is not None:
            # All of it has come, but the receiver has not got it all.
            self._end = left
        self._pieces.clear()
        wire = self._wire
        if wire is None:
            self._deliver()
        elif not self._aborted:
            self._aborted = True
            self._unwatch()
            if self._lost:
                self._finish(left)
            else:
                # The receiver hears of the end when the connection is lost.
                wire.abort()

    # --- within ---

    def _cancel(self, _: Deferred[BodyResponse]) -> None:
        self._answering = False
        self.abort()

    def _note_life(self) -> None:
        self._heard = self._owner.seconds()

    def _uploaded(self, failure: Failure | None) -> None:
        self._upload = None
        if failure is None:
            self._note_life()
        else:
            # It belongs to the caller, whose body it is.
            self._fail(failure)

    def _send_held(self) -> None:
        """Send the body that has waited for a 100."""
        assert self._held is not None
        (producer, transport, expectation), self._held = self._held, None
        expectation.begun = True
        self._note_life()
        self._watch(self._limits.headers)
        self.upload(producer, transport)

    def _take_pieces(self) -> None:
        self._pieces.extend(self._reader.take_body())

    def _keep(self, data: bytes) -> None:
        """Keep what was read until the turn of this exchange comes."""
        first = not self._left
        self._kept += data
        self._left = True
        if first and self._answering and len(data) <= MAX_KEPT:
            # Most likely it is all: then the connection need not be stopped and read again.
            self._owner.turns.add(self)
        else:
            self._settle()

    def _feed_kept(self) -> bool:
        """Parse some of what came while others had their turns; return whether some is left."""
        kept, self._kept = self._kept, b""
        return bool(kept) and self._reader.feed(kept)

    def _go_on(self, left: bool) -> None:
        """Do what the last step of the parser makes possible."""
        reader = self._reader
        self._left = left
        if self._held is not None:
            if reader.head is not None:
                self._held, self._withheld = None, True
            elif reader.continued and not self._lost:
                self._send_held()
        if self._answering and reader.head is not None:
            self._answering = False
            if reader.complete:
                body = reader.take_body()
                response = buffered_response(
                    reader.head, body[0] if len(body) == 1 else b"".join(body)
                )
                self._release()
                self.answered.callback(response)
                return
            self._heard = self._owner.seconds()
            self._watch(self._limits.silence)
            self._take_pieces()
            self.answered.callback(self._response(reader.head))
        else:
            self._take_pieces()
            if reader.complete:
                by_close = reader.head is not None and reader.head.length == UNTIL_CLOSE
                self._release()
                self._end = Failure(PotentialDataLoss() if by_close else ResponseDone())
            self._deliver()
        self._settle()

    def _response(self, head: ResponseHead) -> BodyResponse:
        return BodyResponse(
            (b"HTTP", 1, head.minor),
            head.status,
            head.reason.encode("latin-1"),
            _shown(head),
            head.length if head.length >= 0 else UNKNOWN_LENGTH,
            None,
            self.deliver,
        )

    def _release(self) -> None:
        """The response has been read to its end: let the wire do something else."""
        reader, wire = self._reader, self._wire
        if wire is None:
            return
        self._wire = None
        self._unwatch()
        if self._lost:
            return
        # Without the body that was announced, the server takes the next request for it.
        reusable = reader.reusable and self._upload is None and not self._withheld
        self._stop_upload()
        if self._stopped and reusable:
            wire.pause(False)
        wire.release(reusable=reusable)

    def _fail(self, error: FetchError | Failure) -> None:
        """End the exchange, and the connection, with an error."""
        wire = self._wire
        if wire is None:
            return
        self._wire = None
        self._unwatch()
        self._stop_upload()
        if not self._lost:
            wire.exchange = None
            wire.abort()
        # Where it was raised says nothing of it, and those frames keep this exchange.
        failure = error if isinstance(error, Failure) else Failure(error.with_traceback(None))
        if self._answering:
            self._answering = False
            self.answered.errback(failure)
        else:
            self._take_pieces()
            self._finish(failure)

    def _finish(self, reason: Failure) -> None:
        """End the body, after what has come of it."""
        self._wire = None
        self._stop_upload()
        if self._target is not None:
            name_url(reason.value, self._target.url)
        if self._end is None:
            self._end = reason
        self._deliver()

    def _deliver(self) -> None:
        """Deliver what there is of the body, as long as its receiver takes it."""
        receiver = self._receiver
        if self._delivering or receiver is None:
            return
        self._delivering = True
        try:
            while self._pieces and not self._paused:
                receiver.dataReceived(self._pieces.popleft())
        finally:
            self._delivering = False
        if not self._pieces and self._end is not None:
            end, self._end = self._end, None
            self._receiver = None
            receiver.connectionLost(end)
        else:
            self._settle()

    def _settle(self) -> None:
        """Read, parse, or wait, as the receiver wants."""
        wire = self._wire
        if wire is None or self._aborted:
            return
        waits = not self._answering and (self._paused or bool(self._pieces))
        if self._left and not waits:
            self._owner.turns.add(self)
        elif self._left:
            self._owner.turns.discard(self)
        stopped = self._left or waits
        if stopped is not self._stopped and not self._lost:
            self._stopped = stopped
            wire.pause(stopped)

    def _watch(self, limit: float | None) -> None:
        self.due = self._next_due(limit)
        if self.due < inf:
            self._owner.timeouts.add(self)

    def _unwatch(self) -> None:
        self._owner.timeouts.discard(self)
        if self._left:
            self._owner.turns.discard(self)

    def _stop_upload(self) -> None:
        if self._upload is not None:
            upload, self._upload = self._upload, None
            upload.stop()

    def _next_due(self, limit: float | None) -> float:
        """Return when what is waited for is too late, with *limit* seconds for this phase."""
        deadline = self._limits.deadline
        due = inf if deadline is None else deadline.at
        if self._held is not None:
            # The limit of the header is for a server that has the body.
            return min(due, self._agreed_by)
        return due if limit is None else min(due, self._heard + limit)

    def _translated(self, reason: Failure) -> Failure:
        error = cast(BaseException, reason.value)
        return Failure(connection_error(error, self._host, self._reader.phase))


def headers_due(heard: float, limit: float | None, deadline: Deadline | None) -> float:
    """
    Return when it is too late for a header.

    :param heard: when the server has last done something.
    :param limit: as in :class:`ExchangeLimits`.
    """
    due = inf if deadline is None else deadline.at
    return heard + limit if limit is not None and heard + limit < due else due


def buffered_response(head: ResponseHead, body: bytes) -> BufferedResponse:
    """Return a response that has been read as a whole."""
    return BufferedResponse(
        head.status, head.reason.encode("latin-1"), _shown(head), body, minor=head.minor
    )


def _shown(head: ResponseHead) -> HeaderFields:
    """
    Return the fields of a response without what is of this connection alone (RFC 9110 §7.6.1).

    ``Connection`` stays where it names other fields: a cache has to know which not to store.
    """
    fields = head.fields
    if not fields.has_none(_OFTEN_HIDDEN):
        hidden = _OF_CONNECTION
        connection = fields.joined("connection")
        if connection is not None and connection_options(connection) <= _COMMON_OPTIONS:
            hidden = _OFTEN_HIDDEN
        fields = fields.without(hidden)
    if head.length > 0 and fields.joined("content-length") != str(head.length):
        # The same several times, or with zeros before it.
        fields = fields.replaced([("Content-Length", str(head.length))])
    return fields
