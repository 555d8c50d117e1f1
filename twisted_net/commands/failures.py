"""Failures of handlers: as they may be logged, and without the frames that they passed."""

from __future__ import annotations

from twisted.python.failure import Failure
from typing_extensions import override

from twisted_net.commands.registry import Command, Commands
from twisted_net.net.printable_failure import printable_failure
from twisted_net.net.redaction import cut

MAX_CAUSES = 16
"""Errors, from which another was raised, that are looked at."""


class HiddenMessage(Exception):
    """
    Stands in the log for an exception whose message may not be shown.

    :param kind: the exception's class.
    """

    def __init__(self, kind: type[BaseException]) -> None:
        super().__init__(kind)
        self.kind = kind

    @override
    def __str__(self) -> str:
        return f"{self.kind.__name__}; its message is not shown, as it may have secrets of a client"


def loggable_failure(failure: Failure, command: Command | None, commands: Commands) -> Failure:
    """
    Return a failure as it may be logged, with the same traceback.

    Messages of exceptions often repeat an argument. So that of a secret command is left out, that
    of a fallback too, which gets what may be AUTH, mistyped, and any other which has something that
    would not be shown of an argument.

    :param command: whose handler failed; None for the fallback.
    """
    error = failure.value
    assert error is not None
    if command is None or command.secret or _has_secrets(error, commands):
        return Failure(HiddenMessage(type(error)), exc_tb=failure.getTracebackObject())
    return printable_failure(failure)


def forget_frames(failure: Failure) -> None:
    """
    Drop the tracebacks of an error that is answered, and of those that it was raised from.

    Frames of Twisted's that an error passed through refer to it again. Each refusal would leave
    some hundred objects to the garbage collector, which after thousands of them stops all clients
    for up to a second.
    """
    failure.tb = None
    error = failure.value
    for _ in range(MAX_CAUSES):
        if error is None:
            return
        traceback, error.__traceback__ = error.__traceback__, None
        while traceback is not None:
            # Of _inlineCallbacks: by what it resumed the coroutine that then failed.
            resumed_by = traceback.tb_frame.f_locals.get("result")
            if isinstance(resumed_by, Failure):
                resumed_by.tb = None
            traceback = traceback.tb_next
        error = error.__cause__ or error.__context__


def _has_secrets(error: BaseException, commands: Commands) -> bool:
    try:
        message = str(error)
    except BaseException:
        return True
    return commands.shown_text(message) != cut(message)
