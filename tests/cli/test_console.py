"""The console: history, colors, requests. tests/live/test_client.py runs it in a terminal."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.tcp.test_client import ClientCase, lines, reply
from twisted_net.cli.console import (
    HISTORY_LIMIT,
    LineHistory,
    ask,
    colored,
    history_path,
    known_commands,
)


class ColorTests(SynchronousTestCase):
    """:func:`colored`."""

    def test_kinds(self) -> None:
        """Each kind of token has a color; together they are the JSON."""
        value = {"error": "no", "event": [1, -2.5e3, True, None, {"a": 'q"ü: '}], "x": "error"}
        fragments = colored(value)
        self.assertEqual(
            "".join(text for _, text in fragments),
            '{"error": "no", "event": [1, -2500.0, true, null, {"a": "q\\"ü: "}], "x": "error"}',
        )
        colors = {text: color for color, text in fragments}
        self.assertEqual(colors['"a"'], "ansicyan")
        self.assertEqual(colors['"q\\"ü: "'], "ansigreen")
        self.assertEqual(colors["-2500.0"], "ansiyellow")
        errors = [color for color, text in fragments if text == '"error"']
        self.assertEqual(errors, ["ansired bold", "ansigreen"])

    def test_harmless(self) -> None:
        """Control characters in an answer are escaped."""
        text = "".join(text for _, text in colored("\x9b2J\x1b[2J\u202e\U000e0041"))
        self.assertEqual(text, '"\\u009b2J\\u001b[2J\\u202e\\udb40\\udc41"')


class HistoryTests(SynchronousTestCase):
    """:class:`LineHistory`."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "twisted_net" / "history"
        self.history = LineHistory(self.path)

    def test_kept(self) -> None:
        """Lines are stored in order, except those with AUTH; only the owner can read them."""
        self.assertEqual(self.history.load(), [])
        for line in ("ECHO a", " auth secret", "AUTH x y", "TIME"):
            self.history.add(line)
        self.assertEqual(self.history.load(), ["ECHO a", "TIME"])
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_bounded(self) -> None:
        """Over the limit, the newest are kept."""
        self.path.parent.mkdir(parents=True)
        everything = [f"ECHO {i}" for i in range(2 * HISTORY_LIMIT + 1)]
        self.path.write_text("\n".join(everything) + "\n")
        self.assertEqual(self.history.load(), everything[-HISTORY_LIMIT:])
        self.assertEqual(self.path.read_text().splitlines(), everything[-HISTORY_LIMIT:])

    def test_done_without(self) -> None:
        """If the file cannot be used, there is no history."""
        self.path.parent.write_text("a file where a folder should be")
        self.history.add("ECHO")
        self.assertEqual(self.history.load(), [])

    def test_place(self) -> None:
        """The path follows the XDG Base Directory Specification."""
        with patch.dict("os.environ", {"XDG_STATE_HOME": "/state"}):
            self.assertEqual(history_path(), Path("/state/twisted_net/history"))
        with patch.dict("os.environ", {"XDG_STATE_HOME": "", "HOME": "/home/ada"}):
            self.assertEqual(history_path(), Path("/home/ada/.local/state/twisted_net/history"))


class AskTests(ClientCase):
    """:func:`ask` and :func:`known_commands`."""

    def test_lines(self) -> None:
        """A line is sent as typed; subscriptions are renewed by the client."""
        client, server = self.connected()
        asked: list[Deferred[Any]] = [
            Deferred.fromCoroutine(ask(client, line))
            for line in (
                'echo "a  b"',
                "subscribe a.*",
                "SUBSCRIBE b drop_newest",
                "unsubscribe a.*",
            )
        ]
        self.reactor.settle()
        self.assertEqual(
            lines(server),
            ['echo "a  b"', "SUBSCRIBE a.*", "SUBSCRIBE b drop_newest", "UNSUBSCRIBE a.*"],
        )
        reply(server, {"command": "ECHO", "error": "no", "code": "x"}, {"command": "SUBSCRIBE"})
        reply(server, {"command": "SUBSCRIBE"}, {"command": "UNSUBSCRIBE"})
        self.reactor.settle()
        self.assertEqual(self.successResultOf(asked[0])["code"], "x")
        self.assertEqual(self.successResultOf(asked[3]), {"command": "UNSUBSCRIBE"})
        self.close(client)

    def test_mistakes(self) -> None:
        """Failures to send, and missing answers, are shown as errors, too."""
        client, server = self.connected()
        for line, code in (('ECHO "', "bad_quotes"), ('"a"b', "bad_quotes"), ('"a b"', None)):
            shown = self.successResultOf(Deferred.fromCoroutine(ask(client, line)))
            self.assertEqual(shown.get("code"), code)
            self.assertTrue(shown["error"])
        lost: Deferred[Any] = Deferred.fromCoroutine(ask(client, "PING"))
        server.reset()
        self.assertEqual(self.successResultOf(lost)["code"], "answer_lost")
        self.close(client)

    def test_known(self) -> None:
        """Names and usages of commands are requested; a server may refuse."""
        client, server = self.connected()
        known = Deferred.fromCoroutine(known_commands(client))
        reply(
            server,
            {"command": "HELP", "commands": [{"name": "A", "usage": "A <x>", "help": "Do."}]},
            {"error": "no", "code": "auth_required"},
        )
        refused = Deferred.fromCoroutine(known_commands(client))
        self.reactor.settle()
        self.assertEqual(self.successResultOf(known), (["A"], {"A": "A <x>: Do."}))
        self.assertEqual(self.successResultOf(refused), ([], {}))
        self.close(client)
