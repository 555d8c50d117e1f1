"""
Test code that makes HTTP requests, without a network and without waiting.

Run it with any test runner: ``python -m unittest discover examples``.
"""

from __future__ import annotations

from unittest import TestCase

from twisted_net.http import Client
from twisted_net.testing import MemoryWeb, RecordedRequest, StubResponse


async def rate(client: Client, currency: str) -> float:
    """The code under test: it asks a service that may be down and whose responses may be cached."""
    found = await client.get_json(f"https://rates.example/{currency}", type=dict[str, float])
    return found["rate"]


class RateTests(TestCase):
    """:func:`rate` survives failures, and asks once an hour."""

    def setUp(self) -> None:
        self.web = MemoryWeb(self.answer)

    def answer(self, request: RecordedRequest) -> StubResponse:
        """Fail twice, then return a rate that is fresh for an hour."""
        if len(self.web.requests) <= 2:
            return StubResponse(503, headers={"Retry-After": "5"})
        return StubResponse(200, b'{"rate": 1.5}', {"Cache-Control": "max-age=3600"})

    def test_outage(self) -> None:
        """Two failures are retried, after the wait that the service asks for."""
        self.assertEqual(self.web.run(rate(self.web.client, "chf")), 1.5)
        self.assertEqual([request.at for request in self.web.requests], [0.0, 5.5, 11.5])

    def test_an_hour(self) -> None:
        """Within an hour no other request is made."""
        self.web.run(rate(self.web.client, "chf"))
        self.web.clock.advance(3500)
        self.web.run(rate(self.web.client, "chf"))
        self.assertEqual(len(self.web.requests), 3)
        self.web.clock.advance(100)
        self.web.run(rate(self.web.client, "chf"))
        self.assertEqual(len(self.web.requests), 4)
