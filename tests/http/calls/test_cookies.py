"""Tests of :mod:`twisted_net.http.calls.cookies`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.http.fakes import canned
from tests.http.test_client import FRESH, URL, ClientTestCase, redirect
from twisted_net.http.calls.cookies import (
    MAX_ATTRIBUTES,
    MAX_COOKIE,
    MAX_COOKIES,
    MAX_LINES,
    MAX_PER_DOMAIN,
    BoundedCookieJar,
    CallCookies,
    set_cookies,
)


class JarTests(SynchronousTestCase):
    """:class:`BoundedCookieJar` keeps cookies within its bounds."""

    def setUp(self) -> None:
        self.jar = BoundedCookieJar()

    def store(self, *lines: str, host: str = "h.example") -> None:
        """Store what a response sets."""
        CallCookies(self.jar, f"http://{host}/", None).store(f"http://{host}/", list(lines))

    def names(self) -> set[str]:
        """Return the names of the cookies kept."""
        return {cookie.name for cookie in self.jar}

    def test_domain(self) -> None:
        """Of one host the newest are kept; one that is set again is new."""
        for number in range(MAX_PER_DOMAIN):
            self.store(f"c{number}=1")
        self.store("c0=2")
        self.store("x=1", "y=1")
        self.assertEqual(len(self.jar), MAX_PER_DOMAIN)
        self.assertLessEqual({"c0", "x", "y", "c3"}, self.names())
        self.assertEqual({"c1", "c2"} & self.names(), set())

    def test_all(self) -> None:
        """In all, too."""
        hosts = MAX_COOKIES // MAX_PER_DOMAIN + 1
        for host in range(hosts):
            for number in range(0, MAX_PER_DOMAIN, MAX_LINES - 14):
                lines = [f"h{host}c{number + i}=1" for i in range(MAX_LINES - 14)]
                self.store(*lines, host=f"h{host}.example")
        self.assertEqual(len(self.jar), MAX_COOKIES)
        self.assertNotIn("h0c0", self.names())
        self.assertIn(f"h{hosts - 1}c0", self.names())

    def test_size(self) -> None:
        """A cookie that is too long, or has too many attributes, is not kept."""
        self.store("a=" + "x" * (MAX_COOKIE - 2), "b=" + "x" * (MAX_COOKIE - 1))
        self.store("c=1" + "; x" * MAX_ATTRIBUTES, "d=1" + "; x" * (MAX_ATTRIBUTES + 1))
        self.assertEqual(self.names(), {"a", "c"})

    def test_lines(self) -> None:
        """So many of one response are looked at."""
        self.store(*[f"a{number}=; Max-Age=0" for number in range(MAX_LINES)], "b=1")
        self.assertEqual(self.names(), set())

    def test_countries(self) -> None:
        """No site sets cookies for a whole country or top level."""
        self.store("a=1; Domain=co.uk", "b=1; Domain=uk", host="shop.co.uk")
        self.store("c=1; Domain=example", "d=1; Domain=h.example", host="www.h.example")
        self.assertEqual(self.names(), {"d"})

    def test_clear(self) -> None:
        """Cookies can be cleared by host, by path, or all, and their places are free then."""
        for count, clear in ((1, ("h1.example",)), (1, ("h1.example", "/")), (0, ())):
            self.store("a=1", host="h1.example")
            self.store("a=1", host="h2.example")
            self.jar.clear(*clear)
            self.assertEqual((len(self.jar), len(self.jar._set)), (count, count))
            self.assertEqual(len(self.jar._by_domain), count)


class ClientTests(ClientTestCase):
    """Cookies of a client and its calls."""

    def call(self, client: Any, *headers: tuple[str, str], **options: Any) -> list[str]:
        """Make a call that is answered with *headers*; return the cookies that it sent."""
        self.answer(canned(200, b"", headers))
        self.run_now(client.get(URL, **options))
        return (
            sorted(self.sent().header("cookie")[0].split("; "))
            if self.sent().header("cookie")
            else []
        )

    def test_kept(self) -> None:
        """``cookies=True`` keeps them from call to call; by default none is kept."""
        for client, kept in ((self.make(cookies=True), ["s=1"]), (self.make(), [])):
            self.call(client, ("Set-Cookie", "s=1"))
            self.assertEqual(self.call(client), kept)

    def test_two_jars(self) -> None:
        """A jar and ``cookies=True`` together are a mistake."""
        error = self.assertRaises(ValueError, self.make, cookies=True, cookiejar=BoundedCookieJar())
        self.assertIn("has no effect with cookiejar", str(error))

    def test_own(self) -> None:
        """Those of a call replace kept ones of the same name, for this call."""
        client = self.make(cookies=True)
        self.call(client, ("Set-Cookie", "s=1"), ("Set-Cookie", "t=1"))
        self.assertEqual(self.call(client, cookies={"s": "ü"}), ["s=Ã¼", "t=1"])
        self.assertEqual(self.call(client), ["s=1", "t=1"])

    def test_set_by_the_server(self) -> None:
        """What a redirect sets replaces a cookie of the call."""
        self.answer(redirect(302, "/x", ("Set-Cookie", "s=2")), canned(200))
        self.run_now(self.client.get(URL, cookies={"s": "1", "t": "1"}))
        self.assertEqual(sorted(self.sent().header("cookie")[0].split("; ")), ["s=2", "t=1"])

    def test_at_once(self) -> None:
        """Calls at the same time do not lose each other's cookies."""
        client = self.make(cookies=True)
        self.answer(canned(200, b"", [("Set-Cookie", "a=1")]))
        from twisted.internet.defer import Deferred

        held: Deferred[Any] = Deferred()
        self.answer(held)
        first = self.start(client.get(URL, cookies={"x": "1"}, cache=False))
        second = self.start(client.get(URL, cache=False))
        self.successResultOf(first)
        held.callback(canned(200, b"", [("Set-Cookie", "b=1")]))
        self.successResultOf(second)
        self.assertEqual(self.call(client, cache=False), ["a=1", "b=1"])

    def test_field_of_the_caller(self) -> None:
        """A field that the caller set is sent alone."""
        client = self.make(cookies=True)
        self.call(client, ("Set-Cookie", "s=1"))
        self.assertEqual(self.call(client, headers={"Cookie": "own=1"}), ["own=1"])

    def test_response(self) -> None:
        """``cookies`` of a response are what it sets; one from the cache sets none."""
        lines = [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b = x=y "), FRESH]
        self.answer(canned(200, b"", [*lines, ("Set-Cookie", "nonsense"), ("Set-Cookie", "=v")]))
        response = self.run_now(self.client.get(URL, default_ttl=60.0))
        self.assertEqual(response.cookies, {"a": "1", "b": "x=y"})
        self.assertEqual(self.run_now(self.client.get(URL)).cookies, {})

    def test_validated(self) -> None:
        """Those of a response that a 304 has validated are what the 304 sets."""
        lines = [("ETag", '"x"'), ("Cache-Control", "no-cache"), ("Set-Cookie", "s=1")]
        self.answer(canned(200, b"abc", lines))
        self.assertEqual(self.run_now(self.client.get(URL)).cookies, {"s": "1"})
        for more, expected in (([("Set-Cookie", "t=2")], {"t": "2"}), ([], {})):
            self.answer(canned(304, b"", [("ETag", '"x"'), *more]))
            response = self.run_now(self.client.get(URL))
            self.assertTrue(response.from_cache)
            self.assertEqual(response.cookies, expected)

    def test_parsed(self) -> None:
        """RFC 6265 §5.2: name and value are stripped; an empty value is one."""
        self.assertEqual(set_cookies(["a=", " b =\t1 ; x", ";c=1"]), {"a": "", "b": "1"})
