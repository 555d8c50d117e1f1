"""What Twisted's HTTP client fails with, as errors of this package."""

from __future__ import annotations

from typing import cast

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure
from twisted.web import _newclient
from twisted.web.http import PotentialDataLoss, _DataLoss

from twisted_net.errors import FetchError
from twisted_net.http.errors import BadResponse, ConnectionBroken, TLSFailed

TWISTED_ERRORS = (
    _newclient.RequestGenerationFailed,
    _newclient.RequestTransmissionFailed,
    _newclient.ResponseFailed,
    _newclient.RequestNotSent,
)
"""What a request through ``HTTP11ClientProtocol`` fails with."""

_ENDED = (
    ConnectionClosed,
    OSError,
    _newclient.ConnectionAborted,
    _newclient.RequestNotSent,
    PotentialDataLoss,
    _DataLoss,
)


def translate_error(error: BaseException, host: str, phase: str) -> BaseException:
    """
    Give an error of Twisted's HTTP client as one of this package.

    Its own errors, and the cancelling of a call, are given as they are; so is whatever stopped a
    request body, which is the caller's.
    """
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, (FetchError, CancelledError)):
            return cause
    if isinstance(error, _newclient.RequestGenerationFailed):
        return causes[0]
    for cause in causes:
        if isinstance(cause, (SSL.Error, VerificationError)):
            return TLSFailed(host, _tls_reason(cause))
    for cause in causes:
        if not isinstance(cause, _ENDED):
            return BadResponse(f"{type(cause).__name__}: {cause}")
    reason = str(causes[0]) if causes else ""
    return ConnectionBroken(phase, reason.rstrip(".") or "it was closed")


def translate_failure(failure: Failure, host: str) -> Failure:
    """Give the failure of a body as one of this package."""
    return Failure(translate_error(cast(BaseException, failure.value), host, "body"))


def _causes(error: BaseException) -> list[BaseException]:
    """The errors at the bottom of one that wraps others."""
    reasons = getattr(error, "reasons", None)
    if reasons is None:
        return [error]
    return [cause for reason in reasons for cause in _causes(reason.value)]


def _tls_reason(cause: BaseException) -> str:
    if isinstance(cause, VerificationError):
        return "its certificate is for another host"
    # OpenSSL's errors carry lists of (library, function, reason).
    found = cause.args[0] if cause.args else None
    if isinstance(found, list) and found:
        return "; ".join(str(entry[-1]) for entry in found)
    return str(cause) or type(cause).__name__
