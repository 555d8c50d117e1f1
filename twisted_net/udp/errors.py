"""What keeps a question in a plain datagram from its answer."""

from __future__ import annotations

from twisted_net.errors import TwistedNetError


class DatagramError(TwistedNetError):
    """A question in a plain datagram got no answer that its caller can use."""

    code = "datagram_failed"


class DatagramTimeout(DatagramError):
    """
    No answer came in time.

    :param sent: how often the question was sent.
    """

    code = "datagram_timeout"

    def __init__(self, sent: int) -> None:
        super().__init__(f"no answer came; the question was sent {sent} times")
        self.sent = sent


class DatagramRefused(DatagramError):
    """
    The server refused the question: it is too long, or too short for its answer (``PAD``).

    :param answer: what the server said.
    """

    code = "datagram_refused"

    def __init__(self, answer: bytes) -> None:
        super().__init__(f"the server refused: {answer[:100].decode(errors='replace')}")
        self.answer = answer


class DatagramUnreachable(DatagramError):
    """Nobody listens at this port, as its host says, or no datagram can be sent there."""

    code = "datagram_unreachable"

    def __init__(self, reason: str = "nobody listens at this port") -> None:
        super().__init__(f"the server cannot be reached: {reason}")


class DatagramHostNotFound(DatagramError):
    """The name of the server has no address."""

    code = "datagram_host_not_found"

    def __init__(self, host: str) -> None:
        super().__init__(f"no address found for {host}")
        self.host = host


class TooManyQuestions(DatagramError):
    """As many questions wait for the one under way as may."""

    code = "datagram_queue_full"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} questions are waiting already; try again later")
        self.limit = limit


class DatagramClientClosed(DatagramError):
    """The client was closed before, or while, this question was asked."""

    code = "datagram_client_closed"

    def __init__(self) -> None:
        super().__init__("the datagram client is closed")
