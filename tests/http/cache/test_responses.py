"""Tests of :mod:`twisted_net.http.cache.responses`."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.cache.entry import CacheRequest, Entry, ReceiptTimes
from twisted_net.http.cache.responses import ServedResponse, construct_response
from twisted_net.http.cache.rules import Rules
from twisted_net.http.cache.settings import CacheSettings
from twisted_net.http.fields import HeaderFields

NOW = 1_795_305_600.0
AT_ONCE = ReceiptTimes(NOW, NOW, NOW)
KEY = "http://a.example/p"


def stored(**changes: Any) -> Entry:  # Any: of Entry
    """Return a stored response of ten bytes."""
    fields = HeaderFields([("Cache-Control", "max-age=60"), ("ETag", '"x"'), ("Age", "3")])
    request = CacheRequest("GET", KEY, HeaderFields())
    made = Rules(CacheSettings()).make_entry(request, 200, "OK", fields, b"0123456789", AT_ONCE)
    return evolve(made, **changes)


class ConstructResponseTests(SynchronousTestCase):
    """:func:`construct_response` returns all, a range, or 304."""

    def ask(
        self, *pairs: tuple[str, str], method: str = "GET", entry: Entry | None = None
    ) -> ServedResponse:
        """Ask for the stored response, 7.9 s old."""
        request = CacheRequest(method, KEY, HeaderFields(pairs))
        return construct_response(request, stored() if entry is None else entry, 7.9)

    def test_all(self) -> None:
        """RFC 9111 §5.1: ``Age`` is in whole seconds, once."""
        found = self.ask()
        self.assertEqual((found.status, found.reason, found.body), (200, "OK", b"0123456789"))
        self.assertEqual(found.fields.get_all("age"), ["7"])
        self.assertEqual(found.fields["content-length"], "10")

    def test_head(self) -> None:
        """HEAD gets no body and no range."""
        found = self.ask(("Range", "bytes=0-1"), method="HEAD")
        self.assertEqual((found.status, found.body), (200, b""))
        self.assertEqual(found.fields["content-length"], "10")

    def test_not_modified(self) -> None:
        """RFC 9110 §15.4.5: 304 has the tag, and no length."""
        for method in ("GET", "HEAD"):
            found = self.ask(("If-None-Match", '"x"'), ("Range", "bytes=0-1"), method=method)
            self.assertEqual((found.status, found.body), (304, b""))
            self.assertEqual(found.fields["etag"], '"x"')
            self.assertNotIn("content-length", found.fields)
        self.assertEqual(self.ask(("If-None-Match", '"y"')).status, 200)

    def test_part(self) -> None:
        """RFC 9110 §15.3.7: a 206 has its range and its length."""
        for text, body, place in (
            ("bytes=2-4", b"234", "bytes 2-4/10"),
            ("bytes=8-", b"89", "bytes 8-9/10"),
            ("bytes=-1", b"9", "bytes 9-9/10"),
        ):
            found = self.ask(("Range", text))
            self.assertEqual((found.status, found.body), (206, body))
            self.assertEqual(found.fields["content-range"], place)
            self.assertEqual(found.fields["content-length"], str(len(body)))

    def test_part_of_a_part(self) -> None:
        """Offsets are counted from the start of the complete body."""
        entry = stored(status=206, body=b"cdef", start=2, complete_length=10)
        found = self.ask(("Range", "bytes=3-4"), entry=entry)
        self.assertEqual((found.body, found.fields["content-range"]), (b"de", "bytes 3-4/10"))

    def test_no_such_part(self) -> None:
        """RFC 9110 §15.5.17: a 416 has the complete length."""
        found = self.ask(("Range", "bytes=10-"))
        self.assertEqual((found.status, found.fields["content-range"]), (416, "bytes */10"))

    def test_several_parts(self) -> None:
        """RFC 9110 §14.2: a malformed range is ignored."""
        self.assertEqual(self.ask(("Range", "bytes=x")).status, 200)

    def test_if_range(self) -> None:
        """The complete body, if ``If-Range`` is for another one."""
        found = self.ask(("Range", "bytes=2-4"), ("If-Range", '"y"'))
        self.assertEqual((found.status, found.body), (200, b"0123456789"))

    def test_errors(self) -> None:
        """RFC 9110 §13.2.1: conditions are for successful responses."""
        found = self.ask(("If-None-Match", '"x"'), entry=stored(status=404))
        self.assertEqual(found.status, 404)
