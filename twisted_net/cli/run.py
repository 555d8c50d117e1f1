"""Runs a coroutine in the reactor until it is done, or cancelled by Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning

from twisted_net.net.reactor import DatagramReactor, ProcessReactor
from twisted_net.net.steady_clock import steady

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 plus the number of SIGINT, the convention of shells."""

UNREAD = 141
"""Exit status if nobody reads standard output any more: 128 plus the number of SIGPIPE."""

# Any: as Twisted types coroutines.
Main = Callable[[DatagramReactor], Coroutine[Deferred[Any], Any, object]]


def run_until_done(main: Main) -> NoReturn:
    """
    Run *main* in the reactor, then end the process.

    *main* is called when the reactor runs. Ctrl-C and SIGTERM then cancel it and wait until it has
    cleaned up. Twisted's own ``react`` calls it before the reactor handles signals, and abandons
    it on Ctrl-C. Ctrl-C before the reactor runs ends the process without a message.

    :param main: called with the reactor; may raise SystemExit with a status.
    :raises SystemExit: with 0; the status that *main* raised; 1 for any other exception, which is
        printed; :data:`INTERRUPTED` if *main* was cancelled; or :data:`UNREAD` if it raised
        BrokenPipeError.
    """
    # Not at the top: it installs a reactor, if there is none.
    from twisted.internet.task import react

    async def start(reactor: ProcessReactor) -> None:
        steady(reactor)
        runs: Deferred[None] = Deferred()
        reactor.callWhenRunning(runs.callback, None)
        await runs
        _stop_once(reactor)
        work = Deferred.fromCoroutine(main(reactor))
        ended: Deferred[None] = Deferred()

        def stop() -> Deferred[None] | None:
            if work.called:
                return None
            work.cancel()
            return ended

        reactor.addSystemEventTrigger("before", "shutdown", stop)
        try:
            await work
        except CancelledError:
            raise SystemExit(INTERRUPTED) from None
        except BrokenPipeError:
            raise SystemExit(UNREAD) from None
        finally:
            ended.callback(None)

    try:
        react(start)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _stop_once(reactor: ProcessReactor) -> None:
    """Ignore further signals, such as the second one of timeout(1), without a traceback."""

    def stop() -> None:
        with suppress(ReactorNotRunning):
            reactor.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        # An ignored SIGINT stays ignored: the shell protects what runs in the background.
        if signal.getsignal(number) in (reactor.sigInt, reactor.sigTerm):
            signal.signal(number, lambda *_: reactor.callFromThread(stop))
