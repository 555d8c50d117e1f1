"""Process log: bounds what Twisted and this package log, by a limiter before all observers."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import LogEvent, LogPublisher, globalLogPublisher

from twisted_net.net.log_limiter import LogLimiter
from twisted_net.twisted_internals import log_observers

OWN_LIMIT = "twisted_net.audit"
"""Namespace with a higher limit of its own."""


def limit_process_log(seconds: Callable[[], float]) -> None:
    """
    Put a limiter before the observers of the log.

    A client that finds a bug causes a traceback with each packet; which log line that is cannot be
    known before. The lines of an operator's own commands are not limited.

    :param seconds: returns the seconds of a steady clock.
    """
    observers = log_observers()
    if not observers:
        return
    for observer in observers:
        globalLogPublisher.removeObserver(observer)
    limiter = LogLimiter(LogPublisher(*observers), seconds, applies=is_limited)
    globalLogPublisher.addObserver(limiter)


def is_limited(event: LogEvent) -> bool:
    """Return whether an event is of Twisted or of this package, or an error that Twisted caught."""
    namespace = str(event.get("log_namespace", ""))
    if namespace == "log_legacy":
        return bool(event.get("isError"))
    package = namespace.partition(".")[0]
    return package in ("twisted", "twisted_net") and namespace != OWN_LIMIT
