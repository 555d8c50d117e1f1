"""Error translation: why a connection was lost becomes an error of this package."""

from __future__ import annotations

from OpenSSL import SSL
from service_identity import VerificationError

from twisted_net.errors import FetchError
from twisted_net.http.errors import ConnectionBroken, TLSFailed
from twisted_net.net.tls_reason import tls_reason


def connection_error(reason: BaseException, host: str, phase: str) -> FetchError:
    """
    Return the error for a connection that was lost before the end of a response.

    :param reason: the reason of the loss, as the protocol has got it.
    :param phase: what was waited for: ``headers`` or ``body``.
    """
    if isinstance(reason, (SSL.Error, VerificationError)):
        return TLSFailed(host, tls_reason(reason))
    return ConnectionBroken(phase, str(reason).rstrip(".") or "it was closed")
