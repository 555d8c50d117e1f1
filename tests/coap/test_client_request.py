"""Tests for :mod:`twisted_net.coap.client_request`."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.blockwise import Block
from twisted_net.coap.client_request import BlockwiseRequest, OptionList
from twisted_net.coap.client_response import CoapResponse
from twisted_net.coap.codec import CoapMessage, Code, Option, Type, encode_uint
from twisted_net.coap.errors import TransferFailed

PATH = (int(Option.URI_PATH), b"a")
FORMAT = (int(Option.CONTENT_FORMAT), b"\x32")
ECHO = (int(Option.ECHO), b"challenge")
CHALLENGE = CoapMessage(Type.ACK, Code.UNAUTHORIZED, options=[ECHO])


def block2(number: int, payload: bytes, *, more: bool, size: int = 16) -> CoapMessage:
    """Return a response with one block of its body."""
    options = [(int(Option.BLOCK2), Block(number, more, size).encode())]
    return CoapMessage(Type.ACK, Code.CONTENT, options=options, payload=payload)


def block1(code: int, number: int, *, more: bool, size: int = 16) -> CoapMessage:
    """Return the response to one block of a request's body."""
    options = [(int(Option.BLOCK1), Block(number, more, size).encode())]
    return CoapMessage(Type.ACK, code, options=options)


class BlockwiseRequestTests(SynchronousTestCase):
    """:class:`BlockwiseRequest` makes as many exchanges as needed."""

    def setUp(self) -> None:
        self.sent: list[tuple[OptionList, bytes]] = []
        self.progress: list[tuple[str, int, int | None]] = []

    def request(
        self,
        *responses: CoapMessage,
        options: OptionList | None = None,
        block_size: int = 16,
        max_body: int = 100,
        tag: bytes | None = None,
    ) -> BlockwiseRequest:
        """Return a request whose exchanges have these responses, in order."""
        left = list(responses)

        async def exchange(sent: OptionList, payload: bytes) -> CoapMessage:
            self.sent.append(([(int(number), value) for number, value in sent], payload))
            return left.pop(0)

        return BlockwiseRequest(
            exchange,
            [PATH] if options is None else options,
            block_size,
            max_body,
            lambda way, done, size: self.progress.append((way, done, size)),
            tag,
        )

    def result(self, coroutine: Coroutine[Deferred[Any], Any, CoapResponse]) -> CoapResponse:
        """Return the response, which must be there at once."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def test_one_exchange(self) -> None:
        """A short body takes one exchange; a block of less than 1024 bytes is requested."""
        done = CoapMessage(Type.ACK, Code.CHANGED, payload=b"done")
        response = self.result(self.request(done).perform(b"x"))
        self.assertEqual((response.code, response.payload), (Code.CHANGED, b"done"))
        size = (int(Option.BLOCK2), Block(0, False, 16).encode())
        self.assertEqual(self.sent, [([PATH, size], b"x")])
        self.sent.clear()
        self.result(self.request(done, block_size=1024).perform(b"x"))
        self.assertEqual(self.sent, [([PATH], b"x")])

    def test_challenge(self) -> None:
        """A challenge is answered once; a second one is the response (RFC 9175 §2.3)."""
        done = CoapMessage(Type.ACK, Code.CHANGED)
        request = self.request(CHALLENGE, done, block_size=1024)
        self.assertEqual(self.result(request.perform(b"x")).code, Code.CHANGED)
        self.assertEqual(self.sent, [([PATH], b"x"), ([PATH, ECHO], b"x")])
        request = self.request(CHALLENGE, CHALLENGE)
        self.assertEqual(self.result(request.perform(b"x")).code, Code.UNAUTHORIZED)

    def test_no_challenge(self) -> None:
        """4.01 without an Echo option, and an Echo option with success, are responses."""
        for code, options in ((Code.UNAUTHORIZED, []), (Code.CONTENT, [ECHO])):
            self.sent.clear()
            request = self.request(CoapMessage(Type.ACK, code, options=options))
            self.assertEqual(self.result(request.perform(b"")).code, code)
            self.assertEqual(len(self.sent), 1)

    def test_wrong_challenge(self) -> None:
        """An Echo option of 1 to 40 bytes is repeated; any other one is ignored (RFC 9175 §2.2)."""
        for size, exchanges in ((0, 1), (1, 2), (40, 2), (41, 1), (65_000, 1)):
            with self.subTest(size=size):
                self.sent.clear()
                echo = [(int(Option.ECHO), b"e" * size)]
                challenge = CoapMessage(Type.ACK, Code.UNAUTHORIZED, options=echo)
                request = self.request(challenge, challenge)
                self.assertEqual(self.result(request.perform(b"")).code, Code.UNAUTHORIZED)
                self.assertEqual(len(self.sent), exchanges)

    def test_continue_without_blocks(self) -> None:
        """2.31 Continue is no response to a request without blocks (RFC 7959 §2.9.1)."""
        request = self.request(CoapMessage(Type.ACK, Code.CONTINUE))
        self.failureResultOf(Deferred.fromCoroutine(request.perform(b"x")), TransferFailed)

    def test_another_success_in_the_middle(self) -> None:
        """A success of another code in place of a block is no response: blocks are missing."""
        for code in (Code.CONTINUE, Code.CHANGED, Code.VALID):
            with self.subTest(code=code):
                other = CoapMessage(Type.ACK, code, payload=b"b")
                request = self.request(block2(0, b"a" * 16, more=True), other)
                failed = Deferred.fromCoroutine(request.perform(b""))
                self.failureResultOf(failed, TransferFailed)

    def test_download(self) -> None:
        """Further blocks are requested without the payload and its format."""
        first = block2(0, b"a" * 16, more=True)
        first.options = [*first.options, (int(Option.SIZE2), encode_uint(17))]
        request = self.request(first, block2(1, b"b", more=False), options=[PATH, FORMAT])
        response = self.result(request.perform(b"[]"))
        self.assertEqual(response.payload, b"a" * 16 + b"b")
        self.assertEqual(response.options, tuple(first.options))
        second = (int(Option.BLOCK2), Block(1, False, 16).encode())
        self.assertEqual(self.sent[1], ([PATH, second], b""))
        self.assertEqual(self.progress, [("received", 16, 17)])

    def test_smaller_blocks(self) -> None:
        """A server that begins with larger blocks than wanted is asked for smaller ones."""
        request = self.request(
            block2(0, b"a" * 32, more=True, size=32), block2(2, b"b", more=False)
        )
        self.assertEqual(self.result(request.perform(b"")).payload, b"a" * 32 + b"b")
        self.assertIn((int(Option.BLOCK2), Block(2, False, 16).encode()), self.sent[1][0])

    def test_error_in_the_middle(self) -> None:
        """An error in place of a block is the response."""
        gone = CoapMessage(Type.ACK, Code.NOT_FOUND, payload=b"gone")
        request = self.request(block2(0, b"a" * 16, more=True), gone)
        response = self.result(request.perform(b""))
        self.assertEqual((response.code, response.payload), (Code.NOT_FOUND, b"gone"))

    def test_body_too_long(self) -> None:
        """A response body over the limit fails the request."""
        request = self.request(block2(0, b"a" * 16, more=True), max_body=15)
        self.failureResultOf(Deferred.fromCoroutine(request.perform(b"")), TransferFailed)

    def test_upload(self) -> None:
        """A long body is sent in blocks, its size with the first; each may be challenged."""
        body = b"a" * 16 + b"b" * 16 + b"c"
        request = self.request(
            CHALLENGE,
            block1(Code.CONTINUE, 0, more=True),
            block1(Code.CONTINUE, 1, more=True),
            block1(Code.CHANGED, 2, more=False),
        )
        self.assertEqual(self.result(request.perform(body)).code, Code.CHANGED)
        block = [(int(Option.BLOCK1), Block(i, i < 2, 16).encode()) for i in range(3)]
        size1 = (int(Option.SIZE1), encode_uint(33))
        self.assertEqual(
            self.sent,
            [
                ([PATH, block[0], size1], b"a" * 16),
                ([PATH, block[0], size1, ECHO], b"a" * 16),
                ([PATH, block[1]], b"b" * 16),
                ([PATH, block[2]], b"c"),
            ],
        )
        self.assertEqual(self.progress, [("sent", 16, 33), ("sent", 32, 33)])

    def test_tag(self) -> None:
        """All requests of an upload have its tag, and no others (RFC 9175 §3.3)."""
        first = block2(0, b"a" * 16, more=True)
        first.options = [*first.options, *block1(Code.CONTENT, 1, more=False).options]
        request = self.request(
            block1(Code.CONTINUE, 0, more=True), first, block2(1, b"b", more=False), tag=b"t"
        )
        self.result(request.perform(b"x" * 32))
        tags = [
            [pair for pair in options if pair[0] == Option.REQUEST_TAG] for options, _ in self.sent
        ]
        self.assertEqual(tags, [[(int(Option.REQUEST_TAG), b"t")]] * 3)
        self.sent.clear()
        self.result(self.request(CoapMessage(Type.ACK, Code.CHANGED), tag=b"t").perform(b"x" * 16))
        self.assertNotIn((int(Option.REQUEST_TAG), b"t"), self.sent[0][0])

    def test_body_of_one_block(self) -> None:
        """A body of exactly one block takes one exchange."""
        self.result(self.request(CoapMessage(Type.ACK, Code.CHANGED)).perform(b"a" * 16))
        self.assertEqual([payload for _, payload in self.sent], [b"a" * 16])
        self.assertNotIn(Option.BLOCK1, [number for number, _ in self.sent[0][0]])
