"""Many calls at a time, up to a limit; their results in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime

from twisted_net.config.type_checks import shown
from twisted_net.errors import FetchError
from twisted_net.http.calls.outcomes import result_of, started
from twisted_net.turns.turn_scheduler import TURN_BUDGET, TurnScheduler, next_turn

if TYPE_CHECKING:
    from twisted_net.http.response import Response

_T = TypeVar("_T")


async def gathered(
    calls: Iterable[str | Callable[[], Awaitable[_T]]],
    get: Callable[[str], Awaitable[Response]],
    limit: int,
    clock: IReactorTime,
    turns: TurnScheduler,
) -> list[Response | _T | FetchError]:
    """
    Make calls, as :meth:`~twisted_net.http.client.Client.gather` does.

    :param get: makes the call for a URL.
    :param turns: those that follow each other without a wait take their turns by it.
    """
    results: list[Any] = []  # Any: None until the call is over
    remaining = iter(calls)
    exhausted = False
    seconds = clock.seconds
    until = seconds() + TURN_BUDGET

    async def yield_turn() -> None:
        nonlocal until
        if seconds() >= until:
            await result_of(next_turn(turns))
            until = seconds() + TURN_BUDGET

    async def work() -> None:
        nonlocal exhausted
        for call in remaining:
            index = len(results)
            results.append(None)
            if not isinstance(call, str) and not callable(call):
                raise TypeError(
                    "Client.gather: each call must be a URL or a function that makes it, such"
                    f" as partial(client.get, url, timeout=5), not {shown(call)}"
                )
            try:
                results[index] = await (get(call) if isinstance(call, str) else call())
            except FetchError as error:
                results[index] = error.with_traceback(None)  # its frames keep the results
            await yield_turn()
        exhausted = True

    workers: list[Deferred[None]] = []
    try:
        while len(workers) < limit and not exhausted:
            workers.append(started(work()))
            await yield_turn()
        await gatherResults(workers, consumeErrors=True)
    except BaseException as error:
        for worker in workers:
            worker.addErrback(lambda failure: None)  # what the first one failed with is raised
            worker.cancel()
        if isinstance(error, FirstError):
            error.subFailure.raiseException()
        raise
    return results
