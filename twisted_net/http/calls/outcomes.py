"""
Outcomes of coroutines: their results, and their errors without the frames that these came through.

An error refers to its traceback, that to frames, and these to the error: those of Twisted's driver
of coroutines and of its callbacks keep the failure that they have passed on. Such a cycle is freed
by a collection of garbage only, which stops all clients. So an error of a server, of the network or
of a caller who cancels keeps its message and its cause, and loses the frames, which say nothing of
it. Any other exception is a mistake in a program, and keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twisted_net.errors import TwistedNetError

_T = TypeVar("_T")


def started(coroutine: Coroutine[Deferred[Any], Any, _T]) -> Deferred[_T]:
    """Start a coroutine, as ``Deferred.fromCoroutine`` does; its error comes without frames."""
    running: Deferred[_T] = Deferred.fromCoroutine(coroutine)
    return running.addErrback(_without_frames)


async def result_of(waiting: Deferred[_T]) -> _T:
    """
    Await a Deferred that nobody else uses, as ``await waiting`` does.

    Its error is raised as a copy without frames: those that run now, which have passed the error
    on, are not to be found from the copy, nor it from them.
    """
    # In a list, which is empty afterwards: the driver of the awaiting coroutine keeps what it gets.
    outcome: list[_T | Failure] = await cast("Deferred[Any]", waiting).addBoth(_in_list)
    result = outcome.pop()
    if not isinstance(result, Failure):
        return result
    error = error_of(result)
    try:
        raise error
    finally:
        del error, result  # this frame is in the traceback


def error_of(failure: Failure) -> BaseException:
    """Return the error of a failure, as :func:`result_of` raises it."""
    error = cast(BaseException, _without_frames(failure).value)
    return copied(error) if _is_expected(error) else error


def canceller(
    cancel: Callable[[Deferred[Any]], object], *, fires: bool = False
) -> Callable[[Deferred[Any]], None]:
    """
    Return a function for a Deferred to be cancelled by, which refers to nothing afterwards.

    ``Deferred.cancel`` is below the frames that it wakes, and keeps what it has called.

    :param fires: whether the Deferred fires with None then, if *cancel* does not do that.
    """
    held = [cancel]

    def call(cancelled: Deferred[Any]) -> None:
        held.pop()(cancelled)
        if fires and not cancelled.called:
            cancelled.callback(None)

    return call


def _in_list(result: _T) -> list[_T]:
    return [result]


def _without_frames(failure: Failure) -> Failure:
    """Drop the frames of a failure whose error is an expected one, and those of its causes."""
    part: BaseException | None = failure.value
    if part is not None and _is_expected(part):
        failure.tb = None
        while part is not None:
            part.__traceback__ = None
            cause = part.__cause__
            # What was being handled when it was raised matters where it is named as the cause.
            part.__context__ = cause
            part = cause
    return failure


def _is_expected(error: BaseException) -> bool:
    """Return whether an error is no mistake in a program."""
    return isinstance(error, (TwistedNetError, CancelledError))


def copied(error: BaseException) -> BaseException:
    """Return a copy of an error; ``copy.copy`` would call its class with the message alone."""
    kind = type(error)
    made = kind.__new__(kind, *error.args)
    made.__dict__.update(error.__dict__)
    made.__cause__ = error.__cause__
    return made
