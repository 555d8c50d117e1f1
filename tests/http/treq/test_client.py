from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from typing import Any
from unittest import mock

from hyperlink import DecodedURL, EncodedURL
from treq import client as treq_client
from treq.client import HTTPClient as TreqClient
from treq.response import _Response
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from typing_extensions import override
from zope.interface import implementer

from twisted_net.http import HTTPAgent
from twisted_net.http.bodies import BodyResponse, BufferedResponse
from twisted_net.http.treq import HTTPClient
from twisted_net.http.treq import client as client_module
from twisted_net.http.treq.completing_agent import CompletingAgent

URL = "http://example.com/"


class Engine(HTTPAgent):
    """Records requests, and answers them by a function."""

    def __init__(self, answer: Callable[[], Deferred[IResponse]] | None = None) -> None:
        HTTPAgent.__init__(self, MemoryReactorClock())
        self._answer = answer or (lambda: succeed(in_memory()))
        self.requests: list[tuple[bytes, bytes, Headers | None, IBodyProducer | None]] = []

    @override
    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        self.requests.append((method, uri, headers, bodyProducer))
        return self._answer()


@implementer(IAgent)
class Recorder:
    """An agent that is none of this package."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes, Headers | None, IBodyProducer | None]] = []

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        self.requests.append((method, uri, headers, bodyProducer))
        return succeed(in_memory())


def in_memory(
    code: int = 200, fields: dict[str, list[str]] | None = None, body: bytes = b"body"
) -> BufferedResponse:
    """Return a response whose body is in memory."""
    return BufferedResponse(code, b"", Headers(fields or {}), body)


def in_pieces(
    code: int = 200, fields: dict[str, list[str]] | None = None
) -> tuple[BodyResponse, list[Any]]:  # Any: protocols
    """Return a response whose body is delivered by hand, and the receivers of its body."""
    receivers: list[Any] = []
    headers = Headers(fields or {})
    version = (b"HTTP", 1, 1)
    return BodyResponse(
        version, code, b"", headers, UNKNOWN_LENGTH, None, receivers.append
    ), receivers


class PlainTests(SynchronousTestCase):
    """A plain call goes straight to the agent."""

    def straight(self, **options: Any) -> bool:
        """Whether a call with *options* is made without treq's agents around ours."""
        engine = Engine()
        with mock.patch.object(treq_client, "ContentDecoderAgent") as around:
            around.return_value.request.return_value = succeed(in_memory())
            self.successResultOf(HTTPClient(engine).request("GET", URL, **options))
        return not around.called

    def test_plain(self) -> None:
        """URL, parameters, header, redirects, timeout, buffering: with these a call is plain."""
        options: dict[str, Any]
        for options in (
            {},
            {"params": {"a": "b"}},
            {"headers": {"X-A": "b"}},
            {"headers": Headers({"X-A": ["b"]})},
            {"allow_redirects": False},
            {"browser_like_redirects": True},
            {"unbuffered": True},
            {"timeout": 1, "reactor": Clock()},
            {"data": None, "files": None, "auth": None, "cookies": None},
        ):
            with self.subTest(options=options):
                self.assertTrue(self.straight(**options))

    def test_others(self) -> None:
        """With a body, credentials, cookies or codings of its own, a call is made by treq."""
        options: dict[str, Any]
        for options in (
            {"data": b"x"},
            {"data": {"a": "b"}},
            {"files": {"a": b"b"}},
            {"json": None},
            {"auth": ("ann", "secret")},
            {"cookies": {}},
            {"headers": {"accept-Encoding": "br"}},
        ):
            with self.subTest(options=options):
                self.assertFalse(self.straight(**options))

    def test_other_agent(self) -> None:
        """With an agent that is not ours, a call is made by treq, as by treq's own client."""
        ours, treqs = Recorder(), Recorder()
        self.successResultOf(HTTPClient(ours).get(URL))
        self.successResultOf(TreqClient(treqs).get(URL))
        self.assertEqual(ours.requests, treqs.requests)

    def test_no_timer(self) -> None:
        """No timer is started for a response that is there at once."""
        clock = Clock()
        client: Any = HTTPClient(Engine())  # Any: treq wants a reactor of many interfaces
        self.successResultOf(client.get(URL, timeout=5, reactor=clock))
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_timeout(self) -> None:
        """A call that has no response in time is cancelled."""
        clock = Clock()
        client: Any = HTTPClient(Engine(Deferred))
        calling = client.get(URL, timeout=5, reactor=clock)
        clock.advance(4.9)
        self.assertNoResult(calling)
        clock.advance(0.2)
        self.failureResultOf(calling, CancelledError)

    def test_timer_stopped(self) -> None:
        """The timer stops when the response begins."""
        clock = Clock()
        answer: Deferred[IResponse] = Deferred()
        client: Any = HTTPClient(Engine(lambda: answer))
        calling = client.get(URL, timeout=5, reactor=clock)
        answer.callback(in_memory())
        self.successResultOf(calling)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_timeout_of_redirect(self) -> None:
        """The timer covers the requests that follow redirects."""
        clock = Clock()
        second: Deferred[IResponse] = Deferred()
        first = in_memory(302, {"Location": ["/b"]})
        answers: list[Deferred[IResponse]] = [succeed(first), second]
        client: Any = HTTPClient(Engine(lambda: answers.pop(0)))
        calling = client.get(URL, timeout=5, reactor=clock)
        self.assertNoResult(calling)
        clock.advance(5)
        self.failureResultOf(calling, CancelledError)

    def test_headers_kept(self) -> None:
        """The ``Headers`` of a caller are neither changed nor shown by the response."""
        headers = Headers({"X-A": ["b"]})
        client = HTTPClient(Engine())
        response = self.successResultOf(client.get(URL, headers=headers))
        self.assertEqual(headers, Headers({"X-A": ["b"]}))
        headers.setRawHeaders("X-A", ["c"])
        self.assertEqual(response.request.headers, Headers({"X-A": ["b"]}))


class ArgumentTests(SynchronousTestCase):
    """Arguments, and what is wrong with them, are those of treq."""

    def test_signatures(self) -> None:
        """The calls have the parameters of treq, and their defaults."""
        for name in ("request", "__init__"):
            ours = inspect.signature(getattr(HTTPClient, name)).parameters
            treqs = inspect.signature(getattr(TreqClient, name)).parameters
            self.assertEqual(
                [(each.name, each.kind, each.default) for each in ours.values()],
                [(each.name, each.kind, each.default) for each in treqs.values()],
            )

    def test_wrong(self) -> None:
        """A wrong argument raises the error of treq at once, with the same message."""
        bad: Any
        for bad in (
            {"content": b"abc"},
            {"headers": [("a", "b")]},
            {"headers": {"a": 1}},
            {"json": 1, "data": b"x"},
            {"params": 5},
            {"url": "http://example.com:x/"},
            {"url": b"http://example.com/\xff"},
            {"url": None},
        ):
            with self.subTest(bad=bad):
                arguments = {"url": URL, **bad}
                raised: list[str] = []
                clients: list[Any] = [HTTPClient(Engine()), TreqClient(Engine())]
                for client in clients:
                    with self.assertRaises(Exception) as caught:
                        client.get(**arguments)
                    raised.append(f"{type(caught.exception)}: {caught.exception}")
                self.assertEqual(raised[0], raised[1])

    def test_types(self) -> None:
        """Client and response are of treq's types."""
        client = HTTPClient(Engine())
        self.assertIsInstance(client, TreqClient)
        response = self.successResultOf(client.get(URL))
        self.assertIs(type(response), _Response)
        self.assertEqual(repr(response), "<treq.response._Response 200 '' 4 bytes>")


class UrlTests(SynchronousTestCase):
    """URLs are encoded as treq encodes them."""

    @override
    def setUp(self) -> None:
        self.engine = Engine()

    def requested(self, kind: type[TreqClient], url: Any, params: Any) -> bytes | str:
        """Return the URL that a client requests, or the error that it raises."""
        try:
            self.successResultOf(kind(self.engine).get(url, params=params))
        except Exception as error:
            return f"{type(error)}: {error}"
        return self.engine.requests.pop()[1]

    def assert_same(self, url: Any, params: Any = None) -> None:
        """Check that both clients request the same, the second time too."""
        expected = self.requested(TreqClient, url, params)
        for _ in range(2):
            self.assertEqual(self.requested(HTTPClient, url, params), expected, (url, params))

    def test_kinds(self) -> None:
        """Text, bytes and both kinds of hyperlink's URLs may be passed."""
        for url in (
            *(URL, URL.encode(), EncodedURL.from_text(URL), DecodedURL.from_text(URL)),
            *("http://ex\u00e4mple.com/\u00e4?\u00f6=\u00fc#x", "http://h:80/?", "HTTP://H/a b%zz"),
            *(f"{URL}?{'a' * 2000}", f"{URL}\u00e4", DecodedURL.from_text(f"{URL}%3f")),
            *("http://[::1]:8080/", "/relative", "", "http://user:pass@h/", "mailto:a@b"),
        ):
            self.assert_same(url)
            self.assert_same(url, {"a": "b c"})

    def test_parameters(self) -> None:
        """Parameters of all kinds follow those of the URL."""
        params: Any
        for params in (
            *({}, {"a": "b"}, {"a": ["b", "c"]}, [("a", "b"), ("a", "c")], {"a": 1, 2: None}),
            *({b"\xff": b"\xfe"}, {"\u00e4": "\u20ac"}, {"a": ("b&", "=c")}, [("a", [])]),
            {"a": "x" * 3000},
        ):
            self.assert_same(URL, params)
            self.assert_same(f"{URL}?x=1&y#z", params)

    def test_any(self) -> None:
        """Random URLs and parameters give the same."""
        chance = random.Random(15)
        letters = "ab/?#&=%+:;@.~ \u00e4\u20ac[]{}\\\"'2F"
        for _ in range(400):
            text = "".join(chance.choices(letters, k=chance.randrange(12)))
            name = "".join(chance.choices(letters, k=chance.randrange(4)))
            params = chance.choice([None, {name: text}, [(name, [text, name])]])
            self.assert_same(f"http://example.com{chance.choice(['', '/'])}{text}", params)

    def test_encoded(self) -> None:
        """Most URLs are encoded already, and are not parsed; what is left as it is would be."""
        with mock.patch.object(client_module, "_encoded_text") as parsed:
            for url in (
                URL,
                "https://a-b.c.example:8443/a/B_~-.x?id=5&name=a-b",
                "http://10.0.0.1/",
            ):
                self.assertEqual(client_module._request_uri(url, None), url.encode())
        parsed.assert_not_called()
        chance = random.Random(15)
        left = 0
        hosts = (
            "h",
            "a.b",
            "a-b.c",
            "xn--a.b",
            "a--b.c",
            "-a",
            "a-",
            "a.",
            "a..b",
            "1.2",
            "0x7f.1",
        )
        ports = ("", ":8080", ":80", ":443", ":0", ":99999", ":080", ":800", ":4430", ":")
        for _ in range(1500):
            scheme = chance.choice(("http", "https"))
            path = "".join(chance.choices(("a", "B9", "/", ".", "..", "~", "-_", "//", "/./"), k=4))
            query = "".join(chance.choices(("", "?", "a", "=", "&", "b=c", "?d=e", "&f=g"), k=4))
            host = chance.choice(hosts) * chance.choice((1, 1, 1, 30, 70))
            query = chance.choice(("", "?a=b", query))
            host += chance.choice(("", "", *ports))
            url = f"{scheme}://{host}/{path}{query}"
            left += client_module._IS_ENCODED(url) is not None
            self.assert_same(url)
        self.assertGreater(left, 100)

    def test_bound(self) -> None:
        """Long URLs are not kept, nor more than :data:`MAX_KEPT_URLS` others."""
        kept = client_module._encoded_text
        kept.cache_clear()
        client = HTTPClient(Engine())
        client.get(URL + "!" * client_module.MAX_KEPT_URL)
        client.get(URL, params={"a": "b" * client_module.MAX_KEPT_URL})
        self.assertEqual(kept.cache_info().currsize, 0)
        self.assertEqual(kept.cache_info().maxsize, client_module.MAX_KEPT_URLS)
        client.get(URL + "!")
        self.assertEqual(kept.cache_info().currsize, 1)


class BodyTests(SynchronousTestCase):
    """Bodies are read as with treq."""

    def test_in_memory(self) -> None:
        """A body in memory is read any number of times."""
        response = self.successResultOf(HTTPClient(Engine()).get(URL))
        for _ in range(3):
            self.assertEqual(self.successResultOf(response.content()), b"body")
        self.assertEqual(self.successResultOf(response.text()), "body")

    def test_buffered(self) -> None:
        """A body that comes in pieces is kept, and read again."""
        original, receivers = in_pieces()
        response = self.successResultOf(HTTPClient(Engine(lambda: succeed(original))).get(URL))
        first, second = response.content(), response.content()
        self.assertEqual(len(receivers), 1)
        receivers[0].dataReceived(b"bo")
        receivers[0].dataReceived(b"dy")
        receivers[0].connectionLost(Failure(ResponseDone()))
        self.assertEqual(self.successResultOf(first), b"body")
        self.assertEqual(self.successResultOf(second), b"body")

    def test_unbuffered(self) -> None:
        """Without buffering, a body goes to its receiver directly."""
        original, receivers = in_pieces()
        client = HTTPClient(Engine(lambda: succeed(original)))
        response = self.successResultOf(client.get(URL, unbuffered=True))
        pieces: list[bytes] = []
        response.collect(pieces.append)
        receivers[0].dataReceived(b"bo")
        self.assertEqual(pieces, [b"bo"])

    def test_redirect_read(self) -> None:
        """The body of a redirect is read while the next request is made, and kept."""
        first, receivers = in_pieces(302, {"Location": ["/b"]})
        answers: list[Deferred[IResponse]] = [succeed(first), succeed(in_memory())]
        client = HTTPClient(Engine(lambda: answers.pop(0)))
        response = self.successResultOf(client.get(URL))
        receivers[0].dataReceived(b"elsewhere")
        receivers[0].connectionLost(Failure(ResponseDone()))
        self.assertEqual(self.successResultOf(response.history()[0].content()), b"elsewhere")


class CookieTests(SynchronousTestCase):
    """Cookies are kept and sent as with treq; the cache sets none."""

    def kept(self, status: str | None, code: int = 200) -> list[tuple[str, str | None]]:
        """Return the cookies of the client after a response with such a ``Cache-Status``."""
        fields = {"Set-Cookie": ["a=1"]}
        if status is not None:
            fields["Cache-Status"] = ["Edge; hit", status]
        client = HTTPClient(Engine(lambda: succeed(in_memory(code, fields))))
        response = self.successResultOf(client.get(URL))
        kept = [(each.name, each.value) for each in response.cookies()]
        self.assertEqual(response.headers.hasHeader("Set-Cookie"), bool(kept))
        return kept

    def test_network(self) -> None:
        """The response of the server sets cookies, whatever caches of others say."""
        for status in (
            None,
            "twisted_net; fwd=uri-miss; fwd-status=200; stored",
            "twisted_net; fwd=uri-miss; fwd-status=200",
            "Other; hit",
        ):
            with self.subTest(status=status):
                self.assertEqual(self.kept(status), [("a", "1")])
        self.assertEqual(self.kept("twisted_net; fwd=stale; fwd-status=304", 304), [("a", "1")])

    def test_cache(self) -> None:
        """A stored response, and that to another caller, set none."""
        for status in (
            "twisted_net; hit; ttl=60",
            "twisted_net; fwd=stale; fwd-status=304",
            "twisted_net; fwd=partial; fwd-status=206",
            "twisted_net; fwd=uri-miss; collapsed",
        ):
            with self.subTest(status=status):
                self.assertEqual(self.kept(status), [])

    def test_sent(self) -> None:
        """Cookies that were set are sent, and those of the caller in place of them."""
        engine = Engine(lambda: succeed(in_memory(fields={"Set-Cookie": ["a=1"]})))
        client: Any = HTTPClient(engine)
        for headers in (None, None, {"Cookie": "b=2"}):
            self.successResultOf(client.get(URL, headers=headers))
        sent = [
            None if headers is None else headers.getRawHeaders("cookie")
            for _, _, headers, _ in engine.requests
        ]
        self.assertEqual(sent, [None, ["a=1"], ["b=2"]])


class CodingTests(SynchronousTestCase):
    """What the agent has left encoded."""

    def coding(self, code: int) -> list[bytes]:
        """Return ``Content-Encoding`` as a caller sees it, with such a status."""
        fields = {"Content-Encoding": ["gzip"]}
        client = HTTPClient(Engine(lambda: succeed(in_memory(code, fields))))
        response = self.successResultOf(client.get(URL))
        return list(response.headers.getRawHeaders(b"content-encoding", ()))

    def test_part(self) -> None:
        """A part of an encoded body cannot be decoded, and shows its coding."""
        self.assertEqual(self.coding(206), [b"gzip"])

    def test_other(self) -> None:
        """Any other is decoded by Twisted, as with treq."""
        self.assertEqual(self.coding(200), [])


class CompletingAgentTests(SynchronousTestCase):
    """:class:`CompletingAgent` adds what is missing, and no more."""

    def test_request(self) -> None:
        """A response shows its request; one that has it already shows that."""
        agent = CompletingAgent(Engine())
        response = self.successResultOf(agent.request(b"GET", b"http://h/"))
        self.assertEqual(response.request.absoluteURI, b"http://h/")
        self.assertEqual(response.request.headers, Headers())
        own = in_memory()
        own.request = mock.sentinel.request
        agent = CompletingAgent(Engine(lambda: succeed(own)))
        response = self.successResultOf(agent.request(b"GET", b"http://h/"))
        self.assertIs(response.request, mock.sentinel.request)
