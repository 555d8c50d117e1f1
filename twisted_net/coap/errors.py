"""Errors of CoAP: of the message format, of URIs, and of exchanges that fail."""

from __future__ import annotations

from twisted_net.dtls.errors import DtlsError
from twisted_net.errors import CoapError


class MalformedMessage(CoapError):
    """
    A datagram is not a CoAP message, or one of its options violates its definition.

    :ivar rejected: the message ID to reject with a Reset (RFC 7252 §4.2), or None if the
        datagram is to be ignored.
    """

    code = "coap_malformed"

    def __init__(self, reason: str, rejected: int | None = None) -> None:
        super().__init__(f"not a CoAP message: {reason}")
        self.rejected = rejected


class TooManyOptions(MalformedMessage):
    """
    A message has more options than are read.

    :ivar token: of a confirmable request, which is answered with 4.02 Bad Option (RFC 7252
        §5.4.1); None for any other message, which is rejected.
    """

    code = "coap_too_many_options"

    def __init__(self, limit: int, rejected: int | None, token: bytes | None) -> None:
        super().__init__(f"it has more than {limit} options", rejected)
        self.limit = limit
        self.token = token


class InvalidCoapURI(CoapError):
    """A URI cannot be requested over CoAP: wrong scheme, no host, or a part that is too long."""

    code = "coap_invalid_uri"

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(f"cannot request {uri}: {reason}")
        self.uri = uri


class CoapHostNotFound(CoapError):
    """The host of a URI has no IPv4 address."""

    code = "coap_host_not_found"

    def __init__(self, host: str) -> None:
        super().__init__(f"no address found for {host}")
        self.host = host


class CoapHostUnreachable(CoapError):
    """
    The host of a URI cannot be reached: there is no route, its scope does not exist, or nobody
    listens at the port, as ICMP says.

    :param reason: the kernel's, in words.
    """

    code = "coap_host_unreachable"

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"cannot reach {host}: {reason}")
        self.host = host
        self.reason = reason


class SecureSessionFailed(CoapError):
    """
    The DTLS session of a ``coaps`` request could not be established, or ended before the answer.

    :param cause: :class:`~twisted_net.dtls.errors.DtlsFailed` or
        :class:`~twisted_net.dtls.errors.DtlsEnded`; also the exception's ``__cause__``.
    """

    code = "coap_session_failed"

    def __init__(self, cause: DtlsError) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.__cause__ = cause


class CoapTimeout(CoapError):
    """
    The peer did not acknowledge a message, or did not respond to a request, in time.

    :param seconds: how long this endpoint waited.
    """

    code = "coap_timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no response within {seconds:.3g} seconds")
        self.seconds = seconds


class ResetByPeer(CoapError):
    """The peer rejected a message with a Reset: it cannot process it, or has lost its state."""

    code = "coap_reset"

    def __init__(self) -> None:
        super().__init__("the peer rejected the message (Reset)")


class QueueFull(CoapError):
    """The queue of messages to this peer, or the table of peers, is full."""

    code = "coap_queue_full"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} messages are waiting already; try again later")
        self.limit = limit


class TransferFailed(CoapError):
    """A block-wise transfer (RFC 7959) failed, or its body exceeds the limit."""

    code = "coap_transfer_failed"


class ResourceChanged(TransferFailed):
    """The resource changed while its blocks were transferred: its ETag differs (RFC 7959 §2.4)."""

    code = "coap_resource_changed"

    def __init__(self) -> None:
        super().__init__("the resource changed between two blocks")


class UnknownOption(CoapError):
    """
    A response has a critical option that is not known, and is rejected (RFC 7252 §5.4.1).

    :param option: its number.
    """

    code = "coap_unknown_option"

    def __init__(self, option: int) -> None:
        super().__init__(f"the response has the critical option {option}, which is not known")
        self.option = option


class ObservationRefused(CoapError):
    """
    The server has responded to a registration, but will not notify.

    The resource cannot be observed, or the server has no room for a further observer (RFC 7641
    §4.1).
    """

    code = "coap_observation_refused"

    def __init__(self) -> None:
        super().__init__(
            "the server does not notify: the resource cannot be observed, or has too many observers"
        )


class UnexpectedCode(CoapError):
    """
    A response has an error code, where the caller required success.

    :param status: code and name: ``4.04 Not Found``.
    :param diagnostic: the start of the diagnostic payload; may be empty.
    """

    code = "coap_unexpected_code"

    def __init__(self, status: str, diagnostic: str) -> None:
        super().__init__(f"the server answered {status} {diagnostic}".rstrip())
        self.status = status
        self.diagnostic = diagnostic


class CoapClientClosed(CoapError):
    """The CoAP client was closed before or during this request."""

    code = "coap_client_closed"

    def __init__(self) -> None:
        super().__init__("the CoAP client is closed")
