"""Tests of :mod:`twisted_net.http.calls.outcomes`."""

from __future__ import annotations

import traceback
from typing import Any, NoReturn

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.garbage import cyclic_garbage
from twisted_net.http.calls.outcomes import result_of, started
from twisted_net.http.errors import CannotConnect, FetchTimeout


async def raises(error: BaseException, cause: BaseException | None = None) -> NoReturn:
    """Raise an error, and while another one is handled."""
    try:
        raise KeyError("handled")
    except KeyError:
        raise error from cause


class StartedTests(SynchronousTestCase):
    """A coroutine that is started."""

    def test_result(self) -> None:
        """Its result is that of its Deferred."""
        self.assertEqual(self.successResultOf(started(result_of(succeed(1)))), 1)

    def test_expected(self) -> None:
        """An error of the network, and its cause, come without frames and what was handled."""
        cause = OSError("why")
        try:
            raise cause
        except OSError:
            failure = self.failureResultOf(started(raises(CannotConnect("h", 1, "x"), cause)))
        error = failure.value
        self.assertIsInstance(error, CannotConnect)
        self.assertIsNone(failure.tb)
        self.assertIsNone(error.__traceback__)
        self.assertIs(error.__cause__, cause)
        self.assertIsNone(cause.__traceback__)
        self.assertIs(error.__context__, cause)

    def test_mistake(self) -> None:
        """Any other exception keeps its frames."""
        failure = self.failureResultOf(started(raises(ZeroDivisionError())), ZeroDivisionError)
        frames = traceback.extract_tb(failure.value.__traceback__)
        self.assertEqual(frames[-1].name, "raises")


class ResultOfTests(SynchronousTestCase):
    """The result of a Deferred that is awaited."""

    def test_copy(self) -> None:
        """An expected error is raised as a copy that has all of it but the frames."""
        error = FetchTimeout("body", 2.0)
        error.__cause__ = cause = OSError("why")
        raised = self.failureResultOf(started(result_of(fail(error)))).value
        self.assertIsNot(raised, error)
        self.assertIs(type(raised), FetchTimeout)
        self.assertEqual((raised.details(), raised.args), (error.details(), error.args))
        self.assertEqual((raised.transient, raised.__cause__), (True, cause))

    def test_mistake(self) -> None:
        """Any other exception is raised as it is."""
        error = ZeroDivisionError()
        self.assertIs(self.failureResultOf(started(result_of(fail(error)))).value, error)

    def test_cancelled(self) -> None:
        """Cancelling cancels what is awaited."""
        cancelled: list[Any] = []
        waiting: Deferred[None] = Deferred(cancelled.append)
        running = started(result_of(waiting))
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.assertEqual(cancelled, [waiting])

    def test_freed(self) -> None:
        """Nothing refers to an error that went through many coroutines and was dropped."""

        async def through(waiting: Deferred[None], depth: int) -> None:
            await result_of(waiting if depth == 0 else started(through(waiting, depth - 1)))

        with cyclic_garbage() as left:
            waiting: Deferred[None] = Deferred()
            seen: list[str] = []
            running = started(through(waiting, 5))
            running.addErrback(lambda failure: seen.append(str(failure.value)))
            waiting.errback(FetchTimeout("body", 2.0))
            del waiting, running
        self.assertEqual(len(seen), 1)
        self.assertEqual(left, set())
