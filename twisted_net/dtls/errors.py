"""What keeps a DTLS session from being made, or ends it."""

from __future__ import annotations

from twisted_net.errors import CoapError


class DtlsFailed(CoapError):
    """
    There is no DTLS session with a peer: the handshake failed, took too long, or was refused.

    :ivar reason: what went wrong, in words.
    """

    code = "dtls_failed"

    def __init__(self, reason: str) -> None:
        super().__init__(f"no DTLS session: {reason}")
        self.reason = reason


class DtlsEnded(CoapError):
    """The DTLS session is over, as its peer or this side has ended it; a new one may be begun."""

    code = "dtls_ended"

    def __init__(self) -> None:
        super().__init__("the DTLS session has ended")
