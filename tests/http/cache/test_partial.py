"""Tests of :mod:`twisted_net.http.cache.partial`."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.cache.entry import CacheRequest, Entry, ReceiptTimes
from twisted_net.http.cache.partial import combine, incomplete_response
from twisted_net.http.cache.rules import Rules
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.fields import HeaderFields

NOW = 1_795_305_600.0
AT_ONCE = ReceiptTimes(NOW, NOW, NOW)
GET = CacheRequest("GET", "http://a.example/", HeaderFields())


def part(first: int, body: bytes, etag: str = '"x"', **more: str) -> Entry:
    """Return a partial response of a body of ten bytes."""
    place = f"bytes {first}-{first + len(body) - 1}/10"
    pairs = [("Content-Range", place), ("ETag", etag), *more.items()]
    request = CacheRequest("GET", "http://a.example/p", HeaderFields())
    rules = Rules(CacheSettings())
    return rules.make_entry(request, 206, "Partial", HeaderFields(pairs), body, AT_ONCE)


class CombineTests(SynchronousTestCase):
    """RFC 9111 §3.4: parts of one body are combined."""

    def test_whole(self) -> None:
        """With the last missing byte it is a complete response, with the newer fields."""
        whole = combine([part(0, b"0123", A="1", B="1")], part(4, b"456789", A="2"))
        self.assertEqual(
            (whole.status, whole.complete_length, whole.body), (200, None, b"0123456789")
        )
        self.assertEqual((whole.fields["a"], whole.fields["b"]), ("2", "1"))
        self.assertEqual(whole.fields["content-length"], "10")

    def test_longer(self) -> None:
        """Before that it is a longer partial response."""
        longer = combine([part(2, b"23")], part(4, b"45"))
        self.assertEqual((longer.status, longer.start, longer.body), (206, 2, b"2345"))

    def test_gap(self) -> None:
        """With a gap between them, the newer one is returned."""
        new = part(7, b"7")
        self.assertEqual(combine([part(2, b"23")], new), new)

    def test_another_body(self) -> None:
        """Parts with a weak, no or another tag, or another length, are not combined."""
        new = part(4, b"45")
        for old in (
            part(2, b"23", '"y"'),
            part(2, b"23", ""),
            evolve(part(2, b"23"), complete_length=11),
        ):
            self.assertEqual(combine([old], new), new)
        weak = part(4, b"45", 'W/"x"')
        self.assertEqual(combine([part(2, b"23", 'W/"x"')], weak), weak)
        self.assertEqual(combine([evolve(part(2, b"23"), variant=b"other")], new), new)
        self.assertEqual(combine([evolve(part(2, b"23"), status=404)], new), new)

    def test_all_at_once(self) -> None:
        """A partial response with all bytes is a complete response."""
        self.assertEqual(combine([], part(0, b"0123456789")).status, 200)
        misplaced = evolve(part(0, b"0123456789"), start=1)
        self.assertEqual(combine([], misplaced), misplaced)


class IncompleteResponseTests(SynchronousTestCase):
    """RFC 9111 §3.3: an incomplete body is stored if its remainder can be requested."""

    def test_kept(self) -> None:
        """It is a partial response, with the length that the server stated."""
        found = incomplete_response(
            GET, evolve(part(0, b"012"), status=200, complete_length=None), 10
        )
        assert found is not None
        self.assertEqual((found.status, found.start, found.complete_length), (206, 0, 10))

    def test_of_no_use(self) -> None:
        """Not without a length, a byte or a strong tag, nor for an error."""
        whole = evolve(part(0, b"012"), status=200, complete_length=None)
        weak = evolve(part(0, b"012", 'W/"x"'), status=200, complete_length=None)
        for entry, length in (
            (whole, None),
            (whole, 3),
            (evolve(whole, body=b""), 10),
            (weak, 10),
            (evolve(whole, status=404), 10),
        ):
            self.assertIsNone(incomplete_response(GET, entry, length))
        self.assertIsNone(incomplete_response(evolve(GET, method="POST"), whole, 10))
