"""Errors of DTLS sessions."""

from __future__ import annotations

from twisted_net.errors import TwistedNetError


class DtlsError(TwistedNetError):
    """There is no DTLS session with a peer, or none any more."""

    code = "dtls_error"


class DtlsFailed(DtlsError):
    """
    A DTLS session cannot be established or continued: the handshake failed, timed out or was
    rejected, or a record of the peer broke the session.

    :ivar reason: what went wrong, in words.
    """

    code = "dtls_failed"

    def __init__(self, reason: str) -> None:
        super().__init__(f"no DTLS session: {reason}")
        self.reason = reason


class DtlsEnded(DtlsError):
    """The DTLS session was closed by the peer or by this side; a new one can be established."""

    code = "dtls_ended"

    def __init__(self) -> None:
        super().__init__("the DTLS session has ended")
