"""Threads of one kind of work are started when needed, bounded, and end."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import deque
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.patience import PATIENCE, wait_until
from tests.threads import ThreadReactor
from twisted_net.net import worker_threads
from twisted_net.net.worker_threads import WorkerThreads

NAME = "worker of a test"


def alive() -> list[str]:
    """Return the names of the threads that there are."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith(NAME))


class WorkerThreadsTests(SynchronousTestCase):
    """:class:`WorkerThreads` with real threads and a reactor in memory."""

    def setUp(self) -> None:
        self.reactor: Any = ThreadReactor()  # Any: it is a few interfaces at once
        self.gates: deque[threading.Event] = deque()
        self.pools: list[WorkerThreads] = []
        self.addCleanup(self.end)
        self.threads = self.make()

    def make(self, **options: Any) -> WorkerThreads:  # Any: as the constructor's
        """Make threads that end with the test."""
        self.pools.append(WorkerThreads(self.reactor, NAME, 2, **options))
        return self.pools[-1]

    def end(self) -> None:
        """Leave no thread."""
        self.open()
        for threads in self.pools:
            while threads.busy:
                self.reactor.run_one()
            threads.stop()
        wait_until(lambda: not alive())

    def open(self) -> None:
        """Let all blocked functions return."""
        for gate in self.gates:
            gate.set()

    def block(self, threads: WorkerThreads | None = None) -> Deferred[str]:
        """Call a function that blocks until the first gate that is left is set."""
        gate = threading.Event()
        self.gates.append(gate)

        def wait() -> str:
            assert gate.wait(PATIENCE)
            return threading.current_thread().name

        return (threads or self.threads).call(wait)

    def test_lazy(self) -> None:
        """Without a call there is no thread."""
        self.assertEqual((self.threads.busy, alive()), (0, []))

    def test_value(self) -> None:
        """The value of a function comes in the reactor's thread, and the thread stays."""
        result = self.threads.call(lambda: threading.current_thread().name)
        self.assertEqual(self.threads.busy, 1)
        self.reactor.run_one()
        self.assertEqual(self.successResultOf(result), f"{NAME} 1")
        self.assertEqual((self.threads.busy, alive()), (0, [f"{NAME} 1"]))
        again = self.threads.call(lambda: threading.current_thread().name)
        self.reactor.run_one()
        self.assertEqual(self.successResultOf(again), f"{NAME} 1")

    def test_exceptions(self) -> None:
        """An exception comes as a failure, whatever it is, and the thread goes on."""

        error: BaseException

        def fail() -> None:
            raise error

        for error in (ZeroDivisionError(), SystemExit(), KeyboardInterrupt()):
            result = self.threads.call(fail)
            self.reactor.run_one()
            self.assertIs(self.failureResultOf(result).value, error)
        self.assertEqual(alive(), [f"{NAME} 1"])

    def test_side_by_side(self) -> None:
        """A second call has a thread of its own while the first is busy."""
        first, second = self.block(), self.block()
        self.assertEqual((self.threads.busy, len(alive())), (2, 2))
        self.gates[1].set()
        self.reactor.run_one()
        self.assertIn(self.successResultOf(second), alive())
        self.assertNoResult(first)

    def test_cancelled(self) -> None:
        """A cancelled call fires at once, and its thread is busy until the function returns."""
        result = self.block()
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(self.threads.busy, 1)
        self.open()
        self.reactor.run_one()
        self.assertEqual(self.threads.busy, 0)

    def test_stop(self) -> None:
        """Idle threads end at once, a busy one after its function; later calls still work."""
        results = [self.block(), self.block()]
        self.gates[0].set()
        self.reactor.run_one()
        self.threads.stop()
        wait_until(lambda: len(alive()) == 1)
        self.open()
        self.reactor.run_one()
        wait_until(lambda: not alive())
        later = self.threads.call(lambda: 1)
        self.reactor.run_one()
        for result in results:
            self.successResultOf(result)
        self.successResultOf(later)
        wait_until(lambda: not alive())
        self.threads.start()
        self.threads.call(lambda: 1)
        self.reactor.run_one()
        self.assertEqual(len(alive()), 1)

    def test_shutdown(self) -> None:
        """A shutdown of the reactor waits for busy threads, and ends the idle ones."""
        results = [self.block(), self.block()]
        self.gates[0].set()
        self.reactor.run_one()
        opening = threading.Timer(0.05, self.open)
        opening.start()
        self.reactor.shut_down()
        self.assertEqual(alive(), [])
        opening.join()
        self.reactor.run_one()
        for result in results:
            self.successResultOf(result)

    def test_not_awaited(self) -> None:
        """It waits neither for idle ones nor for those that are not to be awaited."""
        self.threads.call(lambda: 1)
        self.reactor.run_one()
        self.assertEqual(self.reactor.at_shutdown, [])
        self.block(self.make(awaited=False))
        self.assertEqual(self.reactor.at_shutdown, [])

    def test_prepared(self) -> None:
        """Each thread is prepared once, in itself."""
        prepared: list[str] = []
        threads = self.make(prepare=lambda: prepared.append(threading.current_thread().name))
        for _ in range(2):
            threads.call(lambda: 1)
            self.reactor.run_one()
        self.assertEqual(prepared, [f"{NAME} 1"])

    def test_abandoned(self) -> None:
        """Threads to which nobody refers any more end."""
        threads = WorkerThreads(self.reactor, NAME, 2)
        threads.call(lambda: 1)
        self.reactor.run_one()
        gone = weakref.ref(threads)
        del threads
        gc.collect()
        self.assertIsNone(gone())
        wait_until(lambda: not alive())

    def test_no_more_threads(self) -> None:
        """Where the system has no thread to give, a call fails, or waits for one that there is."""

        class NoThread(threading.Thread):
            def start(self) -> None:
                """Fail as CPython does."""
                raise RuntimeError("can't start new thread")

        with self.subTest("none"):
            self.patch(worker_threads, "Thread", NoThread)
            self.failureResultOf(self.threads.call(lambda: 1), RuntimeError)
            self.assertEqual(self.threads.busy, 0)
        with self.subTest("one"):
            self.patch(worker_threads, "Thread", threading.Thread)
            first = self.block()
            self.patch(worker_threads, "Thread", NoThread)
            second = self.threads.call(lambda: 2)
            self.open()
            self.reactor.run_one()
            self.reactor.run_one()
            self.successResultOf(first)
            self.assertEqual(self.successResultOf(second), 2)

    def test_ended_reactor(self) -> None:
        """A reactor that has ended meanwhile takes no result, and nothing is printed."""
        printed: list[object] = []
        self.patch(threading, "excepthook", printed.append)
        for kind in (OSError, RuntimeError):
            tried = threading.Event()

            def refuse(*_: object, kind: type[Exception] = kind, tried: Any = tried) -> None:
                tried.set()
                raise kind("the reactor has ended")

            self.reactor.callFromThread = refuse
            threads = WorkerThreads(self.reactor, NAME, 1, awaited=False)
            threads.call(lambda: 1)
            self.assertTrue(tried.wait(PATIENCE))
            del threads
        wait_until(lambda: not alive())
        self.assertEqual(printed, [])
