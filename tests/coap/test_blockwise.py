"""Tests for :mod:`twisted_net.coap.blockwise`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.blockwise import (
    MAX_BLOCKS,
    Block,
    BlockDownload,
    BlockUpload,
    RequestAssembler,
    RequestBodyTooLarge,
    RequestIncomplete,
    TransferTable,
    cut_block,
    shrink_block,
)
from twisted_net.coap.codec import CoapMessage, Code, Option, Type
from twisted_net.coap.errors import TransferFailed

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

    def test_long(self) -> None:
        """An option of more than three bytes is refused, whatever its value."""
        self.assertEqual(Block.parse(b"\xff\xff\xf6"), Block(MAX_BLOCKS - 1, False, 1024))
        self.assertRaises(ValueError, Block.parse, b"\0\0\0\0")

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
            payload, block = cut_block(body, number, size)
            whole += payload
            if not block.more:
                break
            number += 1
        self.assertEqual(whole, body)
        with self.assertRaises(ValueError):
            cut_block(body, number + 1, size)

    def test_last_block(self) -> None:
        """A body that ends with a whole block has no block after it, empty or not."""
        self.assertEqual(cut_block(b"a" * 32, 1, 16), (b"a" * 16, Block(1, False, 16)))
        self.assertRaises(ValueError, cut_block, b"a" * 32, 2, 16)
        self.assertEqual(cut_block(b"", 0, 16), (b"", Block(0, False, 16)))

    def test_smaller(self) -> None:
        """A smaller block starts at the same byte."""
        self.assertEqual(shrink_block(Block(3, False, 1024), 256), Block(12, False, 256))
        self.assertEqual(shrink_block(Block(3, False, 64), 256), Block(3, False, 64))


class TransferTableTests(SynchronousTestCase):
    """:class:`TransferTable` is bounded, and shared by peers."""

    def test_kept(self) -> None:
        """A body is kept for its lifetime after its last use, or until it is taken."""
        bodies: TransferTable[bytes] = TransferTable(10, 1000, 100)
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
        bodies: TransferTable[bytes] = TransferTable(4, 1000, 100)
        bodies.put(OTHER, 0, b"", 0)
        for number in range(6):
            bodies.put(PEER, number, b"", 1)
        self.assertEqual((len(bodies), bodies.dropped), (4, 3))
        self.assertEqual(bodies.get(OTHER, 0, 1), b"")
        self.assertIsNone(bodies.get(PEER, 2, 1))

    def test_least_used(self) -> None:
        """A peer within its share takes the place of the body used longest ago."""
        bodies: TransferTable[bytes] = TransferTable(10, 1000, 100)
        bodies.put(PEER, 0, b"a" * 400, 0)
        bodies.put(PEER, 1, b"a" * 400, 1)
        bodies.put(OTHER, 0, b"a" * 400, 2)
        self.assertIsNone(bodies.get(PEER, 0, 2))
        self.assertEqual(bodies.size, 800)

    def test_share_of_bytes(self) -> None:
        """A peer with more than its share of the bytes gives up its own."""
        bodies: TransferTable[bytes] = TransferTable(10, 1000, 100)
        bodies.put(OTHER, 0, b"a" * 400, 0)
        bodies.put(PEER, 0, b"a" * 300, 1)
        bodies.put(PEER, 1, b"a" * 300, 2)
        self.assertEqual((bodies.size, bodies.dropped), (1000, 0))
        bodies.put(PEER, 2, b"a", 3)
        self.assertEqual(bodies.get(OTHER, 0, 3), b"a" * 400)
        self.assertIsNone(bodies.get(PEER, 0, 3))
        self.assertEqual((bodies.size, bodies.dropped), (701, 1))

    def test_crowd(self) -> None:
        """More peers than there are places, of one body each, take the places used longest ago."""
        for limits in ((4, 1000), (1000, 4)):
            bodies: TransferTable[bytes] = TransferTable(*limits, 100)
            for number in range(40):
                bodies.put((f"192.0.2.{number}", 5683), "a", b"a", 0)
                self.assertEqual(len(bodies), min(number + 1, 4))
            self.assertEqual((bodies.size, bodies.dropped), (4, 36))
            self.assertIsNone(bodies.get(("192.0.2.35", 5683), "a", 0))
            self.assertIsNotNone(bodies.get(("192.0.2.36", 5683), "a", 0))

    def test_dropped_peer(self) -> None:
        """All bodies of one peer are dropped, and none of others."""
        bodies: TransferTable[bytes] = TransferTable(10, 1000, 100)
        for number in range(3):
            bodies.put(PEER, number, b"a", 0)
            bodies.put(OTHER, number, b"a", 0)
        bodies.drop_peer(PEER)
        bodies.drop_peer(PEER)
        self.assertEqual((len(bodies), bodies.size), (3, 3))
        self.assertEqual(bodies.get(OTHER, 1, 0), b"a")
        self.assertIsNone(bodies.get(PEER, 1, 0))

    def test_alone(self) -> None:
        """One body is kept, whatever its size."""
        bodies: TransferTable[bytes] = TransferTable(1, 10, 100)
        bodies.put(PEER, 0, b"a" * 50, 0)
        self.assertEqual(bodies.get(PEER, 0, 0), b"a" * 50)


class RequestAssemblerTests(SynchronousTestCase):
    """:class:`RequestAssembler` puts the bodies of requests together (RFC 7959 §2.5)."""

    def setUp(self) -> None:
        self.bodies: TransferTable[bytearray] = TransferTable(10, 1000, 100)
        self.uploads = RequestAssembler(self.bodies, 100)

    def take(
        self, number: int, payload: bytes, more: bool = True, announced: int | None = None
    ) -> bytes | None:
        """Take in a block of 16 bytes."""
        return self.uploads.add(PEER, "k", Block(number, more, 16), payload, announced, 0)

    def test_in_order(self) -> None:
        """The last block brings the whole body."""
        self.assertIsNone(self.take(0, b"a" * 16))
        self.assertIsNone(self.take(1, b"b" * 16))
        self.assertEqual(self.take(2, b"c", False), b"a" * 16 + b"b" * 16 + b"c")

    def test_size_changes(self) -> None:
        """Blocks may become smaller on the way; what counts is where they start."""
        self.uploads.add(PEER, "k", Block(0, True, 32), b"a" * 32, None, 0)
        self.assertEqual(self.take(2, b"b", False), b"a" * 32 + b"b")

    def test_from_the_start(self) -> None:
        """A first block begins anew."""
        self.take(0, b"a" * 16)
        self.take(0, b"b" * 16)
        self.assertEqual(self.take(1, b"c", False), b"b" * 16 + b"c")

    def test_missing(self) -> None:
        """A block that does not follow is refused, and the transfer is over."""
        with self.assertRaises(RequestIncomplete):
            self.take(1, b"a" * 16)
        self.take(0, b"a" * 16)
        with self.assertRaises(RequestIncomplete):
            self.take(2, b"a" * 16)
        with self.assertRaises(RequestIncomplete):
            self.take(1, b"a" * 16)

    def test_length(self) -> None:
        """A block is as long as it says; only the last one may be shorter."""
        for payload, more in ((b"a", True), (b"a" * 17, True), (b"a" * 17, False)):
            with self.assertRaises(RequestIncomplete):
                self.take(0, payload, more)

    def test_too_large(self) -> None:
        """A body over the limit is refused as soon as that is known."""
        with self.assertRaises(RequestBodyTooLarge) as caught:
            self.take(0, b"a" * 16, announced=101)
        self.assertEqual(caught.exception.limit, 100)
        for number in range(6):
            self.take(number, b"a" * 16)
        with self.assertRaises(RequestBodyTooLarge):
            self.take(6, b"a" * 5, False)
        self.assertEqual(len(self.bodies), 0)

    def test_just_not_too_large(self) -> None:
        """A body of the very limit is taken."""
        for number in range(6):
            self.take(number, b"a" * 16)
        self.assertEqual(self.take(6, b"a" * 4, False, announced=100), b"a" * 100)


class BlockUploadTests(SynchronousTestCase):
    """:class:`BlockUpload` sends a body of ours (RFC 7959 §2.5, §2.9)."""

    def answer(self, code: int, block: Block | None) -> CoapMessage:
        """Make the server's response."""
        options = [] if block is None else [(Option.BLOCK1, block.encode())]
        return CoapMessage(Type.ACK, code, options=options)

    def test_whole(self) -> None:
        """Blocks go one after the other until the server has them all."""
        upload = BlockUpload(b"a" * 40, 16)
        sent = []
        while True:
            payload, block = upload.next_block()
            sent.append((len(payload), block.number, block.more))
            code = Code.CONTINUE if block.more else Code.CHANGED
            if not upload.advance(self.answer(code, block)):
                break
        self.assertEqual(sent, [(16, 0, True), (16, 1, True), (8, 2, False)])

    def test_each_by_itself(self) -> None:
        """A server that processes each block by itself gets them all (RFC 7959 §2.3)."""
        upload = BlockUpload(b"a" * 40, 16)
        sent = []
        for goes_on in (True, True, False):
            payload, block = upload.next_block()
            sent.append(payload)
            done = self.answer(Code.CHANGED, Block(block.number, False, 16))
            self.assertIs(upload.advance(done), goes_on)
        self.assertEqual(b"".join(sent), b"a" * 40)

    def test_success_in_between(self) -> None:
        """A final response before the last block is no success, unless it is for the block."""
        for block in (None, Block(0, True, 16), Block(1, False, 16)):
            upload = BlockUpload(b"a" * 40, 16)
            with self.assertRaises(TransferFailed) as raised:
                upload.advance(self.answer(Code.CHANGED, block))
            self.assertIn("2.04 Changed before the last block", str(raised.exception))

    def test_error_in_between(self) -> None:
        """An error is the response to the whole request, whenever it comes."""
        for code in (Code.NOT_FOUND, Code.REQUEST_ENTITY_INCOMPLETE, Code.SERVICE_UNAVAILABLE):
            upload = BlockUpload(b"a" * 40, 16)
            self.assertTrue(upload.advance(self.answer(Code.CONTINUE, Block(0, True, 16))))
            self.assertFalse(upload.advance(self.answer(code, Block(1, False, 16))))

    def test_smaller(self) -> None:
        """The server may want smaller blocks; the next one starts where it must."""
        upload = BlockUpload(b"a" * 100, 64)
        upload.next_block()
        self.assertTrue(upload.advance(self.answer(Code.CONTINUE, Block(0, True, 16))))
        self.assertEqual(upload.next_block(), (b"a" * 16, Block(4, True, 16)))

    def test_never_larger(self) -> None:
        """A server that names a larger size gets blocks of the size that was begun with."""
        upload = BlockUpload(b"a" * 100, 16)
        upload.next_block()
        self.assertTrue(upload.advance(self.answer(Code.CONTINUE, Block(0, True, 64))))
        self.assertEqual(upload.next_block(), (b"a" * 16, Block(1, True, 16)))

    def test_too_large(self) -> None:
        """A first block that is refused as too large is sent again, as small as it may be."""
        upload = BlockUpload(b"a" * 100, 64)
        upload.next_block()
        refused = self.answer(Code.REQUEST_ENTITY_TOO_LARGE, Block(0, True, 32))
        self.assertTrue(upload.advance(refused))
        self.assertEqual(upload.next_block()[1], Block(0, True, 32))
        self.assertFalse(upload.advance(self.answer(Code.REQUEST_ENTITY_TOO_LARGE, None)))
        # After the first block it is the body that is too large, not the block.
        upload = BlockUpload(b"a" * 100, 64)
        self.assertTrue(upload.advance(self.answer(Code.CONTINUE, Block(0, True, 64))))
        self.assertFalse(upload.advance(refused))
        upload = BlockUpload(b"a" * 100, 32)
        # To send the same block again, without end, is no way out.
        for size in (32, 64):
            refused = self.answer(Code.REQUEST_ENTITY_TOO_LARGE, Block(0, True, size))
            self.assertFalse(upload.advance(refused))

    def test_nonsense(self) -> None:
        """Another block's option, a reserved one, or more blocks than there are: it fails."""
        for code, value in (
            (Code.CONTINUE, b"\x18"),
            (Code.CONTINUE, b"\x07"),
            (Code.CONTINUE, None),
        ):
            upload = BlockUpload(b"a" * 40, 16)
            options = [] if value is None else [(Option.BLOCK1, value)]
            with self.assertRaises(TransferFailed):
                upload.advance(CoapMessage(Type.ACK, code, options=options))
        upload = BlockUpload(b"a" * 16, 16)
        with self.assertRaises(TransferFailed):
            upload.advance(self.answer(Code.CONTINUE, Block(0, False, 16)))

    def test_many_blocks(self) -> None:
        """A body of more blocks than can be numbered fails before the first that has no number."""
        for size, sent in ((16 * MAX_BLOCKS, True), (16 * MAX_BLOCKS + 1, False)):
            upload = BlockUpload(bytes(size), 16)
            upload._sent = 16 * (MAX_BLOCKS - 1)
            part, block = upload.next_block()
            self.assertEqual((len(part), block), (16, Block(MAX_BLOCKS - 1, not sent, 16)))
            if not sent:
                upload._sent += 16
                error = self.assertRaises(TransferFailed, upload.next_block)
                self.assertIn("more than 1048576 blocks of 16 bytes", str(error))


class BlockDownloadTests(SynchronousTestCase):
    """:class:`BlockDownload` puts together the body of a response (RFC 7959 §2.4)."""

    def block(
        self, number: int, payload: bytes, more: bool, etag: bytes = b"e", size: int = 16
    ) -> CoapMessage:
        """Make the server's response."""
        options = [(Option.ETAG, etag), (Option.BLOCK2, Block(number, more, size).encode())]
        return CoapMessage(Type.ACK, Code.CONTENT, options=options, payload=payload)

    def test_whole(self) -> None:
        """Each block says which one to ask for next."""
        download = BlockDownload(100)
        self.assertEqual(download.receive(self.block(0, b"a" * 16, True)), Block(1, False, 16))
        self.assertIsNone(download.receive(self.block(1, b"b", False)))
        self.assertEqual(download.body, b"a" * 16 + b"b")

    def test_just_not_too_long(self) -> None:
        """A body of the very limit is taken, one byte more is not."""
        for limit, taken in ((20, True), (19, False)):
            download = BlockDownload(limit)
            download.receive(self.block(0, b"a" * 16, True))
            last = self.block(1, b"a" * 4, False)
            if taken:
                self.assertIsNone(download.receive(last))
            else:
                self.assertRaises(TransferFailed, download.receive, last)

    def test_one(self) -> None:
        """A response without blocks is whole."""
        download = BlockDownload(100)
        self.assertIsNone(download.receive(CoapMessage(Type.ACK, Code.CONTENT, payload=b"all")))
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
            # A number of so many digits that Python does not print it.
            CoapMessage(Type.ACK, Code.CONTENT, options=[(Option.BLOCK2, b"\xf0" * 9000)]),
        ):
            download = BlockDownload(100)
            download.receive(first)
            with self.assertRaises(TransferFailed):
                download.receive(second)
        with self.assertRaises(TransferFailed):
            BlockDownload(15).receive(first)

    def test_many_blocks(self) -> None:
        """Block numbers have 20 bits: the last of them is taken, and none is asked for behind."""
        for number, more, taken in ((MAX_BLOCKS - 1, False, True), (MAX_BLOCKS - 1, True, False)):
            download = BlockDownload(16 * MAX_BLOCKS)
            download.receive(self.block(0, b"a" * 16, True))
            download.body = bytearray(16 * number)
            if taken:
                self.assertIsNone(download.receive(self.block(number, b"a" * 16, more)))
            else:
                last = self.block(number, b"a" * 16, more)
                error = self.assertRaises(TransferFailed, download.receive, last)
                self.assertIn("more than 1048576 blocks", str(error))
