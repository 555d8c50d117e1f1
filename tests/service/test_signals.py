"""No signal ends the process undrained, but a second one, and those that dump core."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.logfile import LogFile
from twisted.scripts._twistd_unix import UnixAppLogger

from tests.service.signals_case import Handlers
from twisted_net.service import signals
from twisted_net.service.config import Config, UdpSettings
from twisted_net.service.net import NetService
from twisted_net.service.signals import (
    ENDING,
    INTERVAL,
    STOPPING,
    ProcessSignals,
    StopSignals,
    end_by_signal,
    hold_signals,
)
from twisted_net.twisted_internals import signalled_log_file


class StopSignalsTests(Handlers):
    """:class:`StopSignals` handles the signals that stop the process."""

    def setUp(self) -> None:
        super().setUp()
        self.ended: list[int] = []
        StopSignals(self.reactor, self.ended.append).install()

    def test_first(self) -> None:
        """The first signal stops the reactor in its next turn, and does not end the process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number=number):
                self.setUp()
                signal.raise_signal(number)
                self.assertEqual(self.reactor.stops, 0)
                self.reactor.advance(0)
                self.assertEqual(self.reactor.stops, 1)
                self.assertEqual(self.ended, [])

    def test_second(self) -> None:
        """The second signal ends the process at once, whether SIGTERM or SIGINT."""
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        self.assertEqual(self.ended, [signal.SIGINT])

    def test_second_while_the_log_fails(self) -> None:
        """The second signal ends the process even if logging fails."""
        signal.raise_signal(signal.SIGTERM)

        def fail(event: LogEvent) -> None:
            raise RuntimeError("reentrant call")

        self.patch(signals.log, "observer", fail)
        self.assertRaises(RuntimeError, signal.raise_signal, signal.SIGTERM)
        self.assertEqual(self.ended, [signal.SIGTERM])

    def test_reactor_that_stops_already(self) -> None:
        """A first signal while the reactor stops for another reason does nothing."""
        self.reactor.stop()
        signal.raise_signal(signal.SIGTERM)
        self.reactor.advance(0)
        self.assertEqual(self.reactor.stops, 2)

    def test_handlers_of_others(self) -> None:
        """Handlers other than the reactor's, such as a debugger's, are kept."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        StopSignals(self.reactor, self.ended.append).install()
        self.assertIs(signal.getsignal(signal.SIGINT), signal.default_int_handler)


class EndBySignalTests(Handlers):
    """:func:`end_by_signal` does not return."""

    def test_signal_then_exit(self) -> None:
        """The signal has its default effect; if the kernel ignores it, the process exits."""
        done: list[object] = []
        self.patch(os, "kill", lambda pid, number: done.append((pid, number)))
        self.patch(os, "_exit", done.append)
        end: Callable[[int], object] = end_by_signal  # which returns here, as nothing ends
        end(signal.SIGTERM)
        self.assertEqual(done, [(os.getpid(), signal.SIGTERM), 143])
        self.assertEqual(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)


class ProcessSignalsTests(Handlers):
    """:class:`ProcessSignals` handles the signals that would end the process otherwise."""

    def setUp(self) -> None:
        super().setUp()
        self.terminal = False
        self.patch(signals, "_has_terminal", lambda: self.terminal)
        self.lines: list[str] = []
        observe: Any = self.hear  # Any: an observer is any callable
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        for number in ENDING:
            signal.signal(number, signal.SIG_DFL)

    def hear(self, event: LogEvent) -> None:
        """Keep the lines of the log."""
        form = event["log_format"]
        assert form is not None
        self.lines.append(form.format(**event))

    def install(self) -> ProcessSignals:
        """Install the handlers."""
        handlers = ProcessSignals(self.reactor)
        handlers.install()
        return handlers

    def receive(self, number: int, times: int = 1) -> list[str]:
        """Receive a signal some times, long after all others, and return what is logged."""
        self.reactor.advance(INTERVAL)
        self.lines.clear()
        for _ in range(times):
            signal.raise_signal(number)
        self.reactor.advance(0)
        return self.lines

    def test_each(self) -> None:
        """Each of them is logged; those of the system stop the reactor, the others do not."""
        self.install()
        for number in sorted(ENDING):
            with self.subTest(number=number):
                self.reactor.stops = 0
                lines = self.receive(number)
                self.assertEqual(len(lines), 1)
                self.assertTrue(lines[0].startswith(("SIG", "signal ")), lines)
                self.assertEqual(self.reactor.stops, number in STOPPING)

    def test_all_that_end_a_process(self) -> None:
        """What ends a process by default is handled, but for faults and what cannot be."""
        self.install()
        kept = {
            *(signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT),
            # They dump core.
            *(signal.SIGQUIT, signal.SIGABRT, signal.SIGILL, signal.SIGTRAP, signal.SIGBUS),
            *(signal.SIGFPE, signal.SIGSEGV, signal.SIGSYS),
            # They end nothing by default.
            *(signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT),
            *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
            # Python ignores them.
            *(signal.SIGPIPE, signal.SIGXFSZ),
        }
        for number in signal.valid_signals() - kept:
            self.assertTrue(callable(signal.getsignal(number)), number)

    def test_many(self) -> None:
        """Ten thousand signals cost two lines, the second of which has their number."""
        self.install()
        self.receive(signal.SIGUSR2)
        for _ in range(9999):
            signal.raise_signal(signal.SIGUSR2)
            self.reactor.advance(0)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.reactor.advance(INTERVAL)
        self.assertEqual(self.lines, ["SIGUSR2: ignored", "SIGUSR2, 9999 times: ignored"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_terminal(self) -> None:
        """SIGHUP stops a process whose terminal has been closed, once."""
        self.terminal = True
        self.install()
        self.assertIn("restart", self.receive(signal.SIGHUP)[0])
        self.assertEqual(self.reactor.stops, 0)
        self.terminal = False
        self.assertIn("terminal is closed", self.receive(signal.SIGHUP)[0])
        self.assertEqual(self.reactor.stops, 1)
        self.receive(signal.SIGHUP)  # it is stopping already

    def test_no_terminal(self) -> None:
        """A process that never had a terminal goes on."""
        self.install()
        self.assertIn("ignored", self.receive(signal.SIGHUP)[0])
        self.assertEqual(self.reactor.stops, 0)

    def test_nohup(self) -> None:
        """A signal that is ignored at the start, and a handler of others, are left alone."""
        mine = self.lines.append
        other: Any = lambda number, frame: mine("other")  # noqa: E731  # Any: a handler
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, other)
        self.install()
        self.assertEqual(self.receive(signal.SIGHUP), [])
        self.assertEqual(self.receive(signal.SIGUSR1), ["other"])

    def test_during_the_start(self) -> None:
        """Signals that come during the start are handled when the reactor runs."""
        hold_signals()
        for _ in range(10):
            for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
                # Not os.kill: another thread, which does not hold it, would take it.
                signal.raise_signal(number)
        self.install()
        self.assertEqual(self.lines, [])
        self.reactor.advance(0)
        self.assertEqual(len(self.lines), 3)

    # --- SIGUSR1 ---

    def log_to_file(self) -> LogFile:
        """Log as ``twistd --logfile`` does, which handles SIGUSR1."""
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.path = Path(holder.name, "net.log")
        UnixAppLogger({"logfile": str(self.path)})._getLogObserver()
        file = signalled_log_file(signal.getsignal(signal.SIGUSR1))
        assert file is not None
        self.addCleanup(file.close)
        file.write("one\n")
        return file

    def beside(self) -> dict[str, str]:
        """Return the content of each file in the folder of the log."""
        return {file.name: file.read_text() for file in self.path.parent.iterdir()}

    def test_rotates(self) -> None:
        """The file of the log is rotated, as Twisted does."""
        file = self.log_to_file()
        self.install()
        self.assertIn("rotated", self.receive(signal.SIGUSR1, 3)[0])
        file.write("two\n")
        self.assertEqual(self.beside(), {"net.log": "two\n", "net.log.1": "one\n"})

    def test_moved(self) -> None:
        """A file that was moved away, as logrotate does, is opened anew and not rotated."""
        for create in (False, True):
            with self.subTest(create=create):
                signal.signal(signal.SIGUSR1, signal.SIG_DFL)
                file = self.log_to_file()
                self.install()
                self.path.rename(self.path.with_suffix(".old"))
                if create:
                    self.path.touch()
                self.assertIn("opened again", self.receive(signal.SIGUSR1)[0])
                file.write("two\n")
                self.assertEqual(self.beside(), {"net.log": "two\n", "net.old": "one\n"})

    def test_not_writable(self) -> None:
        """Where no file can be opened the old one is kept, until one can be."""
        cases: list[tuple[Callable[[], object], Callable[[], object], str]] = [
            (lambda: self.path.mkdir(), lambda: self.path.rmdir(), "Is a directory"),
            (lambda: os.mkfifo(self.path), lambda: self.path.unlink(), "Illegal seek"),
            (
                lambda: self.path.symlink_to("none/x"),
                lambda: self.path.unlink(),
                "No such file or directory",
            ),
        ]
        for block, free, reason in cases:
            with self.subTest(reason=reason):
                signal.signal(signal.SIGUSR1, signal.SIG_DFL)
                file = self.log_to_file()
                self.install()
                self.path.rename(self.path.with_suffix(".old"))
                block()
                for _ in range(2):
                    line = self.receive(signal.SIGUSR1)[0]
                    self.assertIn(f"{self.path} cannot be written: {reason}", line)
                    file.write("two\n")
                free()
                self.assertIn("opened again", self.receive(signal.SIGUSR1)[0])
                file.write("three\n")
                self.assertEqual(
                    self.beside(), {"net.log": "three\n", "net.old": "one\ntwo\ntwo\n"}
                )

    def test_not_rotated(self) -> None:
        """Where a rotation fails, at each of its steps, the file stays in use."""
        failing: list[tuple[object, str]] = [(os, "rename"), (LogFile, "_openFile")]
        for owner, name in failing:
            with self.subTest(name=name):
                signal.signal(signal.SIGUSR1, signal.SIG_DFL)
                file = self.log_to_file()
                self.install()

                def fail(*arguments: object) -> NoReturn:
                    raise OSError(errno.ENOSPC, "No space left on device")

                patch = self.patch(owner, name, fail)
                line = self.receive(signal.SIGUSR1)[0]
                self.assertIn("cannot be written: No space left on device", line)
                patch.restore()
                file.write("two\n")
                self.assertIn("one\ntwo\n", self.beside().values())
                self.receive(signal.SIGUSR1)
                file.write("three\n")
                self.assertEqual(self.beside()["net.log"], "three\n")

    def test_not_permitted(self) -> None:
        """A rotation that the folder does not permit is not said to have been made."""
        self.log_to_file()
        self.install()
        self.patch(os, "access", lambda path, mode: False)
        self.assertIn("cannot be written: Permission denied", self.receive(signal.SIGUSR1)[0])

    def test_ended_by_a_rotation_of_its_own(self) -> None:
        """A file that was closed, and not opened, by a rotation for its size is opened again."""
        file = self.log_to_file()
        self.install()
        file._file.close()
        self.assertIn("opened again", self.receive(signal.SIGUSR1)[0])
        file.write("two\n")
        self.assertEqual(self.beside(), {"net.log": "one\ntwo\n"})

    def test_no_file(self) -> None:
        """Without a log file of twistd's nothing happens."""
        self.install()
        self.assertIn("ignored", self.receive(signal.SIGUSR1)[0])


class EmbeddedTests(Handlers):
    """A service in the process of others leaves their signals alone."""

    def test_nothing_installed(self) -> None:
        """Neither its start nor its stop changes a handler, or what is held."""

        def state() -> list[object]:
            held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            return [held, *map(signal.getsignal, sorted(signal.valid_signals()))]

        before = state()
        service = NetService(self.reactor, Config(udp=UdpSettings(enabled=False)))
        service.privilegedStartService()
        service.startService()
        for hook, arguments, options in self.reactor.whenRunningHooks:
            hook(*arguments, **options)
        self.assertEqual(state(), before)
        self.successResultOf(service.stopService())
        self.assertEqual(state(), before)


class TerminalTests(Handlers):
    """Whether the process has a terminal."""

    def test_closed(self) -> None:
        """A terminal that cannot be opened is none."""

        def fail(*arguments: Any) -> int:  # Any: those of os.open
            raise OSError

        self.patch(os, "open", fail)
        self.assertFalse(signals._has_terminal())

    def test_open(self) -> None:
        """One that can be is closed again."""
        opened: list[int] = []
        real = os.open

        def open_another(path: str, flags: int) -> int:
            opened.append(real(os.devnull, flags))
            return opened[0]

        self.patch(os, "open", open_another)
        self.assertTrue(signals._has_terminal())
        self.assertRaises(OSError, os.fstat, opened[0])
