"""Tests of :mod:`twisted_net.http.cache.validation`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.cache.validation import (
    conditions,
    confirms,
    entity_tags,
    head_confirms,
    hop_by_hop,
    strong_etag,
    unmodified,
    updated_fields,
)
from twisted_net.http.dates import format_date
from twisted_net.http.fields import MAX_CONNECTION_OPTIONS, HeaderFields

NOW = 1_795_305_600.0


class TagTests(SynchronousTestCase):
    """RFC 9110 §8.8.3: entity tags."""

    def test_lists(self) -> None:
        """A list is parsed, with weak tags, ``*``, and the invalid ones that servers send."""
        self.assertEqual(
            entity_tags(' "a,b" , W/"c",* ,bare, "\xff"'), ['"a,b"', 'W/"c"', "*", "bare", '"\xff"']
        )
        self.assertEqual(entity_tags(""), [])
        self.assertEqual(entity_tags('"a" "b"'), [])

    def test_strong(self) -> None:
        """Only a quoted tag without ``W/`` is strong."""
        self.assertEqual(strong_etag(HeaderFields([("ETag", '"a"')])), '"a"')
        for text in ('W/"a"', "a", '"'):
            self.assertIsNone(strong_etag(HeaderFields([("ETag", text)])))
        self.assertIsNone(strong_etag(HeaderFields()))

    def test_conditions(self) -> None:
        """All validators are sent."""
        self.assertEqual(conditions(HeaderFields()), [])
        self.assertEqual(
            conditions(HeaderFields([("ETag", "a"), ("Last-Modified", "b")])),
            [("If-None-Match", "a"), ("If-Modified-Since", "b")],
        )

    def test_many_options(self) -> None:
        """As many names of ``Connection`` count as the limit says."""
        names = [f"a{i}" for i in range(MAX_CONNECTION_OPTIONS + 1)]
        found = hop_by_hop(HeaderFields([("Connection", ", ".join(names))]))
        self.assertIn(names[-2], found)
        self.assertNotIn(names[-1], found)

    def test_hop_by_hop(self) -> None:
        """The fields that ``Connection`` lists are of a single connection too."""
        self.assertIn("x-a", hop_by_hop(HeaderFields([("Connection", "close, X-A")])))
        self.assertEqual(
            hop_by_hop(HeaderFields()),
            {
                "connection",
                "keep-alive",
                "proxy-authenticate",
                "proxy-authentication-info",
                "proxy-authorization",
                "proxy-connection",
                "te",
                "trailer",
                "transfer-encoding",
                "upgrade",
            },
        )


class UnmodifiedTests(SynchronousTestCase):
    """RFC 9111 §4.3.2: the caller's conditions are evaluated on the stored response."""

    STORED = HeaderFields(
        [("ETag", 'W/"a"'), ("Last-Modified", format_date(NOW - 60)), ("Date", format_date(NOW))]
    )

    def ask(self, *pairs: tuple[str, str], stored: HeaderFields = STORED) -> bool:
        """Ask with these conditions."""
        return unmodified(HeaderFields(pairs), stored, NOW)

    def test_if_none_match(self) -> None:
        """One match in the list is enough, by weak comparison; ``*`` matches any."""
        for text in ('"a"', 'W/"a"', '"x", "a"', "*"):
            self.assertTrue(self.ask(("If-None-Match", text)), text)
        self.assertFalse(self.ask(("If-None-Match", '"b"')))
        self.assertFalse(self.ask(("If-None-Match", '"b"'), stored=HeaderFields()))

    def test_if_modified_since(self) -> None:
        """It is compared with ``Last-Modified``, else with ``Date``, else with the receipt."""
        for seconds, holds in ((-61, False), (-60, True), (0, True)):
            since = ("If-Modified-Since", format_date(NOW + seconds))
            self.assertEqual(self.ask(since), holds)
        dated = HeaderFields([("Date", format_date(NOW - 30))])
        for stored, moment in ((dated, -30), (HeaderFields(), 0)):
            for seconds, holds in ((-1, False), (0, True)):
                since = ("If-Modified-Since", format_date(NOW + moment + seconds))
                self.assertEqual(self.ask(since, stored=stored), holds)

    def test_precedence(self) -> None:
        """RFC 9110 §13.2.2: with ``If-None-Match``, the date does not count."""
        since = ("If-Modified-Since", format_date(NOW))
        self.assertFalse(self.ask(since, ("If-None-Match", '"b"')))

    def test_nonsense(self) -> None:
        """A malformed date is ignored."""
        self.assertFalse(self.ask(("If-Modified-Since", "yesterday")))


class UpdatedFieldsTests(SynchronousTestCase):
    """RFC 9111 §3.2: fields of a 304 replace stored ones."""

    STORED = HeaderFields(
        [("ETag", '"a"'), ("Age", "9"), ("X", "1"), ("X", "2"), ("Content-Length", "4")]
    )

    def test_replaced(self) -> None:
        """All lines of a name are replaced, but not those that describe the bytes."""
        update = HeaderFields(
            [("x", "3"), ("Content-Length", "0"), ("Connection", "Y"), ("Y", "1")]
        )
        new = updated_fields(self.STORED, update)
        self.assertEqual(new.pairs, (("ETag", '"a"'), ("Content-Length", "4"), ("x", "3")))

    def test_what_describes_the_bytes(self) -> None:
        """§3.2: length, coding, range, digests and tag stay those of the stored bytes."""
        names = ["Content-Length", "Content-Encoding", "Content-Range", "Content-MD5"]
        names += ["Content-Digest", "ETag"]
        stored = HeaderFields([(name, '"old"') for name in names])
        update = HeaderFields([(name, '"old"' if name == "ETag" else "new") for name in names])
        self.assertEqual(updated_fields(stored, update).pairs, stored.pairs)

    def test_freshness_of_another_tag(self) -> None:
        """§4.3.4: the freshness is age, date, expiry and directives."""
        update = HeaderFields(
            [("ETag", '"b"'), ("Age", "1"), ("Date", "2"), ("Expires", "3"), ("X", "4")]
        )
        new = updated_fields(HeaderFields([("ETag", '"a"'), ("Age", "9")]), update)
        self.assertEqual(
            new.pairs, (("ETag", '"a"'), ("Age", "1"), ("Date", "2"), ("Expires", "3"))
        )

    def test_another_tag(self) -> None:
        """§4.3.4: a 304 with another strong tag updates only the freshness."""
        update = HeaderFields([("ETag", '"b"'), ("X", "3"), ("Cache-Control", "max-age=1")])
        self.assertFalse(confirms(update, self.STORED))
        new = updated_fields(self.STORED, update)
        self.assertEqual(
            (new["etag"], new["x"], new["cache-control"]), ('"a"', "1, 2", "max-age=1")
        )

    def test_confirms(self) -> None:
        """A 304 with no tag, a weak one, or the same one validates it."""
        for text in ('"a"', 'W/"b"'):
            self.assertTrue(confirms(HeaderFields([("ETag", text)]), self.STORED))
        self.assertTrue(confirms(HeaderFields(), self.STORED))
        self.assertTrue(confirms(HeaderFields([("ETag", '"a"')]), HeaderFields()))


class HeadConfirmsTests(SynchronousTestCase):
    """RFC 9111 §4.3.5: a response to HEAD validates the stored response if nothing differs."""

    def test_fields(self) -> None:
        """Validators and length are compared if they are present."""
        stored = HeaderFields([("ETag", '"a"'), ("Last-Modified", "x")])
        for pairs, holds in (
            ([], True),
            ([("ETag", '"a"'), ("Content-Length", "4")], True),
            ([("ETag", '"b"')], False),
            ([("Last-Modified", "y")], False),
            ([("Content-Length", "5")], False),
        ):
            self.assertEqual(head_confirms(HeaderFields(pairs), stored, 4), holds)
