"""What the words of ``twisted-net coap`` mean, and what it shows."""

# mypy: disallow-untyped-calls=False
# The class of options has no types.

from __future__ import annotations

import io
import sys

from twisted.internet.task import Clock
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.cli.coap import CoapOptions, coap, describe
from twisted_net.cli.command_line import MISTAKE, parse_or_exit
from twisted_net.cli.display import ProgressDisplay, terminal_body
from twisted_net.cli.run import INTERRUPTED
from twisted_net.coap.codec import Option
from twisted_net.dtls.settings import DtlsClientSettings

URI = "coap://[::1]/time"


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


class OptionsTests(SynchronousTestCase):
    """:class:`CoapOptions`."""

    def parse_or_exit(self, *words: str) -> CoapOptions:
        """Parse."""
        options = parse_or_exit(CoapOptions(), "coap", words)
        assert isinstance(options, CoapOptions)
        return options

    def test_words(self) -> None:
        """A method, a URI and a payload, after options with short and long names."""
        options = self.parse_or_exit(
            "-N", "--content-format=json", "-a", "40", "-t", "2", "-b", "64", "post", URI, "[1]"
        )
        self.assertEqual((options.method, options.uri), ("post", URI))
        self.assertEqual(options.body(io.BytesIO()), b"[1]")
        self.assertEqual((options.content_format, options.accept), (50, 40))
        self.assertEqual((options.settings.timeout, options.settings.block_size), (2.0, 64))
        self.assertTrue(options["non"])

    def test_options_after_the_method(self) -> None:
        """Options may follow the method too, as people write them."""
        options = self.parse_or_exit("get", "-v", "--accept", "json", URI)
        self.assertEqual((options.method, options.uri, options.accept), ("get", URI, 50))
        self.assertTrue(options["verbose"])

    def test_payloads(self) -> None:
        """``-`` is the standard input; without a payload the body is empty."""
        self.assertEqual(self.parse_or_exit("put", URI, "-").body(io.BytesIO(b"\x00in")), b"\x00in")
        self.assertEqual(self.parse_or_exit("put", URI, "é").body(io.BytesIO(b"in")), "é".encode())
        self.assertEqual(self.parse_or_exit("put", URI, "--", "-5").body(io.BytesIO()), b"-5")
        self.assertEqual(self.parse_or_exit("delete", URI).body(io.BytesIO(b"in")), b"")

    def test_interrupted(self) -> None:
        """Ctrl-C while the payload is read ends the process, and nothing is sent."""

        class Endless(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                raise KeyboardInterrupt

        self.patch(sys, "stdin", io.TextIOWrapper(Endless()))
        error = self.assertRaises(SystemExit, coap, ["put", URI, "-"])
        self.assertEqual(error.code, INTERRUPTED)

    def test_tls(self) -> None:
        """Whom to believe over DTLS, and what to show, is said by files."""
        self.assertIsNone(self.parse_or_exit("get", "coaps://host/").tls)
        words = ("--ca=ca.pem", "--cert=me.pem", "--key=me.key", "get", "coaps://host/")
        settings = DtlsClientSettings(ca="ca.pem", certificate="me.pem", key="me.key")
        self.assertEqual(self.parse_or_exit(*words).tls, settings)
        settings = DtlsClientSettings(verify=False)
        keys = self.parse_or_exit("--psk", "keys.toml", "get", "coaps://host/").tls
        self.assertEqual(keys, DtlsClientSettings(psk="keys.toml"))
        self.assertEqual(self.parse_or_exit("--insecure", "get", "coaps://host/").tls, settings)

    def test_mistakes(self) -> None:
        """A mistake ends the process before anything is sent."""
        for words in (
            [],
            ["get"],
            ["patch", URI],
            ["get", URI, "payload"],
            ["observe", URI, "payload"],
            ["get", "-c", "2", URI],
            ["observe", "-c", "-1", URI],
            ["observe", "-N", URI],
            ["observe", "-o", "file", URI],
            ["observe", "-f", "json", URI],
            ["get", "-a", "html", URI],
            ["get", "-a", "65536", URI],
            ["get", "-b", "100", URI],
            ["get", "-b", "x", URI],
            ["get", "-t", "0", URI],
            ["get", URI, "a", "b"],
            ["get", "--ca", "ca.pem", URI],
            ["get", "--insecure", URI],
            ["get", "--psk", "keys.toml", URI],
            ["get", "--psk", "keys.toml", "--ca", "ca.pem", "coaps://[::1]/time"],
            ["get", "--psk", "keys.toml", "--insecure", "coaps://[::1]/time"],
            ["get", "--psk", "", "coaps://[::1]/time"],
            ["get", "-R", URI],
            ["post", "-R", "-a", "json", URI],
            ["get", "--ca", "", "coaps://[::1]/time"],
            ["get", "--nope", URI],
            ["get", URI, "-o"],
            ["get", "--key", "key.pem", "coaps://[::1]/time"],
            ["get", "--ca", "ca.pem", "--insecure", "coaps://[::1]/time"],
        ):
            with self.subTest(words=words):
                error = self.assertRaises(SystemExit, parse_or_exit, CoapOptions(), "coap", words)
                self.assertEqual(error.code, MISTAKE)

    def test_help(self) -> None:
        """The help lists options by their names: none refers to the one above it."""
        self.assertNotIn("likewise", CoapOptions().getUsage())

    def test_report_mistakes(self) -> None:
        """The message says which requests can be reports, and which option excludes one."""
        for words, sentence in (
            (("get", "-R", URI), "--report is for post, put and delete, not for get"),
            (("fetch", "-R", URI, "a"), "--report is for post, put and delete, not for fetch"),
            (("observe", "-R", URI), "--report is for post, put and delete, not for observe"),
            (("post", "-R", "-o", "file", URI), "--report has no response for --output"),
            (("post", "-R", "-a", "json", URI), "--report has no response for --accept"),
        ):
            with self.subTest(words=words):
                error = self.assertRaises(UsageError, CoapOptions().parseOptions, list(words))
                self.assertEqual(str(error), sentence)


class ProgressTests(SynchronousTestCase):
    """:class:`ProgressDisplay`."""

    def setUp(self) -> None:
        self.clock = Clock()

    def test_terminal(self) -> None:
        """A terminal gets one line, written over, and cleared at the end; a quick body none."""
        screen = Screen()
        progress = ProgressDisplay(screen, self.clock.seconds)
        progress("sent", 1024, 100_000)
        self.assertEqual(screen.getvalue(), "")
        self.clock.advance(0.3)
        progress("sent", 2048, 100_000)
        progress("sent", 3072, 100_000)
        self.clock.advance(0.3)
        progress("received", 4096, None)
        progress.end()
        self.assertEqual(
            screen.getvalue(),
            "\rsent 2,048 of 100,000 bytes [                        ]   2%\x1b[K"
            "\rreceived 4,096 bytes\x1b[K\r\x1b[K",
        )

    def test_file(self) -> None:
        """A file gets a line now and then."""
        file = io.StringIO()
        progress = ProgressDisplay(file, self.clock.seconds)
        for second in range(11):
            progress("sent", second, 11)
            self.clock.advance(1)
        progress.end()
        self.assertEqual(file.getvalue(), "sent 5 of 11 bytes\nsent 10 of 11 bytes\n")


class TerminalBodyTests(SynchronousTestCase):
    """:func:`terminal_body`."""

    def test_escapes(self) -> None:
        """Lines and tabs are kept, and nothing steers the terminal."""
        for body, shown in (
            (b"", ""),
            ("é\ta\nb\r\n\n".encode(), "é\ta\nb\n\n"),
            (b"a\x1b[2J\x9b\xff\x00", r"a\x1b[2J\x9b\xff\x00"),
            ("\u202ea\u2028\x85\rb".encode(), r"\u202ea\u2028\x85\rb"),
        ):
            self.assertEqual(terminal_body(body), shown.encode())


class DescribeTests(SynchronousTestCase):
    """:func:`describe`."""

    def test_forms(self) -> None:
        """Texts, numbers, blocks and bytes are shown as such, and nothing steers a terminal."""
        for number, value, expected in (
            (Option.LOCATION_PATH, b"a\x1b[2J", "Location-Path: a [2J"),
            (Option.CONTENT_FORMAT, b"", "Content-Format: 0"),
            (Option.MAX_AGE, b"\x01\x00", "Max-Age: 256"),
            (Option.BLOCK2, b"\x5e", "Block2: 5, more, 1024 bytes"),
            (Option.BLOCK1, b"\x50", "Block1: 5, last, 16 bytes"),
            (Option.ETAG, b"\xab", "Etag: ab"),
            (Option.ETAG, b"", "Etag: (empty)"),
            (65_001, b"x", "65001: 78"),
        ):
            with self.subTest(number=number):
                self.assertEqual(describe(int(number), value), expected)
