"""Tests of :mod:`twisted_net.http.fields`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.fields import HeaderFields, connection_options


class FieldsTests(SynchronousTestCase):
    """:class:`HeaderFields` finds a field by a name in any case."""

    FIELDS = HeaderFields([("Set-Cookie", "a=1"), (b"ETag", b'"\xe9"'), ("set-cookie", "b=2")])

    def test_any_case(self) -> None:
        """A name is found in upper and lower case."""
        self.assertEqual(self.FIELDS["etag"], '"é"')
        self.assertIn("ETAG", self.FIELDS)
        self.assertNotIn("date", self.FIELDS)
        self.assertNotIn(3, self.FIELDS)

    def test_several_lines(self) -> None:
        """Lines of one name are joined; each can be read, too."""
        self.assertEqual(self.FIELDS["Set-Cookie"], "a=1, b=2")
        self.assertEqual(self.FIELDS.get_all("SET-COOKIE"), ["a=1", "b=2"])
        self.assertEqual(self.FIELDS.get_all("date"), [])
        self.assertEqual(self.FIELDS.first("set-cookie"), "a=1")
        self.assertIsNone(self.FIELDS.first("date"))

    def test_mapping(self) -> None:
        """As a mapping it has each name once, in lower case."""
        self.assertEqual(list(self.FIELDS), ["set-cookie", "etag"])
        self.assertEqual(len(self.FIELDS), 2)
        self.assertEqual(self.FIELDS.get("date", "none"), "none")
        self.assertRaises(KeyError, self.FIELDS.__getitem__, "date")

    def test_pairs_keep_order_and_case(self) -> None:
        """The lines are kept unchanged."""
        pairs = (("Set-Cookie", "a=1"), ("ETag", '"é"'), ("set-cookie", "b=2"))
        self.assertEqual(self.FIELDS.pairs, pairs)
        self.assertEqual(repr(self.FIELDS), f"HeaderFields({list(pairs)!r})")

    def test_of_text(self) -> None:
        """Lines that are text already give the same fields."""
        fields = HeaderFields.of_text(list(self.FIELDS.pairs))
        self.assertEqual((fields.pairs, dict(fields)), (self.FIELDS.pairs, dict(self.FIELDS)))
        self.assertEqual(fields.get_all("set-cookie"), ["a=1", "b=2"])

    def test_replaced(self) -> None:
        """All lines of a name are replaced by the new ones; the original is unchanged."""
        changed = self.FIELDS.replaced([("SET-COOKIE", "c=3"), ("Age", "0")])
        self.assertEqual(dict(changed), {"etag": '"é"', "set-cookie": "c=3", "age": "0"})
        self.assertEqual(self.FIELDS["set-cookie"], "a=1, b=2")

    def test_without(self) -> None:
        """Fields are removed by name."""
        self.assertEqual(dict(self.FIELDS.without(["Set-Cookie", "x"])), {"etag": '"é"'})


class ConnectionOptionsTests(SynchronousTestCase):
    """:func:`connection_options` reads ``Connection``."""

    def test_options(self) -> None:
        """They are tokens, in any case and with white space; what is none is left out."""
        for value, expected in (
            ("Close, X-Hop\t,\tx-other", {"close", "x-hop", "x-other"}),
            ('close;x=y, "close", a b, \xe9, , ok', {"ok"}),
            ("", set()),
        ):
            self.assertEqual(connection_options(value), expected)
