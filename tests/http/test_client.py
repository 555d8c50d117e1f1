"""Tests of :mod:`twisted_net.http.client`."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.cookiejar import MozillaCookieJar
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import msgspec
from hyperlink import EncodedURL
from treq.cookies import IndexableCookieJar, scoped_cookie
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from tests.complexity.work import counted
from tests.http.fakes import (
    FakeAgent,
    FakeResolver,
    HttpTestCase,
    Sent,
    ServerSide,
    canned,
    refuse,
)
from twisted_net import __version__
from twisted_net.config.tls import ClientTlsSettings
from twisted_net.errors import ConfigError, FetchError
from twisted_net.http.agent import HTTPAgent
from twisted_net.http.bodies import BodyResponse, collect
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.cache.stores import MemoryStore
from twisted_net.http.calls.authentication import BearerToken, DigestAuth
from twisted_net.http.calls.timeouts import Timeouts
from twisted_net.http.client import Client
from twisted_net.http.errors import (
    AddressRefused,
    BadResponse,
    BadStatus,
    BodyMismatch,
    BodyTooLarge,
    CannotConnect,
    CircuitOpen,
    ClientClosed,
    ConnectionBroken,
    FetchTimeout,
    InvalidURL,
    ProxyFailed,
    TooManyRedirects,
)
from twisted_net.http.response import EXCERPT, Response
from twisted_net.http.retry.circuit_breaker import CircuitState
from twisted_net.http.retry.settings import CircuitBreakerSettings, RetryPolicy
from twisted_net.http.settings import EgressPolicy, HttpSettings

URL = "http://h.example/p"
FRESH = ("Cache-Control", "max-age=60")
JSON = ("Content-Type", "application/json")
PLAIN = b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 3\r\n\r\nabc"


class ClientTestCase(HttpTestCase):
    """A client over an agent with prepared responses."""

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.fake = FakeAgent([])
        self.client = self.make()

    def make(self, settings: HttpSettings | None = None, **options: Any) -> Client:
        """Return a client."""
        return Client(self.clock, settings, agent=self.fake, chance=lambda: 1.0, **options)

    def answer(self, *answers: Any) -> None:
        """Prepare the responses to the next requests."""
        self.fake.answers.extend(answers)

    def sent(self) -> Sent:
        """Return the last request."""
        return self.fake.sent[-1]


class MisuseTests(ClientTestCase):
    """What is no option of a call is refused before anything is sent."""

    def test_refused(self) -> None:
        """Unknown names, other types, and times that are none."""
        closed = io.BytesIO()
        closed.close()
        folder = self.enterContext(TemporaryDirectory())
        unreadable = self.enterContext(open(Path(folder, "x"), "wb"))
        coroutine = self.client.get(URL)
        self.addCleanup(coroutine.close)
        for options, error, said in (
            ({"time_out": 5}, TypeError, "there is no argument time_out; did you mean timeout?"),
            ({"bogus": 1}, TypeError, "there is no argument bogus. It takes: "),
            (
                {"timeout": "5"},
                TypeError,
                "timeout must be a number or a Timeouts or None, not text",
            ),
            ({"timeout": -1}, ValueError, "timeout must be 0 or more seconds"),
            ({"timeout": float("nan")}, ValueError, "timeout must be 0 or more seconds"),
            ({"timeout": 10**400}, ValueError, "timeout must be 0 or more seconds"),
            ({"default_ttl": -1}, ValueError, "default_ttl must be 0 or more seconds"),
            ({"stale_if_error": -1}, ValueError, "stale_if_error must be 0 or more seconds"),
            ({"stale_if_error": None}, TypeError, "stale_if_error must be a number, not None"),
            ({"default_ttl": float("inf")}, ValueError, "default_ttl must be 0 or more seconds"),
            ({"max_body": -1}, ValueError, "max_body must be an integer from 0 to"),
            ({"retries": -1}, ValueError, "retries must be an integer from 0 to 100, not -1"),
            ({"hedge_after": 0}, ValueError, "hedge_after must be above 0 and up to 3600 seconds"),
            ({"content": b"x"}, TypeError, "there is no argument content; did you mean data?"),
            ({"stream": True}, TypeError, 'did you mean client.stream("GET", url)?'),
            ({"verify": False}, TypeError, "HttpSettings(tls=ClientTlsSettings(verify=…))"),
            ({"headers": ["a: b"]}, TypeError, "a list must be of pairs of a name and a value"),
            (
                {"headers": "a: b"},
                TypeError,
                "headers must be a mapping or a list of pairs, not te",
            ),
            (
                {"headers": {"A": 1}},
                TypeError,
                "the value of A must be text, not an integer",
            ),
            ({"headers": {"A b": "1"}}, ValueError, "headers: 'A b' is no name of a field"),
            ({"headers": {"A": "1\r\nB: 2"}}, ValueError, "the value of A must have no line break"),
            (
                {"params": "a=b"},
                TypeError,
                "params must be a mapping or a list of pairs, not text",
            ),
            ({"params": {"a": {}}}, TypeError, "params: the value of a must be text, bytes, a num"),
            ({"params": ["ab"]}, TypeError, "params: a list must be of pairs of a name and a val"),
            ({"data": 5}, TypeError, "data must be bytes, text, a form (a mapping or a list of pa"),
            ({"data": coroutine}, TypeError, "not a coroutine; await it first"),
            ({"data": Deferred()}, TypeError, "not a Deferred; await it first"),
            ({"data": closed}, ValueError, "data is a closed file"),
            ({"files": {"f": closed}}, ValueError, "files: the content of f is a closed file"),
            ({"data": unreadable}, ValueError, "data is a file that is not open for reading"),
            ({"data": "\ud800"}, ValueError, "data has a surrogate, which is no character"),
            ({"data": {"a": "\ud800"}}, ValueError, "data: the value of a has a surrogate"),
            ({"params": {"a": "\ud800"}}, ValueError, "params: the value of a has a surrogate"),
            ({"headers": {"a": "\ud800"}}, ValueError, "headers: the value of a has a surrogate"),
            ({"data": Path("x")}, TypeError, 'Path; open it: open(path, "rb")'),
            ({"files": {"f": Path("x")}}, TypeError, 'Path; open it: open(path, "rb")'),
            ({"data": iter}, TypeError, "; call it, if it returns the body"),
            ({"data": object()}, TypeError, "not an object; json=… sends any value as JSON"),
            ({"data": {1, 2}}, TypeError, "not a set; pass iter(…) of it"),
            ({"data": [b"a", b"b"]}, TypeError, "data: a list must be of pairs of a name and a v"),
            ({"files": "f"}, TypeError, "files must be a mapping, or a list of pairs, of the name"),
            ({"files": {"f": ("a",)}}, TypeError, "f must be a file, (name, file), (name, file, t"),
            ({"files": {"f": 5}}, TypeError, "files: the content of f must be bytes, text or an"),
            ({"auth": "ab"}, TypeError, "BearerToken(token), DigestAuth(user, password) or a func"),
            ({"auth": BearerToken}, TypeError, "not the class BearerToken"),
            (
                {"auth": ("a:b", "c")},
                ValueError,
                "auth: the user name must have no colon (RFC 7617",
            ),
            ({"auth": ("a", "b\n")}, ValueError, "must have no line break and no other control"),
            ({"auth": ("\ud800", "b")}, ValueError, "user name or password has a surrogate"),
            ({"proxy": 5}, TypeError, "proxy must be text or None, not an integer"),
            (
                {"proxy": "http://p:1"},
                ValueError,
                "proxy has no effect, as the client's agent makes",
            ),
            ({"progress": 5}, TypeError, "progress must be callable or None, not an integer"),
            ({"cookies": {"a": 1}}, TypeError, "a cookie must be a name and a value, both text"),
            ({"cookies": {"a;": "1"}}, ValueError, "'a;' is no name of a cookie"),
            ({"cookies": {"a": "1; b"}}, ValueError, "the value of a must have no semicolon"),
            ({"auth": ("a",)}, TypeError, "auth must be a user name and a password"),
            ({"auth": ("a", b"b")}, TypeError, "auth must be a user name and a password"),
            ({"retries": "3"}, TypeError, "retries must be an integer or a RetryPolicy, not text"),
            ({"retries": {}}, TypeError, "not a dict; write RetryPolicy(**…)"),
            ({"max_body": 1.5}, TypeError, "max_body must be an integer, not a number"),
            ({"cookies": "a=b"}, TypeError, "cookies must be a mapping or None, not text"),
            ({"cache": "no"}, TypeError, "cache must be true or false, not text"),
        ):
            with self.subTest(options=options):
                for asked in (
                    lambda options: self.client.get("http://h/", **options),
                    lambda options: self.client.stream("GET", "http://h/", **options).__aenter__(),
                ):
                    failed = self.failureResultOf(self.start(asked(options)), error)
                    self.assertIn(said, str(failed.value))
        self.assertEqual(self.fake.sent, [])

    def test_targets(self) -> None:
        """What is no method, or no URL, is refused in all ways to make a call."""
        for method, url, error, said in (
            ("GET", None, TypeError, "url must be text, not None"),
            ("GET", URL.encode(), TypeError, "url must be text, not bytes"),
            ("GET", [URL], TypeError, "url must be text, not a list"),
            (5, URL, TypeError, "method must be text, not an integer"),
            (None, URL, TypeError, "method must be text, not None"),
            (b"GET", URL, TypeError, "method must be text, not bytes"),
            ("GE T", URL, ValueError, "method must be one word of ASCII, not 'GE T'"),
            ("", URL, ValueError, "method must be one word of ASCII, not ''"),
            ("GÉT", URL, ValueError, "method must be one word of ASCII"),
        ):
            for client in (self.client, self.make(base_url=URL)):
                made: Any = client  # Any: on purpose
                for call in (made.request(method, url), made.stream(method, url).__aenter__()):
                    failed = self.failureResultOf(self.start(call), error)
                    self.assertIn(said, str(failed.value))
        self.answer(canned(200))
        self.run_now(self.client.get(URL, cookies=None))
        self.assertEqual(len(self.fake.sent), 1)
        self.fake.sent.clear()
        asked = self.start(self.client.post(URL, json=object()))
        self.assertIn("json cannot be encoded", str(self.failureResultOf(asked, TypeError).value))
        self.assertEqual(self.fake.sent, [])

    def test_no_effect(self) -> None:
        """Arguments of the agent that have no effect together are refused."""
        for options in (
            {"egress": EgressPolicy()},
            {"resolver": FakeResolver({})},
            {"tls_policy": BrowserLikePolicyForHTTPS()},
        ):
            error = self.assertRaises(ValueError, self.make, **options)
            self.assertIn("have no effect", str(error))
        settings = HttpSettings(cache=CacheSettings(enabled=False))
        error = self.assertRaises(ValueError, self.make, settings, store=MemoryStore())
        self.assertIn("store has no effect", str(error))

    def test_no_effect_of_tls(self) -> None:
        """Settings of TLS have no effect with a policy, or with an agent: that is refused."""
        settings = HttpSettings(tls=ClientTlsSettings(verify=False))
        error = self.assertRaises(ValueError, self.make, settings)
        self.assertIn("settings.tls has no effect with agent", str(error))
        policy = BrowserLikePolicyForHTTPS()
        error = self.assertRaises(
            ValueError, Client, MemoryReactorClock(), settings, tls_policy=policy
        )
        self.assertIn("settings.tls has no effect with tls_policy", str(error))

    def test_no_effect_of_proxy(self) -> None:
        """A proxy in the settings has no effect with an agent: that is refused."""
        for proxy in ("http://proxy.example:3128", "environment"):
            error = self.assertRaises(ValueError, self.make, HttpSettings(proxy=proxy))
            self.assertIn("settings.proxy has no effect with agent", str(error))

    def test_files_of_tls(self) -> None:
        """A file that cannot be used is a mistake where the client is made."""
        settings = HttpSettings(tls=ClientTlsSettings(ca="/none"))
        error = self.assertRaises(ConfigError, Client, MemoryReactorClock(), settings)
        self.assertEqual(str(error), "tls.ca: /none: No such file or directory")


class VerbTests(ClientTestCase):
    """Each method makes its request."""

    def test_verbs(self) -> None:
        """Each has the method of its name."""
        for verb in ("get", "head", "options", "post", "put", "patch", "delete"):
            self.answer(canned(200, b"x"))
            response = self.run_now(getattr(self.client, verb)(URL))
            self.assertEqual(self.sent().method, verb.upper().encode())
            self.assertEqual((response.method, response.url), (verb.upper(), URL))

    def test_request(self) -> None:
        """Any other method, in upper or lower case."""
        self.answer(canned(200))
        self.run_now(self.client.request("rePort", URL))
        self.assertEqual(self.sent().method, b"REPORT")

    def test_response(self) -> None:
        """The attributes of a response."""
        self.answer(canned(404, b"gone", [("X-A", "1"), ("X-A", "2")]))
        response = self.run_now(self.client.get(URL))
        self.assertEqual((response.status, response.reason), (404, "Reason"))
        self.assertEqual(response.body, b"gone")
        self.assertEqual(response.headers.get_all("x-a"), ["1", "2"])
        self.assertNotIn("content-encoding", response.headers)
        self.assertEqual((response.attempts, response.age, response.from_cache), (1, None, False))

    def test_length(self) -> None:
        """``Content-Length`` is shown without a cache as it is with one."""
        for enabled in (True, False):
            client = self.make(HttpSettings(cache=CacheSettings(enabled=enabled)))
            for kind in ("GET", "HEAD"):
                self.answer(canned(200, b"gone"))
                response = self.run_now(client.request(kind, URL))
                expected = "4" if kind == "GET" else None
                self.assertEqual(response.headers.get("content-length"), expected)
            packed = gzip.compress(b"gone")
            self.answer(canned(200, packed, [("Content-Encoding", "gzip")]))
            response = self.run_now(client.get(URL))
            self.assertNotIn("content-length", response.headers)

    def test_elapsed(self) -> None:
        """``elapsed`` is the time of the whole call, with its waits."""
        self.answer(canned(503), canned(200))
        asking = self.start(self.client.get(URL))
        self.clock.advance(0.5)
        self.assertEqual(self.successResultOf(asking).elapsed, 0.5)

    def test_url_is_encoded(self) -> None:
        """Characters beyond ASCII are encoded, params are added."""
        self.answer(canned(200))
        self.run_now(
            self.client.get("http://bücher.example/ä b?x=ö", params={"q": "a&b", "n": [1, 2]})
        )
        expected = b"http://xn--bcher-kva.example/%C3%A4%20b?x=%C3%B6&q=a%26b&n=1&n=2"
        self.assertEqual(self.sent().uri, expected)

    def test_hosts(self) -> None:
        """Addresses and underscores are unchanged, other hosts are encoded by RFC 5891."""
        for url, expected in (
            ("http://[2001:db8::1]:81/", b"http://[2001:db8::1]:81/"),
            ("http://[::ffff:1.2.3.4]/", b"http://[::ffff:102:304]/"),
            ("http://a_b.internal:8080/", b"http://a_b.internal:8080/"),
            ("http://a.example:/", b"http://a.example/"),
            ("http://a.example?", b"http://a.example/"),
            ("https://ايران.example/", b"https://xn--mgba3a4fra.example/"),
        ):
            self.answer(canned(200))
            self.run_now(self.client.get(url, params={"x": "é"}))
            self.assertEqual(self.sent().uri, expected + b"?x=%C3%A9")

    def test_canonical_url(self) -> None:
        """The URL of a response is the canonical one, from the network as from the cache."""
        url = "HTTP://H.example:80/a/../p#x"
        self.answer(canned(200, b"", [FRESH]))
        for cached in (False, True):
            response = self.run_now(self.client.get(url))
            self.assertEqual((response.url, response.from_cache), (URL, cached))
        self.answer(canned(200))
        self.run_now(self.client.get(url, params={"q": "1"}))
        self.assertEqual(self.sent().uri, URL.encode() + b"?q=1")

    def test_bad_url(self) -> None:
        """A malformed URL is an error of this package."""
        client = Client(self.clock)
        for url in (
            "",
            "nope",
            "http://[x/",
            "ftp://a/",
            "http://a:b/",
            "http://a\u0000/",
            "http://*/",
            "http://-é/",
        ):
            with self.subTest(url=url):
                self.failureResultOf(self.start(client.get(url)), InvalidURL)


class HeaderTests(ClientTestCase):
    """The header of a request."""

    def test_defaults(self) -> None:
        """User-Agent and Accept are sent; no Content-Type without a body."""
        self.answer(canned(200))
        self.run_now(self.client.get(URL))
        self.assertEqual(self.sent().header("user-agent"), [f"twisted_net/{__version__}"])
        self.assertEqual(self.sent().header("accept"), ["application/json"])
        self.assertEqual(self.sent().header("content-type"), [])

    def test_own(self) -> None:
        """Fields of the caller replace the defaults."""
        headers = {"user-agent": "me", "ACCEPT": ["a/b", "c/d"], "X": "y"}
        of_twisted = Headers({"user-agent": ["me"], "ACCEPT": ["a/b", "c/d"], "X": ["y"]})
        for given in (headers, list(headers.items()), of_twisted):
            self.answer(canned(200))
            self.run_now(self.client.get(URL, headers=given))
            self.assertEqual(self.sent().header("user-agent"), ["me"])
            self.assertEqual(self.sent().header("accept"), ["a/b", "c/d"])
            self.assertEqual(self.sent().header("x"), ["y"])

    def test_settings(self) -> None:
        """The User-Agent is a setting."""
        self.answer(canned(200))
        self.run_now(self.make(HttpSettings(user_agent="they/1")).get(URL))
        self.assertEqual(self.sent().header("user-agent"), ["they/1"])

    def test_auth(self) -> None:
        """User name and password are taken from the argument, or from the URL."""
        for url, options, expected in (
            (URL, {"auth": ("me", "pä")}, "Basic bWU6cMOk"),
            ("http://me:p%C3%A4@h.example/p", {}, "Basic bWU6cMOk"),
            ("http://you@h.example/p", {"auth": ("me", "pä")}, "Basic bWU6cMOk"),
            ("http://me@h.example/p", {"headers": {"Authorization": "own"}}, "own"),
        ):
            self.answer(canned(200))
            response = self.run_now(self.client.get(url, **options))
            self.assertEqual(self.sent().header("authorization"), [expected])
            self.assertEqual(self.sent().uri, URL.encode())
            self.assertEqual(response.url, URL)


class BrokenBodyTests(ClientTestCase):
    """A body that breaks off is stored as far as it came (RFC 9111 §3.3)."""

    def broken(self, body: bytes, *fields: tuple[str, str], length: int = 10) -> IResponse:
        """Return a response whose body breaks off after *body*."""
        failure = Failure(ConnectionBroken("body", "x"))
        made = canned(200, body, [FRESH, ("ETag", '"x"'), *fields], failure)
        return BodyResponse.like(made, made.deliverBody, length=length)

    def get(self, **options: Any) -> Response:
        """Make a request without retries."""
        return self.run_now(self.client.get(URL, retries=0, **options))

    def test_kept(self) -> None:
        """The next request asks for the rest only, with get() as with stream()."""
        self.answer(self.broken(b"0123"))
        self.failureResultOf(self.start(self.client.get(URL, retries=0)), ConnectionBroken)
        rest = [("ETag", '"x"'), ("Content-Range", "bytes 4-9/10")]
        self.answer(canned(206, b"456789", rest))
        response = self.get()
        self.assertEqual((response.status, response.body), (200, b"0123456789"))
        self.assertEqual(self.sent().header("range"), ["bytes=4-"])
        self.assertEqual(self.sent().header("if-range"), ['"x"'])

    def test_last_attempt(self) -> None:
        """Of several attempts the last one counts, and none that brought no body."""
        for last, wanted in ((self.broken(b"01"), ["bytes=2-"]), (canned(503), [])):
            self.client = self.make()
            self.answer(self.broken(b"0123"), last)
            asking = self.start(self.client.get(URL, retries=1))
            self.clock.advance(1)
            if wanted:
                self.failureResultOf(asking, ConnectionBroken)
            else:
                self.successResultOf(asking)
            self.answer(canned(200))
            self.get()
            self.assertEqual(self.sent().header("range"), wanted)

    def test_not_kept(self) -> None:
        """It is not where it must not be stored, and not of a POST."""
        for fields, method, options in (
            ([("Cache-Control", "no-store")], "GET", {}),
            ([("Content-Location", URL)], "POST", {}),
            ([], "GET", {"cache": False}),
        ):
            self.client = self.make()
            self.answer(self.broken(b"0123", *fields))
            call = self.client.request(method, URL, retries=0, **cast(Any, options))
            self.failureResultOf(self.start(call), ConnectionBroken)
            self.answer(canned(200))
            self.get()
            self.assertEqual(self.sent().header("range"), [])

    def test_stale_in_its_place(self) -> None:
        """A stale response that is served in its place stays."""
        stale = ("Cache-Control", "max-age=0, stale-if-error=9")
        self.answer(canned(200, b"old", [stale, ("ETag", '"y"')]))
        self.get()
        for _ in range(2):
            self.answer(self.broken(b"0123"))
            self.assertEqual(self.get().body, b"old")


class BodyTests(ClientTestCase):
    """The body of a request."""

    def carried(self, **options: Any) -> tuple[bytes | None, list[str]]:
        """Return the body sent and its type."""
        self.answer(canned(200))
        self.run_now(self.client.post(URL, **options))
        return self.sent().body, self.sent().header("content-type")

    def test_json(self) -> None:
        """JSON, null too, has its content type unless the caller sets another."""
        self.assertEqual(
            self.carried(json={"a": [1, "ü"]}), ('{"a":[1,"ü"]}'.encode(), ["application/json"])
        )
        self.assertEqual(self.carried(json=None), (b"null", ["application/json"]))
        headers = {"Content-Type": "application/x+json"}
        self.assertEqual(self.carried(json=1, headers=headers), (b"1", ["application/x+json"]))

    def test_data(self) -> None:
        """Bytes and text are sent unchanged, a mapping or pairs as a form."""
        self.assertEqual(self.carried(data=b"\xff"), (b"\xff", []))
        self.assertEqual(self.carried(data="ü"), ("ü".encode(), []))
        form = ["application/x-www-form-urlencoded"]
        self.assertEqual(self.carried(data={"a": "1&2"}), (b"a=1%262", form))
        self.assertEqual(self.carried(data=[("a", "1"), ("a", "2")]), (b"a=1&a=2", form))
        self.assertEqual(self.carried(), (None, []))

    def test_files(self) -> None:
        """Files are sent as multipart/form-data."""
        self.answer(canned(200))
        asking = self.start(self.client.post(URL, files={"f": ("n.txt", io.BytesIO(b"abc"))}))
        (kind,) = self.sent().header("content-type")
        self.assertTrue(kind.startswith("multipart/form-data; boundary="))
        self.successResultOf(asking)

    def test_one_kind(self) -> None:
        """JSON and data together raise TypeError."""
        for options in ({"data": b"x"}, {"files": {"f": io.BytesIO()}}):
            asking = self.start(self.client.post(URL, json=1, **options))
            self.failureResultOf(asking, TypeError)


class User(msgspec.Struct):
    """A type to decode into."""

    name: str
    age: int = 0


class JSONTests(ClientTestCase):
    """The methods for JSON decode the body, and raise for a bad status."""

    def test_get_json(self) -> None:
        """``get_json`` returns any JSON, or a type."""
        self.answer(canned(200, b'{"name":"x"}'), canned(200, b'{"name":"x"}'))
        self.assertEqual(self.run_now(self.client.get_json(URL, cache=False)), {"name": "x"})
        self.assertEqual(self.run_now(self.client.get_json(URL, type=User)), User("x"))

    def test_post_json(self) -> None:
        """``post_json`` sends and returns JSON; an empty body is None."""
        self.answer(canned(201, b'{"name":"x"}'), canned(200, b"[1]"), canned(204))
        self.assertEqual(self.run_now(self.client.post_json(URL, User("x"), type=User)), User("x"))
        self.assertEqual(self.sent().body, b'{"name":"x","age":0}')
        self.assertEqual(self.run_now(self.client.post_json(URL, 1)), [1])
        self.assertIsNone(self.run_now(self.client.post_json(URL, 1)))

    def test_bad_status(self) -> None:
        """A status other than 2xx raises, with status, reason, header and an excerpt."""
        for code in (199, 300, 304, 404, 501):
            self.answer(canned(code, b"x" * 999, [("X-A", "1")]))
            url = "http://u:pw@h.example/p?token=t"
            asking = self.start(self.client.get_json(url))
            error = self.failureResultOf(asking, BadStatus).value
            self.assertEqual((error.status, error.reason), (code, "Reason"))
            self.assertEqual(error.headers["x-a"], "1")
            self.assertEqual(error.excerpt, "x" * EXCERPT)
            self.assertEqual(error.details(), {"status": code, "excerpt": error.excerpt})
            self.assertEqual(str(error), f"http://h.example/p?token=*** answered {code} Reason")
        self.answer(canned(404))
        self.failureResultOf(self.start(self.client.post_json(URL, 1)), BadStatus)

    def test_mismatch(self) -> None:
        """An error for a body that is not JSON, or does not fit, says where."""
        for body, kind, where in (
            (b"<html>", Any, "malformed"),
            (b'{"name":1}', User, "$.name"),
            (b"[" * 100_000, Any, "nested too deep"),
        ):
            self.answer(canned(200, body))
            asking = self.start(self.client.get_json(URL, type=kind))
            error = self.failureResultOf(asking, BodyMismatch).value
            self.assertIn(where, str(error))
            self.assertIn(URL, str(error))

    def test_byte_order_mark(self) -> None:
        """A byte order mark is ignored."""
        self.answer(canned(200, b"\xef\xbb\xbf[1]"))
        self.assertEqual(self.run_now(self.client.get_json(URL)), [1])


class OptionTests(ClientTestCase):
    """The options of a call."""

    def test_timeout(self) -> None:
        """The timeout of the whole call includes the waits between attempts."""
        self.answer(canned(503))
        response = self.run_now(self.client.get(URL, timeout=0.4))
        self.assertEqual((response.status, response.attempts), (503, 1))
        client = Client(self.clock)
        asking = self.start(client.get("http://1.2.3.4/", timeout=2.0))
        self.clock.advance(2.0)
        self.assertEqual(self.failureResultOf(asking, FetchTimeout).value.limit, 2.0)
        asking = self.start(client.get("http://1.2.3.4/", timeout=None, retries=0))
        self.clock.advance(10.0)
        self.assertFalse(self.failureResultOf(asking, FetchTimeout).value.total)

    def test_retries(self) -> None:
        """Retries are a number, or a policy."""
        self.answer(canned(503))
        self.assertEqual(self.run_now(self.client.get(URL, retries=0)).attempts, 1)
        self.answer(canned(418), canned(200))
        policy = RetryPolicy(statuses=(418,), base=0.1)
        asking = self.start(self.client.get(URL, retries=policy))
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(asking).attempts, 2)

    def test_idempotent(self) -> None:
        """A POST with ``idempotent`` is repeated."""
        self.answer(canned(503), canned(200))
        asking = self.start(self.client.post(URL, idempotent=True, json=1))
        self.clock.advance(0.5)
        self.assertEqual(self.successResultOf(asking).status, 200)
        self.assertEqual([sent.body for sent in self.fake.sent], [b"1", b"1"])

    def test_cache(self) -> None:
        """A call may bypass the cache."""
        self.answer(canned(200, b"a", [FRESH]), canned(200, b"b", [FRESH]))
        self.run_now(self.client.get(URL))
        hit = self.run_now(self.client.get(URL))
        self.assertEqual((hit.body, hit.from_cache, hit.attempts), (b"a", True, 0))
        self.assertEqual(self.run_now(self.client.get(URL, cache=False)).body, b"b")
        self.assertEqual(self.run_now(self.client.get(URL)).body, b"a")

    def test_hit_with_wrong_options(self) -> None:
        """Options are checked for a response from the cache, too."""
        self.answer(canned(200, b"a", [FRESH]))
        self.run_now(self.client.get(URL))
        wrong: tuple[dict[str, Any], ...]  # Any: on purpose
        wrong = (
            *({"timeout": -1}, {"timeout": "5"}, {"max_body": -1}, {"default_ttl": -1}),
            *({"stale_if_error": -1}, {"stale_if_error": None}),
            *({"retries": -1}, {"retries": 101}),
            *({"hedge_after": 0}, {"hedge_after": 3601.0}, {"hedge_after": float("nan")}),
        )
        for options in wrong:
            call = self.start(self.client.get(URL, **options))
            self.failureResultOf(call, ValueError, TypeError)

    def test_default_ttl(self) -> None:
        """A call may set the lifetime of responses that state none."""
        self.answer(canned(200, b"a"))
        for _ in range(2):
            self.assertEqual(self.run_now(self.client.get(URL, default_ttl=300.0)).body, b"a")
        self.answer(canned(200, b"b"))
        self.assertEqual(self.run_now(self.client.get(URL)).body, b"b")

    def test_stale_if_error(self) -> None:
        """A call may allow a stale response in place of an error, and refuse it."""
        self.answer(canned(200, b"a", [("Cache-Control", "max-age=0"), ("ETag", '"x"')]))
        self.run_now(self.client.get(URL))
        for window, status in ((60.0, 200), (0, 500), (60.0, 200)):
            self.answer(canned(500))
            got = self.run_now(self.client.get(URL, stale_if_error=window, retries=0))
            self.assertEqual((got.status, got.from_cache), (status, status == 200))

    def test_stale_if_silent(self) -> None:
        """All who wait for a server that says nothing get the stale response at their end."""
        client = Client(self.clock, HttpSettings(cache=CacheSettings(stale_if_error=60.0)))
        asking = self.start(client.get("http://1.2.3.4/"))
        server = ServerSide(self.clock)
        server.send(PLAIN.replace(b"no-store", b"max-age=0"))
        self.successResultOf(asking)
        askings = [
            self.start(client.get("http://1.2.3.4/", timeout=timeout)) for timeout in (5, 5, 9)
        ]
        server.received()
        self.clock.advance(5)
        for asking in askings[:2]:
            self.assertTrue(self.successResultOf(asking).from_cache)
        self.assertNoResult(askings[2])
        self.clock.advance(4)
        self.assertTrue(self.successResultOf(askings[2]).from_cache)
        self.assertEqual(len(self.clock.tcpClients), 1)
        self.assertTrue(server.transport.ended)

    def test_max_body(self) -> None:
        """A call may set its own limit."""
        client = Client(self.clock)
        asking = self.start(client.get("http://1.2.3.4/", max_body=2))
        ServerSide(self.clock).send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
        self.assertIn("larger than 2 bytes", str(self.failureResultOf(asking).value))

    def test_cookies(self) -> None:
        """Cookies of a call are for that call only, and so are those that servers set."""
        self.answer(canned(200, b"", [("Set-Cookie", "s=1")]), canned(200))
        self.run_now(self.client.get(URL, cookies={"a": "1"}))
        self.assertEqual(self.sent().header("cookie"), ["a=1"])
        self.run_now(self.client.get(URL))
        self.assertEqual(self.sent().header("cookie"), [])


class CookieJarTests(ClientTestCase):
    """A jar keeps the cookies that servers set, and not those of one call."""

    def setUp(self) -> None:
        super().setUp()
        self.jar = IndexableCookieJar()
        self.jar.set_cookie(scoped_cookie(EncodedURL.from_text(URL), "old", "1"))
        self.client = self.make(cookiejar=self.jar)

    def test_file(self) -> None:
        """Any jar of the standard library will do, as one with a file, from one run to the next."""
        path = str(Path(self.enterContext(TemporaryDirectory()), "jar"))
        self.answer(canned(200, b"", [("Set-Cookie", "s=1; Max-Age=60")]), canned(200))
        jar = MozillaCookieJar(path)
        self.run_now(self.make(cookiejar=jar).get(URL))
        jar.save()
        other = MozillaCookieJar(path)
        other.load()
        self.run_now(self.make(cookiejar=other).get(URL))
        self.assertEqual(self.sent().header("cookie"), ["s=1"])

    def names(self) -> list[str]:
        """Return the names in the jar."""
        return sorted(cookie.name for cookie in self.jar)

    def test_set(self) -> None:
        """A cookie that a server sets is sent next time; a cookie of one call is not."""
        self.answer(canned(200, b"", [("Set-Cookie", "s=1")]), canned(200))
        self.run_now(self.client.get(URL, cookies={"once": "1"}))
        self.assertEqual(self.names(), ["old", "s"])
        self.run_now(self.client.get(URL))
        self.assertEqual(set(self.sent().header("cookie")[0].split("; ")), {"old=1", "s=1"})

    def test_from_the_network_only(self) -> None:
        """A response out of the cache sets no cookie, but a 304 that has validated it does."""
        stored = [("Cache-Control", "max-age=60"), ("ETag", '"x"'), ("Set-Cookie", "s=1")]
        for kept in (self.jar, None):
            client = self.client if kept is not None else self.make()
            self.jar.clear()
            self.answer(canned(200, b"abc", stored))
            self.run_now(client.get(URL, cookies={}))
            self.jar.clear()
            response = self.run_now(client.get(URL, allow_redirects=True, headers={}))
            self.assertTrue(response.from_cache)
            self.assertEqual(response.headers["set-cookie"], "s=1")
            self.assertEqual(self.names(), [])
            self.answer(canned(304, b"", [("ETag", '"x"'), ("Set-Cookie", "t=2")]))
            response = self.run_now(client.get(URL, headers={"Cache-Control": "no-cache"}))
            self.assertEqual((response.status, response.from_cache), (200, True))
            self.assertEqual(self.names(), ["t"] if kept is not None else [])
            self.answer(canned(304, b"", [("ETag", '"x"')]))
            self.jar.clear()
            self.run_now(client.get(URL, headers={"Cache-Control": "no-cache"}))
            self.assertEqual(self.names(), [])

    def test_completed(self) -> None:
        """A response that is completed sets the cookies of the part that came over the network."""
        failure = Failure(ConnectionBroken("body", "x"))
        first = canned(200, b"01", [FRESH, ("ETag", '"x"'), ("Set-Cookie", "s=1")], failure)
        rest = [("ETag", '"x"'), ("Content-Range", "bytes 2-3/4"), ("Set-Cookie", "t=2")]
        self.answer(BodyResponse.like(first, first.deliverBody, length=4), canned(206, b"23", rest))
        self.failureResultOf(self.start(self.client.get(URL, retries=0)), ConnectionBroken)
        self.jar.clear()
        self.jar.set_cookie(scoped_cookie(EncodedURL.from_text(URL), "old", "1"))
        self.assertEqual(self.run_now(self.client.get(URL)).body, b"0123")
        self.assertEqual(self.names(), ["old", "t"])

    def test_redirect_out_of_the_cache(self) -> None:
        """A stored redirect sets no cookie for the requests after it."""
        client = self.make()
        moved = redirect(301, "/b", FRESH, ("Set-Cookie", "s=1"))
        self.answer(moved, canned(200), canned(200))
        self.run_now(client.get(URL))
        self.assertEqual(self.sent().header("cookie"), ["s=1"])
        self.run_now(client.get(URL))
        self.assertEqual(len(self.fake.sent), 3)
        self.assertEqual(self.sent().header("cookie"), [])

    def test_part_beside_a_jar(self) -> None:
        """treq decodes no part of a body: it sees nothing of the response but the cookies."""
        fields = [("Content-Encoding", "gzip"), ("Set-Cookie", "s=1")]
        self.answer(canned(206, b"\x1f\x8b", fields))
        response = self.run_now(self.client.get(URL, headers={"Range": "bytes=0-1"}))
        self.assertEqual(response.body, b"\x1f\x8b")
        self.assertEqual(response.headers["content-encoding"], "gzip")
        self.assertEqual(self.names(), ["old", "s"])

    def test_delete(self) -> None:
        """A cookie that a server deletes is removed."""
        self.answer(canned(200, b"", [("Set-Cookie", "s=1")]))
        self.run_now(self.client.get(URL))
        self.answer(canned(200, b"", [("Set-Cookie", "s=; Max-Age=0")]))
        self.run_now(self.client.get(URL))
        self.assertEqual(self.names(), ["old"])


def redirect(code: int, location: str, *headers: tuple[str, str]) -> IResponse:
    """Return a redirect."""
    return canned(code, b"moved", [("Location", location), *headers])


class RedirectTests(ClientTestCase):
    """Redirects are followed, with the body and header that may be repeated."""

    def hops(self) -> list[tuple[bytes, bytes]]:
        """Return the methods and URLs of the requests."""
        return [(sent.method, sent.uri) for sent in self.fake.sent]

    def test_followed(self) -> None:
        """Each is relative to the last URL, not to the first as in Twisted's agent."""
        self.answer(
            redirect(302, "http://other.example/a/b"), redirect(301, "c?x"), canned(200, b"end")
        )
        response = self.run_now(self.client.get(URL, params={"q": "1"}))
        self.assertEqual(
            [uri for _, uri in self.hops()],
            [
                b"http://h.example/p?q=1",
                b"http://other.example/a/b",
                b"http://other.example/a/c?x",
            ],
        )
        self.assertEqual((response.url, response.attempts), ("http://other.example/a/c?x", 3))

    def test_host(self) -> None:
        """``Host`` of the caller is for its origin: another one gets its own."""
        self.answer(redirect(302, "/a"), redirect(302, "//other.example/"), canned(200))
        self.run_now(self.client.get(URL, headers={"Host": "v.example"}))
        hosts = [sent.header("host") for sent in self.fake.sent]
        self.assertEqual(hosts, [["v.example"], ["v.example"], []])

    def test_location_as_it_is_sent(self) -> None:
        """``Location`` may be UTF-8 and have spaces and dot segments."""
        self.answer(redirect(302, "/caf\xe9/../\xe9 x?".encode().decode("latin-1")), canned(200))
        response = self.run_now(self.client.get(URL))
        self.assertEqual(self.hops()[1][1], b"http://h.example/%C3%A9%20x?")
        self.assertEqual(response.url, "http://h.example/%C3%A9%20x?")

    def test_not_followed(self) -> None:
        """With ``allow_redirects=False`` the redirect is returned."""
        self.answer(redirect(302, "/x"))
        response = self.run_now(self.client.get(URL, allow_redirects=False))
        self.assertEqual((response.status, response.body), (302, b"moved"))

    def test_post_becomes_get(self) -> None:
        """The body is removed, with the fields that describe it."""
        self.answer(redirect(303, "/x"), canned(200))
        self.run_now(self.client.post(URL, json={"a": 1}))
        self.assertEqual(self.hops()[1], (b"GET", b"http://h.example/x"))
        self.assertIsNone(self.sent().body)
        self.assertEqual(self.sent().header("content-type"), [])

    def test_post_stays_post(self) -> None:
        """With 307 the body is sent again."""
        self.answer(redirect(307, "/x"), canned(200))
        self.run_now(self.client.post(URL, json={"a": 1}))
        self.assertEqual(self.hops()[1][0], b"POST")
        self.assertEqual(self.sent().body, b'{"a":1}')
        self.assertEqual(self.sent().header("content-type"), ["application/json"])

    def test_body_that_cannot_go_along(self) -> None:
        """A redirect that needs a file again is returned."""
        self.answer(redirect(307, "/x"))
        response = self.run_now(self.client.post(URL, data=io.BytesIO(b"abc")))
        self.assertEqual(response.status, 307)
        self.assertEqual(len(self.fake.sent), 1)

    def test_credentials(self) -> None:
        """Credentials are sent to their origin only; cookies of the call too."""
        self.answer(redirect(302, "/x"), redirect(302, "http://evil.example/"), canned(200))
        headers = {"X-Kept": "1"}
        self.run_now(self.client.get(URL, auth=("u", "p"), cookies={"a": "1"}, headers=headers))
        _, same, other = self.fake.sent
        self.assertEqual((len(same.header("authorization")), same.header("cookie")), (1, ["a=1"]))
        self.assertEqual((other.header("authorization"), other.header("cookie")), ([], []))
        self.assertEqual(other.header("x-kept"), ["1"])

    def test_cookie_on_the_way(self) -> None:
        """A cookie that a redirect sets is sent with the next request."""
        self.answer(redirect(302, "/x", ("Set-Cookie", "s=1")), canned(200))
        self.run_now(self.client.get(URL))
        self.assertEqual(self.sent().header("cookie"), ["s=1"])

    def test_too_many(self) -> None:
        """A redirect loop ends with an error."""
        self.answer(*[redirect(302, "/x")] * 4)
        asking = self.start(self.make(HttpSettings(max_redirects=3)).get(URL))
        error = self.failureResultOf(asking, TooManyRedirects).value
        self.assertEqual(error.details(), {"url": "http://h.example/x", "limit": 3})
        self.assertEqual(len(self.fake.sent), 4)

    def test_guarded(self) -> None:
        """With an egress policy each redirect is checked."""
        client = Client(self.clock, egress=EgressPolicy())
        asking = self.start(client.get("http://1.1.1.1/"))
        ServerSide(self.clock).send(
            b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
        )
        self.failureResultOf(asking, AddressRefused)
        self.assertEqual(len(self.clock.tcpClients), 1)

    def test_spellings(self) -> None:
        """No spelling of an address passes by the policy, in a URL or in a redirect."""
        policy = EgressPolicy(deny=("0x8080808",))
        client = Client(self.clock, egress=policy, resolver=FakeResolver({}))
        for host in (
            "127.1",
            "0x7f.1",
            "0177.0.0.1",
            "2130706433",
            "127.0.0.1.",
            "127\u30020\u30020\u30021",
            "\u2460\u2461\u2466.1",
            "[::ffff:7f00:1]",
            "[::127.0.0.1]",
            "0",
            "8.8.2056",
        ):
            with self.subTest(host=ascii(host)):
                self.failureResultOf(self.start(client.get(f"http://{host}/")), AddressRefused)
                asking = self.start(client.get("http://1.1.1.1/"))
                head = (
                    f"HTTP/1.1 302 Found\r\nLocation: http://{host}/\r\nContent-Length: 0\r\n\r\n"
                )
                ServerSide(self.clock).send(head.encode())
                self.failureResultOf(asking, AddressRefused)
                self.clock.advance(60)  # the connection is idle no longer

    def test_bad_location(self) -> None:
        """A malformed Location is an error."""
        self.answer(redirect(302, "http://u:p@h.example/"))
        error = self.failureResultOf(self.start(self.client.get(URL)), InvalidURL).value
        self.assertNotIn("u:p", str(error))


class NamedErrorTests(HttpTestCase):
    """The error of a call names the URL of the request that has failed, and what it waited for."""

    url = "http://user:password@1.2.3.4/p?token=abc&q=1"
    shown = "http://1.2.3.4/p?token=***&q=1"

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.reports: list[Any] = []
        self.client = Client(self.clock, chance=lambda: 0.0, report=self.reports.append)

    def assert_named(self, failing: Deferred[Any], kind: type[FetchError], **details: Any) -> None:
        """It has failed with such an error, for this URL."""
        error = self.failureResultOf(failing, kind).value
        self.assertEqual(error.details(), {"url": self.shown, **details})
        self.assertTrue(str(error).startswith(f"{self.shown}: "), str(error))
        for secret in ("password", "abc"):
            self.assertNotIn(secret, str(error))

    def get(self, **options: Any) -> tuple[Deferred[Any], ServerSide]:
        """Make a call without retries; return the server's side."""
        asking = self.start(self.client.get(self.url, retries=0, **options))
        return asking, ServerSide(self.clock)

    def test_phases(self) -> None:
        """Before the connection, before the header, and within the body."""
        total = {"limit": 5.0, "total": True}
        asking = self.start(self.client.get(self.url, timeout=5.0, retries=0))
        self.clock.advance(5)
        self.assert_named(asking, FetchTimeout, phase="connect", **total)
        for begun, phase in ((b"HTTP", "headers"), (PLAIN[:-1], "body")):
            asking, server = self.get(timeout=5.0)
            server.send(begun)
            self.clock.advance(5)
            self.assert_named(asking, FetchTimeout, phase=phase, **total)
            asking, server = self.get()
            server.send(begun)
            server.close()
            self.assert_named(asking, ConnectionBroken, phase=phase)

    def test_reports(self) -> None:
        """What is reported of an attempt has the URL beside the error, and not twice."""
        asking, server = self.get()
        server.close()
        self.failureResultOf(asking)
        [report] = self.reports
        self.assertIn("token=***", report.url)
        self.assertTrue(report.outcome.startswith("the connection ended"), report.outcome)

    def test_response(self) -> None:
        """What is no response, or too large, or damaged."""
        asking, server = self.get()
        server.send(b"SSH-2.0-x\r\n")
        self.assert_named(asking, BadResponse)
        asking, server = self.get(max_body=2)
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
        self.assert_named(asking, BodyTooLarge, limit=2)
        asking, server = self.get()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc")
        self.assert_named(asking, BadResponse)

    def test_others_who_wait(self) -> None:
        """The error of a request that others have waited for is the same for them."""
        url = self.url.replace("user:password@", "")  # with these each call is its own
        askings = [self.start(self.client.get(url, retries=0)) for _ in range(3)]
        ServerSide(self.clock).close()
        for asking in askings:
            self.assert_named(asking, ConnectionBroken, phase="headers")

    def test_redirect(self) -> None:
        """It is the URL after redirects."""
        self.url, first = "http://1.2.3.4/first", self.url
        asking, server = self.get()
        server.send(
            b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /p?token=abc&q=1\r\n\r\n"
        )
        server.close()
        self.assert_named(asking, ConnectionBroken, phase="headers")
        self.url = first
        asking, server = self.get()
        for _ in range(11):
            server.send(
                b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: ?token=abc&q=1\r\n\r\n"
            )
        self.assert_named(asking, TooManyRedirects, limit=10)

    def test_stream(self) -> None:
        """A body that is read in pieces, or by an agent of Twisted's kind."""

        async def read() -> bytes:
            async with self.client.stream("GET", self.url, retries=0) as response:
                return await response.read()

        asking = self.start(read())
        server = ServerSide(self.clock)
        server.send(PLAIN[:-1])
        server.close()
        self.assert_named(asking, ConnectionBroken, phase="body")
        for coding, kind, details in (
            (b"", ConnectionBroken, {"phase": "body"}),
            (b"Content-Encoding: gzip\r\n", BadResponse, {}),
        ):
            agent = HTTPAgent(self.clock)
            requesting = agent.request(b"GET", b"http://1.2.3.4/p?token=abc&q=1")
            server = ServerSide(self.clock)
            server.send(PLAIN.replace(b"\r\n", b"\r\n" + coding, 1)[:-1])
            collecting = collect(self.successResultOf(requesting))
            server.close()
            self.assert_named(collecting, kind, **details)

    def test_hook(self) -> None:
        """A hook that takes too long."""
        waiting: Deferred[None] = Deferred()
        client = Client(self.clock, on_request=lambda request: waiting)
        asking = self.start(client.get(self.url, timeout=5.0))
        self.clock.advance(5)
        self.assert_named(asking, FetchTimeout, phase="hook", limit=5.0, total=True)


class ExpectTests(HttpTestCase):
    """A body that waited for a 100 in vain, and was not sent at all, can be sent again."""

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.client = Client(self.clock, chance=lambda: 0.0)

    def put(self, **options: Any) -> Deferred[Any]:
        """Make a request with a body that can be sent once."""
        pieces = (piece for piece in (b"ab", b"c"))
        headers = {"Expect": "100-continue"}
        return self.start(self.client.put(URL, data=pieces, headers=headers, **options))

    def refuse(self, head: bytes) -> None:
        """Answer with a final status, before the body; a new connection is made."""
        self.server = ServerSide(self.clock)
        self.assertTrue(self.server.received().endswith(b"\r\n\r\n"))
        self.server.send(b"HTTP/1.1 " + head + b"\r\nContent-Length: 0\r\n\r\n")
        self.clock.advance(0)
        self.clock.advance(0)

    def agree(self) -> bytes:
        """Take the body; return the request."""
        server = ServerSide(self.clock)
        head = server.received()
        server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(server.received(), b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
        server.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        return head

    def test_retry(self) -> None:
        """It is retried after an error that the policy retries."""
        asking = self.put()
        self.refuse(b"503 Busy")
        self.agree()
        response = self.successResultOf(asking)
        self.assertEqual((response.status, response.attempts), (204, 2))

    def test_no_retry(self) -> None:
        """It is not once it was sent."""
        asking = self.put()
        server = ServerSide(self.clock)
        self.clock.advance(1)
        server.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual(self.successResultOf(asking).status, 503)

    def test_redirect(self) -> None:
        """It follows a redirect that keeps the method."""
        asking = self.put()
        self.refuse(b"307 There\r\nLocation: /there")
        self.assertIn(b"PUT /there", self.agree())
        self.assertEqual(self.successResultOf(asking).status, 204)

    def test_challenge(self) -> None:
        """It is sent with the answer to a challenge."""
        asking = self.put(auth=DigestAuth("user", "password"))
        self.refuse(b'401 Who\r\nWWW-Authenticate: Digest realm="r", nonce="n", qop="auth"')
        self.assertIn(b"Authorization: Digest", self.agree())
        self.assertEqual(self.successResultOf(asking).status, 204)

    def test_not_understood(self) -> None:
        """A repetition after a 417 is in the number of attempts."""
        asking = self.put(progress=lambda progress: None)
        self.refuse(b"417 No")
        server = ServerSide(self.clock)
        self.assertIn(b"2\r\nab\r\n", server.received())
        server.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.assertEqual(self.successResultOf(asking).attempts, 2)

    def test_default(self) -> None:
        """As a header of the client it is for all requests that have a body."""
        client = Client(self.clock, headers={"Expect": "100-continue"})
        for method, expects in (("GET", False), ("POST", True)):
            body = {"data": b"x"} if expects else {}
            asking = self.start(client.request(method, URL, **cast(Any, body)))
            server = ServerSide(self.clock)
            self.assertIs(b"Expect: 100-continue" in server.received(), expects)
            server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            self.successResultOf(asking)
            server.close()


class GatherTests(ClientTestCase):
    """:meth:`Client.gather` makes many calls, a limited number at a time."""

    def waiting(self, count: int) -> list[Deferred[IResponse]]:
        """Prepare responses that wait."""
        self.cancelled = 0

        def note(_: Deferred[IResponse]) -> None:
            self.cancelled += 1

        made: list[Deferred[IResponse]] = [Deferred(note) for _ in range(count)]
        self.answer(*made)
        return made

    def test_misuse(self) -> None:
        """One URL, and calls that are made already, are refused with what to write."""
        coroutine = self.client.get(URL)
        self.addCleanup(coroutine.close)
        for calls, said in (
            (URL, "calls must be a list of URLs or functions, not text"),
            ([coroutine], "partial(client.get, url, timeout=5), not a coroutine"),
            ([Deferred()], "not a Deferred"),
            ([5], "not an integer"),
        ):
            made: Any = calls  # Any: on purpose
            failed = self.failureResultOf(self.start(self.client.gather(made)), TypeError)
            self.assertIn(said, str(failed.value))
        self.assertEqual(self.fake.sent, [])

    def test_in_order(self) -> None:
        """Results and errors are in the order of their calls."""
        first, second, third = self.waiting(3)
        asking = self.start(self.client.gather([URL + "1", URL + "2", URL + "3"]))
        second.errback(CannotConnect("h", 1, "x"))
        self.clock.pump([0.0])
        third.callback(canned(200, b"3"))
        self.answer(CannotConnect("h", 1, "x"))
        first.callback(canned(200, b"1"))
        for _ in range(5):
            self.answer(CannotConnect("h", 1, "x"))
            self.clock.advance(5.0)
        one, two, three = self.successResultOf(asking)
        assert isinstance(one, Response)
        assert isinstance(three, Response)
        self.assertEqual((one.body, three.body), (b"1", b"3"))
        self.assertIsInstance(two, CannotConnect)

    def test_turns(self) -> None:
        """Many that are answered at once take several turns, however many may run at a time."""
        self.answer(canned(200, b"abc", [FRESH]))
        self.run_now(self.client.get(URL))
        steps = 0

        def seconds() -> float:
            nonlocal steps
            steps += 1
            return steps * 1e-5

        self.patch(self.clock, "seconds", seconds)
        for limit in (1, 10, 10**6):
            asking = self.start(self.client.gather([URL] * 1000, limit=limit))
            turns = 0
            while not asking.called:
                before = steps
                (call,) = self.clock.calls
                self.clock.calls.remove(call)
                call.called = 1
                call.func()
                self.assertLess(steps - before, 500)
                turns += 1
            self.assertGreater(turns, 9)
            self.assertEqual(len(self.successResultOf(asking)), 1000)

    def test_cancelled_within(self) -> None:
        """Cancelling it between two turns cancels those that have begun."""
        self.waiting(3)
        self.patch(self.clock, "seconds", partial(next, map(float, range(10**6))))
        asking = self.start(self.client.gather([URL + str(i) for i in range(3)]))
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(self.cancelled, 1)
        self.assertEqual(len(self.fake.sent), 1)

    def test_limit(self) -> None:
        """No more than the limit run at a time; the next starts when one ends."""
        waiting = self.waiting(4)
        taken: list[int] = []

        def urls() -> Any:
            for i in range(4):
                taken.append(i)
                yield f"{URL}{i}"

        asking = self.start(self.client.gather(urls(), limit=2))
        self.assertEqual((len(self.fake.sent), taken), (2, [0, 1]))
        waiting[1].callback(canned(200))
        self.assertEqual(len(self.fake.sent), 3)
        for i in (0, 2, 3):
            waiting[i].callback(canned(200))
        self.assertEqual(len(self.successResultOf(asking)), 4)

    def test_functions(self) -> None:
        """A call may be any function that returns an awaitable."""
        self.answer(canned(200, b"[1]"), canned(404))
        calls = [partial(self.client.get_json, URL + "1"), partial(self.client.get_json, URL + "2")]
        good, bad = self.run_now(self.client.gather(calls))
        self.assertEqual(good, [1])
        self.assertIsInstance(bad, BadStatus)

    def test_none(self) -> None:
        """No calls return an empty list."""
        self.assertEqual(self.run_now(self.client.gather([])), [])

    def test_bad_limit(self) -> None:
        """A limit of 0 or less raises ValueError, one that is no integer TypeError."""
        for limit in (0, -1, 10**400):
            self.failureResultOf(self.start(self.client.gather([], limit=limit)), ValueError)
        wrong: tuple[Any, ...] = (True, "5", 1.5, float("nan"))  # Any: on purpose
        for other in wrong:
            self.assertRaises(TypeError, self.client.gather, [], limit=other)

    def test_large_limit(self) -> None:
        """No more workers are made than there are calls."""
        asked = []

        def calls() -> Iterator[str]:
            asked.append("once")
            yield from ()

        self.assertEqual(self.run_now(self.client.gather(calls(), limit=1_000_000)), [])
        self.assertEqual(asked, ["once"])

    def test_bug(self) -> None:
        """A bug cancels the other calls and is raised."""
        self.waiting(1)

        async def bug() -> Response:
            raise ZeroDivisionError

        asking = self.start(self.client.gather([URL, bug]))
        self.failureResultOf(asking, ZeroDivisionError)
        self.assertEqual(self.cancelled, 1)

    def test_cancel(self) -> None:
        """Cancelling it cancels all calls."""
        self.waiting(2)
        asking = self.start(self.client.gather([URL + "1", URL + "2"]))
        asking.cancel()
        self.assertEqual(self.cancelled, 2)
        self.failureResultOf(asking, CancelledError)

    def test_many_at_once(self) -> None:
        """Thousands of calls that do not wait do not exhaust the stack."""
        self.answer(canned(200, b"x", [FRESH]))
        self.run_now(self.client.get(URL))
        results = self.run_now(self.client.gather([URL] * 3000))
        self.assertEqual(len(results), 3000)


class CloseTests(ClientTestCase):
    """:meth:`Client.close` ends all calls."""

    def test_calls_under_way(self) -> None:
        """Pending and later calls fail; closing again has no effect."""
        self.answer(Deferred())
        asking = self.start(self.client.get(URL))
        self.run_now(self.client.close())
        self.failureResultOf(asking, ClientClosed)
        self.failureResultOf(self.start(self.client.get(URL)), ClientClosed)
        self.run_now(self.client.close())

    def test_connections_and_timers(self) -> None:
        """No connection and no timer is left, in whatever phase a call is."""
        client = Client(self.clock)
        calls = [self.start(client.get(f"http://1.2.3.{i}/")) for i in range(4)]
        ServerSide(self.clock, 1)
        ServerSide(self.clock, 2).send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        idle = ServerSide(self.clock, 3)
        idle.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.successResultOf(calls.pop())
        closing = self.start(client.close())
        self.clock.advance(0)
        self.successResultOf(closing)
        for call in calls:
            self.failureResultOf(call, ClientClosed)
        self.assertTrue(idle.transport.ended)
        self.assert_quiet(self.clock)

    def test_retry_wait(self) -> None:
        """A wait for the next attempt ends too."""
        self.answer(canned(503))
        asking = self.start(self.client.get(URL))
        self.run_now(self.client.close())
        self.failureResultOf(asking, ClientClosed)
        self.assert_quiet(self.clock)

    def test_with(self) -> None:
        """``async with`` closes the client."""

        async def use() -> Client:
            async with self.client as client:
                return client

        client = self.run_now(use())
        self.failureResultOf(self.start(client.get(URL)), ClientClosed)

    def test_cancelled_by_the_caller(self) -> None:
        """A call that its caller cancels raises CancelledError."""
        self.answer(Deferred())
        asking = self.start(self.client.get(URL))
        asking.cancel()
        self.failureResultOf(asking, CancelledError)


class ImportTests(HttpTestCase):
    """Importing the client does not install a reactor."""

    def test_no_reactor(self) -> None:
        """Neither importing nor using it imports the global reactor."""
        program = (
            "import sys, json\n"
            "from tests.http.fakes import FakeAgent, canned\n"
            "from twisted.internet.testing import MemoryReactorClock\n"
            "from twisted.internet.defer import Deferred\n"
            "from twisted_net.http.client import Client\n"
            "from twisted_net.http.fetch import Fetcher\n"
            "client = Client(MemoryReactorClock(), agent=FakeAgent([canned(200, b'x')]))\n"
            "done = Deferred.fromCoroutine(client.post('http://h/', data=b'abc'))\n"
            "print(json.dumps([done.result.status, 'twisted.internet.reactor' in sys.modules]))\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
        )
        self.assertEqual(json.loads(ran.stdout), [200, False])


class CachedBodyTests(ClientTestCase):
    """A body out of the cache is within the limit of its call, too."""

    def test_max_body(self) -> None:
        """A stored one that is larger is refused, and stays stored for others."""
        self.answer(canned(200, b"abc", [FRESH]))
        self.run_now(self.client.get(URL))
        refused = self.start(self.client.get(URL, max_body=2))
        self.failureResultOf(refused, BodyTooLarge)
        self.assertEqual(self.run_now(self.client.get(URL, max_body=3)).body, b"abc")


class VerdictTests(HttpTestCase):
    """Callers whose own time ends are no failures of an origin, and do not close it to others."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.client = Client(self.reactor)

    def assert_open_to_others(self) -> None:
        """A patient caller is sent to the origin, and answered."""
        made = len(self.reactor.tcpClients)
        asking = self.start(self.client.get("http://1.2.3.4/other", timeout=9.0))
        self.assertEqual(len(self.reactor.tcpClients), made + 1)
        ServerSide(self.reactor).send(PLAIN)
        self.assertEqual(self.successResultOf(asking).body, b"abc")

    def wait(self, *urls: str, timeout: float) -> None:
        """Call URLs, each on a connection, and let the time of all end."""
        asking = []
        for url in urls:
            made = len(self.reactor.tcpClients)
            asking.append(self.start(self.client.get(url, timeout=timeout, retries=0)))
            if len(self.reactor.tcpClients) > made:
                ServerSide(self.reactor)
            self.reactor.advance(0.001)
        self.reactor.advance(timeout)
        for call in asking:
            self.assertTrue(self.failureResultOf(call, FetchTimeout).value.total)

    def test_one_flight(self) -> None:
        """Twelve that wait for one answer are one request, and no failure."""
        self.wait(*["http://1.2.3.4/"] * 12, timeout=0.5)
        self.assertEqual(len(self.reactor.tcpClients), 1)
        self.assert_open_to_others()

    def test_terms_of_one_caller(self) -> None:
        """What fails by the phase limits, or the proxy, of one caller does not fail the others."""
        for option in ({"timeout": Timeouts(headers=0.05)}, {"proxy": "http://9.9.9.9:1"}):
            client = Client(self.reactor, HttpSettings(retry=RetryPolicy(retries=0)))
            first = self.start(client.get("http://1.2.3.4/", **cast(Any, option)))
            others = [self.start(client.get("http://1.2.3.4/")) for _ in range(2)]
            if "proxy" in option:
                refuse(self.reactor, ConnectError())
            else:
                ServerSide(self.reactor)
                self.reactor.advance(0.05)
            self.failureResultOf(first, FetchTimeout, ProxyFailed)
            made = len(self.reactor.tcpClients)
            ServerSide(self.reactor).send(PLAIN.replace(b"no-store", b"max-age=9"))
            for other in others:
                self.assertEqual(self.successResultOf(other).body, b"abc")
            self.assertEqual(len(self.reactor.tcpClients), made)

    def test_impatient(self) -> None:
        """Twelve that wait for an answer each are no failures."""
        self.wait(*[f"http://1.2.3.4/{i}" for i in range(12)], timeout=0.02)
        self.assert_open_to_others()

    def test_not_sent(self) -> None:
        """Nor are those that wait for a slot, or for nothing, until their time ends."""
        self.client = Client(self.reactor, HttpSettings(max_per_origin=1))
        busy = self.start(self.client.get("http://1.2.3.4/busy"))
        ServerSide(self.reactor)
        for timeout in (0.0, 6.0):
            calls = [
                self.start(self.client.get(f"http://1.2.3.4/{i}", timeout=timeout, retries=0))
                for i in range(12)
            ]
            self.reactor.advance(timeout)
            for call in calls:
                self.failureResultOf(call, FetchTimeout)
        busy.cancel()
        self.failureResultOf(busy, CancelledError)
        self.reactor.advance(0)
        self.assert_open_to_others()

    def test_others_have_time(self) -> None:
        """A request goes on for others when the time of its first caller has ended."""
        for connected in (True, False):
            self.setUp()
            hasty = self.start(self.client.get("http://1.2.3.4/", timeout=0.5))
            if connected:
                server = ServerSide(self.reactor)
            self.reactor.advance(0.1)
            patient = [
                self.start(self.client.get("http://1.2.3.4/", timeout=timeout))
                for timeout in (2.0, 1.0, None)
            ]
            self.reactor.advance(0.4)
            error = self.failureResultOf(hasty, FetchTimeout).value
            self.assertEqual((error.limit, error.total), (0.5, True))
            self.reactor.advance(0.6)
            self.failureResultOf(patient.pop(1), FetchTimeout)
            if not connected:
                server = ServerSide(self.reactor)
            server.send(PLAIN.replace(b"no-store", b"max-age=9"))
            for call in patient:
                self.assertEqual(self.successResultOf(call).body, b"abc")
            self.assertEqual(len(self.reactor.tcpClients), 1)
            self.assertEqual(self.client.circuit_state("http://1.2.3.4/"), CircuitState.CLOSED)

    def test_first_has_left(self) -> None:
        """So it does for those who come when its first caller has left."""
        left = self.start(self.client.get("http://1.2.3.4/", timeout=0.5))
        server = ServerSide(self.reactor)
        first = self.start(self.client.get("http://1.2.3.4/", timeout=0.5))
        left.cancel()
        self.failureResultOf(left, CancelledError)
        second = self.start(self.client.get("http://1.2.3.4/", timeout=2.0))
        self.reactor.advance(1.0)
        self.failureResultOf(first, FetchTimeout)
        server.send(PLAIN.replace(b"no-store", b"max-age=9"))
        self.assertEqual(self.successResultOf(second).body, b"abc")
        self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_limits_of_the_client(self) -> None:
        """These end it all the same, as one of the origin that all who wait hear of."""
        self.client = Client(self.reactor, HttpSettings(connect_timeout=1.0))
        calls = [
            self.start(self.client.get("http://1.2.3.4/", timeout=timeout, retries=0))
            for timeout in (0.5, 9.0, None)
        ]
        self.reactor.advance(0.5)
        self.failureResultOf(calls.pop(0), FetchTimeout)
        self.reactor.advance(0.5)
        for call in calls:
            error = self.failureResultOf(call, FetchTimeout).value
            details = {"phase": "connect", "limit": 1.0, "total": False}
            self.assertEqual(error.details(), {"url": "http://1.2.3.4/", **details})

    def test_no_limit_at_all(self) -> None:
        """No timer is set for a time without end: that of one who waits, for a next attempt."""
        self.client = Client(self.reactor, chance=lambda: 0.5)
        timeouts = Timeouts(total=0.5, connect=None)
        self.start(self.client.get("http://1.2.3.4/", timeout=timeouts)).addErrback(lambda _: None)
        patient = self.start(self.client.get("http://1.2.3.4/", timeout=None))
        refuse(self.reactor, ConnectError("no"))
        self.reactor.advance(0.4)
        self.assertEqual(len(self.reactor.tcpClients), 2)
        self.assertLess(max(call.getTime() for call in self.reactor.getDelayedCalls()), inf)
        ServerSide(self.reactor).send(PLAIN.replace(b"no-store", b"max-age=9"))
        self.assertEqual(self.successResultOf(patient).body, b"abc")

    def test_hanging_for_all(self) -> None:
        """Of many who wait for one answer for as long as the floor, the origin has failed once."""
        for i in range(10):
            self.assertIs(self.client.circuit_state("http://1.2.3.4/"), CircuitState.CLOSED)
            self.wait(*[f"http://1.2.3.4/{i}"] * 12, timeout=5.0)
            self.reactor.advance(0.01)
        self.assertIs(self.client.circuit_state("http://1.2.3.4/"), CircuitState.OPEN)

    def test_hanging(self) -> None:
        """An origin that is silent for as long as the floor has failed."""
        self.wait(*[f"http://1.2.3.4/{i}" for i in range(10)], timeout=5.0)
        self.failureResultOf(self.start(self.client.get("http://1.2.3.4/")), CircuitOpen)


class CircuitTests(ClientTestCase):
    """What circuit breakers do can be read, and is logged."""

    def test_states(self) -> None:
        """Each change of state is logged once, with the origin; a closed one is not."""
        self.client = self.make(HttpSettings(breaker=CircuitBreakerSettings(failures=2, rest=9.0)))
        seen: list[str] = []

        def observe(event: LogEvent) -> None:
            if "circuit" in event.get("log_format", "") or "is back" in event["log_format"]:
                seen.append(f"{event['log_level'].name}: {formatEvent(event)}")

        globalLogPublisher.addObserver(cast(ILogObserver, observe))
        self.addCleanup(globalLogPublisher.removeObserver, cast(ILogObserver, observe))

        def get(answer: Any, state: CircuitState) -> None:
            self.answer(answer)
            self.start(self.client.get(URL, retries=0)).addErrback(lambda failure: None)
            self.assertIs(self.client.circuit_state("http://me:pw@H.example"), state)

        self.assertIs(self.client.circuit_state(URL), CircuitState.CLOSED)
        bad = CannotConnect("h", 80, "x")
        get(canned(200), CircuitState.CLOSED)
        get(bad, CircuitState.CLOSED)
        self.assertEqual(seen, [])
        opened = "warn: http://h.example:80 fails: its circuit breaker is open for 9 s"
        asked = "info: http://h.example:80 is asked whether it is back"
        get(bad, CircuitState.OPEN)
        self.assertEqual(seen, [opened])
        self.fake.answers.clear()
        get(canned(200), CircuitState.OPEN)
        self.fake.answers.clear()
        self.clock.advance(9.0)
        get(bad, CircuitState.OPEN)
        self.assertEqual(seen, [opened, asked, opened])
        self.clock.advance(9.0)
        get(canned(200), CircuitState.CLOSED)
        back = "info: http://h.example:80 is back: its circuit breaker is closed"
        self.assertEqual(seen, [opened, asked, opened, asked, back])
        self.assertIs(self.client.circuit_state("http://other.example"), CircuitState.CLOSED)

    def test_base_url(self) -> None:
        """A path is one of the base URL."""
        self.client = self.make(base_url="http://h.example/a")
        self.assertIs(self.client.circuit_state("b"), CircuitState.CLOSED)
        with self.assertRaises(InvalidURL):
            self.make().circuit_state("b")


class WorkTests(HttpTestCase):
    """What a plain GET costs, with all bounds on."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.client = Client(self.reactor)
        asking = self.start(self.client.get("http://1.2.3.4/0"))
        self.server = ServerSide(self.reactor)
        self.server.send(PLAIN)
        self.assertEqual(self.successResultOf(asking).body, b"abc")
        self.get()

    def get(self, **options: Any) -> None:
        """GET it over the connection that is idle."""
        asking = self.start(self.client.get("http://1.2.3.4/1", **options))
        self.server.send(PLAIN)
        self.assertEqual(self.successResultOf(asking).body, b"abc")

    def test_calls(self) -> None:
        """It takes few calls of functions in Python, of Twisted's too."""
        self.assertLess(counted(self.get).calls, 220)

    def test_options(self) -> None:
        """So does one with another retry policy, which is made once."""
        plain = counted(self.get).calls
        options: Any = {"retries": 1, "timeout": 5.0}
        self.get(**options)
        self.assertLess(counted(partial(self.get, **options)).calls, plain + 100)
        # All steps, and two timers.
        options["hedge_after"] = 0.2
        self.get(**options)
        self.assertLess(counted(partial(self.get, **options)).calls, 670)

    def test_stored(self) -> None:
        """So does one whose response is stored."""
        numbers = iter(range(2, 9))

        def get() -> None:
            asking = self.start(self.client.get(f"http://1.2.3.4/{next(numbers)}"))
            self.server.send(PLAIN.replace(b"no-store", b"max-age=9"))
            self.assertEqual(self.successResultOf(asking).body, b"abc")

        get()
        self.assertLess(counted(get).calls, 740)

    def be_refused(self) -> None:
        """GET from an origin whose circuit breaker is open."""
        self.failureResultOf(self.start(self.client.get("http://5.6.7.8/")), CircuitOpen)

    def test_refused(self) -> None:
        """A call that is refused costs no more than one that the cache answers."""
        breaker = HttpSettings(breaker=CircuitBreakerSettings(failures=1))
        for client in (Client(self.reactor, breaker), Client(self.reactor, breaker, cookies=True)):
            self.client = client
            asking = self.start(client.get("http://1.2.3.4/stored"))
            ServerSide(self.reactor).send(PLAIN.replace(b"no-store", b"max-age=9"))
            self.successResultOf(asking)
            hit = counted(lambda: self.run_now(self.client.get("http://1.2.3.4/stored"))).calls
            asking = self.start(client.get("http://5.6.7.8/", retries=0))
            ServerSide(self.reactor).close()
            self.failureResultOf(asking, ConnectionBroken)
            refused = counted(self.be_refused).calls
            self.assertLess(refused, 2 * hit)

    def test_refused_in_vain(self) -> None:
        """A stale response is served in place of the refusal, where it may be."""
        self.client = Client(self.reactor, HttpSettings(breaker=CircuitBreakerSettings(failures=1)))
        stale = PLAIN.replace(b"no-store", b"max-age=1, stale-if-error=99")
        asking = self.start(self.client.get("http://5.6.7.8/"))
        server = ServerSide(self.reactor)
        server.send(stale)
        self.successResultOf(asking)
        asking = self.start(self.client.post("http://5.6.7.8/other"))
        server.close()
        self.failureResultOf(asking, ConnectionBroken)
        self.reactor.advance(5.0)
        self.assertTrue(self.run_now(self.client.get("http://5.6.7.8/")).from_cache)

    def test_waiting_calls(self) -> None:
        """One that waits for the response to another takes little more than a hit."""
        many = 20
        calls: list[Deferred[Any]] = []  # Any: of responses

        def ask() -> None:
            calls.extend(self.start(self.client.get("http://1.2.3.4/2")) for _ in range(many))

        def answer() -> None:
            self.server.send(PLAIN.replace(b"no-store", b"max-age=9"))

        first = self.start(self.client.get("http://1.2.3.4/2"))
        taken = counted(ask).calls + counted(answer).calls
        for one in (first, *calls):
            self.assertEqual(self.successResultOf(one).body, b"abc")
        hit = counted(lambda: self.run_now(self.client.get("http://1.2.3.4/2"))).calls
        self.assertLess(taken, many * 4 * hit)

    def test_waiting(self) -> None:
        """One that waits for the response to another sets no timer of its own."""
        asking = [self.start(self.client.get("http://1.2.3.4/2"))]
        before = len(self.reactor.getDelayedCalls())
        asking += [self.start(self.client.get("http://1.2.3.4/2")) for _ in range(9)]
        self.assertEqual(len(self.reactor.getDelayedCalls()), before + 1)
        self.server.send(PLAIN.replace(b"no-store", b"max-age=9"))
        for one in asking:
            self.assertEqual(self.successResultOf(one).body, b"abc")
        self.assertEqual(len(self.reactor.getDelayedCalls()), before)

    def test_deferreds(self) -> None:
        """It makes few Deferreds: for the call, what others may share, and the response."""
        made: list[object] = []
        make = Deferred.__init__

        def counting(self: Any, *arguments: Any, **named: Any) -> None:
            made.append(self)
            make(self, *arguments, **named)

        self.patch(Deferred, "__init__", counting)
        self.get()
        # One of them is the test's.
        self.assertLess(len(made), 5)
