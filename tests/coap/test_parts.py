"""Tests for the pure parts of CoAP: blocks, observers, proofs, commands as resources."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.blockwise import (
    Block,
    BlockMissing,
    Bodies,
    BodyRefused,
    Download,
    Upload,
    Uploads,
    cut,
    smaller,
)
from twisted_net.coap.codec import CoapMessage, Code, Option, RequestOptions, Type
from twisted_net.coap.echo import CHALLENGE_LIFETIME, AddressProofs
from twisted_net.coap.errors import TransferFailed
from twisted_net.coap.observe import Observers
from twisted_net.coap.resources import (
    MOST_FILTERS,
    Refused,
    arguments,
    diagnostic,
    find_command,
    links,
    observable_commands,
    refusal,
    reply_with,
)
from twisted_net.coap.settings import CoapLimits
from twisted_net.commands.registry import Commands
from twisted_net.errors import (
    BadArguments,
    BadQuotes,
    CommandError,
    ControlCharacter,
    FetchError,
    Internal,
    NotUTF8,
    TooBusy,
    UnknownCommand,
)
from twisted_net.http.errors import FetchTimeout

PEER = ("192.0.2.1", 5683)
OTHER = ("192.0.2.2", 5683)


class BlockTests(SynchronousTestCase):
    """:class:`Block` is the option of RFC 7959 §2.2."""

    def test_round_trip(self) -> None:
        """Each size and number comes back the same, in as few bytes as it needs."""
        for size in (16, 32, 64, 128, 256, 512, 1024):
            for number in (0, 1, 15, 16, 4095, 4096, (1 << 20) - 1):
                for more in (False, True):
                    block = Block(number, more, size)
                    self.assertEqual(Block.parse(block.encode()), block)
        self.assertEqual(Block(0, False, 16).encode(), b"")

    def test_reserved(self) -> None:
        """The size that is reserved is no block."""
        with self.assertRaises(ValueError):
            Block.parse(b"\x07")

    @given(st.binary(max_size=5000), st.sampled_from([16, 64, 1024]))
    def test_cut(self, body: bytes, size: int) -> None:
        """The blocks of a body, one after the other, are the body."""
        whole = b""
        number = 0
        while True:
            payload, block = cut(body, number, size)
            whole += payload
            if not block.more:
                break
            number += 1
        self.assertEqual(whole, body)
        with self.assertRaises(ValueError):
            cut(body, number + 1, size)

    def test_last_block(self) -> None:
        """A body that ends with a whole block has no block after it, empty or not."""
        self.assertEqual(cut(b"a" * 32, 1, 16), (b"a" * 16, Block(1, False, 16)))
        self.assertRaises(ValueError, cut, b"a" * 32, 2, 16)
        self.assertEqual(cut(b"", 0, 16), (b"", Block(0, False, 16)))

    def test_smaller(self) -> None:
        """A smaller block starts at the same byte."""
        self.assertEqual(smaller(Block(3, False, 1024), 256), Block(12, False, 256))
        self.assertEqual(smaller(Block(3, False, 64), 256), Block(3, False, 64))


class BodiesTests(SynchronousTestCase):
    """:class:`Bodies` is bounded, and shared by peers."""

    def test_kept(self) -> None:
        """A body is kept for its lifetime after its last use, or until it is taken."""
        bodies: Bodies[bytes] = Bodies(10, 1000, 100)
        bodies.put(PEER, "a", b"body", 0)
        self.assertEqual(bodies.get(PEER, "a", 99), b"body")
        self.assertEqual(bodies.get(PEER, "a", 198), b"body")
        self.assertIsNone(bodies.get(PEER, "a", 298))
        bodies.put(PEER, "a", b"other", 300)
        self.assertEqual(bodies.take(PEER, "a", 300), b"other")
        self.assertEqual((len(bodies), bodies.size), (0, 0))
        self.assertIsNone(bodies.get(OTHER, "a", 300))

    def test_share(self) -> None:
        """A peer with more than its share gives up its own oldest body."""
        bodies: Bodies[bytes] = Bodies(4, 1000, 100)
        bodies.put(OTHER, 0, b"", 0)
        for number in range(6):
            bodies.put(PEER, number, b"", 1)
        self.assertEqual((len(bodies), bodies.dropped), (4, 3))
        self.assertEqual(bodies.get(OTHER, 0, 1), b"")
        self.assertIsNone(bodies.get(PEER, 2, 1))

    def test_least_used(self) -> None:
        """A peer within its share takes the place of the body used longest ago."""
        bodies: Bodies[bytes] = Bodies(10, 1000, 100)
        bodies.put(PEER, 0, b"a" * 400, 0)
        bodies.put(PEER, 1, b"a" * 400, 1)
        bodies.put(OTHER, 0, b"a" * 400, 2)
        self.assertIsNone(bodies.get(PEER, 0, 2))
        self.assertEqual(bodies.size, 800)

    def test_share_of_bytes(self) -> None:
        """A peer with more than its share of the bytes gives up its own."""
        bodies: Bodies[bytes] = Bodies(10, 1000, 100)
        bodies.put(OTHER, 0, b"a" * 400, 0)
        bodies.put(PEER, 0, b"a" * 300, 1)
        bodies.put(PEER, 1, b"a" * 300, 2)
        self.assertEqual((bodies.size, bodies.dropped), (1000, 0))
        bodies.put(PEER, 2, b"a", 3)
        self.assertEqual(bodies.get(OTHER, 0, 3), b"a" * 400)
        self.assertIsNone(bodies.get(PEER, 0, 3))
        self.assertEqual((bodies.size, bodies.dropped), (701, 1))

    def test_alone(self) -> None:
        """One body is kept, whatever its size."""
        bodies: Bodies[bytes] = Bodies(1, 10, 100)
        bodies.put(PEER, 0, b"a" * 50, 0)
        self.assertEqual(bodies.get(PEER, 0, 0), b"a" * 50)


class UploadsTests(SynchronousTestCase):
    """:class:`Uploads` puts the bodies of requests together (RFC 7959 §2.5)."""

    def setUp(self) -> None:
        self.bodies: Bodies[bytearray] = Bodies(10, 1000, 100)
        self.uploads = Uploads(self.bodies, 100)

    def take(
        self, number: int, payload: bytes, more: bool = True, announced: int | None = None
    ) -> bytes | None:
        """Take in a block of 16 bytes."""
        return self.uploads.take(PEER, "k", Block(number, more, 16), payload, announced, 0)

    def test_in_order(self) -> None:
        """The last block brings the whole body."""
        self.assertIsNone(self.take(0, b"a" * 16))
        self.assertIsNone(self.take(1, b"b" * 16))
        self.assertEqual(self.take(2, b"c", False), b"a" * 16 + b"b" * 16 + b"c")

    def test_size_changes(self) -> None:
        """Blocks may become smaller on the way; what counts is where they start."""
        self.uploads.take(PEER, "k", Block(0, True, 32), b"a" * 32, None, 0)
        self.assertEqual(self.take(2, b"b", False), b"a" * 32 + b"b")

    def test_from_the_start(self) -> None:
        """A first block begins anew."""
        self.take(0, b"a" * 16)
        self.take(0, b"b" * 16)
        self.assertEqual(self.take(1, b"c", False), b"b" * 16 + b"c")

    def test_missing(self) -> None:
        """A block that does not follow is refused, and the transfer is over."""
        with self.assertRaises(BlockMissing):
            self.take(1, b"a" * 16)
        self.take(0, b"a" * 16)
        with self.assertRaises(BlockMissing):
            self.take(2, b"a" * 16)
        with self.assertRaises(BlockMissing):
            self.take(1, b"a" * 16)

    def test_length(self) -> None:
        """A block is as long as it says; only the last one may be shorter."""
        for payload, more in ((b"a", True), (b"a" * 17, True), (b"a" * 17, False)):
            with self.assertRaises(BlockMissing):
                self.take(0, payload, more)

    def test_too_large(self) -> None:
        """A body over the limit is refused as soon as that is known."""
        with self.assertRaises(BodyRefused) as caught:
            self.take(0, b"a" * 16, announced=101)
        self.assertEqual(caught.exception.limit, 100)
        for number in range(6):
            self.take(number, b"a" * 16)
        with self.assertRaises(BodyRefused):
            self.take(6, b"a" * 5, False)
        self.assertEqual(len(self.bodies), 0)

    def test_just_not_too_large(self) -> None:
        """A body of the very limit is taken."""
        for number in range(6):
            self.take(number, b"a" * 16)
        self.assertEqual(self.take(6, b"a" * 4, False, announced=100), b"a" * 100)


class UploadTests(SynchronousTestCase):
    """:class:`Upload` sends a body of ours (RFC 7959 §2.5, §2.9)."""

    def answer(self, code: int, block: Block | None) -> CoapMessage:
        """Make the server's response."""
        options = [] if block is None else [(Option.BLOCK1, block.encode())]
        return CoapMessage(Type.ACK, code, options=options)

    def test_whole(self) -> None:
        """Blocks go one after the other until the server has them all."""
        upload = Upload(b"a" * 40, 16)
        sent = []
        while True:
            payload, block = upload.next()
            sent.append((len(payload), block.number, block.more))
            code = Code.CONTINUE if block.more else Code.CHANGED
            if not upload.took(self.answer(code, block)):
                break
        self.assertEqual(sent, [(16, 0, True), (16, 1, True), (8, 2, False)])

    def test_smaller(self) -> None:
        """The server may want smaller blocks; the next one starts where it must."""
        upload = Upload(b"a" * 100, 64)
        upload.next()
        self.assertTrue(upload.took(self.answer(Code.CONTINUE, Block(0, True, 16))))
        self.assertEqual(upload.next(), (b"a" * 16, Block(4, True, 16)))

    def test_never_larger(self) -> None:
        """A server that names a larger size gets blocks of the size that was begun with."""
        upload = Upload(b"a" * 100, 16)
        upload.next()
        self.assertTrue(upload.took(self.answer(Code.CONTINUE, Block(0, True, 64))))
        self.assertEqual(upload.next(), (b"a" * 16, Block(1, True, 16)))

    def test_too_large(self) -> None:
        """A first block that is refused as too large is sent again, as small as it may be."""
        upload = Upload(b"a" * 100, 64)
        upload.next()
        refused = self.answer(Code.REQUEST_ENTITY_TOO_LARGE, Block(0, True, 32))
        self.assertTrue(upload.took(refused))
        self.assertEqual(upload.next()[1], Block(0, True, 32))
        self.assertFalse(upload.took(self.answer(Code.REQUEST_ENTITY_TOO_LARGE, None)))
        # To send the same block again, without end, is no way out.
        for size in (32, 64):
            refused = self.answer(Code.REQUEST_ENTITY_TOO_LARGE, Block(0, True, size))
            self.assertFalse(upload.took(refused))

    def test_nonsense(self) -> None:
        """Another block's option, a reserved one, or more blocks than there are: it fails."""
        for code, value in (
            (Code.CONTINUE, b"\x18"),
            (Code.CONTINUE, b"\x07"),
            (Code.CONTINUE, None),
        ):
            upload = Upload(b"a" * 40, 16)
            options = [] if value is None else [(Option.BLOCK1, value)]
            with self.assertRaises(TransferFailed):
                upload.took(CoapMessage(Type.ACK, code, options=options))
        upload = Upload(b"a" * 16, 16)
        with self.assertRaises(TransferFailed):
            upload.took(self.answer(Code.CONTINUE, Block(0, False, 16)))


class DownloadTests(SynchronousTestCase):
    """:class:`Download` puts together the body of a response (RFC 7959 §2.4)."""

    def block(
        self, number: int, payload: bytes, more: bool, etag: bytes = b"e", size: int = 16
    ) -> CoapMessage:
        """Make the server's response."""
        options = [(Option.ETAG, etag), (Option.BLOCK2, Block(number, more, size).encode())]
        return CoapMessage(Type.ACK, Code.CONTENT, options=options, payload=payload)

    def test_whole(self) -> None:
        """Each block says which one to ask for next."""
        download = Download(100)
        self.assertEqual(download.take(self.block(0, b"a" * 16, True)), Block(1, False, 16))
        self.assertIsNone(download.take(self.block(1, b"b", False)))
        self.assertEqual(download.body, b"a" * 16 + b"b")

    def test_one(self) -> None:
        """A response without blocks is whole."""
        download = Download(100)
        self.assertIsNone(download.take(CoapMessage(Type.ACK, Code.CONTENT, payload=b"all")))
        self.assertEqual(download.body, b"all")

    def test_failures(self) -> None:
        """A block that is missing, too short, of another body, or too much, ends it."""
        first = self.block(0, b"a" * 16, True)
        for second in (
            self.block(2, b"a" * 16, True),
            self.block(1, b"a", True),
            self.block(1, b"a" * 16, True, etag=b"f"),
            CoapMessage(Type.ACK, Code.CONTENT, payload=b"all"),
            CoapMessage(Type.ACK, Code.CONTENT, options=[(Option.BLOCK2, b"\x1f")]),
        ):
            download = Download(100)
            download.take(first)
            with self.assertRaises(TransferFailed):
                download.take(second)
        with self.assertRaises(TransferFailed):
            Download(15).take(first)


class ObserversTests(SynchronousTestCase):
    """:class:`Observers` knows whom to tell, and when (RFC 7641)."""

    def test_register(self) -> None:
        """An observation is found by its resource and by its peer."""
        observers = Observers(10, 10)
        first = observers.register("a", PEER, b"1", [])
        second = observers.register("a", OTHER, b"1", [])
        observers.register("b", OTHER, b"2", [])
        self.assertEqual(observers.of("a"), [first, second])
        self.assertEqual(len(observers.of_peer(OTHER)), 2)
        self.assertEqual((len(observers), len(observers.all())), (3, 3))

    def test_again(self) -> None:
        """The same token of the same peer takes the place of the observation there was (§4.1)."""
        observers = Observers(1, 1)
        first = observers.register("a", PEER, b"1", [])
        second = observers.register("b", PEER, b"1", [])
        assert first is not None
        self.assertNotIn(first, observers)
        self.assertEqual((observers.of("a"), observers.of("b")), ([], [second]))
        observers.drop(first)
        self.assertEqual(len(observers), 1)

    def test_cancel(self) -> None:
        """What is cancelled is there no more, anywhere."""
        observers = Observers(10, 10)
        observers.register("a", PEER, b"1", [])
        observers.cancel(PEER, b"2")
        observers.cancel(PEER, b"1")
        self.assertEqual((observers.of("a"), observers.of_peer(PEER), len(observers)), ([], [], 0))

    def test_limits(self) -> None:
        """Over a limit there is no observation."""
        observers = Observers(2, 1)
        self.assertIsNotNone(observers.register("a", PEER, b"1", []))
        self.assertIsNone(observers.register("a", PEER, b"2", []))
        self.assertIsNotNone(observers.register("a", OTHER, b"1", []))
        self.assertIsNone(observers.register("a", ("192.0.2.3", 1), b"1", []))

    def test_pace(self) -> None:
        """One notification is under way; what changes meanwhile is told once, after it."""
        observers = Observers(2, 1)
        observation = observers.register("a", PEER, b"1", [])
        assert observation is not None
        told = [observers.changed(observation) for _ in range(3)]
        self.assertEqual(told, [True, False, False])
        self.assertTrue(observers.delivered(observation))
        self.assertFalse(observers.delivered(observation))
        self.assertTrue(observers.changed(observation))
        observers.drop(observation)
        self.assertFalse(observers.delivered(observation))

    def test_sequence(self) -> None:
        """Numbers go on from 2**24 - 1 to 0 (§3.4)."""
        observation = Observers(1, 1).register("a", PEER, b"1", [])
        assert observation is not None
        observation.sequence = 0xFFFFFE
        numbers = [observation.next_sequence() for _ in range(2)]
        self.assertEqual(numbers, [0xFFFFFF, 0])


class AddressProofsTests(SynchronousTestCase):
    """:class:`AddressProofs` believes who returns what was sent to an address (RFC 9175)."""

    def setUp(self) -> None:
        self.proofs = AddressProofs(b"k" * 16, 2, 600)

    def test_proof(self) -> None:
        """An address is proven by its own challenge, and for a while after its last request."""
        self.assertFalse(self.proofs.proven(PEER, None, 0))
        echo = self.proofs.challenge(PEER, 0)
        self.assertEqual(len(echo), 12)
        self.assertTrue(self.proofs.proven(PEER, echo, 1))
        self.assertTrue(self.proofs.proven(PEER, None, 600))
        self.assertTrue(self.proofs.proven(PEER, None, 1100))
        self.assertFalse(self.proofs.proven(PEER, None, 1700))

    def test_forged(self) -> None:
        """Another's challenge, one that was touched, or is old, proves nothing."""
        echo = self.proofs.challenge(PEER, 1000)
        for source, value, now in (
            (OTHER, echo, 1000),
            (PEER, echo[:-1] + bytes((echo[-1] ^ 1,)), 1000),
            (PEER, b"\0\0\0\0" + echo[4:], 1000),
            (PEER, echo, 1001 + CHALLENGE_LIFETIME),
            (PEER, echo, 990),
            (PEER, echo[:8], 1000),
        ):
            self.assertFalse(self.proofs.proven(source, value, now))

    def test_bounded(self) -> None:
        """Over its limit, the address silent for longest proves itself anew."""
        for number in range(4):
            source = ("192.0.2.9", number)
            self.assertTrue(self.proofs.proven(source, self.proofs.challenge(source, 0), 0))
        self.assertEqual(len(self.proofs), 2)
        self.assertFalse(self.proofs.proven(("192.0.2.9", 0), None, 0))


class ArgumentsTests(SynchronousTestCase):
    """:func:`arguments` reads a command's arguments out of a request."""

    def arguments(
        self, payload: bytes, content_format: bytes | None = None, *queries: bytes
    ) -> list[str]:
        """Give the arguments."""
        options = [] if content_format is None else [(Option.CONTENT_FORMAT, content_format)]
        return arguments(
            RequestOptions([*options, *((Option.URI_QUERY, query) for query in queries)]), payload
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
            (Refused, b"a", b"\x2a"),
        ]
        for error, payload, content_format in refused:
            with self.assertRaises(error):
                self.arguments(payload, content_format)


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
            reply = reply_with(Code.POST, line, accept)
            self.assertEqual((reply.payload, reply.content_format), (payload, content_format))
            self.assertEqual(reply.code, Code.CHANGED)
        self.assertEqual(reply_with(Code.GET, cases[0][0], None).code, Code.CONTENT)

    def test_codes(self) -> None:
        """Each kind of error has its code."""
        for error, code in (
            (BadArguments("no"), 128),
            (UnknownCommand("x"), 132),
            (CommandError("no"), 131),
            (TooBusy(3), 163),
            (Internal(), 160),
            (FetchTimeout("body", 3), 164),
            (FetchError("no"), 162),
        ):
            reply = refusal(error, "A", None)
            self.assertEqual((reply.code, reply.payload), (code, str(error).encode()))
            self.assertEqual(reply.max_age, 5 if code == 163 else None)

    def test_json_error(self) -> None:
        """A client that accepts JSON gets the code that never changes."""
        reply = refusal(BadArguments("no"), "A", 50)
        self.assertEqual(reply.payload, b'{"error":"no","code":"bad_arguments","command":"A"}')

    def test_long_diagnostic(self) -> None:
        """A long sentence is cut between two characters."""
        shown = diagnostic("ü" * 1000)
        self.assertTrue(len(shown) <= 256)
        self.assertTrue(shown.decode().endswith("ü…"))


class LinksTests(SynchronousTestCase):
    """:func:`links` lists what there is (RFC 6690)."""

    def setUp(self) -> None:
        self.commands = Commands()
        self.commands.command("TIME", help='The "time".', safe=True)(lambda: "")
        self.commands.command("SET", help="Set it.")(lambda: "")

    def test_all(self) -> None:
        """Each resource has a link; quotes are escaped."""
        shown = links(self.commands, ["time"], []).decode()
        self.assertIn('</time>;title="The \\"time\\".";if="get post";ct="0 50";obs', shown)
        self.assertIn('</set>;title="Set it.";if="post";ct="0 50",', shown)
        self.assertIn("</.well-known/core>", shown)
        self.assertIn("</events>", shown)

    def test_too_many_filters(self) -> None:
        """A request that would have every link compared a hundred times is refused."""
        self.assertTrue(links(self.commands, [], ["href=/*"] * MOST_FILTERS))
        with self.assertRaises(Refused) as caught:
            links(self.commands, [], ["href=/*"] * (MOST_FILTERS + 1))
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
            shown = links(self.commands, ["time"], [query]).decode()
            found = sorted(re.findall("<([^>]*)>", shown))
            self.assertEqual(found, names, query)
        with self.assertRaises(Refused):
            links(self.commands, [], ["nonsense"])

    def test_not_served(self) -> None:
        """Administrative commands, and those that change what a client may do, are not there."""
        self.commands.command("KILL", admin=True, safe=True)(lambda: "")
        self.commands.command("AUTH", alone=True)(lambda: "")
        self.assertEqual(observable_commands(self.commands, ["KILL"]), {})
        shown = links(self.commands, [], []).decode()
        for name in ("kill", "auth"):
            self.assertNotIn(name, shown)
            with self.assertRaises(Refused) as caught:
                find_command(self.commands, [name])
            self.assertEqual(caught.exception.code, Code.NOT_FOUND)

    def test_observable(self) -> None:
        """Only safe commands that never wait can be observed."""

        async def later() -> str:
            return ""

        self.commands.command("LATER", safe=True)(later)
        found = observable_commands(self.commands, ["TIME", "SET", "LATER", "NONE"])
        self.assertEqual(list(found), ["time"])


class CoapLimitsTests(SynchronousTestCase):
    """:class:`CoapLimits` holds to RFC 7252 §4.8."""

    def test_derived(self) -> None:
        """The times that follow from the defaults are those of §4.8.2."""
        limits = CoapLimits()
        self.assertEqual(
            (limits.max_transmit_span, limits.max_transmit_wait, limits.exchange_lifetime),
            (45, 93, 247),
        )

    def test_block_size(self) -> None:
        """A block has one of seven sizes."""
        self.assertEqual(CoapLimits(block_size=64).block_size, 64)
        with self.assertRaises(ValueError):
            CoapLimits(block_size=100)
