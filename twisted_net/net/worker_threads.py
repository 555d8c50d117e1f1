"""Worker threads: a pool of threads for one kind of work, beside the reactor's own pool."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore, IReactorFromThreads, IReactorTime
from twisted.python.failure import Failure

from twisted_net.errors import OutOfThreads
from twisted_net.net.log_limiter import limited_logger

_T = TypeVar("_T")


class Threads(Protocol):
    """Threads that call functions: :class:`WorkerThreads`, or what a test has in their place."""

    @property
    def limit(self) -> int:
        """How many there may be."""
        ...

    @property
    def busy(self) -> int:
        """How many call a function now."""
        ...

    def call(self, function: Callable[[], _T], /) -> Deferred[_T]:
        """
        Call *function* in a thread; :attr:`busy` must be below :attr:`limit`.

        :return: fires with its value or exception. Cancelled, it fires at once; the thread is busy
            all the same until the function returns.
        """
        ...

    def start(self) -> None:
        """Keep threads that become idle, as is the case before the first :meth:`stop`."""
        ...

    def stop(self) -> None:
        """End the threads that are idle; those that are busy end when their function returns."""
        ...


_Job = tuple[Callable[[], object], Callable[[object], None]]
"""A function, and what is called in the reactor's thread with its value or its Failure."""


class WorkerThreads:
    """
    A pool of threads for one kind of work.

    The reactor has one pool for all: what fills it, such as look-ups at a name server that does not
    answer, keeps everybody else's functions waiting. This one has no queue: who has more to do than
    there are threads decides what is next.

    A thread is started when it is needed, and stays until :meth:`stop`, or until nobody refers to
    the pool any more. Threads do not keep the process alive.

    :param reactor: must provide ``IReactorFromThreads`` once a function is called.
    :param name: of the threads, as debuggers show it.
    :param limit: how many there may be.
    :param prepare: called first in each thread.
    :param awaited: whether a shutdown of the reactor waits until no thread is busy, as it does for
        its own pool.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        name: str,
        limit: int,
        *,
        prepare: Callable[[], None] | None = None,
        awaited: bool = True,
    ) -> None:
        self.limit = limit
        self.busy = 0
        self._reactor = reactor
        self._name = name
        self._prepare = prepare
        self._awaited = awaited
        self._log = limited_logger(self)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = 0
        self._stopped = False
        self._started: list[Thread] = []
        self._trigger: object = None  # at the shutdown of the reactor, while a thread is busy

    def __del__(self) -> None:
        for _ in range(self._threads):
            self._jobs.put(None)

    def call(self, function: Callable[[], _T], /) -> Deferred[_T]:
        """
        Call a function in a thread, see :meth:`Threads.call`.

        :return: fails with OutOfThreads if the system has no thread to give.
        """
        assert self.busy < self.limit
        # Any: it gets a value or a Failure.
        result: Deferred[Any] = Deferred(lambda _: None)
        if self._threads <= self.busy:
            try:
                self._start_thread()
            except RuntimeError as error:
                # Those that there are will do, if there is one.
                if not self._threads:
                    self._log.error("no thread for {name}: {error}", name=self._name, error=error)
                    result.errback(OutOfThreads())
                    return result
        self.busy += 1
        if self._awaited and self._trigger is None and IReactorCore.providedBy(self._reactor):
            reactor = cast(IReactorCore, self._reactor)
            self._trigger = reactor.addSystemEventTrigger("during", "shutdown", self._shut_down)
        self._jobs.put((function, partial(self._done, result)))
        return result

    def start(self) -> None:
        """Keep idle threads again, after :meth:`stop`; idempotent."""
        self._stopped = False

    def stop(self) -> None:
        """
        End the threads that are idle; idempotent.

        Those that are busy end when their function returns, as do those of later calls.
        """
        self._stopped = True
        self._end_idle()

    def _start_thread(self) -> None:
        # Between two jobs a thread refers to the queue alone, and not to the pool.
        wanted = (self._jobs, cast(IReactorFromThreads, self._reactor), self._prepare)
        name = f"{self._name} {self._threads + 1}"
        thread = Thread(target=_work, args=wanted, name=name, daemon=True)
        thread.start()
        self._threads += 1
        self._started = [one for one in self._started if one.is_alive()]
        self._started.append(thread)

    def _end_idle(self) -> None:
        while self._threads > self.busy:
            self._threads -= 1
            self._jobs.put(None)

    def _done(self, result: Deferred[Any], value: object) -> None:  # Any: as above
        self.busy -= 1
        if self._stopped:
            self._end_idle()
        if not self.busy and self._trigger is not None:
            trigger, self._trigger = self._trigger, None
            cast(IReactorCore, self._reactor).removeSystemEventTrigger(trigger)
        if not result.called:
            result.callback(value)  # a Failure calls the errbacks

    def _shut_down(self) -> None:
        self._trigger = None
        # A token for each: the busy ones find theirs when their function returns.
        for _ in range(self._threads):
            self._jobs.put(None)
        self._threads = 0
        for thread in self._started:
            thread.join()


def _work(
    jobs: SimpleQueue[_Job | None],
    reactor: IReactorFromThreads,
    prepare: Callable[[], None] | None,
) -> None:
    """Call functions until there is none; the body of a thread."""
    if prepare is not None:
        prepare()
    while (job := jobs.get()) is not None:
        function, done = job
        value: object
        try:
            value = function()
        except BaseException:  # whatever it is, the caller gets it
            value = Failure()
        # A reactor that has ended takes no calls: its pipe is closed.
        with suppress(OSError, RuntimeError):
            reactor.callFromThread(done, value)
        del job, function, done, value
