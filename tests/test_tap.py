"""The plugin has an option for each setting; each mistake is one line."""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
import tempfile
from pathlib import Path

import twisted.internet
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from twisted_net import __version__
from twisted_net.config.loader import settings
from twisted_net.errors import CannotStart, ConfigError
from twisted_net.service.config import Config, TcpSettings
from twisted_net.service.process import ProcessService
from twisted_net.tap import Options, add_working_directory_to_path, makeService


def parse(*words: str) -> Options:
    """Parse a command line."""
    options = Options()
    options.parseOptions(list(words))
    return options


class OptionsTests(SynchronousTestCase):
    """:class:`Options` has one option for each setting."""

    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.directory = Path(holder.name)

    def write(self, data: bytes) -> str:
        """Write a file and return its name."""
        path = self.directory / "net.toml"
        path.write_bytes(data)
        return str(path)

    def test_every_setting(self) -> None:
        """Every setting is an option, is in the help, and is unset by default."""
        options = parse()
        text = " ".join(str(options).split())
        for setting in settings(Config()):
            with self.subTest(setting=setting.key):
                self.assertIsNone(options[setting.option])
                self.assertIn(f"--{setting.option}=", text)

    def test_auth(self) -> None:
        """``--auth`` adds a checker, and can be repeated; ``--help-auth`` lists them."""
        loaded = parse("--auth=file:a,b", "--auth", "memory:x:y").load({})
        self.assertEqual(loaded.record.auth.checkers, ("file:a,b", "memory:x:y"))
        shown = io.StringIO()
        self.patch(Options, "authOutput", shown)
        self.assertRaises(SystemExit, parse, "--help-auth")
        self.assertIn("file", shown.getvalue())

    def test_defaults(self) -> None:
        """Without options the configuration is the default one."""
        self.assertEqual(parse().load({}).record, Config())

    def test_layers(self) -> None:
        """The file, the environment and the options are read; later ones override."""
        name = self.write(b"[tcp]\nport = 1\nbacklog = 1\nmax_line = 100\n")
        loaded = parse("-c", name, "--tcp-port", "3").load(
            {"TWISTED_NET_TCP__PORT": "2", "TWISTED_NET_TCP__BACKLOG": "2"}
        )
        self.assertEqual(loaded.record, Config(tcp=TcpSettings(port=3, backlog=2, max_line=100)))
        self.assertEqual(loaded.origins["tcp.max_line"], name)

    def test_byte_order_mark(self) -> None:
        """The mark that some editors write before UTF-8 is no part of the text."""
        name = self.write(b"\xef\xbb\xbf[tcp]\nport = 1\n")
        self.assertEqual(parse("-c", name).load({}).record.tcp.port, 1)

    def test_no_file(self) -> None:
        """An empty name is said to be that of the option."""
        error = self.assertRaises(ConfigError, parse("--config", "").load, {})
        self.assertEqual(error.mistakes, ["--config: No such file or directory"])

    def test_control_characters(self) -> None:
        """What a file has is repeated without what terminals obey."""
        name = self.write(b'[tcp]\n"\\u001b[31m" = 1')
        error = self.assertRaises(ConfigError, parse("-c", name).load, {})
        self.assertEqual(error.mistakes, [f"{name}: there is no setting tcp.\\x1b[31m"])

    def test_files_that_cannot_be_read(self) -> None:
        """A file that is missing or not UTF-8 is reported together with other mistakes."""
        cases = {
            str(self.directory / "none.toml"): "No such file or directory",
            str(self.directory): "Is a directory",
            self.write(b"a = '\xff'"): "byte 5 is not UTF-8",
        }
        for name, mistake in cases.items():
            with self.subTest(mistake=mistake):
                options = parse("--config", name, "--tcp-port=x")
                error = self.assertRaises(ConfigError, options.load, {})
                self.assertEqual(error.mistakes[0], f"{name}: {mistake}")
                self.assertEqual(len(error.mistakes), 2)

    def test_command_lines_that_are_wrong(self) -> None:
        """An invalid command line is reported in one line, with the most similar option."""
        cases = {
            ("--tcp-prot=1",): "option --tcp-prot not recognized; did you mean --tcp-port?",
            ("--zzz",): "option --zzz not recognized",
            ("--tcp-port",): "option --tcp-port requires argument",
            ("--tcp",): "option --tcp not a unique prefix",
            ("-z",): "option -z not recognized",
            ("start",): "unexpected argument: start",
        }
        for words, message in cases.items():
            with self.subTest(words=words):
                error = self.assertRaises(CannotStart, parse, *words)
                self.assertTrue(str(error).startswith(message), str(error))
                self.assertNotIn("\n", str(error))

    def test_version(self) -> None:
        """``--version`` prints the version of this package, not of Twisted."""
        printed = io.StringIO()
        self.patch(sys, "stdout", printed)
        error = self.assertRaises(SystemExit, parse, "--version")
        self.assertEqual(error.code, 0)
        self.assertEqual(printed.getvalue(), f"twisted_net {__version__}\n")


class MakeServiceTests(SynchronousTestCase):
    """:func:`makeService` is what twistd calls."""

    def setUp(self) -> None:
        importlib.import_module("twisted.internet.reactor")  # or there is none to be patched
        self.patch(twisted.internet, "reactor", MemoryReactorClock())
        self.patch(os, "environ", {"TWISTED_NET_TCP__PORT": "7"})
        self.patch(sys, "path", [*sys.path])
        held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.addCleanup(signal.pthread_sigmask, signal.SIG_SETMASK, held)

    def test_service(self) -> None:
        """It returns the service of a process, from options and the environment."""
        service = makeService(parse("--udp-enabled=false"))
        assert isinstance(service, ProcessService)
        assert service.tcp is not None
        self.assertIsNone(service.udp)
        self.assertIn(os.getcwd(), sys.path)

    def test_mistakes(self) -> None:
        """Mistakes end the process with one line each and status 1."""
        error = self.assertRaises(CannotStart, makeService, parse("--tcp-port=x", "--threads=0"))
        self.assertEqual(
            error.code,
            '--threads: threads is "0", must be an integer from 1 to 1000\n'
            '--tcp-port: tcp.port is "x", must be an integer from 0 to 65535',
        )

    def test_commands(self) -> None:
        """Missing command modules are such mistakes."""
        error = self.assertRaises(CannotStart, makeService, parse("--commands=nowhere_at_all:x"))
        self.assertEqual(
            error.code, "commands: nowhere_at_all:x: there is no module nowhere_at_all"
        )


class LookForModulesHereTests(SynchronousTestCase):
    """:func:`add_working_directory_to_path`: the same path with all launchers."""

    def test_last(self) -> None:
        """The working directory is added at the end, once."""
        self.patch(sys, "path", ["/a"])
        add_working_directory_to_path()
        add_working_directory_to_path()
        self.assertEqual(sys.path, ["/a", os.getcwd()])

    def test_there_already(self) -> None:
        """A path that contains it, by name or as an empty string, is not changed."""
        for path in (["", "/a"], [os.getcwd(), "/a"]):
            with self.subTest(path=path):
                self.patch(sys, "path", [*path])
                add_working_directory_to_path()
                self.assertEqual(sys.path, path)
