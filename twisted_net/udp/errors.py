"""Errors of the datagram client."""

from __future__ import annotations

from twisted_net.errors import TwistedNetError


class DatagramError(TwistedNetError):
    """A datagram client's question got no usable answer."""

    code = "datagram_failed"


class DatagramTimeout(DatagramError):
    """
    No answer came in time.

    :param sent: how many times the question was sent.
    """

    code = "datagram_timeout"

    def __init__(self, sent: int) -> None:
        super().__init__(f"no answer; the question was sent {sent} times")
        self.sent = sent


class DatagramRefused(DatagramError):
    """
    The server refused the question as too long, or as too short for its answer (``PAD``).

    :param answer: the server's answer.
    """

    code = "datagram_refused"

    def __init__(self, answer: bytes) -> None:
        super().__init__(f"the server refused: {answer[:100].decode(errors='replace')}")
        self.answer = answer


class DatagramUnreachable(DatagramError):
    """
    The port is closed (ICMP port unreachable), or no datagram can be sent to it.

    :param reason: which of these, in words.
    """

    code = "datagram_unreachable"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the server cannot be reached: {reason}")


class DatagramHostNotFound(DatagramError):
    """The server's host name has no address."""

    code = "datagram_host_not_found"

    def __init__(self, host: str) -> None:
        super().__init__(f"no address found for {host}")
        self.host = host


class TooManyQuestions(DatagramError):
    """The client's queue of questions is full."""

    code = "datagram_queue_full"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} questions are waiting already; try again later")
        self.limit = limit


class DatagramClientClosed(DatagramError):
    """The client was closed before this question was answered."""

    code = "datagram_client_closed"

    def __init__(self) -> None:
        super().__init__("the datagram client is closed")
