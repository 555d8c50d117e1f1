"""Hooks: functions of the user that a call awaits, within its deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from typing import TYPE_CHECKING, TypeVar

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime

from twisted_net.http.call import Deadline
from twisted_net.http.calls.http_request import HttpRequest
from twisted_net.http.calls.outcomes import result_of, started

if TYPE_CHECKING:
    from twisted_net.http.response import Response
    from twisted_net.http.streaming import StreamedResponse

_T = TypeVar("_T")

RequestHook = Callable[[HttpRequest], object]
"""Called with each request; may change its headers, and may return an awaitable."""

ResponseHook = Callable[["Response | StreamedResponse"], object]
"""Called with the response of each call; may return an awaitable."""


def hooks_of(given: object, name: str) -> tuple[Callable[..., object], ...]:
    """
    Return the hooks of a client.

    :param given: a function, or a sequence of functions.
    :raises TypeError: for anything else.
    """
    hooks = (given,) if callable(given) else given
    if not isinstance(hooks, Sequence) or not all(map(callable, hooks)):
        raise TypeError(f"Client: {name} must be a function or a list of functions")
    return tuple(hooks)


async def completed(
    result: object, clock: IReactorTime, deadline: Deadline | None, url: str
) -> None:
    """
    Await what a hook has returned, if it is awaitable.

    :param url: of the request, for the error.
    :raises FetchTimeout: at the deadline of the call; the hook is cancelled.
    """
    if not isawaitable(result):
        return
    waiting = started(_awaited(result))
    if deadline is None:
        await result_of(waiting)
        return
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        waiting.cancel()

    timer = clock.callLater(max(0.0, deadline.at - clock.seconds()), expire)
    try:
        await result_of(waiting)
    except CancelledError:
        if expired:
            error = deadline.exceeded("hook")
            error.name_url(url)
            raise error from None
        raise
    finally:
        if timer.active():
            timer.cancel()


async def _awaited(awaitable: Awaitable[_T]) -> _T:
    return await awaitable
