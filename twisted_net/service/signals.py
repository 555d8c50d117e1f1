"""Signals: what the process does at each one that would end it; nothing ends it undrained."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.logfile import LogFile

from twisted_net.net.reactor import ProcessReactor
from twisted_net.twisted_internals import (
    log_file_moved,
    reopen_log_file,
    rotate_log_file,
    signalled_log_file,
)

INTERVAL = 1.0
"""
Seconds between two rounds in which signals are handled and logged.

Each round counts those of a kind that came meanwhile, so that ten thousand cost two lines.
"""

_STOP_NAMES = ("SIGXCPU", "SIGPWR")
_IGNORED_NAMES = ("SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGSTKFLT")

log = Logger()


def _numbers(*names: str) -> frozenset[int]:
    """Return the numbers of signals, of those that this system has."""
    found = (getattr(signal, name, None) for name in names)
    return frozenset(int(number) for number in found if number is not None)


STOPPING = _numbers(*_STOP_NAMES)
"""Signals of the system that the process will have to end soon: it drains, as at SIGTERM."""

ENDING = _numbers("SIGHUP", "SIGUSR1", *_STOP_NAMES, *_IGNORED_NAMES) | frozenset(
    range(signal.SIGRTMIN, signal.SIGRTMAX + 1)
)
"""
Signals that end a process by default, and that others may send to this one.

Not SIGTERM and SIGINT, for which there is :class:`StopSignals`; not those that dump core, by which
a process that hangs is ended, or which Python or the kernel raises for a fault.
"""


def hold_signals() -> None:
    """
    Let :data:`ENDING` wait until :meth:`ProcessSignals.install`; those of one kind become one.

    During the start a signal would end the process otherwise, as no handler can be there before
    Twisted has installed its own for log files.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)


class ProcessSignals:
    """
    Handlers for the signals of :data:`ENDING`, which would end the process without a drain.

    - SIGHUP: the process drains if its terminal has been closed. Else nothing happens, as there is
      no configuration that could be read again.
    - SIGUSR1: the log file of ``twistd --logfile`` is opened again if it was moved away, as
      logrotate does; else it is rotated, as Twisted does.
    - Those of :data:`STOPPING`: the process drains.
    - Others: nothing happens.

    Each is logged. A signal that is ignored when the process starts (``nohup``), or for which there
    is a handler, such as that of a debugger, is left alone.
    """

    def __init__(self, reactor: ProcessReactor) -> None:
        self._reactor = reactor
        self._had_terminal = False
        self._log_file: LogFile | None = None
        self._counts: dict[int, int] = {}
        self._due = False
        self._next = 0.0

    def install(self) -> None:
        """Install the handlers, and take the signals that have waited since the start."""
        self._had_terminal = _has_terminal()
        self._log_file = signalled_log_file(signal.getsignal(signal.SIGUSR1))
        self._next = self._reactor.seconds()
        for number in sorted(ENDING):
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, self._received)
        if self._log_file is not None:
            # Twisted's handler rotates a file that is not there any more, which does nothing.
            signal.signal(signal.SIGUSR1, self._received)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)

    def _received(self, number: int, frame: FrameType | None) -> None:
        # Nothing is logged here: the signal may have interrupted a line of the log.
        self._counts[number] = self._counts.get(number, 0) + 1
        if not self._due:
            self._due = True
            self._reactor.callFromThread(self._handle)

    def _handle(self) -> None:
        """Handle all signals that have come, unless the last round is not long past."""
        now = self._reactor.seconds()
        if now < self._next:
            self._reactor.callLater(self._next - now, self._handle)
            return
        self._next = now + INTERVAL
        # In this order: a signal that comes between the two is handled in the next round.
        self._due = False
        counts, self._counts = self._counts, {}
        for number, count in sorted(counts.items()):
            name = _name(number) if count == 1 else f"{_name(number)}, {count} times"
            if number == signal.SIGHUP:
                self._hang_up(name)
            elif number == signal.SIGUSR1:
                self._reopen_log(name)
            elif number in STOPPING:
                log.warn("{signal}: stopping", signal=name)
                _stop(self._reactor)
            else:
                log.info("{signal}: ignored", signal=name)

    def _hang_up(self, name: str) -> None:
        if self._had_terminal and not _has_terminal():
            log.info("{signal}: the terminal is closed: stopping", signal=name)
            _stop(self._reactor)
        else:
            log.warn("{signal}: ignored; to read the configuration again, restart", signal=name)

    def _reopen_log(self, name: str) -> None:
        file = self._log_file
        if file is None:
            log.info("{signal}: ignored; the log is not a file of twistd --logfile", signal=name)
            return
        moved = log_file_moved(file)
        try:
            (reopen_log_file if moved else rotate_log_file)(file)
        except OSError as error:
            log.error(
                "{signal}: {path} cannot be written: {reason}; the log goes on in the file before",
                signal=name,
                path=file.path,
                reason=error.strerror,
            )
        else:
            done = "opened again" if moved else "rotated"
            log.info("{signal}: the log file was {done}", signal=name, done=done)


class StopSignals:
    """
    Signal handlers: the first SIGTERM or SIGINT stops the reactor, the second ends the process.

    Twisted's own handlers log a traceback for the second signal and keep waiting, and at last end
    the process by the first one. Here a process that a signal has stopped exits with status 0.

    :param end: called with the number of the second signal; it does not return.
    """

    def __init__(self, reactor: ProcessReactor, end: Callable[[int], object]) -> None:
        self._reactor = reactor
        self._end = end
        self._stopping = False

    def install(self) -> None:
        """Replace the handlers of the running reactor; those of others, such as debuggers, stay."""
        for number, handler in (
            (signal.SIGTERM, self._reactor.sigTerm),
            (signal.SIGINT, self._reactor.sigInt),
        ):
            if signal.getsignal(number) == handler:
                signal.signal(number, self._received)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if not self._stopping:
            self._stopping = True
            log.info(
                "{signal}: stopping; a second signal ends the process at once",
                signal=_name(number),
            )
            self._reactor.callFromThread(_stop, self._reactor)
            return
        try:
            log.warn("second signal {signal}: ending at once", signal=_name(number))
        finally:
            # Even if logging fails: the signal may have interrupted it.
            self._end(number)


def end_by_signal(number: int) -> NoReturn:
    """End the process at once, as the signal does by default."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # process 1 of a container ignores the default action of signals


def _stop(reactor: ProcessReactor) -> None:
    try:
        reactor.stop()
    except ReactorNotRunning:
        log.debug("the reactor is stopping already")


def _name(number: int) -> str:
    """Return the name of a signal; most real-time signals have a number alone."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _has_terminal() -> bool:
    """Return whether the process has a controlling terminal that is not closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True
