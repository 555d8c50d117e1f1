"""TLS reason: why TLS or DTLS failed, in words, as OpenSSL's errors are lists of codes."""

from __future__ import annotations

_WORDS = {"wrong version number": "the other side does not speak TLS (wrong version number)"}
"""Reasons that say what OpenSSL has read, and not what that means: here, no record of TLS."""


def tls_reason(error: BaseException | None) -> str:
    """
    Return the reason of an error of OpenSSL, or of service_identity; the text of any other.

    Twisted types the error of a failure as one that may be None; it never is.

    Neither package is imported for it, as few connections have TLS.
    """
    if type(error).__module__.partition(".")[0] == "service_identity":
        return "its certificate is for another host"
    found = error.args[0] if error is not None and error.args else None
    if isinstance(found, list):
        # OpenSSL's errors carry lists of (library, function, reason), some without one.
        reasons = [str(entry[-1]) for entry in found if entry[-1]]
        reason = "; ".join(_WORDS.get(each, each) for each in reasons)
    else:
        reason = str(error or "")
    return reason or f"{type(error).__name__} without a reason"
