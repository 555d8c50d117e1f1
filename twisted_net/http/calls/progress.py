"""Progress of transfers: counts the bytes of request and response bodies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from attrs import frozen
from twisted.internet.interfaces import IProtocol
from twisted.logger import Logger
from typing_extensions import override

from twisted_net.http.bodies import BodyRelay, BodyResponse, BufferedResponse
from twisted_net.http.calls.upload import CountedProducer
from twisted_net.http.request import OutgoingRequest

log = Logger()


@frozen
class TransferProgress:
    """
    How much of a body has been transferred in one attempt.

    :param direction: ``upload`` for the body of the request, ``download`` for that of the response.
    :param done: bytes so far, as they are sent: compressed, where a response is.
    :param total: bytes in all; None where that is not known.
    """

    direction: Literal["upload", "download"]
    done: int
    total: int | None


ProgressFunction = Callable[[TransferProgress], object]


class ProgressReports:
    """
    Reports the progress of each attempt of a call, after each piece, and at the end.

    :param report: is called with it. An exception that it raises is logged, and ends the reports.
    """

    def __init__(self, report: ProgressFunction) -> None:
        self._report: ProgressFunction | None = report

    def watch_upload(self, request: OutgoingRequest) -> OutgoingRequest:
        """Return a request whose body is counted while it is sent."""
        producer = request.producer
        if producer is None:
            return request
        total = producer.length if isinstance(producer.length, int) else None
        counted = CountedProducer(
            producer, lambda done: self._note(TransferProgress("upload", done, total))
        )
        return OutgoingRequest(request.method, request.target, request.fields, counted)

    def watch_download(self, response: BodyResponse) -> BodyResponse:
        """Return a response whose body is counted while it is read."""
        length = response.length if isinstance(response.length, int) else None
        if length == 0 or isinstance(response, BufferedResponse):
            self._note(TransferProgress("download", length or 0, length or 0))
            return response

        def deliver(receiver: IProtocol) -> None:
            response.deliverBody(_CountingRelay(receiver, self._note, length))

        return BodyResponse.like(response, deliver)

    def _note(self, progress: TransferProgress) -> None:
        if self._report is None:
            return
        try:
            self._report(progress)
        except Exception:
            # A function of the user's, called in the middle of a parser.
            self._report = None
            log.failure("The progress function failed; it is not called again in this call.")


class _CountingRelay(BodyRelay):
    """Relays a body, and counts its bytes."""

    def __init__(
        self, receiver: IProtocol, note: Callable[[TransferProgress], None], total: int | None
    ) -> None:
        super().__init__(receiver)
        self._note = note
        self._total = total
        self._done = 0

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        self._done += len(data)
        self._note(TransferProgress("download", self._done, self._total))
        self._receiver.dataReceived(data)
