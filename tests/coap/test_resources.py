"""Tests for :mod:`twisted_net.coap.resources`."""

from __future__ import annotations

import json
import re

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.codec import CoapRequestOptions, Code, Option
from twisted_net.coap.resources import (
    MAX_FILTERS,
    RequestRefused,
    command_arguments,
    command_response,
    diagnostic,
    error_response,
    find_command,
    link_format,
    observable_commands,
)
from twisted_net.commands.registry import Commands
from twisted_net.errors import (
    AuthRequired,
    BadArguments,
    BadQuotes,
    CommandError,
    ControlCharacter,
    FetchError,
    Internal,
    NotUTF8,
    OutOfThreads,
    TooBusy,
    UnknownCommand,
)
from twisted_net.http.errors import FetchTimeout

PEER = ("192.0.2.1", 5683)
OTHER = ("192.0.2.2", 5683)


class ArgumentsTests(SynchronousTestCase):
    """:func:`command_arguments` reads a command's arguments out of a request."""

    def arguments(
        self, payload: bytes, content_format: bytes | None = None, *queries: bytes
    ) -> list[str]:
        """Return the arguments."""
        options = [] if content_format is None else [(Option.CONTENT_FORMAT, content_format)]
        return command_arguments(
            CoapRequestOptions([*options, *((Option.URI_QUERY, query) for query in queries)]),
            payload,
        )

    def test_text(self) -> None:
        """Text is split as a line is."""
        self.assertEqual(self.arguments(b'a "b  c"\td\r\n'), ["a", "b  c", "d"])
        self.assertEqual(self.arguments(b" ", b""), [])

    def test_queries(self) -> None:
        """Each query is one argument, before those of the payload."""
        self.assertEqual(self.arguments(b"", None, b"a b", b"c=1"), ["a b", "c=1"])
        self.assertEqual(self.arguments(b"x y", None, b"a b"), ["a b", "x", "y"])

    def test_json(self) -> None:
        """JSON is an array, each item one argument."""
        payload = b'["a b", 1, 1.5, true, ""]'
        self.assertEqual(self.arguments(payload, b"\x32"), ["a b", "1", "1.5", "true", ""])

    def test_refused(self) -> None:
        """What is no arguments is refused for what it is."""
        refused: list[tuple[type[Exception], bytes, bytes | None]] = [
            (NotUTF8, b"\xff", None),
            (ControlCharacter, b"a\0b", None),
            (ControlCharacter, b"a\nb", None),
            (BadQuotes, b'"a', None),
            (BadArguments, b'{"a":1}', b"\x32"),
            (BadArguments, b"[[1]]", b"\x32"),
            (BadArguments, b"[", b"\x32"),
            (BadArguments, b'["\xff"]', b"\x32"),
            (BadArguments, b"[" * 5000, b"\x32"),
            (RequestRefused, b"a", b"\x2a"),
        ]
        for error, payload, content_format in refused:
            with self.assertRaises(error):
                self.arguments(payload, content_format)

    def test_refused_queries(self) -> None:
        """Queries are checked as the words of a line are, beside a payload too."""
        for error, query in (
            (NotUTF8, b"a\xff"),
            (ControlCharacter, b"a\nb"),
            (ControlCharacter, b"\xc2\x85"),
        ):
            for payload in (b"", b"x"):
                with self.assertRaises(error):
                    self.arguments(payload, None, b"good", query)


class ReplyTests(SynchronousTestCase):
    """Answers and errors of commands become payloads and codes."""

    def test_formats(self) -> None:
        """A text is text, anything else JSON, unless the client says which it accepts."""
        cases: list[tuple[bytes, int | None, bytes, int]] = [
            (b'{"command":"A","result":"x y"}\n', None, b"x y", 0),
            (b'{"command":"A","result":"x y"}\n', 0, b"x y", 0),
            (b'{"command":"A","result":"x \\"y"}\n', 0, b'x "y', 0),
            (b'{"command":"A","result":"\\n"}\n', 0, b"\n", 0),
            (b'{"command":"A","n":"1","result":"x"}\n', None, b"x", 0),
            (b'{"command":"A","result":"x","n":"1"}\n', None, b"x", 0),
            (b'{"command":"A","result":"x y"}\n', 50, b'{"command":"A","result":"x y"}', 50),
            (b'{"command":"A","result":[1]}\n', None, b'{"command":"A","result":[1]}', 50),
            (b'{"command":"A","result":[1]}\n', 0, b"[1]", 0),
            (b'{"command":"A","n":1}\n', None, b'{"command":"A","n":1}', 50),
            (b'{"command":"A","n":1}\n', 0, b'{"command":"A","n":1}', 0),
        ]
        for line, accept, payload, content_format in cases:
            reply = command_response(Code.POST, line, accept)
            self.assertEqual((reply.payload, reply.content_format), (payload, content_format))
            self.assertEqual(reply.code, Code.CHANGED)
        self.assertEqual(command_response(Code.GET, cases[0][0], None).code, Code.CONTENT)

    def test_codes(self) -> None:
        """Each kind of error has its code."""
        for error, code in (
            (BadArguments("no"), 128),
            (UnknownCommand("x"), 132),
            (CommandError("no"), 131),
            (TooBusy(3), 163),
            (OutOfThreads(), 163),
            (Internal(), 160),
            (FetchTimeout("body", 3), 164),
            (FetchError("no"), 162),
        ):
            reply = error_response(error, "A", None)
            self.assertEqual((reply.code, reply.payload), (code, str(error).encode()))
            self.assertEqual(reply.max_age, 5 if code == 163 else None)

    def test_login(self) -> None:
        """There is no AUTH over CoAP: the sentence says what logs in, in both formats."""
        sentence = "log in first: over DTLS, with the certificate or the pre-shared key of a user"
        self.assertEqual(error_response(AuthRequired(), "A", None).payload, sentence.encode())
        shown = json.loads(error_response(AuthRequired(), "A", 50).payload)
        self.assertEqual((shown["error"], shown["code"]), (sentence, "auth_required"))

    def test_json_error(self) -> None:
        """A client that accepts JSON gets the code that never changes."""
        reply = error_response(BadArguments("no"), "A", 50)
        self.assertEqual(reply.payload, b'{"error":"no","code":"bad_arguments","command":"A"}')

    def test_long_diagnostic(self) -> None:
        """A long sentence is split between two characters."""
        shown = diagnostic("ü" * 1000)
        self.assertTrue(len(shown) <= 256)
        self.assertTrue(shown.decode().endswith("ü…"))


class LinksTests(SynchronousTestCase):
    """:func:`link_format` lists what there is (RFC 6690)."""

    def setUp(self) -> None:
        self.commands = Commands()
        self.commands.command("TIME", help='The "time".', safe=True)(lambda: "")
        self.commands.command("SET", help="Set it.")(lambda: "")

    def test_all(self) -> None:
        """Each resource has a link; quotes are escaped."""
        shown = link_format(self.commands, ["time"], []).decode()
        self.assertIn('</time>;title="The \\"time\\".";if="get fetch post";ct="0 50";obs', shown)
        self.assertIn('</set>;title="Set it.";if="post";ct="0 50",', shown)
        self.assertIn("</.well-known/core>", shown)
        self.assertIn("</events>", shown)

    def test_no_title(self) -> None:
        """A command without a help text has no title: the attribute has a value (§5)."""
        self.commands.command("BARE", safe=True)(lambda: "")
        shown = link_format(self.commands, [], []).decode()
        self.assertIn('</bare>;if="get fetch post";ct="0 50"', shown)

    def test_too_many_filters(self) -> None:
        """A request that would have every link compared a hundred times is refused."""
        self.assertTrue(link_format(self.commands, [], ["href=/*"] * MAX_FILTERS))
        with self.assertRaises(RequestRefused) as caught:
            link_format(self.commands, [], ["href=/*"] * (MAX_FILTERS + 1))
        self.assertEqual(caught.exception.code, Code.BAD_REQUEST)

    def test_filters(self) -> None:
        """A filter keeps the links whose attribute matches (§4.1)."""
        for query, names in (
            ("href=/time", ["/time"]),
            ("href=/t*", ["/time"]),
            ("if=get", ["/events", "/time"]),
            ("title=Set*", ["/set"]),
            ("obs=", ["/time"]),
            ("obs=*", ["/time"]),
            ("rt=x", []),
        ):
            shown = link_format(self.commands, ["time"], [query]).decode()
            found = sorted(re.findall("<([^>]*)>", shown))
            self.assertEqual(found, names, query)
        with self.assertRaises(RequestRefused):
            link_format(self.commands, [], ["nonsense"])

    def test_not_served(self) -> None:
        """Administrative commands, and those that need a connection, as a login does, are not."""
        self.commands.command("KILL", admin=True, safe=True)(lambda: "")
        self.commands.command("AUTH", alone=True)(lambda: "")
        self.commands.command("WATCH", connected=True, safe=True)(lambda: "")
        for name in ("KILL", "WATCH"):
            self.assertRaises(ValueError, observable_commands, self.commands, [name])
        shown = link_format(self.commands, [], []).decode()
        for name in ("kill", "auth", "watch"):
            self.assertNotIn(name, shown)
            with self.assertRaises(RequestRefused) as caught:
                find_command(self.commands, [name])
            self.assertEqual(caught.exception.code, Code.NOT_FOUND)

    def test_observable(self) -> None:
        """Only safe commands that never wait can be observed."""

        async def later() -> str:
            return ""

        self.commands.command("LATER", safe=True)(later)
        self.assertEqual(list(observable_commands(self.commands, ["TIME"])), ["time"])
        for name in ("SET", "LATER", "NONE"):
            with self.assertRaisesRegex(ValueError, f"{name} cannot be observed"):
                observable_commands(self.commands, ["TIME", name])
        self.assertEqual(observable_commands(Commands()), {})
