"""Tests of :mod:`twisted_net.http.calls.chain`: what a response knows of its requests."""

from __future__ import annotations

from tests.http.fakes import canned
from tests.http.test_client import FRESH, URL, ClientTestCase, redirect


class HistoryTests(ClientTestCase):
    """``request`` and ``history`` of a response."""

    def test_history(self) -> None:
        """Each redirect is there, with its request, and without its body."""
        self.answer(redirect(302, "/x", ("Set-Cookie", "a=1")), redirect(303, "/y"), canned(200))
        response = self.run_now(self.client.post(URL, json=1, headers={"X-A": "1"}))
        first, second = response.history
        self.assertEqual(
            [(one.method, one.url, one.status, one.body) for one in (first, second)],
            [("POST", URL, 302, b""), ("GET", "http://h.example/x", 303, b"")],
        )
        self.assertEqual((first.cookies, first.headers["location"]), ({"a": "1"}, "/x"))
        self.assertEqual([one.attempts for one in (first, second, response)], [1, 2, 3])
        self.assertEqual((first.request.method, first.request.body), ("POST", b"1"))
        self.assertEqual(first.request.headers["content-type"], "application/json")
        self.assertEqual((response.request.method, response.request.body), ("GET", None))
        self.assertNotIn("content-type", response.request.headers)
        self.assertEqual(response.request.headers["x-a"], "1")
        self.assertEqual((first.history, second.history), ((), (first,)))

    def test_stream(self) -> None:
        """A streamed response has the same."""
        self.answer(redirect(302, "/x"), canned(200, b"abc"))
        response = self.run_now(self.client.stream("GET", URL).__aenter__())
        self.assertEqual([one.url for one in response.history], [URL])
        self.assertEqual(response.request.url, "http://h.example/x")

    def test_hit(self) -> None:
        """So has a response from the cache, whose request is not sent."""
        self.answer(canned(200, b"x", [FRESH]))
        for _ in range(2):
            response = self.run_now(self.client.get(URL))
            self.assertEqual(response.request.headers["accept"], "application/json")
            self.assertEqual(response.history, ())
        self.assertEqual(response.attempts, 0)

    def test_no_secret(self) -> None:
        """Credentials are not shown by ``repr``."""
        self.answer(canned(200))
        response = self.run_now(self.client.get(URL, auth=("me", "s3cret")))
        self.assertIn("authorization", response.request.headers)
        self.assertNotIn("Basic", repr(response) + repr(response.request))

    def test_own_copy(self) -> None:
        """Changing the request of a response changes nothing else."""
        self.answer(canned(200), canned(200))
        self.run_now(self.client.get(URL)).request.headers["Accept"] = "x"
        self.assertEqual(
            self.run_now(self.client.get(URL)).request.headers["accept"], "application/json"
        )
