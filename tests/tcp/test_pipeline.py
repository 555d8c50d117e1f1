"""Requests are read by the server as they were meant; answers find their calls."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.commands.lines import run_line
from twisted_net.commands.registry import Commands
from twisted_net.errors import BadAnswer
from twisted_net.net.foreign_protocols import foreign_protocol
from twisted_net.sessions import Sessions
from twisted_net.tcp.pipeline import Pipeline, encode_request

WORD = st.text(
    st.characters(exclude_categories=["Cs"]).filter(
        lambda c: c == "\t" or (c >= " " and not "\x7f" <= c <= "\x9f")
    )
)


class EncodeTests(SynchronousTestCase):
    """:func:`encode_request` and the server's reading of it agree."""

    @given(st.lists(WORD))
    def test_round_trip(self, words: list[str]) -> None:
        """Whatever the arguments are, the server reads these and one line."""
        got: list[tuple[str, ...]] = []
        commands = Commands()

        @commands.command("TAKE")
        def take(*words: str) -> None:
            got.append(words)

        line = encode_request(["take", *words])
        self.assertEqual((line[-1:], line.count(b"\n")), (b"\n", 1))
        session = Sessions(lambda: 0.0).open("h", 1, lambda _: None)
        answer = run_line(commands, line[:-1], session)
        self.assertEqual(answer, b'{"command":"TAKE","result":null}\n')
        self.assertEqual(got, [tuple(words)])

    def test_wire(self) -> None:
        """Quotes stand where they are needed alone."""
        self.assertEqual(
            encode_request(["ECHO", "a", "", "b c", '{"d":1}', '"e', "\\", "f\u00a0g"]),
            b'ECHO a "" "b c" {"d":1} "\\"e" \\ f\xc2\xa0g\n',
        )

    @given(
        st.lists(
            st.sampled_from(["/", "http://a", "x", "HTTP/1.1", "SIP/2.0", "Host:", "EHLO", ""])
        )
    )
    def test_no_other_protocol(self, words: list[str]) -> None:
        """No arguments make it a line that opens another protocol, which would end a connection."""
        for command in ("ECHO", "GET", "EHLO"):
            line = encode_request([command, *words])[:-1]
            self.assertIsNone(foreign_protocol(line, lambda name: True))

    def test_other_types(self) -> None:
        """A word that is not text is refused by its type."""
        words: Any
        for words in (["ECHO", 5], ["ECHO", b"a"], [None], ["ECHO", ["a"]]):
            error = self.assertRaises(TypeError, encode_request, words)
            self.assertIn("must be text, not ", str(error))

    def test_refused(self) -> None:
        """What is no command, and what would be another line, cannot be sent."""
        for words in (
            [],
            [""],
            ["a b"],
            ['"a'],
            ["A", "b\nQUIT"],
            ["A", "\r"],
            ["A\x00"],
            ["A", "\x7f"],
            ["A", "\x85"],
            ["A", "\x9b"],
            ["A\x80"],
            ["A\t"],
        ):
            with self.subTest(words=words):
                self.assertRaises(ValueError, encode_request, words)

    def test_refused_without_secrets(self) -> None:
        """The error repeats no argument, which may be a password: it is often logged."""
        for words, where in (
            (["AUTH", "ann", "sesame\n"], "argument 2 has U+000A at position 6"),
            (["AUTH", "\x85sesame"], "argument 1 has U+0085 at position 0"),
            (["AUTH", "ann", "sesame\udcff"], "argument 2 has U+DCFF at position 6"),
            (["AUTH ann sesame"], "AUTH"),
            (["sesame-sesame\n"], "sesa"),
        ):
            error = self.assertRaises(ValueError, encode_request, words)
            self.assertIn(where, str(error))
            self.assertNotIn("sesame", repr(error))
            self.assertIs(type(error), ValueError)


class PipelineTests(SynchronousTestCase):
    """:class:`Pipeline` yields each answer to the call that it answers."""

    def setUp(self) -> None:
        self.pipeline: Pipeline[int] = Pipeline(1024, 100)
        for i, command in enumerate(("ECHO", "time", "X")):
            self.pipeline.expect(command, i)

    def test_any_cut(self) -> None:
        """However the stream is cut, answers and events come in order."""
        answers = [
            {"command": "ECHO", "result": 1},
            {"event": "message"},
            {"command": "TIME", "result": 2},
            {"error": "unknown command: X", "code": "unknown_command"},
        ]
        stream = b"".join(json.dumps(answer).encode() + b"\n" for answer in answers)
        for cut in range(len(stream) + 1):
            self.setUp()
            got = [*self.pipeline.receive(stream[:cut]), *self.pipeline.receive(stream[cut:])]
            self.assertEqual([call for call, _ in got], [0, None, 1, 2])
            self.assertEqual([answer for _, answer in got], answers)
            self.assertEqual(len(self.pipeline), 0)

    def test_bad_answers(self) -> None:
        """What cannot be an answer ends it, after the answers before it; the calls are kept."""
        for bad in (b"nope", b"[1]", b'{"command":"PING"}', b"\xff", b"x" * 1025, b""):
            with self.subTest(bad=bad):
                self.setUp()
                got = []
                with self.assertRaises(BadAnswer):
                    for call, _ in self.pipeline.receive(b'{"command":"ECHO"}\n' + bad + b"\n"):
                        got.append(call)
                self.assertEqual(got, [0])
                self.assertEqual(self.pipeline.lost(), [1, 2])
                self.assertEqual(self.pipeline.lost(), [])

    def test_values(self) -> None:
        """As many values as the limit says are decoded, and one more is not."""
        for count, commas in ((100, 95), (101, 96)):
            pipeline: Pipeline[int] = Pipeline(1024, 100)
            # The object, the event, the text, and the array with its members.
            line = b'{"event":"e","t":",,,[[{","v":[1' + b",1" * commas + b"]}"
            if count == 100:
                (answer,) = pipeline.receive(line + b"\n")
                self.assertEqual(len(answer[1]["v"]), 96)
            else:
                error = self.assertRaises(BadAnswer, list, pipeline.receive(line + b"\n"))
                self.assertIn("a line of the server has more than 100 values", str(error))

    def test_line(self) -> None:
        """The line of an answer is there with it, and is not kept after the last one."""
        lines = [b'{"event":"a"}', b'{"event":"b"}']
        got = [self.pipeline.line for _ in self.pipeline.receive(b"\n".join([*lines, b""]))]
        self.assertEqual(got, lines)
        self.assertEqual(self.pipeline.line, b"")

    def test_unasked(self) -> None:
        """An answer without a request is bad, and shown."""
        pipeline: Pipeline[int] = Pipeline(1024, 100)
        stream = b'{"error":"too many connections","code":"too_many_connections"}\n'
        with self.assertRaisesRegex(BadAnswer, "too many connections"):
            list(pipeline.receive(stream))
