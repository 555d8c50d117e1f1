"""Error translation: errors of Twisted's HTTP client become errors of this package."""

from __future__ import annotations

from typing import cast

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure
from twisted.web.client import (
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
)
from twisted.web.http import PotentialDataLoss

from twisted_net.errors import FetchError
from twisted_net.http.errors import BadResponse, ConnectionBroken, TLSFailed
from twisted_net.net.tls_reason import tls_reason
from twisted_net.twisted_internals import ConnectionAborted, DataLoss, RequestNotSent

TWISTED_ERRORS = (
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    RequestNotSent,
)
"""The errors of a request through ``HTTP11ClientProtocol``."""

_CONNECTION_ENDED = (
    ConnectionClosed,
    OSError,
    ConnectionAborted,
    RequestNotSent,
    PotentialDataLoss,
    DataLoss,
)


def translate_error(error: BaseException, host: str, phase: str) -> BaseException:
    """
    Translate an error of Twisted's HTTP client into one of this package.

    Errors of this package and the cancellation of a call are returned unchanged; so is the error
    that stopped the production of a request body, which belongs to the caller.
    """
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, (FetchError, CancelledError)):
            return cause
    if isinstance(error, RequestGenerationFailed):
        return causes[0]
    for cause in causes:
        if isinstance(cause, (SSL.Error, VerificationError)):
            return TLSFailed(host, tls_reason(cause))
    for cause in causes:
        if not isinstance(cause, _CONNECTION_ENDED):
            return BadResponse(f"{type(cause).__name__}: {cause}")
    reason = str(causes[0]) if causes else ""
    return ConnectionBroken(phase, reason.rstrip(".") or "it was closed")


def translate_failure(failure: Failure, host: str) -> Failure:
    """Translate the failure of a body; see :func:`translate_error`."""
    return Failure(translate_error(cast(BaseException, failure.value), host, "body"))


def _causes(error: BaseException) -> list[BaseException]:
    """Return the errors that *error* wraps, at any depth; the error itself if it wraps none."""
    reasons = getattr(error, "reasons", None)
    if reasons is None:
        return [error]
    return [cause for reason in reasons for cause in _causes(reason.value)]
