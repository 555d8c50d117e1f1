"""Checking and printing a configuration, choosing a reactor. tests/live runs services."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import tempfile
from pathlib import Path
from unittest import mock

import twisted.internet
from twisted.application import reactors
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.issuing import Authority, write_pair
from twisted_net import quiet_reactor as quiet
from twisted_net import tap, twisted_internals
from twisted_net.__main__ import main
from twisted_net.cli import serve
from twisted_net.errors import CannotStart
from twisted_net.service.config import load_config


class ServeTests(SynchronousTestCase):
    """:func:`check_config`, :func:`print_config` and the options of :func:`run`."""

    def setUp(self) -> None:
        self.printed = io.StringIO()
        self.patch(sys, "stdout", self.printed)
        self.patch(os, "environ", {})
        self.patch(sys, "path", [*sys.path])
        held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.addCleanup(signal.pthread_sigmask, signal.SIG_SETMASK, held)

    def test_check_config(self) -> None:
        """A configuration without mistakes is valid, and the file is named if there is one."""
        main(["check-config"])
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        path = Path(holder.name) / "net.toml"
        path.write_text("threads = 1\n")
        main(["check-config", "-c", str(path)])
        self.assertEqual(self.printed.getvalue(), f"the configuration is valid\n{path} is valid\n")

    def test_check_config_finds_mistakes(self) -> None:
        """Mistakes in settings, or then in command modules, are reported."""
        error = self.assertRaises(CannotStart, main, ["check-config", "--threads=0"])
        self.assertIn("threads is", str(error.code))
        error = self.assertRaises(CannotStart, main, ["check-config", "--commands=x"])
        self.assertIn("module:name", str(error.code))
        self.assertEqual(self.printed.getvalue(), "")

    def test_print_config(self) -> None:
        """It prints the configuration, with the origin of each value."""
        main(["print-config", "--threads=7"])
        text = self.printed.getvalue()
        self.assertIn("threads = 7  # --threads", text)
        self.assertEqual(load_config(("printed", text), {}, {}).record.threads, 7)

    def test_check_config_reads_users(self) -> None:
        """An invalid users file is a mistake of the configuration."""
        error = self.assertRaises(CannotStart, main, ["check-config", "--auth-users=/nowhere"])
        self.assertIn("auth.users: /nowhere: No such file", str(error.code))
        error = self.assertRaises(CannotStart, main, ["check-config", "--auth=nonsense:x"])
        self.assertIn("there is no checker nonsense", str(error.code))

    def test_check_config_reads_certificates(self) -> None:
        """Invalid certificates are mistakes, each with its section."""
        words = [
            *("--udp-dtls-certificate=/a.pem", "--coap-dtls-folder=/nowhere"),
            "--coap-dtls-psk=/keys.toml",
            "--http-tls-ca=/c.pem",
            '--listeners=[{"port": 1, "tls": {"certificate": "/b.pem"}}]',
        ]
        error = self.assertRaises(CannotStart, main, ["check-config", *words])
        self.assertEqual(
            str(error.code).splitlines(),
            [
                "coap.dtls: /keys.toml: No such file or directory",
                "listeners[0]: /b.pem: No such file or directory",
                "udp.dtls: /a.pem: No such file or directory",
                "coap.dtls: /nowhere: No such file or directory",
                "http.tls.ca: /c.pem: No such file or directory",
            ],
        )

    def test_check_config_needs_extras(self) -> None:
        """A listener whose package is not installed is a mistake."""
        words = ["check-config", '--listeners=[{"port": 1, "protocol": "websocket"}]']
        main(words)
        with mock.patch.dict(sys.modules, {"twisted_net.tcp.websocket": None}):
            error = self.assertRaises(CannotStart, main, words)
        self.assertIn("needs twisted_net[websocket]", str(error.code))

    def test_files_that_have_no_end(self) -> None:
        """A pipe that nobody writes to, and a device, are mistakes in place of each file."""
        self.patch(tap, "PIPE_PATIENCE", 0.01)
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        pipe = os.path.join(holder.name, "pipe")
        os.mkfifo(pipe)
        good = write_pair(Path(holder.name, "a.pem"), Authority().issue("a.test"))
        for file in (pipe, "/dev/zero"):
            for words in (
                [f"--config={file}"],
                [f"--auth-users={file}"],
                [f"--udp-dtls-certificate={file}"],
                [f"--udp-dtls-certificate={good}", f"--udp-dtls-key={file}"],
                [f"--coap-dtls-certificate={good}", f"--coap-dtls-client-ca={file}"],
                [f"--coap-dtls-certificate={good}", f"--coap-dtls-psk={file}"],
                [f"--http-tls-ca={file}"],
                [f'--listeners=[{{"port": 1, "tls": {{"certificate": "{file}"}}}}]'],
                [
                    f'--listeners=[{{"port": 1, "tls": {{"certificate": "{good}", '
                    f'"client_ca": "{file}"}}}}]'
                ],
            ):
                with self.subTest(words=words):
                    error = self.assertRaises(CannotStart, main, ["check-config", *words])
                    self.assertIn(f"{file}: it", str(error.code))
                    self.assertNotIn("\n", str(error.code))

    def test_no_support_for_keys(self) -> None:
        """Pre-shared keys are a mistake, as at the start, where OpenSSL is not as expected."""
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        good = write_pair(Path(holder.name, "a.pem"), Authority().issue("a.test"))
        keys = Path(holder.name, "keys.toml")
        keys.write_text(f'a = "{"00" * 16}"')
        words = ["check-config", f"--coap-dtls-certificate={good}", f"--coap-dtls-psk={keys}"]
        main(words)
        self.patch(twisted_internals, "_PSK", {"nobody": ""})
        error = self.assertRaises(CannotStart, main, words)
        self.assertIn("coap.dtls: psk: this version of pyOpenSSL has no", str(error.code))

    def test_large_files(self) -> None:
        """A file over its limit is one, too; one of that size is read."""
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        path = Path(holder.name, "net.toml")
        path.write_text("#".ljust(tap.MAX_CONFIG_SIZE))
        main(["check-config", f"--config={path}"])
        path.write_text("#".ljust(tap.MAX_CONFIG_SIZE + 1))
        error = self.assertRaises(CannotStart, main, ["check-config", f"--config={path}"])
        self.assertEqual(error.code, f"{path}: it has more than 1,048,576 bytes")

    def test_config_from_a_pipe(self) -> None:
        """The configuration may come from another program, as by ``<(command)`` of a shell."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        os.write(writer, b"threads = 7\n")
        os.close(writer)
        main(["print-config", f"--config=/dev/fd/{reader}"])
        self.assertIn("threads = 7  # /dev/fd/", self.printed.getvalue())

    def test_log_level_that_is_none(self) -> None:
        """An unknown log level is reported with the known ones."""
        error = self.assertRaises(CannotStart, main, ["--log-level=loud"])
        self.assertEqual(
            error.code, "--log-level: loud is not one of debug, info, warn, error, critical"
        )

    def test_reactor_that_is_none(self) -> None:
        """An unknown reactor is reported with the known ones."""
        error = self.assertRaises(CannotStart, main, ["--reactor=nuclear"])
        self.assertIn("--reactor: nuclear is not one of default, asyncio,", str(error.code))
        self.assertEqual(str(error.code).count("default"), 1)

    def test_reactor_that_cannot_be_used(self) -> None:
        """A reactor whose library is missing is reported with the reason."""

        def fail(name: str) -> None:
            raise ImportError("no module named gi")

        self.patch(reactors, "installReactor", fail)
        error = self.assertRaises(CannotStart, main, ["--reactor=gtk3"])
        self.assertEqual(error.code, "--reactor: gtk3 cannot be used: no module named gi")

    def test_reactor_that_fails(self) -> None:
        """So is one that raises anything else when it is installed."""
        for raised in (RuntimeError("no display"), SystemExit(0)):

            def fail(name: str, raised: BaseException = raised) -> None:
                raise raised

            self.patch(reactors, "installReactor", fail)
            error = self.assertRaises(CannotStart, main, ["--reactor=gtk3"])
            self.assertIn("--reactor: gtk3 cannot be used: ", str(error.code))
            self.assertIn(type(raised).__name__, str(error.code))

    def choose(self, installed: bool = False) -> list[str]:
        """Choose the default reactor, with or without one installed; return the new ones."""
        importlib.import_module("twisted.internet.reactor")  # or there is none to be patched
        chosen = object()
        self.patch(twisted.internet, "reactor", chosen)
        modules = dict(sys.modules)
        if not installed:
            del modules["twisted.internet.reactor"]
        self.patch(sys, "modules", modules)
        names: list[str] = []
        self.patch(quiet, "install", lambda: names.append("quiet"))
        self.patch(reactors, "installReactor", names.append)
        self.assertIs(serve._install_reactor("default"), chosen)
        return names

    def test_reactor_by_default(self) -> None:
        """The default is the quiet reactor, if epoll is available."""
        self.assertEqual(self.choose(), ["quiet"])

    def test_reactor_without_epoll(self) -> None:
        """Without epoll, the default is Twisted's default reactor."""
        self.patch(tap, "select", object())
        self.assertEqual(self.choose(), [])

    def test_reactor_that_is_there(self) -> None:
        """A reactor that is installed already is kept."""
        self.assertEqual(self.choose(installed=True), [])

    def test_fetch_is_not_called(self) -> None:
        """Checking a configuration declares FETCH and never runs it."""
        self.failureResultOf(
            Deferred.fromCoroutine(serve._no_fetch("http://x/")), NotImplementedError
        )
