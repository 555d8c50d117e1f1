"""What keeps a CoAP exchange from its end."""

from __future__ import annotations

from twisted_net.errors import CoapError


class MalformedMessage(CoapError):
    """
    A datagram is not a CoAP message, or an option in it is not as its definition says.

    :ivar rejected: the message ID that a Reset may answer (RFC 7252 §4.2), or None where the
        datagram must be ignored in silence.
    """

    code = "coap_malformed"

    def __init__(self, reason: str, rejected: int | None = None) -> None:
        super().__init__(f"not a CoAP message: {reason}")
        self.rejected = rejected


class InvalidCoapURI(CoapError):
    """The URI cannot be requested over CoAP: another scheme, no host, a part that is too long."""

    code = "coap_invalid_uri"

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(f"cannot request {uri}: {reason}")
        self.uri = uri


class CoapHostNotFound(CoapError):
    """The host of a coap URI has no address."""

    code = "coap_host_not_found"

    def __init__(self, host: str) -> None:
        super().__init__(f"no address found for {host}")
        self.host = host


class CoapTimeout(CoapError):
    """
    The peer did not acknowledge a message, or did not answer a request, within its time.

    :param seconds: how long it was waited for.
    """

    code = "coap_timeout"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the peer gave no answer within {seconds:.3g} seconds")
        self.seconds = seconds


class ResetByPeer(CoapError):
    """The peer rejected a message with a Reset: it has no use for it, or has forgotten us."""

    code = "coap_reset"

    def __init__(self) -> None:
        super().__init__("the peer rejected the message (Reset)")


class QueueFull(CoapError):
    """As many messages wait for their turn with this peer, or with all, as may."""

    code = "coap_queue_full"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} messages are waiting already; try again later")
        self.limit = limit


class TransferFailed(CoapError):
    """A block-wise transfer (RFC 7959) broke off, or its body passes the limit."""

    code = "coap_transfer_failed"


class UnexpectedCode(CoapError):
    """
    The code of a response is not the success that its caller asked for.

    :param status: as people write it: ``4.04 Not Found``.
    :param diagnostic: the start of what the server says about it; may be empty.
    """

    code = "coap_unexpected_code"

    def __init__(self, status: str, diagnostic: str) -> None:
        super().__init__(f"the server answered {status} {diagnostic}".rstrip())
        self.status = status
        self.diagnostic = diagnostic


class CoapClientClosed(CoapError):
    """The CoAP client was closed before, or while, this request was made."""

    code = "coap_client_closed"

    def __init__(self) -> None:
        super().__init__("the CoAP client is closed")
