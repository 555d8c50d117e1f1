"""Tests of :mod:`twisted_net.http.calls.request_sender`."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.http.fakes import FakeAgent, HttpTestCase, canned
from twisted_net.http.agent_edge import sender
from twisted_net.http.call import Call
from twisted_net.http.calls.body import NO_BODY, add_params
from twisted_net.http.calls.request_sender import RequestSender
from twisted_net.http.errors import InvalidURL
from twisted_net.http.fields import HeaderFields
from twisted_net.http.retry.settings import RetryPolicy


class RequestSenderTests(HttpTestCase):
    """:class:`RequestSender` sends requests as they are meant."""

    def setUp(self) -> None:
        self.agent = FakeAgent([])
        self.sender = RequestSender(sender(self.agent), Call(None, RetryPolicy(), None, 0))

    def send(self, url: str, *fields: tuple[str, str]) -> None:
        """Send a request that is answered with *fields*."""
        self.agent.answers.append(canned(headers=fields))
        sending = self.sender.send("GET", url, HeaderFields(), NO_BODY)
        self.successResultOf(Deferred.fromCoroutine(sending))

    def test_params(self) -> None:
        """Parameters are added after those of the URL, of which none changes."""
        for url, expected in (
            ("http://h/?", "http://h/?q=1"),
            ("http://h", "http://h/?q=1"),
            ("http://h/?a+b=c=d&&e", "http://h/?a+b=c=d&&e&q=1"),
            ("http://h/?a&", "http://h/?a&q=1"),
        ):
            with self.subTest(url=url):
                self.send(add_params(url, [("q", "1")]))
                self.assertEqual(self.agent.sent[-1].uri, expected.encode())

    def test_no_secret_in_the_error(self) -> None:
        """The error does not contain user name and password."""
        for url in ("//me:s3cret@[h/ü", "me:s3cret@h/ü", "//me:s3cret@h:1:2/ü", "//me:s3cret@h ü/"):
            with self.subTest(url=url):
                sending = self.sender.send("GET", url, HeaderFields(), NO_BODY)
                failure = self.failureResultOf(Deferred.fromCoroutine(sending), InvalidURL)
                self.assertNotIn("s3cret", str(failure.value))

    def test_old_cookies(self) -> None:
        """``Set-Cookie2`` (RFC 2965), which nobody sends, is not parsed."""
        url = "http://1.2.3.4/"
        self.send(url, ("Set-Cookie", "a=b"), ("Set-Cookie2", "c=d; Version=1"))
        self.send(url)
        self.assertEqual(self.agent.sent[1].header("cookie"), ["a=b"])
