"""Tests of :mod:`twisted_net.http.calls.authentication`, through the client."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred

from tests.http.fakes import canned
from tests.http.test_client import URL, ClientTestCase, redirect
from twisted_net.http.calls.authentication import MAX_SESSIONS, BearerToken, DigestAuth
from twisted_net.http.calls.http_request import HttpRequest
from twisted_net.http.errors import FetchTimeout

CHALLENGE = ("WWW-Authenticate", 'Digest realm="r", nonce="n1", qop="auth", algorithm=SHA-256')
STALE = ("WWW-Authenticate", 'Digest realm="r", nonce="n2", qop="auth", stale=true')
ELSEWHERE = "http://other.example/"


class AuthTestCase(ClientTestCase):
    """Looks at the credentials that were sent."""

    def credentials(self) -> list[str | None]:
        """Return ``Authorization`` of each request."""
        found = [sent.header("authorization") for sent in self.fake.sent]
        return [values[0] if values else None for values in found]

    def get(self, url: str = URL, client: Any = None, **options: Any) -> Any:
        """Make a call that does not wait."""
        return self.run_now((client or self.client).get(url, **options))


class FixedTests(AuthTestCase):
    """Credentials that are known before the request."""

    def test_bearer(self) -> None:
        """A token has its own class, which does not show it."""
        self.answer(canned(200))
        token = BearerToken("s3cret")
        self.get(auth=token)
        self.assertEqual(self.credentials(), ["Bearer s3cret"])
        self.assertNotIn("s3cret", repr(token))

    def test_no_token(self) -> None:
        """What is no token is refused, without showing it."""
        for text in ("", "Bearer x", "a\nb", "ü", "x\0"):
            error = self.assertRaises(ValueError, BearerToken, text)
            self.assertTrue(str(error).startswith("BearerToken: token must"))
        self.assertRaises(TypeError, BearerToken, b"x")

    def test_none(self) -> None:
        """None is no credentials: neither those of the URL, nor those of the client."""
        self.answer(canned(200), canned(200))
        self.get("http://me:pw@h.example/", auth=None)
        self.get(client=self.make(auth=("me", "pw")), auth=None)
        self.assertEqual(self.credentials(), [None, None])

    def test_field_of_the_client(self) -> None:
        """``auth`` of a call replaces it, but not a field of the same call."""
        client = self.make(headers={"authorization": "Own"})
        for options, expected in (
            ({}, "Own"),
            ({"auth": BearerToken("x")}, "Bearer x"),
            ({"auth": lambda request: sign(request)}, f"Signed GET {URL}"),
            ({"auth": None}, None),
            ({"auth": BearerToken("x"), "headers": {"AUTHORIZATION": "Call's"}}, "Call's"),
            ({"headers": [("Authorization", "Call's")]}, "Call's"),
        ):
            self.fake.sent.clear()
            self.answer(canned(200))
            self.get(client=client, **options)
            self.assertEqual(self.credentials(), [expected])

    def test_other_origin(self) -> None:
        """They do not follow a redirect to another origin, nor come back from it."""
        for auth in (("u", "p"), BearerToken("x"), lambda request: sign(request)):
            self.fake.sent.clear()
            self.answer(
                redirect(302, "/x"), redirect(302, ELSEWHERE), redirect(302, URL), canned(200)
            )
            self.get(auth=auth)
            known = [value is not None for value in self.credentials()]
            self.assertEqual(known, [True, True, False, False])


def sign(request: HttpRequest) -> None:
    """Sign a request."""
    request.headers["Authorization"] = f"Signed {request.method} {request.url}"


class FunctionTests(AuthTestCase):
    """A function for ``auth``."""

    def test_request(self) -> None:
        """It sees the request as it is sent: method, URL, fields and body."""
        seen: list[HttpRequest] = []
        self.answer(canned(200))
        headers = {"X-A": ["1", "2"]}
        self.run_now(
            self.client.post("HTTP://H.example:80/ü", auth=seen.append, json=1, headers=headers)
        )
        (request,) = seen
        self.assertEqual((request.method, request.body), ("POST", b"1"))
        self.assertEqual(request.url, "http://h.example/%C3%BC")
        self.assertEqual(request.headers["x-a"], "1, 2")
        self.assertEqual(request.headers["content-type"], "application/json")
        self.assertIn("accept", list(request.headers))
        self.assertEqual(len(request.headers), 5)
        self.assertNotIn("application/json", repr(request))

    def test_change(self) -> None:
        """It changes the fields of this request, and nothing else."""

        def change(request: HttpRequest) -> None:
            del request.headers["Accept"]
            request.headers["X-A"] = "ü"
            self.assertRaises(KeyError, request.headers.__delitem__, "X-B")
            self.assertRaises(KeyError, request.headers.__getitem__, "X-B")
            self.assertRaises(ValueError, request.headers.__setitem__, "X-B", "a\r\nb")
            self.assertRaises(TypeError, request.headers.__setitem__, "X-B", 1)
            for name in ("url", "method", "headers", "body"):
                error = self.assertRaises(AttributeError, setattr, request, name, ELSEWHERE)
                said = f"HttpRequest: only its headers can be changed, not {name}"
                self.assertEqual(str(error), said)

        self.answer(canned(200), canned(200))
        self.get(auth=change)
        self.assertEqual(self.sent().header("accept"), [])
        self.assertEqual(self.sent().header("x-a"), ["Ã¼"])
        self.get()
        self.assertEqual(self.sent().header("accept"), ["application/json"])

    def test_coroutine(self) -> None:
        """It may wait, for instance for a token; not longer than the call."""
        token: Deferred[str] = Deferred()

        async def fetch_token(request: HttpRequest) -> None:
            request.headers["Authorization"] = await token

        self.answer(canned(200))
        asking = self.start(self.client.get(URL, auth=fetch_token))
        self.assertEqual(self.fake.sent, [])
        token.callback("T")
        self.successResultOf(asking)
        self.assertEqual(self.credentials(), ["T"])
        token = Deferred()
        asking = self.start(self.client.get(URL, auth=fetch_token, timeout=3.0))
        self.clock.advance(3.0)
        error = self.failureResultOf(asking, FetchTimeout).value
        self.assertEqual((error.phase, error.limit, error.total), ("hook", 3.0, True))
        self.assert_quiet(self.clock)

    def test_failure(self) -> None:
        """What it raises is raised by the call, and nothing is sent."""

        def fail(request: HttpRequest) -> None:
            raise LookupError("no key")

        self.failureResultOf(self.start(self.client.get(URL, auth=fail)), LookupError)
        self.assertEqual(self.fake.sent, [])


class DigestTests(AuthTestCase):
    """:class:`DigestAuth`."""

    def setUp(self) -> None:
        super().setUp()
        self.auth = DigestAuth("me", "pä", cnonce=lambda: "c")

    def counts(self) -> list[tuple[str, str] | None]:
        """Return nonce and count of each request."""
        found = []
        for value in self.credentials():
            nonce = re.search(r'nonce="(\w+)"', value or "")
            count = re.search(r"nc=(\w+)", value or "")
            found.append(nonce and count and (nonce[1], count[1].lstrip("0")))
        return found

    def test_no_text(self) -> None:
        """What cannot be sent, or was read with the end of its line, is refused."""
        for words, said in (
            (("a", "b\n"), "DigestAuth: password must have no line break"),
            (("a\r\nX: y", "b"), "DigestAuth: user must have no line break"),
            (("\ud800", "b"), "DigestAuth: user has a surrogate, which is no character"),
        ):
            self.assertIn(said, str(self.assertRaises(ValueError, DigestAuth, *words)))

    def test_challenge(self) -> None:
        """The first request is sent again with an answer; those that follow have one at once."""
        self.answer(canned(401, b"no", [CHALLENGE]), canned(200), canned(200))
        response = self.get(auth=self.auth)
        self.assertEqual((response.status, response.attempts), (200, 2))
        self.assertEqual(response.history, ())
        self.get(f"{URL}?x", auth=self.auth)
        self.assertEqual(self.counts(), [None, ("n1", "1"), ("n1", "2")])
        self.assertIn('uri="/p?x"', self.credentials()[-1] or "")
        self.assertNotIn("pä", repr(self.auth))

    def test_stale(self) -> None:
        """A new challenge is answered once."""
        self.answer(canned(401, b"", [CHALLENGE]), canned(200))
        self.get(auth=self.auth)
        self.answer(canned(401, b"", [STALE]), canned(200))
        self.assertEqual(self.get(auth=self.auth).status, 200)
        self.assertEqual(self.counts(), [None, ("n1", "1"), ("n1", "2"), ("n2", "1")])

    def test_wrong_password(self) -> None:
        """A second 401 is the response."""
        self.answer(canned(401, b"", [CHALLENGE]), canned(401, b"", [STALE]))
        self.assertEqual(self.get(auth=self.auth).status, 401)
        self.assertEqual(len(self.fake.sent), 2)

    def test_no_challenge(self) -> None:
        """A 401 that cannot be answered is the response."""
        self.answer(canned(401, b"", [("WWW-Authenticate", "Basic realm=x")]), canned(401))
        for _ in range(2):
            self.assertEqual(self.get(auth=self.auth).status, 401)
        self.assertEqual(len(self.fake.sent), 2)

    def test_bodies(self) -> None:
        """A body in memory is sent again, and one that is sent once is not."""
        self.answer(canned(401, b"", [CHALLENGE]), canned(200))
        self.run_now(self.client.post(URL, auth=self.auth, json=1))
        self.assertEqual([sent.body for sent in self.fake.sent], [b"1", b"1"])
        self.answer(canned(401, b"", [STALE]))
        once = self.run_now(self.client.post(URL, auth=self.auth, data=iter([b"x"])))
        self.assertEqual(once.status, 401)

    def test_origins(self) -> None:
        """An answer is for one origin, and no other one gets any."""
        self.answer(canned(401, b"", [CHALLENGE]), redirect(302, ELSEWHERE))
        self.answer(canned(401, b"", [CHALLENGE]))
        self.assertEqual(self.get(auth=self.auth).status, 401)
        self.assertEqual(self.counts(), [None, ("n1", "1"), None])

    def test_bounds(self) -> None:
        """So many origins are kept, the last ones used."""
        for number in range(MAX_SESSIONS + 1):
            self.auth.challenged(f"http://h{number}/", [CHALLENGE[1]])
            self.answer(canned(200))
            self.get("http://h0/", auth=self.auth)
        self.answer(canned(200))
        self.get("http://h1/", auth=self.auth)
        self.assertIsNotNone(self.credentials()[-2])
        self.assertIsNone(self.credentials()[-1])

    def test_field_of_the_caller(self) -> None:
        """A field that the caller set stays."""
        self.answer(canned(401, b"", [CHALLENGE]))
        response = self.get(auth=self.auth, headers={"Authorization": "own"})
        self.assertEqual((response.status, self.credentials()), (401, ["own"]))
