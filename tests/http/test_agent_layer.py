"""Tests of :mod:`twisted_net.http.agent_layer`."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from tests.http.fakes import FakeAgent, HttpTestCase, canned
from twisted_net.http.agent_layer import AgentLayer, AgentRequest
from twisted_net.http.bodies import BytesProducer


class RecordingLayer(AgentLayer):
    """Records the requests that it handles."""

    def __init__(self) -> None:
        self.handled: list[AgentRequest] = []

    def handle(self, request: AgentRequest) -> Deferred[IResponse]:
        self.handled.append(request)
        return Deferred()


class AgentLayerTests(HttpTestCase):
    """:class:`AgentLayer` is an ``IAgent``, and takes each request as a record."""

    def test_request(self) -> None:
        """The arguments are in the record; headers are never None."""
        layer = RecordingLayer()
        self.assertTrue(IAgent.providedBy(layer))
        producer = BytesProducer(b"x")
        layer.request(b"PUT", b"http://h/", None, producer)
        headers = Headers({"a": ["b"]})
        layer.request(b"GET", b"http://h/", headers)
        first, second = layer.handled
        self.assertEqual((first.method, first.uri), (b"PUT", b"http://h/"))
        self.assertIs(first.producer, producer)
        self.assertEqual(first.headers, Headers())
        self.assertIs(second.headers, headers)
        self.assertIsNone(second.producer)

    def test_not_handled(self) -> None:
        """A layer without a handler is an error of the program."""
        self.assertRaises(NotImplementedError, AgentLayer().request, b"GET", b"http://h/")


class AgentRequestTests(HttpTestCase):
    """:class:`AgentRequest` is sent with any agent, and copied with other fields."""

    request = AgentRequest(b"GET", b"http://h/", Headers({"a": ["1"], "b": ["2"]}), None)

    def test_layer(self) -> None:
        """A layer gets the record itself."""
        layer = RecordingLayer()
        self.request.send(layer)
        self.assertIs(layer.handled[0], self.request)

    def test_any_agent(self) -> None:
        """Any other agent gets the arguments."""
        fake = FakeAgent([canned(200, b"x")])
        agent: IAgent = Agent(None)
        self.patch(Agent, "request", lambda _, *arguments: fake.request(*arguments))
        self.successResultOf(self.request.send(agent))
        self.assertEqual((fake.sent[0].method, fake.sent[0].header("a")), (b"GET", ["1"]))

    def test_fields(self) -> None:
        """New fields replace those of the same name, in a copy; without any it is unchanged."""
        changed = self.request.with_fields([("a", "3"), ("c", "ü")])
        self.assertEqual(changed.headers.getRawHeaders(b"a"), [b"3"])
        self.assertEqual(changed.headers.getRawHeaders(b"b"), [b"2"])
        self.assertEqual(changed.headers.getRawHeaders(b"c"), [b"\xfc"])
        self.assertEqual(self.request.headers.getRawHeaders(b"a"), [b"1"])
        self.assertIs(self.request.with_fields(()), self.request)
