"""Tests for :mod:`twisted_net.coap.server`."""

from __future__ import annotations

import json
from hashlib import blake2s
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.interfaces import IReactorTime
from twisted.trial.unittest import SynchronousTestCase

from tests.coap.coap_driver import (
    ACCEPT_JSON,
    LOCAL,
    OBSERVE,
    REMOTE,
    Driver,
    Pairs,
    ServerTests,
    by_number,
)
from twisted_net.coap import resources
from twisted_net.coap.blockwise import Block
from twisted_net.coap.codec import (
    CoapMessage,
    Code,
    Option,
    Type,
    encode_message,
    encode_uint,
)
from twisted_net.coap.server import CoapServer
from twisted_net.coap.settings import CoapLimits
from twisted_net.commands.registry import Command
from twisted_net.commands.standard import standard_commands
from twisted_net.errors import AuthRequired
from twisted_net.net.addresses import Source
from twisted_net.net.log_limiter import TRACEBACK_BURST
from twisted_net.sessions import Session


class RequestTests(ServerTests):
    """Commands are resources."""

    def test_get(self) -> None:
        """A safe command answers GET, and its answer is not to be cached."""
        answer = self.ask(Code.GET, "ping")
        self.assertEqual((answer.type, answer.code, answer.payload), (2, Code.CONTENT, b"PONG"))
        self.assertEqual(
            list(answer.options), [(Option.CONTENT_FORMAT, b""), (Option.MAX_AGE, b"")]
        )

    def test_post(self) -> None:
        """Any command answers POST; its arguments are the payload."""
        answer = self.ask(Code.POST, "ECHO", b'a "b  c"')
        self.assertEqual((answer.code, answer.payload), (Code.CHANGED, b"a b  c"))

    def test_fetch(self) -> None:
        """FETCH of a safe command has its arguments in the payload (RFC 8132 §2)."""
        answer = self.ask(Code.FETCH, "echo", b"a  b")
        self.assertEqual((answer.code, answer.payload), (Code.CONTENT, b"a b"))
        self.assertEqual(answer.option(Option.MAX_AGE), b"")
        json_format = (int(Option.CONTENT_FORMAT), b"\x32")
        answer = self.ask(Code.FETCH, "echo", b'["a  b"]', [json_format])
        self.assertEqual(answer.payload, b"a  b")
        cbor = (int(Option.CONTENT_FORMAT), b"\x3c")
        for path, options, code in (
            ("note", [], Code.METHOD_NOT_ALLOWED),
            ("events", [], Code.METHOD_NOT_ALLOWED),
            ("topics/a", [], Code.METHOD_NOT_ALLOWED),
            ("echo", [cbor], Code.UNSUPPORTED_CONTENT_FORMAT),
        ):
            self.assertEqual(self.ask(Code.FETCH, path, b"x", options).code, code, path)
        self.assertEqual(self.runs, [])

    def test_fetch_validated(self) -> None:
        """A stored response to FETCH is validated by its ETag, as GET's is (RFC 8132 §2.1)."""
        long = b"x" * 1500
        first = self.ask(Code.FETCH, "echo", long)
        etag = first.option(Option.ETAG)
        assert etag is not None
        valid = self.ask(Code.FETCH, "echo", long, [(int(Option.ETAG), etag)])
        self.assertEqual((valid.code, valid.payload), (Code.VALID, b""))
        self.assertEqual((valid.option(Option.ETAG), valid.option(Option.MAX_AGE)), (etag, b""))
        other = self.ask(Code.FETCH, "echo", long + b"y", [(int(Option.ETAG), etag)])
        self.assertEqual(other.code, Code.CONTENT)

    def test_no_response(self) -> None:
        """Responses of the classes that No-Response names are not sent (RFC 7967 §2.1)."""
        for value, path, sent in (
            (b"", "echo", True),
            (b"\x02", "echo", False),
            (b"\x02", "nope", True),
            (b"\x08", "nope", False),
            (b"\x10", "nope", True),
            (b"\x10", "fail", False),
            (b"\x1a", "note", False),
            (b"\x1a\0", "echo", True),
        ):
            options = [(int(Option.NO_RESPONSE), value)]
            for kind in (Type.NON, Type.CON):
                payload = b"" if path == "fail" else b"x"
                datagram = self.driver.send(Code.POST, path, payload, options, kind=kind)
                answers = self.driver.answers()
                if kind == Type.NON:
                    self.assertEqual(len(answers), sent)
                    continue
                (answer,) = answers
                self.assertEqual((answer.type, answer.code != 0), (Type.ACK, sent))
                self.driver.server.receive(datagram, LOCAL)
                self.assertEqual(self.driver.answers(), [answer])
        self.assertEqual(self.runs, ["x", "x"])
        self.flushLoggedErrors(ZeroDivisionError)

    def test_no_response_later(self) -> None:
        """The same holds for the response of a command that waits."""
        self.driver.send(Code.POST, "later", options=[(int(Option.NO_RESPONSE), b"\x02")])
        self.driver.clock.advance(1)
        (acknowledged,) = self.driver.answers()
        self.assertEqual((acknowledged.type, acknowledged.code), (Type.ACK, Code.EMPTY))
        self.waiting[0].callback("")
        self.driver.clock.advance(10)
        self.assertEqual(self.driver.answers(), [])

    def test_no_response_to_deregistration(self) -> None:
        """An observation ends also if the client wants no response to that (RFC 7641 §3.6)."""
        self.ask(Code.GET, "stats", options=[OBSERVE])
        end = [(int(Option.OBSERVE), b"\x01"), (int(Option.NO_RESPONSE), b"\x02")]
        self.assertEqual(self.ask(Code.GET, "stats", options=end).code, Code.EMPTY)
        self.assertEqual(self.driver.server.observers, 0)

    def test_query(self) -> None:
        """Queries are arguments too."""
        answer = self.ask(Code.GET, "echo", options=[(Option.URI_QUERY, b"a b")])
        self.assertEqual(answer.payload, b"a b")

    def test_json(self) -> None:
        """What is no text, and what is asked for as JSON, is what TCP clients get."""
        self.assertEqual(json.loads(self.ask(Code.GET, "stats").payload)["command"], "STATS")
        answer = self.ask(Code.GET, "ping", options=[ACCEPT_JSON])
        self.assertEqual(answer.payload, b'{"command":"PING","result":"PONG"}')
        self.assertEqual(answer.option(Option.CONTENT_FORMAT), b"\x32")

    def test_core(self) -> None:
        """/.well-known/core lists the resources."""
        answer = self.ask(Code.GET, ".well-known/core")
        self.assertEqual(answer.option(Option.CONTENT_FORMAT), b"\x28")
        filtered = self.ask(
            Code.GET, ".well-known/core", options=[(Option.URI_QUERY, b"href=/stats")]
        )
        self.assertEqual(
            filtered.payload,
            b'</stats>;title="Figures of this server.";if="get fetch post";ct="0 50";obs',
        )

    def test_errors(self) -> None:
        """Each mistake has its code, and a sentence for a person."""
        cases: list[tuple[int, str, bytes, Pairs, int, bytes]] = [
            (1, "nope", b"", (), 132, b"no resource /nope; see /.well-known/core"),
            (1, "ping/x", b"", (), 132, b"no resource /ping/x; see /.well-known/core"),
            (1, "note", b"", (), 133, b"this resource takes POST"),
            (3, "ping", b"", (), 133, b"this resource takes GET or FETCH or POST"),
            (2, "events", b"", (), 133, b"this resource takes GET"),
            (1, "ping", b"", [(17, b"\x3c")], 134, b"content formats here: 0, 50"),
            (2, "note", b"", (), 128, b"wrong number of arguments (0); usage: NOTE <text>"),
            (2, "note", b'"a', (), 128, b"the quote at position 0 has no end"),
            (2, "note", b"a", [(12, b"\x3c")], 143, b"content formats taken here: 0, 50"),
            (2, "refuse", b"", (), 131, b"not today"),
            (2, "help", b"x", (), 132, b"unknown command: x"),
            (1, "ping", b"", [(9, b"")], 130, b"option 9 is unknown, or wrong here"),
            (1, "ping", b"", [(35, b"x")], 165, b"this server is not a proxy"),
            (1, "ping", b"", [(5, b"")], 140, b"the resource exists, and has no ETag to match"),
            (1, "ping", b"", [(1, b"e")], 140, b"the resource exists, and has no ETag to match"),
            (1, "ping", b"", [(23, b"\x07")], 128, b"the block size 7 is reserved"),
        ]
        for code, path, payload, options, expected, sentence in cases:
            answer = self.ask(code, path, payload, options)
            self.assertEqual((answer.code, answer.payload), (expected, sentence))
        self.assertEqual(self.ask(1, "ping", options=[(1, b"")]).code, Code.CONTENT)

    def test_counted(self) -> None:
        """Each request is a message of its peer, whatever becomes of it; a repeated one is none."""
        refused: list[tuple[int, str, bytes, Pairs]] = [
            *(
                (1, path, b"", ())
                for path in ("ping", "nope", "ping/x", "note", "events", "topics/a")
            ),
            *(
                (1, ".well-known/core", b"", ((Option.URI_QUERY, b"nonsense"),)),
                (9, "ping", b"", ()),
            ),
            *((2, "note", b"\xff", ()), (2, "note", b"a b", ()), (2, "subscribe", b"a", ())),
            *((1, "ping", b"", (pair,)) for pair in ((9, b""), (17, b"\x3c"), (35, b"x"))),
            *((1, "ping", b"", (pair,)) for pair in ((23, b"\x07"), (15, b"\xff"), (27, b"\x08"))),
        ]
        for count, (code, path, payload, options) in enumerate(refused, 1):
            self.ask(code, path, payload, options)
            [session] = self.driver.server.sessions
            self.assertEqual(session.messages, count, (code, path, payload, options))
        self.driver.server.receive(self.driver.send(Code.GET, "ping"), LOCAL)
        self.assertEqual(self.driver.server.sessions.messages, len(refused) + 1)

    def test_json_errors(self) -> None:
        """Who accepts JSON gets the error's stable code."""
        answer = self.ask(Code.POST, "refuse", options=[ACCEPT_JSON])
        self.assertEqual(
            json.loads(answer.payload),
            {"error": "not today", "code": "refused", "command": "REFUSE"},
        )

    def test_bug(self) -> None:
        """A bug of a handler's is answered 5.00; a flood of them does not fill the log."""
        for _ in range(3 * TRACEBACK_BURST):
            self.assertEqual(self.ask(Code.GET, "fail").code, Code.INTERNAL_SERVER_ERROR)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), TRACEBACK_BURST)
        self.assertEqual(self.driver.server.sessions.counters.failures, 3 * TRACEBACK_BURST)

    def test_bug_of_permit(self) -> None:
        """A bug of the embedding application's check is answered 5.00 too, be it SystemExit."""

        def permit(command: Command, session: Session) -> None:
            raise SystemExit(1)

        clock = cast(IReactorTime, self.driver.clock)
        server = CoapServer(clock, standard_commands(), permit=permit, chance=lambda: 0.5)
        server.transport = self.driver.transport  # type: ignore[assignment]  # a fake
        self.driver.server = server
        self.assertEqual(self.ask(Code.GET, "ping").code, Code.INTERNAL_SERVER_ERROR)
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_runs_once(self) -> None:
        """A command runs once, however often its request comes."""
        datagram = self.driver.send(Code.POST, "note", b"x")
        (first,) = self.driver.answers()
        self.driver.server.receive(datagram, LOCAL)
        self.assertEqual(self.driver.answers(), [first])
        self.assertEqual(self.runs, ["x"])

    def test_non(self) -> None:
        """What is not confirmable is answered so; what is critical and unknown is passed over."""
        self.driver.send(Code.GET, "ping", kind=Type.NON)
        (answer,) = self.driver.answers()
        self.assertEqual((answer.type, answer.payload), (Type.NON, b"PONG"))
        self.driver.send(Code.GET, "ping", options=[(9, b"")], kind=Type.NON)
        self.assertEqual(self.driver.answers(), [])

    def test_etag(self) -> None:
        """Who has the body already is told so (RFC 7252 §5.10.6.2)."""
        long = self.ask(Code.GET, ".well-known/core", options=[(Option.BLOCK2, b"")])
        etag = long.option(Option.ETAG)
        assert etag is not None
        answer = self.ask(Code.GET, ".well-known/core", options=[(Option.ETAG, etag)])
        self.assertEqual((answer.code, answer.payload), (Code.VALID, b""))
        other = self.ask(Code.GET, ".well-known/core", options=[(Option.ETAG, b"other")])
        self.assertEqual(other.code, Code.CONTENT)

    def test_max_age_of_valid(self) -> None:
        """2.03 has the Max-Age that 2.05 has: it is what the body is fresh for (§5.9.1.3)."""
        block2 = (int(Option.BLOCK2), Block(0, False, 16).encode())
        full = self.ask(Code.GET, "help", options=[block2])
        etag = full.option(Option.ETAG)
        assert etag is not None
        valid = self.ask(Code.GET, "help", options=[(int(Option.ETAG), etag)])
        self.assertEqual(valid.code, Code.VALID)
        self.assertEqual(full.option(Option.MAX_AGE), b"")
        self.assertEqual(valid.option(Option.MAX_AGE), b"")

    def test_long_datagram(self) -> None:
        """A datagram over the limit is 4.13, and what is left of it does not run."""
        payload = b"x" * 4096
        answer = self.ask(Code.POST, "note", payload)
        self.assertEqual(answer.code, Code.REQUEST_ENTITY_TOO_LARGE)
        self.assertEqual(answer.payload, b"a datagram holds at most 4096 bytes here; send blocks")
        self.assertEqual(self.runs, [])
        head = len(encode_message(CoapMessage(0, 2, 1, b"t", [(11, b"note")]))) + 1
        self.assertEqual(self.ask(Code.POST, "note", payload[head:]).code, Code.CHANGED)

    def test_permit(self) -> None:
        """``permit`` decides who may run what."""

        def permit(command: Command, session: Session) -> None:
            if command.name != "PING":
                raise AuthRequired()

        server = CoapServer(
            cast(IReactorTime, self.driver.clock), standard_commands(), permit=permit
        )
        self.driver.leftovers()
        server.transport = self.driver.server.transport
        self.driver.server = server
        self.assertEqual(self.ask(Code.GET, "ping").code, Code.CONTENT)
        self.assertEqual(self.ask(Code.GET, "time").code, Code.UNAUTHORIZED)

    def test_without_transport(self) -> None:
        """What comes before the start or after the end is dropped."""
        self.driver.server.transport = None
        self.driver.send(Code.GET, "ping")
        self.driver.server.notify("stats")
        self.assertEqual(self.driver.answers(), [])


class BlockTests(ServerTests):
    """Bodies in blocks, both ways: RFC 7959."""

    limits = CoapLimits(max_body=5000, block_size=256)

    def block2(self, number: int, size: int = 256) -> tuple[int, bytes]:
        """Make the option by which a client asks for a block."""
        return int(Option.BLOCK2), Block(number, False, size).encode()

    def block1(self, number: int, more: bool, size: int = 256) -> tuple[int, bytes]:
        """Make the option by which a client sends a block."""
        return int(Option.BLOCK1), Block(number, more, size).encode()

    def test_download(self) -> None:
        """The blocks of a long answer are of one run of its command."""
        first = self.ask(Code.GET, "big")
        value = first.option(Option.BLOCK2)
        assert value is not None
        self.assertEqual(Block.parse(value), Block(0, True, 256))
        self.assertEqual(first.option(Option.SIZE2), encode_uint(3000))
        body = first.payload
        for number in range(1, 12):
            answer = self.ask(Code.GET, "big", options=[self.block2(number)])
            self.assertEqual(answer.option(Option.ETAG), first.option(Option.ETAG))
            body += answer.payload
        self.assertEqual(body, b"1" * 3000)
        self.assertEqual(self.runs, ["big"])

    def test_digests(self) -> None:
        """The ETag of a body is made once, not for each block: that would be quadratic."""
        digests: list[int] = []

        def digest(payload: bytes, digest_size: int) -> Any:  # Any: as hashlib's
            digests.append(len(payload))
            return blake2s(payload, digest_size=digest_size)

        self.patch(resources, "blake2s", digest)
        for number in range(12):
            self.ask(Code.GET, "big", options=[self.block2(number)])
        self.assertEqual(digests, [3000])

    def test_early_negotiation(self) -> None:
        """A client says how small its blocks are to be (§2.4)."""
        first = self.ask(Code.GET, "big", options=[self.block2(0, 64)])
        self.assertEqual(len(first.payload), 64)
        last = self.ask(Code.GET, "big", options=[self.block2(46, 64)])
        self.assertEqual(last.payload, b"1" * (3000 - 46 * 64))
        short = self.ask(Code.GET, "ping", options=[self.block2(0, 64), (28, b"")])
        self.assertEqual((short.option(23), short.option(28)), (b"\x02", b"\x04"))

    def test_blocks_too_large(self) -> None:
        """Blocks are no larger than ours, and start where they were asked to."""
        answer = self.ask(Code.GET, "big", options=[self.block2(1, 1024)])
        value = answer.option(Option.BLOCK2)
        assert value is not None
        self.assertEqual(Block.parse(value), Block(4, True, 256))

    def test_forgotten(self) -> None:
        """A body that is kept no longer is made again for GET, and 4.08 for POST."""
        self.ask(Code.POST, "big")
        self.assertEqual(self.ask(Code.POST, "big", options=[self.block2(1)]).code, 68)
        self.driver.clock.advance(300)
        answer = self.ask(Code.POST, "big", options=[self.block2(2)])
        self.assertEqual(answer.code, Code.REQUEST_ENTITY_INCOMPLETE)
        again = self.ask(Code.GET, "big", options=[self.block2(2)])
        self.assertEqual(again.payload, b"2" * 256)
        self.assertEqual(self.runs, ["big", "big"])

    def test_beyond(self) -> None:
        """A block after the last one is a bad request."""
        self.assertEqual(self.ask(Code.GET, "ping", options=[self.block2(1)]).code, 128)

    def test_upload(self) -> None:
        """A body in blocks is put together, and its command runs once, with the last one."""
        body = b"x" * 600
        for number, more in ((0, True), (1, True), (2, False)):
            start = number * 256
            answer = self.ask(
                Code.POST, "note", body[start : start + 256], [self.block1(number, more)]
            )
            self.assertEqual(answer.code, Code.CONTINUE if more else Code.CHANGED)
            self.assertEqual(answer.option(Option.BLOCK1), self.block1(number, more)[1])
        self.assertEqual(self.runs, ["x" * 600])
        rest = self.ask(Code.POST, "note", options=[self.block2(2)])
        self.assertEqual(len(answer.payload) + 256 + len(rest.payload), 600)

    def test_upload_refused(self) -> None:
        """A body that would be refused is not taken: its first block is."""
        cbor = (int(Option.CONTENT_FORMAT), b"\x3c")
        accept = (int(Option.ACCEPT), b"\x3c")
        for path, options, code in (
            ("nope", [], Code.NOT_FOUND),
            ("note", [cbor], Code.UNSUPPORTED_CONTENT_FORMAT),
            ("note", [accept], Code.NOT_ACCEPTABLE),
            ("events", [], Code.METHOD_NOT_ALLOWED),
        ):
            block = self.block1(0, True)
            answer = self.ask(Code.POST, path, b"x" * 256, [*options, block])
            self.assertEqual((answer.code, answer.option(Option.BLOCK1)), (code, block[1]))
        self.assertEqual(len(self.driver.server._assembler._bodies), 0)

    def test_upload_of_two_formats(self) -> None:
        """All blocks of a body have one Content-Format (RFC 7959 §2.9.2)."""
        text, json_format = ((int(Option.CONTENT_FORMAT), value) for value in (b"", b"\x32"))
        first = self.ask(Code.POST, "note", b"x" * 256, [self.block1(0, True), text])
        self.assertEqual(first.code, Code.CONTINUE)
        last = self.ask(Code.POST, "note", b"x", [self.block1(1, False), json_format])
        self.assertEqual((last.code, self.runs), (Code.REQUEST_ENTITY_INCOMPLETE, []))

    def test_fetch_in_blocks(self) -> None:
        """FETCH has its arguments in blocks, as POST has, and its response (RFC 8132 §2)."""
        for number, more in ((0, True), (1, False)):
            part = b"3000" if not more else b" " * 256
            answer = self.ask(Code.FETCH, "big", part, [self.block1(number, more)])
        self.assertEqual((answer.code, answer.payload), (Code.CONTENT, b"1" * 256))
        rest = self.ask(Code.FETCH, "big", options=[self.block2(1)])
        self.assertEqual((rest.payload, self.runs), (b"1" * 256, ["big"]))

    def test_fetch_is_made_again(self) -> None:
        """A block of a response that is no longer kept is made anew from the payload alone."""
        self.ask(Code.FETCH, "big", b"600")
        self.driver.clock.advance(300)
        for payload, code in ((b"", Code.REQUEST_ENTITY_INCOMPLETE), (b"600", Code.CONTENT)):
            second = self.ask(Code.FETCH, "big", payload, [self.block2(1)])
            self.assertEqual(second.code, code)
        self.assertEqual(second.payload, b"2" * 256)
        last = self.ask(Code.FETCH, "big", options=[self.block2(2)])
        self.assertEqual((last.payload, self.runs), (b"2" * (600 - 512), ["big", "big"]))

    def test_upload_negotiation(self) -> None:
        """The first answer says how small blocks are to be (§2.5)."""
        answer = self.ask(Code.POST, "note", b"x" * 1024, [self.block1(0, True, 1024)])
        self.assertEqual(answer.option(Option.BLOCK1), self.block1(0, True, 256)[1])
        answer = self.ask(Code.POST, "note", b"x", [self.block1(4, False, 256)])
        self.assertEqual(self.runs, ["x" * 1025])

    def test_upload_incomplete(self) -> None:
        """A block out of its order is 4.08 (§2.9.2)."""
        answer = self.ask(Code.POST, "note", b"x" * 256, [self.block1(1, True)])
        self.assertEqual(answer.code, Code.REQUEST_ENTITY_INCOMPLETE)

    def test_upload_too_large(self) -> None:
        """A body over the limit is 4.13, with the limit (§2.9.3)."""
        size1 = (int(Option.SIZE1), encode_uint(5001))
        answer = self.ask(Code.POST, "note", b"x" * 256, [self.block1(0, True), size1])
        self.assertEqual(answer.code, Code.REQUEST_ENTITY_TOO_LARGE)
        self.assertEqual(answer.option(Option.SIZE1), encode_uint(5000))
        self.assertEqual(answer.option(Option.BLOCK1), self.block1(0, True)[1])


class ProofTests(ServerTests):
    """Addresses beyond this machine prove themselves: RFC 9175."""

    def prove(self) -> None:
        """Have the remote client prove itself."""
        challenge = self.ask(Code.GET, "stats", source=REMOTE)
        echo = challenge.option(Option.ECHO)
        assert echo is not None
        answer = self.ask(Code.GET, "ping", options=[(int(Option.ECHO), echo)], source=REMOTE)
        self.assertEqual(answer.payload, b"PONG")

    def test_short_answers(self) -> None:
        """An answer of at most three times the question is given to anybody."""
        self.assertEqual(self.ask(Code.GET, "ping", source=REMOTE).payload, b"PONG")

    def test_long_answers(self) -> None:
        """A longer one needs a proof, which holds for what follows."""
        self.assertEqual(self.ask(Code.GET, "stats", source=REMOTE).code, Code.UNAUTHORIZED)
        self.prove()
        self.assertEqual(self.ask(Code.GET, "stats", source=REMOTE).code, Code.CONTENT)

    def test_before_it_runs(self) -> None:
        """What changes something, waits, comes in blocks or goes on and on needs one first."""
        block1 = (int(Option.BLOCK1), Block(0, True, 16).encode())
        for code, path, payload, options in (
            (Code.POST, "note", b"x", []),
            (Code.GET, "soon", b"", []),
            (Code.POST, "echo", b"x" * 16, [block1]),
            (Code.GET, "events", b"", [OBSERVE]),
        ):
            answer = self.ask(code, path, payload, options, source=REMOTE)
            self.assertEqual(answer.code, Code.UNAUTHORIZED, path)
        self.assertEqual((self.runs, self.driver.server.observers), ([], 0))
        self.prove()
        self.assertEqual(self.ask(Code.POST, "note", b"x", source=REMOTE).code, Code.CHANGED)

    def test_nothing_is_kept(self) -> None:
        """Of an address that is not verified nothing is kept: it may be forged (RFC 9175 §2.3)."""
        server = self.driver.server
        block2 = (int(Option.BLOCK2), Block(0, False, 16).encode())
        for number in range(100):
            source = ("192.0.2.1", 1000 + number)
            for path, options in (("ping", []), ("stats", [OBSERVE]), ("big", [block2])):
                for kind in (Type.CON, Type.NON):
                    self.driver.send(Code.GET, path, b"", options, kind=kind, source=source)
        sizes = {name: size for name, size in server.layer.sizes.items() if size}
        self.assertEqual((sizes, len(server.sessions), server.sessions.memory.total), ({}, 0, 0))
        self.assertEqual(server.sessions.messages, 600)
        self.assertEqual(len(self.driver.transport.written), 600)
        self.driver.transport.written.clear()

    def test_kept_once_verified(self) -> None:
        """The request that returns the Echo option is kept: a duplicate does not run twice."""
        echo = self.ask(Code.POST, "note", b"x", source=REMOTE).option(Option.ECHO)
        assert echo is not None
        options = [(int(Option.ECHO), echo)]
        datagram = self.driver.send(Code.POST, "note", b"x", options, source=REMOTE)
        (first,) = self.driver.answers(REMOTE)
        self.driver.server.receive(datagram, REMOTE)
        self.assertEqual(self.driver.answers(REMOTE), [first])
        self.assertEqual((first.code, self.runs), (Code.CHANGED, ["x"]))

    def test_kept_peers_stay(self) -> None:
        """A crowd of forged addresses takes no place of those that are verified."""
        self.driver.leftovers()
        self.driver = Driver(standard_commands(), CoapLimits(max_peers=1))
        datagram = self.driver.send(Code.POST, "echo", b"x")
        (first,) = self.driver.answers()
        for port in range(1, 100):
            self.driver.send(Code.GET, "ping", source=("192.0.2.1", port))
        self.driver.server.receive(datagram, LOCAL)
        self.assertEqual(self.driver.answers(), [first])
        self.assertEqual(self.driver.server.layer.counts.duplicates, 1)
        self.driver.transport.written.clear()

    def test_no_room_once_verified(self) -> None:
        """A verified request that cannot be kept is dropped: it might run twice."""
        self.driver.leftovers()
        self.driver = Driver(self.driver.server.commands, CoapLimits(max_peers=1))
        echo = self.driver.ask(Code.POST, "note", b"x", source=REMOTE).option(Option.ECHO)
        assert echo is not None
        self.driver.send(Code.POST, "later")
        options = [(int(Option.ECHO), echo)]
        self.driver.send(Code.POST, "note", b"x", options, source=REMOTE)
        self.assertEqual((self.driver.answers(REMOTE), self.runs), ([], []))
        self.assertEqual(self.driver.server.layer.counts.peers_refused, 1)
        self.waiting[0].callback("")

    def test_amplification(self) -> None:
        """No answer to an address that is not proven is over three times its question."""
        paths = ["", "a", "stats", "help", "big", ".well-known/core", "note", "time", "fail"]
        for path in paths:
            for code in (0, 1, 2, 3, 4, 31):
                for options in ([], [OBSERVE], [(9, b"")], [(23, b"\x07")], [(35, b"x" * 300)]):
                    datagram = self.driver.send(code, path, options=options, source=REMOTE)
                    self.driver.clock.advance(300)
                    sent = [data for data, _ in self.driver.transport.written]
                    self.driver.transport.written.clear()
                    self.assertTrue(sum(map(len, sent)) <= 3 * len(datagram), (path, code, sent))
        self.flushLoggedErrors(ZeroDivisionError)

    def test_loopback(self) -> None:
        """This machine's own addresses need no proof, IPv4 over an IPv6 socket among them."""
        local = ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1")
        remote = ("192.0.2.1", "::ffff:192.0.2.1", "::2", "2001:db8::127.0.0.1", "fe80::1%lo")
        for hosts, code in ((local, Code.CONTENT), (remote, Code.UNAUTHORIZED)):
            for host in hosts:
                answer = self.ask(Code.GET, "stats", source=(host, 40_000))
                self.assertEqual(answer.code, code, host)

    def test_no_rule(self) -> None:
        """Where the rule is switched off, anybody gets anything."""
        self.driver.leftovers()
        self.driver = Driver(standard_commands(), CoapLimits(amplification=0))
        self.assertEqual(self.driver.ask(Code.GET, "stats", source=REMOTE).code, Code.CONTENT)


class GroupTests(ServerTests):
    """Questions to a group of servers: RFC 7252 §8."""

    def ask_group(self, code: int, path: str, options: Pairs = (), kind: int = Type.NON) -> None:
        """Ask a group of servers."""
        self.driver.send(code, path, b"", options, kind=kind, group=True)

    def test_leisure(self) -> None:
        """An answer comes after a random part of the leisure."""
        self.ask_group(Code.GET, "ping")
        self.assertEqual(self.driver.answers(), [])
        self.driver.clock.advance(2.5)
        (answer,) = self.driver.answers()
        self.assertEqual((answer.type, answer.payload), (Type.NON, b"PONG"))

    def test_silence(self) -> None:
        """Errors, empty lists, and commands that wait are not answered; nothing confirmable is."""
        self.ask_group(Code.GET, "nope")
        self.ask_group(Code.GET, ".well-known/core", [(Option.URI_QUERY, b"rt=none")])
        self.ask_group(Code.POST, "later")
        self.ask_group(Code.GET, "ping", kind=Type.CON)
        self.driver.clock.advance(10)
        self.assertEqual((self.driver.answers(), self.waiting), ([], []))

    def test_no_observers(self) -> None:
        """A group is not observed."""
        self.ask_group(Code.GET, "stats", [OBSERVE])
        self.assertEqual(self.driver.server.observers, 0)

    def test_not_proven(self) -> None:
        """An address that is not proven gets nothing long from a group, not even a challenge."""
        self.driver.send(Code.GET, "stats", kind=Type.NON, source=REMOTE, group=True)
        self.driver.clock.advance(10)
        self.assertEqual(self.driver.answers(REMOTE), [])


class FuzzTests(SynchronousTestCase):
    """Whatever comes, the server goes on."""

    @settings(max_examples=200)
    @given(
        st.lists(
            st.builds(
                CoapMessage,
                st.sampled_from([0, 1, 2, 3]),
                st.sampled_from([1, 1, 2, 2, 3, 69, 132]),
                st.integers(0, 3),
                st.binary(max_size=2),
                st.lists(
                    st.one_of(
                        st.tuples(
                            st.just(11),
                            st.sampled_from([b"echo", b"stats", b"events", b"help", b"\xff"]),
                        ),
                        st.tuples(
                            st.sampled_from([1, 4, 5, 6, 12, 14, 15, 17, 23, 27, 28, 60, 252, 9]),
                            st.binary(max_size=4),
                        ),
                    ),
                    max_size=5,
                ).map(lambda pairs: sorted(pairs, key=by_number)),
                st.binary(max_size=20),
            ),
            max_size=10,
        ),
        st.sampled_from([LOCAL, REMOTE]),
        st.booleans(),
    )
    def test_any_messages(self, messages: list[CoapMessage], source: Source, group: bool) -> None:
        """Any messages leave a server that answers, and has logged nothing."""
        driver = Driver(standard_commands())
        for message in messages:
            driver.server.receive(encode_message(message), source, group)
            driver.clock.advance(1)
        driver.answers()
        driver.clock.advance(300)
        driver.answers()
        self.assertEqual(driver.ask(Code.GET, "ping").payload, b"PONG")
        self.assertEqual(driver.leftovers(), [])
        self.assertEqual(self.flushLoggedErrors(), [])
