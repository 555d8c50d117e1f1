"""Tests of :mod:`twisted_net.cli.fetch`; :mod:`tests.live.test_fetch_command` has more."""

# mypy: disallow-untyped-calls=False
# The class of options has no types.

from __future__ import annotations

import io
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.issuing import Authority
from twisted_net.cli.fetch import FetchOptions
from twisted_net.http import BearerToken, DigestAuth, RequestOptions, Timeouts

AUTHORITY = Authority()
URL = "http://h.example/"


class OptionTests(SynchronousTestCase):
    """:class:`FetchOptions` become options of a call."""

    def setUp(self) -> None:
        self.files = ExitStack()
        self.addCleanup(self.files.close)
        self.folder = Path(self.enterContext(TemporaryDirectory()))

    def parsed(self, *words: str) -> FetchOptions:
        """Parse a command line."""
        options = FetchOptions()
        options.parseOptions(words)
        return options

    def request(self, *words: str, stdin: bytes = b"") -> RequestOptions:
        """Return the options of a call."""
        return self.parsed(*words, URL).request(io.BytesIO(stdin), self.files)

    def file(self, name: str, content: bytes) -> str:
        """Write a file; return its path."""
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def test_defaults(self) -> None:
        """A GET of anything, which may take as long as it makes progress."""
        options = self.parsed(URL)
        self.assertEqual((options.method, options.url), ("GET", URL))
        self.assertFalse(options.settings.cache.enabled)
        request = self.request()
        self.assertEqual(request["headers"], [("Accept", "*/*")])
        self.assertEqual(request["timeout"], Timeouts(total=None, headers=30.0, silence=30.0))
        self.assertEqual(self.request("--timeout", "5")["timeout"], 5.0)

    def test_anywhere(self) -> None:
        """Options may follow the URL."""
        self.assertEqual(self.parsed(URL, "-X", "DELETE").method, "DELETE")

    def test_headers(self) -> None:
        """Fields are added, or replace ours; one without a value is not sent."""
        words = ("-H", "X-A: 1: 2", "--header", "X-A:2", "-H", "User-Agent:")
        own = [("X-A", "1: 2"), ("X-A", "2"), ("User-Agent", None)]
        self.assertEqual(self.request(*words)["headers"], [("Accept", "*/*"), *own])
        self.assertEqual(self.request("-H", "accept: a/b")["headers"], [("accept", "a/b")])

    def test_data(self) -> None:
        """A body is a text, a file or standard input, and makes a POST of it."""
        self.assertEqual(self.parsed("-d", "ü", URL).method, "POST")
        self.assertEqual(self.parsed("-d", "ü", "-X", "PUT", URL).method, "PUT")
        self.assertEqual(self.request("-d", "ü")["data"], "ü".encode())
        self.assertEqual(self.request("-d", "-", stdin=b"in")["data"], b"in")
        self.assertEqual(self.request("-d", "@" + self.file("a", b"of file"))["data"], b"of file")
        large = self.file("b", b"")
        with open(large, "wb") as file:
            file.truncate(17 * 2**20)
        data: Any = self.request("-d", f"@{large}")["data"]
        self.assertEqual(len(data.read()), 17 * 2**20)

    def test_credentials(self) -> None:
        """A file has a token, or a user and a password, with spaces in quotes."""
        token, pair = self.file("token", b"abc\n"), self.file("pair", b'me "pass word"\n')
        self.assertEqual(self.request("--auth-file", token)["auth"], BearerToken("abc"))
        self.assertEqual(self.request("--auth-file", pair)["auth"], ("me", "pass word"))
        self.assertIsInstance(self.request("--auth-file", pair, "--digest")["auth"], DigestAuth)

    def test_output(self) -> None:
        """A file, or standard output by its usual word."""
        self.assertEqual(self.parsed("-o", "x", URL)["output"], "x")
        self.assertIsNone(self.parsed("-o", "-", URL)["output"])

    def test_mistakes(self) -> None:
        """Each is named."""
        three, bad = self.file("three", b"a b c"), self.file("bad", b"tok\xc3\xa9n")
        one, lines = self.file("one", b"token\n"), self.file("lines", b"me\npassword\n")
        for words, said in (
            (("-H", "nonsense"), "--header: 'nonsense' is not like \"Name: value\""),
            (("-d", "@/none"), "/none: No such file or directory"),
            (("--auth-file", "/none"), "/none: No such file or directory"),
            (("--auth-file", three), "must have a token, or a user and a password"),
            (("--auth-file", bad), "BearerToken: token must be one word of visible ASCII"),
            (("--auth-file", lines), "must have one line: a token, or a user and a password"),
            (("--auth-file", one, "--digest"), f"{one}: must have a user and a password"),
            (("--cache", "/none/x"), "--cache: /none/x: No such file or directory"),
            (("--cache", str(self.folder)), f"--cache: {self.folder}: Is a directory"),
            (("--cache", ""), "--cache must be text of at least 1 characters"),
            (("--timeout", "-1"), "--timeout must be 0 or more seconds"),
            (("--digest",), "--digest needs a user and a password: --auth-file"),
            (("--retries", "1000"), "--retries must be an integer from 0"),
            (("--retries", "x"), "--retries: 'x' is not a whole number"),
            (("--timeout", "x"), "--timeout: 'x' is not a number of seconds"),
            (("--proxy", "https://x"), "--proxy: a proxy's URL must begin with http://"),
            (("--key", one), "--key needs --cert, the certificate that it belongs to"),
            (("--ca", one, "--insecure"), "--ca is not for --insecure"),
            (("--ca", ""), "--ca must name a file"),
            (("--cert", ""), "--cert must name a file"),
            (("--bogus",), "bogus"),
        ):
            with self.subTest(words=words):
                error = self.assertRaises(UsageError, self.request, *words)
                self.assertIn(said, str(error))

    def test_authorities(self) -> None:
        """A file that is no certificate says so, also that of our own one."""
        self.assertIsNone(self.parsed(URL).tls_policy())
        pair = AUTHORITY.issue("me")
        own, key = self.file("own", pair[0]), self.file("key", pair[1])
        bad, absent = self.file("x", b"x"), "there is no certificate in it, in PEM"
        for words, said in (
            (("--ca", "/none"), "/none: No such file or directory"),
            (("--ca", bad), f"{bad}: {absent}"),
            (("--cert", bad), f"{bad}: {absent}"),
            (("--cert", own), f"{own}: there is no key in it, in PEM and without a passphrase"),
            (("--cert", own, "--key", "/none"), "/none: No such file or directory"),
        ):
            options = self.parsed(*words, URL)
            self.assertEqual(str(self.assertRaises(UsageError, options.tls_policy)), said)
        self.assertIsNotNone(self.parsed("--cert", own, "--key", key, URL).tls_policy())
        self.assertIsNotNone(self.parsed("--insecure", URL).tls_policy())
