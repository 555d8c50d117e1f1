"""Tests of :mod:`twisted_net.http.agent_edge`."""

from __future__ import annotations

from typing import cast

from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from typing_extensions import override

from tests.http.fakes import FakeAgent, HttpTestCase, canned
from twisted_net.http.agent_edge import AgentEdge, own_response, sender
from twisted_net.http.bodies import BodyResponse, BytesProducer, collect
from twisted_net.http.call import Call
from twisted_net.http.errors import InvalidURL
from twisted_net.http.fields import HeaderFields
from twisted_net.http.request import OutgoingRequest
from twisted_net.http.urls import parse_target


class RecordingEdge(AgentEdge):
    """Records the requests that it is asked for."""

    def __init__(self) -> None:
        self.asked: list[OutgoingRequest] = []

    @override
    async def respond(self, request: OutgoingRequest) -> BodyResponse:
        self.asked.append(request)
        return canned(200)


class AgentEdgeTests(HttpTestCase):
    """:class:`AgentEdge` is an ``IAgent``, and takes each request as a record."""

    def test_request(self) -> None:
        """The arguments are in the record; the fields are a copy of the headers."""
        edge = RecordingEdge()
        self.assertTrue(IAgent.providedBy(edge))
        producer = BytesProducer(b"x")
        edge.request(b"PUT", b"http://h:80", None, producer)
        headers = Headers({b"a": [b"b", b"\xfc"]})
        edge.request(b"GET", b"http://h/", headers)
        first, second = edge.asked
        self.assertEqual((first.method, first.target.url), ("PUT", "http://h/"))
        self.assertIs(first.producer, producer)
        self.assertEqual(first.fields, HeaderFields())
        self.assertEqual(second.fields.get_all("a"), ["b", "\xfc"])
        self.assertIsNone(second.producer)

    def test_bad_url(self) -> None:
        """A URL that cannot be requested fails the Deferred."""
        edge = RecordingEdge()
        for url in (b"ftp://a/", b"http://a/\xe9", b"/"):
            self.failureResultOf(edge.request(b"GET", url), InvalidURL)
        self.assertEqual(edge.asked, [])

    def test_no_answer(self) -> None:
        """An edge that answers nothing is an error of the program."""
        asking = AgentEdge().request(b"GET", b"http://h/")
        self.failureResultOf(asking, NotImplementedError)


class SenderTests(HttpTestCase):
    """:func:`sender` sends requests with any agent."""

    request = OutgoingRequest(
        "GET", parse_target("http://h/?q"), HeaderFields([("a", "1"), ("b", "\xfc"), ("A", "2")])
    )

    def test_any_agent(self) -> None:
        """An agent gets the arguments of ``IAgent``."""
        fake = FakeAgent([canned(200, b"x")])
        agent: IAgent = Agent(None)
        self.patch(Agent, "request", lambda _, *arguments: fake.request(*arguments))
        self.run_now(_awaited(agent, self.request))
        (sent,) = fake.sent
        self.assertEqual((sent.method, sent.uri), (b"GET", b"http://h/?q"))
        self.assertEqual(sent.header("a"), ["1", "2"])
        self.assertEqual(sent.headers.getRawHeaders(b"b"), [b"\xfc"])

    def test_response(self) -> None:
        """A response of another kind is wrapped; one of ours is returned itself."""
        own = canned(404, b"abc", [("x", "\xfc")])
        self.assertIs(own_response(own, "GET"), own)
        other: object = OtherResponse(own)
        made = own_response(cast(IResponse, other), "GET")
        self.assertEqual((made.code, made.phrase, made.length), (404, b"Reason", 3))
        self.assertEqual(made.fields["x"], "\xfc")
        self.assertEqual(self.successResultOf(collect(made))[0], b"abc")

    def test_length(self) -> None:
        """The length that Twisted does not show is restored, where it is that of the body."""
        for method, body, fields, length in (
            ("GET", b"abc", [], "3"),
            ("GET", b"abc", [("content-length", "03")], "03"),
            ("GET", b"", [], None),
            ("HEAD", b"abc", [], None),
        ):
            made = own_response(canned(200, body, fields), method)
            self.assertEqual(made.fields.get("content-length"), length)


class OutgoingRequestTests(HttpTestCase):
    """:class:`OutgoingRequest` is copied with other fields."""

    request = OutgoingRequest(
        "GET", parse_target("http://h/"), HeaderFields([("a", "1"), ("b", "2")])
    )

    def test_fields(self) -> None:
        """New fields replace those of the same name, in a copy; without any it is unchanged."""
        changed = self.request.with_replaced([("A", "3"), ("c", "\xfc")])
        self.assertEqual(dict(changed.fields), {"a": "3", "b": "2", "c": "\xfc"})
        self.assertEqual(self.request.fields["a"], "1")
        self.assertIs(self.request.with_replaced(()), self.request)


class OtherResponse:
    """A response that is not of this package."""

    def __init__(self, response: BodyResponse) -> None:
        for name in ("version", "code", "phrase", "headers", "length", "request", "deliverBody"):
            setattr(self, name, getattr(response, name))
        self.previousResponse = None


async def _awaited(agent: IAgent, request: OutgoingRequest) -> BodyResponse:
    return await sender(agent)(request, Call())
