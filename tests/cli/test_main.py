"""The console script checks and prints a configuration; how it runs one is tested live."""

from __future__ import annotations

import importlib
import io
import os
import sys
import tempfile
from pathlib import Path

import twisted.internet
from twisted.application import reactors
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_net import quiet_reactor as quiet
from twisted_net.__main__ import main
from twisted_net.auth.passwords import verify
from twisted_net.auth.users import hash_token
from twisted_net.cli import hashing, serve
from twisted_net.errors import CannotStart
from twisted_net.service.config import load_config


class MainTests(SynchronousTestCase):
    """:func:`main` does what its first word says."""

    def setUp(self) -> None:
        self.printed = io.StringIO()
        self.patch(sys, "stdout", self.printed)
        self.patch(os, "environ", {})
        self.patch(sys, "path", [*sys.path])

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
        """Mistakes in settings, and then in own commands, end it with status 1."""
        error = self.assertRaises(CannotStart, main, ["check-config", "--threads=0"])
        self.assertIn("threads is", str(error.code))
        error = self.assertRaises(CannotStart, main, ["check-config", "--commands=x"])
        self.assertIn("module:name", str(error.code))
        self.assertEqual(self.printed.getvalue(), "")

    def test_print_config(self) -> None:
        """What it prints is the configuration, with the origin of each value."""
        main(["print-config", "--threads=7"])
        text = self.printed.getvalue()
        self.assertIn("threads = 7  # --threads", text)
        self.assertEqual(load_config(("printed", text), {}, {}).record.threads, 7)

    def pipe(self, text: str, tty: bool = False) -> None:
        """Let the standard input be a pipe with this text, or a terminal."""
        stream = io.StringIO(text)
        stream.isatty = lambda: tty  # type: ignore[method-assign]  # as a terminal's
        self.patch(sys, "stdin", stream)

    def test_check_config_reads_users(self) -> None:
        """A users file that cannot be used is a mistake of the configuration."""
        error = self.assertRaises(CannotStart, main, ["check-config", "--auth-users=/nowhere"])
        self.assertIn("auth.users: /nowhere: No such file", str(error.code))
        error = self.assertRaises(CannotStart, main, ["check-config", "--auth=nonsense:x"])
        self.assertIn("there is no checker nonsense", str(error.code))

    def test_check_config_reads_certificates(self) -> None:
        """Certificates that cannot be used are mistakes, each with its place."""
        words = [
            *("--udp-dtls-certificate=/a.pem", "--coap-dtls-folder=/nowhere"),
            '--listeners=[{"port": 1, "tls": {"certificate": "/b.pem"}}]',
        ]
        error = self.assertRaises(CannotStart, main, ["check-config", *words])
        self.assertEqual(
            str(error.code).splitlines(),
            [
                "listeners[0]: /b.pem: No such file or directory",
                "udp.dtls: /a.pem: No such file or directory",
                "coap.dtls: /nowhere: No such file or directory",
            ],
        )

    def test_hash_password(self) -> None:
        """A password from a pipe or a terminal is hashed, with a salt of its own each time."""
        self.pipe("sesame\nmore\n")
        main(["hash-password"])
        self.pipe("", tty=True)
        self.patch(hashing, "getpass", lambda prompt: "sesame")
        main(["hash-password"])
        first, second = self.printed.getvalue().splitlines()
        self.assertNotEqual(first, second)
        self.assertTrue(verify(first, "sesame"))
        self.assertTrue(verify(second, "sesame"))

    def test_hash_password_argon2(self) -> None:
        """``--argon2`` takes argon2id, where it is installed."""
        self.pipe("sesame\n")
        main(["hash-password", "--argon2"])
        self.assertTrue(self.printed.getvalue().startswith("$argon2id$"))

        def missing(*arguments: object) -> str:
            raise ImportError("no argon2")

        self.patch(hashing, "hash_password", missing)
        error = self.assertRaises(CannotStart, main, ["hash-password", "--argon2"])
        self.assertEqual(error.code, 'argon2 requires an extra: pip install "twisted_net[auth]"')

    def test_hash_password_refused(self) -> None:
        """Two different passwords, an empty one, and one among the arguments are refused."""
        self.pipe("", tty=True)
        answers = iter(["one", "two"])
        self.patch(hashing, "getpass", lambda prompt: next(answers))
        error = self.assertRaises(CannotStart, main, ["hash-password"])
        self.assertEqual(error.code, "the two passwords differ")
        self.pipe("\n")
        self.assertRaises(CannotStart, main, ["hash-password"])
        error = self.assertRaises(CannotStart, main, ["hash-password", "sesame"])
        self.assertNotIn("sesame", str(error.code))

    def test_hash_token(self) -> None:
        """A token is made and shown with its hash, or hashed where it comes from a pipe."""
        self.pipe("", tty=True)
        main(["hash-token"])
        token, digest = (line.split()[1] for line in self.printed.getvalue().splitlines())
        self.assertTrue(len(token) >= 43)
        self.assertEqual(digest, hash_token(token))
        self.printed.truncate(0)
        self.printed.seek(0)
        self.pipe("letmein\n")
        main(["hash-token"])
        self.assertEqual(self.printed.getvalue(), hash_token("letmein") + "\n")
        self.assertRaises(CannotStart, main, ["hash-token"])
        self.assertRaises(CannotStart, main, ["hash-token", "letmein"])

    def test_arguments_of_the_process(self) -> None:
        """Without arguments it takes those of the process."""
        self.patch(sys, "argv", ["twisted-net", "check-config"])
        main()
        self.assertEqual(self.printed.getvalue(), "the configuration is valid\n")

    def test_help(self) -> None:
        """``--help`` names the commands, and is no mistake."""
        error = self.assertRaises(SystemExit, main, ["--help"])
        self.assertEqual(error.code, 0)
        words = self.printed.getvalue().split("[", 1)[1].split("]")[0].split(" | ")
        known = {"run", "check-config", "print-config", "hash-password", "hash-token"}
        self.assertEqual(known - set(words), set())

    def test_unknown_command(self) -> None:
        """A first word that is no command is a mistake."""
        error = self.assertRaises(CannotStart, main, ["chek-config"])
        self.assertIn("chek-config", str(error.code))

    def test_log_level_that_is_none(self) -> None:
        """A log level that there is not is told with those that there are."""
        error = self.assertRaises(CannotStart, main, ["--log-level=loud"])
        self.assertEqual(
            error.code, "--log-level: loud is not one of debug, info, warn, error, critical"
        )

    def test_reactor_that_is_none(self) -> None:
        """A reactor that there is not is told with those that there are."""
        error = self.assertRaises(CannotStart, main, ["--reactor=nuclear"])
        self.assertIn("--reactor: nuclear is not one of default, asyncio,", str(error.code))

    def test_reactor_that_cannot_be_used(self) -> None:
        """A reactor whose library is missing is told with the reason."""

        def fail(name: str) -> None:
            raise ImportError("no module named gi")

        self.patch(reactors, "installReactor", fail)
        error = self.assertRaises(CannotStart, main, ["--reactor=gtk3"])
        self.assertEqual(error.code, "--reactor: gtk3 cannot be used: no module named gi")

    def choose(self, installed: bool = False) -> list[str]:
        """Choose the default reactor in a program that has one or not; give what is installed."""
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
        """Without a name it is the quiet reactor, where there is epoll."""
        self.assertEqual(self.choose(), ["quiet"])

    def test_reactor_without_epoll(self) -> None:
        """Without a name and without epoll it is the reactor that Twisted chooses."""
        self.patch(serve, "select", object())
        self.assertEqual(self.choose(), [])

    def test_reactor_that_is_there(self) -> None:
        """Without a name, a reactor that the program has already is kept."""
        self.assertEqual(self.choose(installed=True), [])

    def test_fetch_is_not_called(self) -> None:
        """A check declares FETCH and never runs it."""
        self.failureResultOf(
            Deferred.fromCoroutine(serve._no_fetch("http://x/")), NotImplementedError
        )
