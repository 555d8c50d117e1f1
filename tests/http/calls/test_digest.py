"""Tests of :mod:`twisted_net.http.calls.digest`."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.calls.digest import (
    MAX_LENGTH,
    DigestChallenge,
    DigestSession,
    parse_digest_challenge,
)

NONCE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
OPAQUE = "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
REALM = "http-auth@example.org"

texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=12)


def value_of(header: str, name: str) -> str | None:
    """Return a parameter of an ``Authorization``, without its quotes."""
    found = re.search(rf'[ ,]{re.escape(name)}=(?:"((?:[^"\\]|\\.)*)"|([^,]*))', header)
    return None if found is None else found[1] if found[1] is not None else found[2]


class ChallengeTests(SynchronousTestCase):
    """:func:`parse_digest_challenge` finds the first challenge that can be answered."""

    def test_example(self) -> None:
        """RFC 7616 §3.9.1: the best one is first."""
        lines = [
            f'Digest realm="{REALM}", qop="auth, auth-int", algorithm={name},'
            f' nonce="{NONCE}", opaque="{OPAQUE}"'
            for name in ("SHA-256", "MD5")
        ]
        for given_lines in (lines, [", ".join(lines)]):
            found = parse_digest_challenge(given_lines)
            self.assertEqual(found, DigestChallenge(REALM, NONCE, "SHA-256", OPAQUE))

    def test_others(self) -> None:
        """Other schemes, hashes and qualities are passed over."""
        digest = 'Digest realm="r", nonce="n"'
        for line, algorithm in (
            (f'Basic realm="x", {digest}, algorithm=MD5', "MD5"),
            (f"Negotiate abc==, {digest}", None),
            (f"{digest}, algorithm=SHA-512-256, {digest}, algorithm=sha-256-SESS", "sha-256-SESS"),
            (f'{digest}, qop="auth-int", {digest}, qop=auth, algorithm=MD5', "MD5"),
        ):
            with self.subTest(line=line):
                found = parse_digest_challenge([line])
                assert found is not None
                self.assertEqual((found.realm, found.nonce), ("r", "n"))
                self.assertEqual(found.algorithm, algorithm)

    def test_none(self) -> None:
        """What cannot be answered is no challenge."""
        for line in (
            *("", "Digest", "Basic realm=x", 'Digest realm="r"', 'Digest nonce="n"'),
            'Digest realm="r", nonce="n", algorithm=ROT13',
            'Digest realm="r", nonce="n", qop="auth-int"',
            'Digest realm="r", nonce="n", x="' + "y" * MAX_LENGTH + '"',
        ):
            with self.subTest(line=line[:60]):
                self.assertIsNone(parse_digest_challenge([line]))

    @given(realm=texts, nonce=texts, before=st.sampled_from(["", "Basic realm=x, ", ",, ,"]))
    def test_quoted(self, realm: str, nonce: str, before: str) -> None:
        """Any text comes out of its quotes as it was."""

        def quoted(text: str) -> str:
            return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

        line = f"{before}dIgEsT  realm = {quoted(realm)} ,nonce={quoted(nonce)}, qop=auth"
        self.assertEqual(parse_digest_challenge([line]), DigestChallenge(realm, nonce))

    @given(st.text(st.sampled_from('Digest realmnonce=",\\ \t'), max_size=60))
    def test_garbage(self, line: str) -> None:
        """Whatever a line is, the next one is read as if it stood alone."""
        alone = parse_digest_challenge([line])
        last = 'Digest realm="r", nonce="n", qop=auth'
        found = parse_digest_challenge([line, last])
        self.assertEqual(found, alone or DigestChallenge("r", "n"))
        if alone is not None:
            self.assertIn("digest", line.lower())
            answer = DigestSession(alone, "u", "p", CNONCE).authorization("GET", "/")
            self.assertTrue(answer.startswith("Digest "), answer)


class SessionTests(SynchronousTestCase):
    """:class:`DigestSession` computes answers."""

    def answer(self, challenge: DigestChallenge, user: str = "Mufasa") -> str:
        """Return the first answer, to the request of the RFC's examples."""
        session = DigestSession(challenge, user, "Circle of Life", CNONCE)
        return session.authorization("GET", "/dir/index.html")

    def test_examples(self) -> None:
        """RFC 7616 §3.9.1."""
        for algorithm, response in (
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ):
            header = self.answer(DigestChallenge(REALM, NONCE, algorithm, OPAQUE))
            for name, expected in (
                *(("username", "Mufasa"), ("realm", REALM), ("uri", "/dir/index.html")),
                *(("algorithm", algorithm), ("nonce", NONCE), ("nc", "00000001"), ("qop", "auth")),
                *(("cnonce", CNONCE), ("response", response), ("opaque", OPAQUE)),
            ):
                self.assertEqual(value_of(header, name), expected, name)

    def test_without_qop(self) -> None:
        """RFC 2617 §3.2.2.1: old servers offer no quality of protection, and get none."""
        header = self.answer(DigestChallenge(REALM, NONCE, qop=False))
        for name in ("qop", "nc", "cnonce", "algorithm"):
            self.assertIsNone(value_of(header, name))

    def test_count(self) -> None:
        """Each request has the next number."""
        session = DigestSession(DigestChallenge("r", "n"), "u", "p", "c")
        headers = [session.authorization("GET", "/") for _ in range(17)]
        self.assertEqual(value_of(headers[-1], "nc"), "00000011")
        self.assertEqual(len({value_of(header, "response") for header in headers}), 17)

    def test_names(self) -> None:
        """RFC 7616 §3.4: names beyond ASCII, and names that are hashed (§3.4.4)."""
        header = self.answer(DigestChallenge("r", "n"), "Jäsøn Doe")
        self.assertEqual(value_of(header, "username*"), "UTF-8''J%C3%A4s%C3%B8n%20Doe")
        self.assertIsNone(value_of(header, "username"))
        header = self.answer(DigestChallenge("r", "n", userhash=True), "Jäsøn Doe")
        self.assertEqual(value_of(header, "userhash"), "true")
        self.assertRegex(value_of(header, "username") or "", "^[0-9a-f]{32}$")

    def test_quotes(self) -> None:
        """What the server sent is sent back as it was."""
        header = self.answer(DigestChallenge('r"\\', 'n"'), 'me"')
        self.assertIn('realm="r\\"\\\\"', header)
        self.assertIn('username="me\\""', header)
