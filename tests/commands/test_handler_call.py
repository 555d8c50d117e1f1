"""Handlers are called and awaited as Twisted does it, and cancelled at little cost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python import failure
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.commands.handler_call import HandlerCall

MARK: ContextVar[str] = ContextVar("MARK", default="")


class Ready:
    """An awaitable that is neither a coroutine nor a Deferred, and yields one that has fired."""

    def __await__(self) -> Generator[Deferred[int], int, int]:
        total = 0
        for i in range(3):
            total += yield succeed(i)
        return total


class HandlerCallTests(SynchronousTestCase):
    """:class:`HandlerCall` passes on what a handler comes to."""

    def setUp(self) -> None:
        self.ended: list[Any] = []  # Any: values and Failures
        self.call = HandlerCall(self.ended.append)

    def begin(self, start: Callable[[], object]) -> None:
        """Call a handler."""
        self.call.begin(start, None)

    def test_at_once(self) -> None:
        """A value, an exception and whatever awaits nothing that is not there end it at once."""

        async def now() -> int:
            return await succeed(1) + await Ready()

        async def broken() -> None:
            await fail(KeyError("a"))

        def start() -> None:
            raise KeyError("b")

        for handler, expected in (
            (lambda: 7, 7),
            (now, 4),
            (Ready, 3),
            (lambda: succeed(8), 8),
            (start, KeyError),
            (broken, KeyError),
            (lambda: fail(KeyError("c")), KeyError),
        ):
            self.ended = []
            HandlerCall(self.ended.append).begin(handler, None)
            (found,) = self.ended
            if expected is KeyError:
                assert isinstance(found, Failure)
                found.trap(KeyError)
            else:
                self.assertEqual(found, expected)

    def test_later(self) -> None:
        """It awaits one Deferred after the other, and gets the exception of one that fails."""
        gates: list[Deferred[str]] = [Deferred(), Deferred(), Deferred()]

        async def handler() -> str:
            first = await gates[0]
            try:
                await gates[1]
            except KeyError as error:
                return first + str(error) + await gates[2]
            return "not failed"

        self.begin(handler)
        gates[0].callback("a")
        gates[1].errback(KeyError("b"))
        self.assertEqual(self.ended, [])
        gates[2].callback("c")
        self.assertEqual(self.ended, ["a'b'c"])
        self.call.cancel()
        self.assertEqual(len(self.ended), 1)

    def test_context(self) -> None:
        """What it sets holds after each wait, and nowhere else."""
        gate: Deferred[None] = Deferred()

        async def handler() -> str:
            MARK.set("within")
            await gate
            return MARK.get()

        self.begin(handler)
        self.assertEqual(MARK.get(), "")
        gate.callback(None)
        self.assertEqual((self.ended, MARK.get()), (["within"], ""))

    def test_cancel(self) -> None:
        """What it waits for is cancelled; it may catch that, and wait again."""
        caught: list[str] = []

        async def handler(times: int) -> str:
            for i in range(times):
                try:
                    await Deferred()
                except CancelledError:
                    caught.append(f"{i}")
            await Deferred()
            return "never"

        for start in (lambda: handler(2), Deferred):
            self.ended = []
            self.call = HandlerCall(self.ended.append)
            self.begin(start)
            while not self.ended:
                self.call.cancel()
            self.ended[0].trap(CancelledError)
        self.assertEqual(caught, ["0", "1"])

    def test_cancel_within(self) -> None:
        """To cancel it while it runs does nothing."""
        gate: Deferred[None] = Deferred()

        async def handler() -> str:
            await gate
            self.call.cancel()
            await succeed(None)
            return "done"

        self.begin(handler)
        gate.callback(None)
        self.assertEqual(self.ended, ["done"])

    def test_cost(self) -> None:
        """To cancel it makes two Failures: the one that it gets, and the one that it ends by."""

        async def handler() -> None:
            await inner()

        async def inner() -> Awaitable[None]:
            return await Deferred()

        self.begin(handler)
        before = failure.count
        self.call.cancel()
        self.assertEqual(failure.count - before, 2)
