"""Tests of :mod:`twisted_net.http.calls.defaults`, through the client."""

from __future__ import annotations

from typing import Any

from tests.http.fakes import canned
from tests.http.test_client import FRESH, URL, ClientTestCase, redirect
from twisted_net.http.calls.body import Form
from twisted_net.http.errors import InvalidURL

BASE = "http://api.example/v1"


class BaseUrlTests(ClientTestCase):
    """A client with a base URL."""

    def requested(self, url: str, base: str = BASE, **options: Any) -> str:
        """Return what was requested."""
        self.answer(canned(200))
        self.run_now(self.make(base_url=base).get(url, **options))
        return self.sent().uri.decode()

    def test_appended(self) -> None:
        """A URL that is not absolute is appended to it, with one slash between."""
        for url, expected in (
            ("users", f"{BASE}/users"),
            ("/users", f"{BASE}/users"),
            ("", BASE),
            ("/", f"{BASE}/"),
            ("?q=1", f"{BASE}?q=1"),
            ("a:b/c", None),
            ("./a:b", f"{BASE}/a:b"),
            ("ü?x=http://y/", f"{BASE}/%C3%BC?x=http://y/"),
            ("http://other.example/x", "http://other.example/x"),
            ("HTTPS://other.example/x", "HTTPS://other.example/x"),
        ):
            with self.subTest(url=url):
                if expected is None:
                    call = self.start(self.make(base_url=BASE).get(url))
                    self.failureResultOf(call, InvalidURL)
                else:
                    self.assertEqual(self.requested(url).lower(), expected.lower())
        self.assertEqual(self.requested("x", base="http://h.example"), "http://h.example/x")
        self.assertEqual(self.requested("x", base="http://h.example/a/"), "http://h.example/a/x")

    def test_no_other_host(self) -> None:
        """A path cannot name another host."""
        call = self.start(self.make(base_url=BASE).get("//evil.example/"))
        self.failureResultOf(call, InvalidURL)

    def test_stream(self) -> None:
        """Streams have the same base."""
        self.answer(canned(200, b"x"))
        response = self.run_now(
            self.make(base_url=BASE, params={"k": "1"}).stream("GET", "users").__aenter__()
        )
        self.assertEqual(response.url, f"{BASE}/users?k=1")

    def test_cached(self) -> None:
        """A hit is found by the whole URL, with its query."""
        client = self.make(base_url=BASE, params={"k": "1"}, headers={"X": "y"})
        self.answer(canned(200, b"x", [FRESH]))
        for _ in range(2):
            response = self.run_now(client.get("users", params={"q": "a b"}))
            self.assertEqual(response.url, f"{BASE}/users?k=1&q=a%20b")
            self.assertEqual(response.request.headers["x"], "y")
        self.assertEqual((response.attempts, response.from_cache), (0, True))

    def test_refused(self) -> None:
        """A base URL that is none says why."""
        for url, why in (
            ("users", "base_url must be absolute"),
            ("ftp://x/", "base_url must be absolute: its scheme is neither http nor https"),
            ("h.example", "it is not an absolute URL, which begins with http:// or https://"),
            ("http://x/?a=b", "base_url must have no query and no fragment"),
            ("http://x/#a", "base_url must have no query and no fragment"),
        ):
            error = self.assertRaises(ValueError, self.make, base_url=url)
            self.assertIn(why, str(error))


class HeaderTests(ClientTestCase):
    """Header fields of a client, and of its calls."""

    def sent_with(self, client: Any, **options: Any) -> None:
        """Make a call."""
        self.answer(canned(200))
        self.run_now(client.get(URL, **options))

    def test_replaced(self) -> None:
        """A client's fields replace the defaults, and those of a call both, in any case."""
        client = self.make(headers={"accept": "text/html", "X-A": "1", "X-B": "1"})
        self.sent_with(client, headers=[("x-a", "2"), ("X-A", "3"), ("X-B", None)])
        for name, expected in (("accept", ["text/html"]), ("x-a", ["2", "3"]), ("x-b", [])):
            self.assertEqual(self.sent().header(name), expected)
        self.sent_with(client)
        self.assertEqual(self.sent().header("x-a"), ["1"])

    def test_none(self) -> None:
        """None sends no such field, not even a default."""
        self.sent_with(self.make(headers={"Accept": None}), headers={"User-Agent": None})
        self.assertEqual(self.sent().header("accept") + self.sent().header("user-agent"), [])

    def test_refused(self) -> None:
        """Defaults are checked when the client is made."""
        for options, error in (
            ({"headers": {"A\n": "b"}}, ValueError),
            ({"headers": {"A": "b\n"}}, ValueError),
            ({"headers": {"A": b"b\0"}}, ValueError),
            ({"headers": {1: "b"}}, TypeError),
            ({"headers": [("A",)]}, TypeError),
            ({"params": 5}, TypeError),
            ({"auth": "token"}, TypeError),
            ({"on_request": 5}, TypeError),
            ({"on_response": [5]}, TypeError),
            ({"cookies": 1}, TypeError),
            ({"base_ulr": URL}, TypeError),
        ):
            with self.subTest(options=options):
                said = str(self.assertRaises(error, self.make, **options))
                self.assertTrue(said.startswith("Client: "), said)

    def test_accept_of_the_cache(self) -> None:
        """A client whose own fields concern the cache does not take a hit unseen."""
        client = self.make(headers={"Cache-Control": "no-cache"})
        for _ in range(2):
            self.answer(canned(200, b"x", [FRESH]))
            self.run_now(client.get(URL))
        self.assertEqual(len(self.fake.sent), 2)


class ParamsTests(ClientTestCase):
    """The query of a client and of its calls."""

    def test_merged(self) -> None:
        """Those of a call replace the client's by name, and follow those of the URL."""
        client = self.make(params=[("a", "1"), ("b", 2), ("a", "3")])
        calls: tuple[tuple[str, Form, str], ...]
        calls = (
            (URL, {}, "?a=1&b=2&a=3"),
            (URL, {"a": ["x", "y"]}, "?b=2&a=x&a=y"),
            (f"{URL}?u=1", {"a": None, "b": True}, "?u=1&b=true"),
            (f"{URL}?", [("a", 1.5), ("b", b"\xff")], "?a=1.5&b=%FF"),
        )
        for url, params, expected in calls:
            self.answer(canned(200))
            self.run_now(client.get(url, params=params))
            self.assertEqual(self.sent().uri.decode(), f"{URL}{expected}")

    def test_redirected(self) -> None:
        """A redirect has its own query, and not the client's."""
        self.answer(redirect(302, "/x"), canned(200))
        self.run_now(self.make(params={"key": "1"}).get(URL))
        self.assertEqual(self.sent().uri, b"http://h.example/x")


class CredentialsTests(ClientTestCase):
    """Credentials of a client go to one origin."""

    def credentials(self, url: str, **defaults: Any) -> tuple[list[str], list[str]]:
        """Return what a call to *url* has of them."""
        self.answer(canned(200))
        self.run_now(self.make(**defaults).get(url))
        return self.sent().header("authorization"), self.sent().header("cookie")

    def test_base(self) -> None:
        """With a base URL they are for its origin only, from wherever they are."""
        for defaults, expected in (
            ({"auth": ("u", "p")}, (["Basic dTpw"], [])),
            ({"auth": lambda request: request.headers.update(Cookie="x")}, ([], ["x"])),
            ({"headers": {"Authorization": "x", "Cookie": "y"}}, (["x"], ["y"])),
        ):
            self.assertEqual(self.credentials("x", base_url=BASE, **defaults), expected)
            self.assertEqual(
                self.credentials("http://api.example:80/", base_url=BASE, **defaults), expected
            )
            for url in ("https://api.example/", "http://other.example/", "http://api.example:81/"):
                self.assertEqual(self.credentials(url, base_url=BASE, **defaults), ([], []))

    def test_in_base(self) -> None:
        """Those in the base URL are not shown, and not sent elsewhere."""
        base = "http://u:p@api.example/v1"
        self.assertEqual(self.credentials("x", base_url=base), (["Basic dTpw"], []))
        self.assertEqual(self.sent().uri, b"http://api.example/v1/x")
        self.assertEqual(self.credentials("http://other.example/", base_url=base), ([], []))

    def test_without_base(self) -> None:
        """Without one they are for the origin of each call."""
        for url in (URL, "http://other.example/"):
            self.assertEqual(self.credentials(url, auth=("u", "p")), (["Basic dTpw"], []))
