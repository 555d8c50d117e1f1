"""Tests of :mod:`twisted_net.http.calls.synonyms`."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.http.fakes import canned
from tests.http.test_client import URL, ClientTestCase
from twisted_net.http import Client, HTTPAgent, HttpSettings, RequestOptions, Timeouts
from twisted_net.http.calls.synonyms import (
    CLIENT_ATTRIBUTE_SYNONYMS,
    FIELDS_SYNONYMS,
    OPTION_SYNONYMS,
    RESPONSE_SYNONYMS,
    STREAM_SYNONYMS,
    client_synonyms,
)
from twisted_net.http.fields import HeaderFields
from twisted_net.http.response import Response
from twisted_net.http.streaming import StreamedResponse

VERIFY = (
    "Client(reactor, HttpSettings(tls=ClientTlsSettings(verify=…))), "
    "or ca=… for a file of authorities"
)


class ArgumentTests(ClientTestCase):
    """Names from other clients lead to what does the same here."""

    def refused(self, make: Any, **options: Any) -> str:  # Any: of many forms
        """Return the message of a TypeError."""
        return str(self.assertRaises(TypeError, make, **options))

    def test_client(self) -> None:
        """Settings, options of a call, and what requests and httpx have on a session."""
        for name, meant in (
            ("timeout", "Client(reactor, HttpSettings(timeout=…))"),
            ("proxy", "Client(reactor, HttpSettings(proxy=…))"),
            ("max_redirects", "Client(reactor, HttpSettings(max_redirects=…))"),
            ("cache", "Client(reactor, HttpSettings(cache=…))"),
            ("retries", "Client(reactor, HttpSettings(retry=RetryPolicy(retries=…)))"),
            ("verify", VERIFY),
            ("cert", "Client(reactor, HttpSettings(tls=ClientTlsSettings(certificate=…)))"),
            ("ssl_context", "Client(reactor, tls_policy=…)"),
            ("trust_env", 'Client(reactor, HttpSettings(proxy="environment"))'),
            ("event_hooks", "on_request, on_response"),
            ("follow_redirects", "client.get(url, allow_redirects=…)"),
            ("progress", "client.get(url, progress=…)"),
        ):
            with self.subTest(name=name):
                said = self.refused(self.make, **{name: 1})
                self.assertIn(f"there is no argument {name}; did you mean {meant}?", said)

    def test_agent(self) -> None:
        """Arguments of Twisted's ``Agent``, and settings, lead to those of our agent."""
        make = partial(HTTPAgent, self.clock)
        for name, meant in (
            ("contextFactory", "HTTPAgent(reactor, tls_policy=…)"),
            ("connectTimeout", "HTTPAgent(reactor, HttpSettings(connect_timeout=…))"),
            ("pool", "HTTPAgent(reactor, HttpSettings(idle_per_origin=…))"),
            ("tls", "HTTPAgent(reactor, HttpSettings(tls=…))"),
            ("verify", VERIFY.replace("Client(", "HTTPAgent(")),
        ):
            with self.subTest(name=name):
                said = self.refused(make, **{name: 1})
                self.assertIn(f"there is no argument {name}; did you mean {meant}?", said)

    def test_none_is_an_argument(self) -> None:
        """What is an argument has no synonym: nobody would be led to it."""
        options = RequestOptions.__annotations__
        self.assertEqual(OPTION_SYNONYMS.keys() & options, set())
        made = client_synonyms(HttpSettings.__struct_fields__, options)
        for name in made.keys() - {"headers", "params", "auth", "cookies"}:
            self.assertIn(f"no argument {name}; did you", self.refused(self.make, **{name: 1}))

    def test_timeouts(self) -> None:
        """Phases by their names elsewhere, and the pair of requests."""
        self.assertIn("no argument read; did you mean silence?", self.refused(Timeouts, read=1))
        self.assertIn("HttpSettings(queue_timeout=…)", self.refused(Timeouts, pool=1))
        said = "connect must be a number or None or UNSET, not text"
        self.assertIn(said, self.refused(Timeouts, connect="x"))
        asked: Any = self.client.get(URL, timeout=(3, 5))  # type: ignore[arg-type]  # on purpose
        failed = self.failureResultOf(self.start(asked), TypeError)
        said = "timeout must be a number or a Timeouts or None, not a tuple; write Timeouts(conn"
        self.assertIn(said, str(failed.value))
        self.assertEqual(self.fake.sent, [])

    def test_call(self) -> None:
        """Options that belong to a client, and words for credentials."""
        for name, meant in (
            ("token", "auth=BearerToken(…)"),
            ("event_hooks", "Client(on_request=…, on_response=…)"),
            ("base_url", "Client(base_url=…)"),
            ("read_timeout", "timeout=Timeouts(silence=…)"),
            ("raise_for_status", "response.raise_for_status()"),
            ("browser_like_redirects", "allow_redirects"),
            ("verify", VERIFY),
            ("ca", "Client(reactor, HttpSettings(tls=ClientTlsSettings(ca=…)))"),
            ("tls", "Client(reactor, HttpSettings(tls=…))"),
        ):
            options: Any = {name: 1}
            asked = self.start(self.client.get(URL, **options))
            said = str(self.failureResultOf(asked, TypeError).value)
            self.assertIn(f"there is no argument {name}; did you mean {meant}?", said)


class AttributeTests(ClientTestCase):
    """Attributes by the names that other clients have for them."""

    def missing(self, thing: Any, name: str) -> str:  # Any: what has no such attribute
        """Return the message for an attribute that there is not."""
        return str(self.assertRaises(AttributeError, getattr, thing, name))

    def streamed(self) -> StreamedResponse:
        """Return a streamed response."""
        return StreamedResponse(
            canned(200), method="GET", url=URL, headers=HeaderFields(), attempts=1, age=None
        )

    def test_meant(self) -> None:
        """The message says what is meant."""
        response = Response("GET", URL, 200, "", HeaderFields(), b"", 1, 0.0, None)
        for thing, name, said in (
            (
                response,
                "status_code",
                "no attribute status_code; did you mean status?",
            ),
            (response, "content", "did you mean body?"),
            (response, "iter_lines", 'did you mean client.stream("GET", url)?'),
            (self.streamed(), "body", "StreamedResponse has no attribute body; did you mean await"),
            (self.streamed(), "aiter_bytes", "did you mean async for piece in response?"),
            (response.headers, "getRawHeaders", "HeaderFields has no attribute getRawHeaders; did"),
            (
                self.client,
                "headers",
                "Client has no attribute headers; did you mean Client(reactor, ",
            ),
            (self.client, "aclose", "did you mean close()?"),
            (self.client, "proxies", "did you mean Client(reactor, HttpSettings(proxy=…))?"),
            (response, "nonsense", "'Response' object has no attribute 'nonsense'"),
        ):
            self.assertIn(said, self.missing(thing, name))

    def test_none_is_an_attribute(self) -> None:
        """What is an attribute has no synonym."""
        for kind, synonyms in (
            (Response, RESPONSE_SYNONYMS),
            (StreamedResponse, STREAM_SYNONYMS),
            (HeaderFields, FIELDS_SYNONYMS),
            (Client, CLIENT_ATTRIBUTE_SYNONYMS),
        ):
            self.assertEqual([name for name in synonyms if hasattr(kind, name)], [])
        self.assertFalse(hasattr(self.streamed(), "status_code"))
        self.assertTrue(hasattr(Client, "stream"))
