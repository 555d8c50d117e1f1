"""Tests of :mod:`twisted_net.dtls.cookies`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.dtls.cookies import (
    COOKIE,
    COOKIE_LIFETIME,
    ClientHello,
    CookieSecret,
    hello_verify_request,
)

HERE = ("192.0.2.1", 5000)
VERSION = b"\xfe\xfd"
RANDOM = bytes(range(32))


def hello(
    cookie: bytes = b"",
    *,
    session: bytes = b"",
    random: bytes = RANDOM,
    tail: bytes = b"\0\x02\xc0\x2b\x01\0",
    epoch: int = 0,
    number: int = 7,
    offset: int = 0,
    cut: int | None = None,
) -> bytes:
    """Return a ClientHello as a datagram, or its first fragment."""
    body = VERSION + random + bytes((len(session),)) + session
    body += bytes((len(cookie),)) + cookie + tail
    part = body if cut is None else body[:cut]
    message = b"\x01" + len(body).to_bytes(3, "big") + b"\0\0" + offset.to_bytes(3, "big")
    message += len(part).to_bytes(3, "big") + part
    numbers = epoch.to_bytes(2, "big") + number.to_bytes(6, "big")
    return b"\x16\xfe\xff" + numbers + len(message).to_bytes(2, "big") + message


def parsed(datagram: bytes) -> ClientHello:
    """Read what must be a ClientHello."""
    found = ClientHello.parse(datagram)
    assert found is not None
    return found


class ClientHelloTests(SynchronousTestCase):
    """:class:`ClientHello`."""

    def test_parts(self) -> None:
        """The cookie is told apart from what the client repeats with it."""
        found = parsed(hello(b"cookie", session=b"session"))
        self.assertEqual(found.cookie, b"cookie")
        self.assertEqual(found.random, RANDOM)
        self.assertEqual(found.parameters, VERSION + RANDOM + b"\x07session")
        self.assertEqual(found.parameters, parsed(hello(session=b"session")).parameters)
        self.assertEqual(found.number, bytes((0, 0, 0, 0, 0, 0, 0, 7)))

    def test_fragments(self) -> None:
        """The first fragment will do if it has the cookie; one that ends before it will not."""
        whole = len(hello(b"cookie")) - 25
        for cut in range(whole + 1):
            found = ClientHello.parse(hello(b"cookie", cut=cut))
            self.assertEqual(found is not None, cut >= 2 + 32 + 1 + 1 + 6, cut)
        self.assertIsNone(ClientHello.parse(hello(offset=1)))

    def test_others(self) -> None:
        """What is encrypted, another message or another protocol's is no ClientHello."""
        self.assertIsNone(ClientHello.parse(hello(epoch=1)))
        good = hello()
        for i, value in ((0, 23), (1, 3), (13, 2), (25, 3), (25 + 34, 33)):
            self.assertIsNone(ClientHello.parse(good[:i] + bytes((value,)) + good[i + 1 :]), i)

    def test_shortest(self) -> None:
        """The shortest beginning that has all is one of 61 bytes, without session and cookie."""
        shortest = hello(tail=b"")
        self.assertEqual(len(shortest), 61)
        self.assertEqual(parsed(shortest).cookie, b"")

    def test_longest_session(self) -> None:
        """A session ID has 32 bytes at most."""
        self.assertEqual(parsed(hello(b"c", session=b"s" * 32)).cookie, b"c")
        self.assertIsNone(ClientHello.parse(hello(b"c", session=b"s" * 33)))

    def test_lengths_that_contradict(self) -> None:
        """A fragment lies within its message and its record, whatever follows in the datagram."""
        good = hello(b"cookie")
        size = len(good) - 13
        fragment = size - 12
        for at, length, value in ((14, 3, fragment - 1), (11, 2, size - 1), (11, 2, 11)):
            wrong = good[:at] + value.to_bytes(length, "big") + good[at + length :]
            self.assertIsNone(ClientHello.parse(wrong + good), (at, value))

    def test_cuts(self) -> None:
        """A datagram that was cut anywhere is no ClientHello."""
        good = hello(b"cookie")
        for i in range(len(good)):
            self.assertIsNone(ClientHello.parse(good[:i]), i)

    @given(st.binary(max_size=200), st.integers(0, 110), st.integers(0, 255))
    def test_anything(self, noise: bytes, at: int, value: int) -> None:
        """Whatever comes, it is read or not, and what is answered is shorter than it."""
        good = hello(b"c" * 16, session=b"s" * 16)
        for datagram in (noise, good[:at] + bytes((value,)) + good[at + 1 :], good[:at] + noise):
            found = ClientHello.parse(datagram)
            if found is not None:
                self.assertLess(len(hello_verify_request(found, b"c" * COOKIE)), len(datagram))


class HelloVerifyRequestTests(SynchronousTestCase):
    """:func:`hello_verify_request`."""

    def test_bytes(self) -> None:
        """It is that of RFC 6347 §4.2.1, with the number of the client's record."""
        answer = hello_verify_request(parsed(hello(number=0x0102)), b"\xaa" * 16)
        self.assertEqual(
            answer.hex(),
            "16" "feff" "0000" "000000000102" "001f"
            "03" "000013" "0000" "000000" "000013"
            "feff" "10" + "aa" * 16,
        )  # fmt: skip


class CookiesTests(SynchronousTestCase):
    """:class:`CookieSecret`."""

    def setUp(self) -> None:
        self.cookies = CookieSecret(b"1" * 32, 0.0)
        self.cookie = self.cookies.make(HERE, parsed(hello()))

    def accepts(self, cookie: bytes, host: str = "192.0.2.1", port: int = 5000) -> bool:
        """Whether a cookie is good for who comes from an address."""
        return self.cookies.accept((host, port), parsed(hello(cookie)))

    def test_own(self) -> None:
        """A cookie is good for its address, its port and its client alone."""
        self.assertTrue(self.accepts(self.cookie))
        self.assertFalse(self.accepts(self.cookie, host="192.0.2.2"))
        self.assertFalse(self.accepts(self.cookie, port=5001))
        another = parsed(hello(self.cookie, random=bytes(32)))
        self.assertFalse(self.cookies.accept(HERE, another))
        another = parsed(hello(self.cookie, session=b"s"))
        self.assertFalse(self.cookies.accept(HERE, another))

    def test_address_and_port_are_apart(self) -> None:
        """An address and a port that read alike when put together do not share a cookie."""
        one = self.cookies.make(("10.0.0.1", 12345), parsed(hello()))
        other = self.cookies.make(("10.0.0.11", 2345), parsed(hello()))
        self.assertNotEqual(one, other)

    def test_wrong(self) -> None:
        """None, a shorter one, a longer one and any other one are not good."""
        for wrong in (b"", self.cookie[:-1], self.cookie + b"\0", bytes(COOKIE)):
            self.assertFalse(self.accepts(wrong))
        for i in range(COOKIE):
            flipped = bytearray(self.cookie)
            flipped[i] ^= 1
            self.assertFalse(self.accepts(bytes(flipped)))

    def test_rotation(self) -> None:
        """A cookie outlives the next key, and not the one after it."""
        self.assertFalse(self.cookies.stale(59.9))
        self.assertTrue(self.cookies.stale(60.0))
        self.assertTrue(self.cookies.stale(-0.1))
        self.cookies.renew(b"2" * 32, COOKIE_LIFETIME)
        self.assertTrue(self.accepts(self.cookie))
        self.assertNotEqual(self.cookies.make(HERE, parsed(hello())), self.cookie)
        self.cookies.renew(b"3" * 32, 2 * COOKIE_LIFETIME)
        self.assertFalse(self.accepts(self.cookie))

    def test_rotation_after_silence(self) -> None:
        """After a long time without clients, earlier cookies are invalid."""
        self.cookies.renew(b"2" * 32, 2 * COOKIE_LIFETIME)
        self.assertFalse(self.accepts(self.cookie))
