"""Tests for :mod:`twisted_net.coap.codec`."""

from __future__ import annotations

import random

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.coap.codec import (
    MAX_OPTIONS,
    CoapMessage,
    CoapRequestOptions,
    Code,
    Option,
    Type,
    code_name,
    encode_message,
    encode_uint,
    parse_message,
)
from twisted_net.coap.errors import MalformedMessage, TooManyOptions

options = st.lists(st.tuples(st.integers(0, 65_535), st.binary(max_size=300)), max_size=12).map(
    lambda pairs: sorted(pairs, key=lambda pair: pair[0])
)

whole_messages = st.builds(
    CoapMessage,
    st.sampled_from(list(Type)),
    st.sampled_from([1, 2, 31, 64, 69, 132, 191]),
    st.integers(0, 65_535),
    st.binary(max_size=8),
    options,
    st.binary(max_size=40),
)


class RoundTripTests(SynchronousTestCase):
    """A message is read as it was written."""

    @settings(max_examples=300)
    @given(whole_messages)
    def test_any(self, message: CoapMessage) -> None:
        """Any message comes back the same."""
        self.assertEqual(parse_message(encode_message(message)), message)

    def test_known_bytes(self) -> None:
        """The example of RFC 7252 appendix A (figure 16) has its bytes."""
        message = CoapMessage(
            Type.CON, Code.GET, 0x7D34, options=[(Option.URI_PATH, b"temperature")]
        )
        self.assertEqual(encode_message(message), b"\x40\x01\x7d\x34\xbbtemperature")
        answer = CoapMessage(Type.ACK, Code.CONTENT, 0x7D34, payload=b"22.3 C")
        self.assertEqual(encode_message(answer), b"\x60\x45\x7d\x34\xff22.3 C")

    def test_lengths(self) -> None:
        """Deltas and lengths at the limits of their forms are kept (§3.1)."""
        for number in (0, 12, 13, 268, 269, 65_535):
            for size in (0, 12, 13, 268, 269, 1034):
                message = CoapMessage(Type.NON, Code.GET, options=[(number, b"a" * size)])
                self.assertEqual(parse_message(encode_message(message)), message)

    def test_not_encodable(self) -> None:
        """What no message can be is refused where it is written."""
        for message in (
            CoapMessage(Type.CON, 1, token=b"123456789"),
            CoapMessage(Type.CON, 1, options=[(3, b""), (2, b"")]),
            CoapMessage(Type.CON, 1, options=[(65_536, b"")]),
            CoapMessage(Type.CON, 1, options=[(1, b"a" * 65_805)]),
        ):
            with self.assertRaises(ValueError):
                encode_message(message)

    def test_integers(self) -> None:
        """An integer takes as few bytes as it needs (§3.2)."""
        self.assertEqual(
            [encode_uint(value) for value in (0, 1, 255, 256)], [b"", b"\1", b"\xff", b"\1\0"]
        )


class ParseTests(SynchronousTestCase):
    """:func:`parse_message` takes what is a message, and says what to do with the rest."""

    def rejected(self, datagram: bytes) -> int | None:
        """Return the message ID to reset, for a datagram that must be malformed."""
        try:
            parse_message(datagram)
        except MalformedMessage as error:
            return error.rejected
        return self.fail(f"{datagram!r} was read")

    def test_ignored(self) -> None:
        """Too short, or another version: to be ignored (§3)."""
        for datagram in (b"", b"\x40\x01\x00", b"\x00\x01\x00\x01", b"\x80\x01\x00\x01"):
            self.assertIsNone(self.rejected(datagram))

    def test_rejected(self) -> None:
        """Each format error of a confirmable message is to be reset (§4.2)."""
        for datagram in (
            b"\x40\x00\x00\x07\x00",  # an empty message that is not
            b"\x41\x00\x00\x07\x00",
            b"\x49\x01\x00\x07123456789",  # a token of 9 bytes
            b"\x42\x01\x00\x071",  # a token that is cut
            b"\x40\x01\x00\x07\xff",  # a marker and no payload
            b"\x40\x20\x00\x07",  # code 1.00
            b"\x40\xe0\x00\x07",  # code 7.00
            b"\x40\x01\x00\x07\xf0",  # a reserved delta
            b"\x40\x01\x00\x07\x0f",  # a reserved length
            b"\x40\x01\x00\x07\xd0",  # a delta that is cut
            b"\x40\x01\x00\x07\xe0\x00",
            b"\x40\x01\x00\x07\x0d",
            b"\x40\x01\x00\x07\x03ab",  # a value that is cut
            b"\x40\x01\x00\x07\xe0\xff\xff\xe0\xff\xff",  # a number over 65,535
            b"\x40\x01\x00\x07\xe0\xfe\xf3",  # 65,536
        ):
            self.assertEqual(self.rejected(datagram), 7, datagram)
            self.assertIsNone(self.rejected(bytes((datagram[0] | 0x10,)) + datagram[1:]))

    @settings(max_examples=1000)
    @given(st.binary(max_size=100).map(lambda rest: b"\x41\x01" + rest) | st.binary(max_size=100))
    @example(b"\x40\x01\x00\x07\xff\xff")
    def test_any_bytes(self, datagram: bytes) -> None:
        """Any bytes are a message or malformed; what is read can be written again."""
        try:
            message = parse_message(datagram)
        except MalformedMessage:
            return
        self.assertEqual(parse_message(encode_message(message)), message)
        CoapRequestOptions(message.options)

    def test_any_cut(self) -> None:
        """What is cut is malformed, or a message of fewer options or a shorter payload."""
        chance = random.Random(1)
        pairs = [
            (number, chance.randbytes(size)) for number, size in ((1, 0), (300, 20), (999, 300))
        ]
        datagram = encode_message(CoapMessage(Type.CON, 1, 2, b"abc", pairs, b"payload"))
        whole = 0
        for end in range(len(datagram)):
            try:
                message = parse_message(datagram[:end])
            except MalformedMessage:
                continue
            whole += 1
            self.assertEqual((message.code, message.message_id, message.token), (1, 2, b"abc"))
            self.assertEqual(message.options, pairs[: len(message.options)])
            self.assertTrue(b"payload".startswith(message.payload))
        # Before each option and after the last, and after each byte of the payload but its last.
        self.assertEqual(whole, len(pairs) + 1 + len(b"payload") - 1)

    def test_many_options(self) -> None:
        """As many options are read as the limit says, and no more than that of any message."""
        limit = b"\x40\x01\x00\x07" + b"\x00" * MAX_OPTIONS
        self.assertEqual(len(parse_message(limit).options), MAX_OPTIONS)
        self.assertEqual(parse_message(limit + b"\xffx").payload, b"x")
        for head, rejected, token in (
            (b"\x42\x01\x00\x07ab", 7, b"ab"),  # a confirmable request
            (b"\x52\x01\x00\x07ab", None, None),
            (b"\x42\x45\x00\x07ab", 7, None),  # a confirmable response
            (b"\x62\x45\x00\x07ab", None, None),
        ):
            # The cut option behind the one too many is not read.
            datagram = head + b"\x00" * (MAX_OPTIONS + 1) + b"\x0d"
            error = self.assertRaises(TooManyOptions, parse_message, datagram)
            self.assertEqual((error.rejected, error.token), (rejected, token))
        self.assertEqual(str(error), "not a CoAP message: it has more than 64 options")


class RequestOptionsTests(SynchronousTestCase):
    """:class:`CoapRequestOptions` reads RFC 7252 §5.4 and §5.10."""

    def test_all(self) -> None:
        """Each option is found under its name."""
        read = CoapRequestOptions(
            [
                (Option.IF_MATCH, b"x"),
                (Option.URI_HOST, b"example.org"),
                (Option.ETAG, b"e1"),
                (Option.ETAG, b"e2"),
                (Option.IF_NONE_MATCH, b""),
                (Option.OBSERVE, b""),
                (Option.URI_PORT, b"\x16\x33"),
                (Option.URI_PATH, b"a"),
                (Option.URI_PATH, "ü".encode()),
                (Option.CONTENT_FORMAT, b"\x32"),
                (Option.URI_QUERY, b"q=1"),
                (Option.ACCEPT, b"\x32"),
                (Option.BLOCK2, b"\x06"),
                (Option.BLOCK1, b"\x0e"),
                (Option.SIZE2, b""),
                (Option.PROXY_URI, b"coap://x"),
                (Option.SIZE1, b"\x01\x00"),
                (Option.ECHO, b"12345678"),
            ]
        )
        self.assertIsNone(read.unrecognized)
        self.assertEqual((read.path, read.queries), (["a", "ü"], ["q=1"]))
        self.assertEqual((read.if_match, read.etags), ([b"x"], [b"e1", b"e2"]))
        self.assertEqual((read.accept, read.content_format, read.observe), (50, 50, 0))
        self.assertEqual((read.block1, read.block2), (b"\x0e", b"\x06"))
        self.assertEqual((read.size1, read.size2, read.echo), (256, 0, b"12345678"))
        self.assertTrue(read.if_none_match and read.proxy)

    def test_path_alone(self) -> None:
        """One segment of a path is read, and other single options too."""
        self.assertEqual(CoapRequestOptions([(11, b"time")]).path, ["time"])
        self.assertEqual(CoapRequestOptions([(15, b"time")]).queries, ["time"])
        self.assertEqual(CoapRequestOptions([(11, b"a" * 256)]).unrecognized, 11)
        self.assertEqual(CoapRequestOptions([(11, b"\xff")]).path, ["\ufffd"])

    def test_not_utf8(self) -> None:
        """A path or a query that is not UTF-8 is known as such, with the position in it."""
        self.assertIsNone(CoapRequestOptions([(11, "ü".encode()), (15, b"a")]).not_utf8)
        for options in (
            [(11, b"a\xff")],
            [(11, b"a"), (11, b"b\xff")],
            [(11, b"a"), (15, b"b"), (15, b"c\xed\xa0\x80")],
        ):
            error = CoapRequestOptions(options).not_utf8
            assert error is not None
            self.assertEqual(error.position, 1)

    def test_unknown(self) -> None:
        """An unknown option is passed over where it is elective, named where it is critical."""
        self.assertIsNone(CoapRequestOptions([(65_000, b"")]).unrecognized)
        self.assertEqual(CoapRequestOptions([(65_001, b""), (65_003, b"")]).unrecognized, 65_001)

    def test_wrong_length(self) -> None:
        """A value of a wrong length makes an option an unknown one (§5.4.3)."""
        self.assertEqual(CoapRequestOptions([(Option.ACCEPT, b"123")]).unrecognized, Option.ACCEPT)
        read = CoapRequestOptions([(Option.ETAG, b""), (Option.ECHO, b"")])
        self.assertEqual((read.unrecognized, list(read.etags), read.echo), (None, [], None))
        for size, echo in ((40, b"e" * 40), (41, None)):
            self.assertEqual(CoapRequestOptions([(Option.ECHO, b"e" * size)]).echo, echo)

    def test_repeated(self) -> None:
        """An option that comes once too often is an unknown one (§5.4.5)."""
        twice = [(Option.ACCEPT, b""), (Option.ACCEPT, b"\x32")]
        self.assertEqual(CoapRequestOptions(twice).unrecognized, Option.ACCEPT)
        formats = [(Option.CONTENT_FORMAT, b""), (Option.CONTENT_FORMAT, b"\x32")]
        read = CoapRequestOptions(formats)
        self.assertEqual((read.unrecognized, read.content_format), (None, 0))

    def test_key(self) -> None:
        """Requests for blocks of one thing have one key."""
        path = (Option.URI_PATH, b"a")
        one = CoapRequestOptions([path, (Option.BLOCK2, b"\x06"), (Option.SIZE2, b"")])
        self.assertEqual(one.key, CoapRequestOptions([path]).key)
        for number in (6, 12, 23, 27, 28, 60, 252):
            other = CoapRequestOptions([path, (number, b"\x01")])
            self.assertEqual(other.key, CoapRequestOptions([path]).key, number)
        for number in (1, 4, 15, 17):
            other = CoapRequestOptions([path, (number, b"\x01")])
            self.assertNotEqual(other.key, CoapRequestOptions([path]).key, number)
        self.assertNotEqual(one.key, CoapRequestOptions([path, (Option.REQUEST_TAG, b"1")]).key)


class MessageTests(SynchronousTestCase):
    """What a message says of itself."""

    def test_kinds(self) -> None:
        """A code is of a request, of a response, or neither."""
        self.assertTrue(CoapMessage(0, Code.POST).is_request)
        self.assertFalse(CoapMessage(0, Code.EMPTY).is_request)
        self.assertTrue(CoapMessage(0, Code.NOT_FOUND).is_response)
        self.assertFalse(CoapMessage(0, Code.GET).is_response)
        requests = [code for code in range(256) if CoapMessage(0, code).is_request]
        responses = [code for code in range(256) if CoapMessage(0, code).is_response]
        self.assertEqual((requests, responses), (list(range(1, 32)), list(range(64, 192))))

    def test_option(self) -> None:
        """The first option of a number is given."""
        message = CoapMessage(0, 1, options=[(4, b"a"), (4, b"b")])
        self.assertEqual((message.option(4), message.option(5)), (b"a", None))

    def test_shown(self) -> None:
        """Codes and messages are shown as people write them."""
        self.assertEqual(code_name(132), "4.04 Not Found")
        self.assertEqual(code_name(255), "7.31")
        self.assertIn("CON 0.01 Get id=5", repr(CoapMessage(0, 1, 5)))
        self.assertNotEqual(CoapMessage(0, 1), "no message")
