"""Upload: the body of a request from its producer to the connection, framed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer, ITransport
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from twisted_net.http.h1.chunked import LAST_CHUNK, encode_chunk
from twisted_net.http.h1.heads import CHUNKED


@implementer(IConsumer, IPushProducer)
class Upload:
    """
    One body that is being sent.

    It is the consumer of the body's producer, and the producer of the connection, since either may
    end it: after :meth:`stop` none hears of the other.

    :param length: bytes of the body, or :data:`~twisted_net.http.h1.heads.CHUNKED`.
    :param wrote: called after each write: the server has taken what was written before it.
    :param ended: called once, unless it was stopped before: with None when all has been written,
        and the server has taken it but for what the connection buffers anyway; or with what the
        producer failed with. A body of another length than it has announced has
        failed with a ``ValueError``.
    """

    def __init__(
        self,
        producer: IBodyProducer,
        transport: ITransport,
        length: int,
        wrote: Callable[[], None],
        ended: Callable[[Failure | None], None],
    ) -> None:
        self._producer: IBodyProducer | None = producer
        self._transport = transport
        self._left = length
        self._wrote = wrote
        self._ended = ended
        self._paused = False  # the server has not taken what was written
        self._written = False  # the producer is done

    def start(self) -> None:
        """Start to send the body."""
        producer = self._producer
        assert producer is not None
        cast(Any, self._transport).registerProducer(self, True)  # Any: ITransport has not got it
        if self._producer is None:
            return  # the connection is lost already, and has stopped this
        done: Deferred[None] = maybeDeferred(producer.startProducing, self)
        done.addCallbacks(lambda _: self._finish(), self._fail)

    def stop(self) -> None:
        """Send no more; idempotent."""
        producer, _ = self._detach()
        if producer is not None and not self._written:
            # What it makes of that is its own affair: nobody waits for it any more.
            maybeDeferred(producer.stopProducing).addErrback(lambda _: None)

    # --- the consumer of the body ---

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Do nothing: the producer is known."""

    def unregisterProducer(self) -> None:
        """Do nothing: the end is known by its Deferred."""

    def write(self, data: bytes) -> None:
        if self._producer is None or self._written or not data:
            return
        if self._left == CHUNKED:
            self._transport.write(encode_chunk(data))
        elif len(data) <= self._left:
            self._left -= len(data)
            self._transport.write(data)
        else:
            ended = self._ended
            self.stop()
            ended(Failure(ValueError("the body is longer than its length says")))
            return
        self._wrote()

    # --- the producer of the connection ---

    def pauseProducing(self) -> None:
        self._paused = True
        if self._producer is not None and not self._written:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        if self._written:
            _, ended = self._detach()
            ended(None)
        elif self._producer is not None:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is lost."""
        self.stop()

    def _detach(self) -> tuple[IBodyProducer | None, Callable[[Failure | None], None]]:
        """Let go of the producer and of who hears of the end; return both."""
        producer, ended = self._producer, self._ended
        if producer is not None:
            cast(Any, self._transport).unregisterProducer()
            # The Deferred of a producer that was stopped may be kept for long, and so may this.
            self._producer = None
            self._wrote, self._ended = _nothing, _nothing
        return producer, ended

    def _finish(self) -> None:
        if self._producer is None:
            return
        if self._left > 0:
            _, ended = self._detach()
            ended(Failure(ValueError("the body is shorter than its length says")))
            return
        self._written = True
        if self._left == CHUNKED:
            self._transport.write(LAST_CHUNK)
        if not self._paused:
            _, ended = self._detach()
            ended(None)

    def _fail(self, failure: Failure) -> None:
        producer, ended = self._detach()
        if producer is not None:
            ended(failure)


def _nothing(_: object = None) -> None:
    """Nobody is to hear of it."""
