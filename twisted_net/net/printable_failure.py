"""Printable failure: a failure as it may be logged, whatever a peer sent that made it."""

from __future__ import annotations

from twisted.python.failure import Failure
from typing_extensions import override

from twisted_net.net.characters import printable


class EscapedMessage(Exception):
    """
    Stands in the log for an exception whose message has characters that terminals obey.

    :param kind: the exception's class.
    :param message: of the exception, escaped.
    """

    def __init__(self, kind: type[BaseException], message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message

    @override
    def __str__(self) -> str:
        return f"{self.kind.__name__}: {self.message}"


def printable_failure(failure: Failure) -> Failure:
    """
    Return a failure whose message may be logged, with the same traceback.

    Messages of exceptions often repeat what a peer has sent. Lines and tabs are kept, other
    characters that are not printable become escapes.
    """
    error = failure.value
    assert error is not None
    try:
        message = str(error)
    except BaseException:
        message, shown = "", "its message cannot be had"
    else:
        lines = message.split("\n")
        shown = "\n".join("\t".join(map(printable, line.split("\t"))) for line in lines)
        if shown == message:
            return failure
    return Failure(EscapedMessage(type(error), shown), exc_tb=failure.getTracebackObject())
