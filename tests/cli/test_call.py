"""Command lines of ``twisted-net call`` and ``console``."""

# mypy: disallow-untyped-calls=False
# The class of options has no types.

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from twisted_net.cli import discover
from twisted_net.cli.call import (
    CallOptions,
    ClientOptions,
    _print,
    parse_address,
)
from twisted_net.cli.coap import CoapOptions
from twisted_net.cli.command_line import parse_or_exit
from twisted_net.cli.discover import DiscoverOptions, format_change
from twisted_net.discovery.announcements import ChangeKind, Instance, InstanceChange
from twisted_net.discovery.settings import DiscoveryGroup


class AddressTests(SynchronousTestCase):
    """:func:`parse_address`."""

    def test_forms(self) -> None:
        """A port may be left out; an IPv6 address with one is in brackets."""
        for address, expected in {
            "localhost": ("localhost", 8888),
            "localhost:1": ("localhost", 1),
            "192.0.2.1:65535": ("192.0.2.1", 65_535),
            "::1": ("::1", 8888),
            "[::1]": ("::1", 8888),
            "[::1]:9": ("::1", 9),
        }.items():
            with self.subTest(address=address):
                self.assertEqual(parse_address(address), expected)

    def test_wrong(self) -> None:
        """Invalid addresses are mistakes."""
        for address in ("", ":1", "host:", "host:0", "host:65536", "host:x", "host:²"):
            with self.subTest(address=address):
                self.assertRaises(UsageError, parse_address, address)


class OptionsTests(SynchronousTestCase):
    """:class:`CallOptions`."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def test_words(self) -> None:
        """Options after the address belong to the command."""
        options = CallOptions()
        options.parseOptions(["--timeout=2", "host", "ECHO", "--tls", "-1"])
        self.assertEqual((options.host, options.words), ("host", ("ECHO", "--tls", "-1")))
        self.assertEqual((options["timeout"], options["tls"]), (2.0, 0))

    def test_numbers(self) -> None:
        """What is no number is shown with the name of its option."""
        for options, words, shown in (
            (CallOptions(), ["--timeout=x", "host", "X"], "--timeout: 'x' is not a number of"),
            (DiscoverOptions(), ["--port=1.5"], "--port: '1.5' is not a whole number"),
        ):
            error = self.assertRaises(UsageError, options.parseOptions, words)
            self.assertIn(shown, str(error))

    def test_bounds(self) -> None:
        """A number out of bounds is shown with the name of its option, not of a record's field."""
        options = CallOptions()
        options.parseOptions(["--timeout=0", "host", "X"])
        error = self.assertRaises(UsageError, options.client, self.reactor)
        self.assertIn("--timeout must be a number above 0 and of at most 86400", str(error))
        error = self.assertRaises(UsageError, DiscoverOptions().parseOptions, ["--port=0"])
        self.assertEqual(str(error), "--port must be an integer from 1 to 65535, not 0")
        for refused in ("0", "-1", "nan", "inf", "86401"):
            words = [f"--timeout={refused}"]
            error = self.assertRaises(UsageError, DiscoverOptions().parseOptions, words)
            self.assertIn("--timeout must be a number above 0 and of at most 86400", str(error))
        words = ["get", "--block-size=5", "coap://127.0.0.1/"]
        error = self.assertRaises(UsageError, CoapOptions().parseOptions, words)
        self.assertEqual(str(error), "--block-size must be an integer from 16 to 1024, not 5")
        words = ["get", "--key=key.pem", "coaps://127.0.0.1/"]
        error = self.assertRaises(UsageError, CoapOptions().parseOptions, words)
        self.assertEqual(str(error), "--key needs --cert, the certificate that it belongs to")

    def test_discover(self) -> None:
        """Without options, the default group is searched for three seconds."""
        options = DiscoverOptions()
        options.parseOptions([])
        self.assertEqual((options.group, options.timeout), (DiscoveryGroup(), 3.0))

    def test_client(self) -> None:
        """Invalid files and values are mistakes; valid ones make a client."""
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "credentials"
        path.write_text('ada "pass word"\n')
        open_quote = path.with_suffix(".quote")
        open_quote.write_text('"')
        for words in (
            ["--timeout=0", "host"],
            [f"--auth-file={path}.missing", "host"],
            [f"--auth-file={open_quote}", "host"],
            [f"--ca={path}", "host"],
        ):
            with self.subTest(words=words):
                options = parse_or_exit(ClientOptions(), "console", words)
                self.assertRaises(UsageError, options.client, self.reactor)
        options = parse_or_exit(
            ClientOptions(), "console", ["--tls", f"--auth-file={path}", "host"]
        )
        self.assertEqual(options.client(self.reactor)._auth_line, b'AUTH ada "pass word"\n')


class OutputTests(SynchronousTestCase):
    """What a server or a host of the network says does not reach the terminal as a command."""

    def test_answer(self) -> None:
        """An answer is printed as JSON without control characters."""
        out = StringIO()
        self.patch(sys, "stdout", out)
        _print({"result": "\x1b\x7f\x85\x9b31m ä"})
        self.assertEqual(out.getvalue(), '{"result":"\\u001b\\u007f\\u0085\\u009b31m ä"}\n')

    def test_discovered(self) -> None:
        """So is a server that was announced, whatever its name."""
        instance = Instance("\x9b31m", "1\x7f", "0" * 32, "192.0.2.1", {"tcp": 1}, 0.0)
        line = format_change(InstanceChange(ChangeKind.FOUND, instance), watch=False)
        self.assertTrue(line[:-1].isprintable())
        self.assertEqual(json.loads(line)["name"], "\x9b31m")

    def test_reader_of_a_watch_is_gone(self) -> None:
        """A watch whose output is not read any more ends, and so does a search."""
        found = InstanceChange(
            ChangeKind.FOUND, Instance("a", "1", "0" * 32, "192.0.2.1", {"tcp": 1}, 0.0)
        )
        clock: Any = MemoryReactorClock()  # Any: it has no listenUDP, and needs none here

        class Announced(Service):
            """Finds a server twice, a second after it was started."""

            def __init__(self, *arguments: object) -> None:
                self._changed = cast("Callable[[InstanceChange], None]", arguments[-1])

            @override
            def startService(self) -> None:
                super().startService()
                clock.callLater(1, self._changed, found)
                clock.callLater(1, self._changed, found)

        class Closed(StringIO):
            @override
            def flush(self) -> None:
                raise BrokenPipeError

        self.patch(sys, "stdout", Closed())
        self.patch(discover, "DiscoveryListener", Announced)
        for watch in (True, False):
            shown = Deferred.fromCoroutine(
                discover.show(clock, DiscoveryGroup(), timeout=9.0, watch=watch)
            )
            clock.advance(1)
            self.failureResultOf(shown, BrokenPipeError)
        self.assertEqual(clock.getDelayedCalls(), [])
