"""Tests of :mod:`twisted_net.http.cache.vary`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.runaway import MEGABYTE, ended_if_runaway
from twisted_net.http.cache import vary
from twisted_net.http.cache.vary import MAX_NAMES, variant, vary_names
from twisted_net.http.fields import HeaderFields


class VariantTests(SynchronousTestCase):
    """RFC 9111 §4.1: requests whose fields mean the same share a response."""

    def same(self, name: str, one: str, other: str) -> bool:
        """Return whether two values of a field are one variant."""
        names = (name.lower(),)
        return variant(HeaderFields([(name, one)]), names) == variant(
            HeaderFields([(name, other)]), names
        )

    def test_white_space(self) -> None:
        """White space around commas does not matter; that inside of quotes does."""
        self.assertTrue(self.same("X", "a , b", "a,b"))
        self.assertFalse(self.same("X", '"a , b"', '"a,b"'))
        self.assertFalse(self.same("X", "a b", "ab"))

    def test_white_space_around_separators(self) -> None:
        """It does not matter how much there is, nor whether a separator comes before."""
        self.assertTrue(self.same("X", " \t, a b \t,,\t c\t", ",a b,,c"))
        self.assertFalse(self.same("X", "a  b", "a b"))
        self.assertTrue(self.same("Accept-Language", "a ; ;\tq=1 ", "a;;q=1"))
        self.assertFalse(self.same("Accept-Language", "a b;q=1", "ab;q=1"))

    def test_quotes(self) -> None:
        """A quoted string ends at the quote that no backslash escapes; one without end is kept."""
        self.assertTrue(self.same("X", r'"a\\" , b', r'"a\\",b'))
        self.assertFalse(self.same("X", r'"a\" , b"', r'"a\",b"'))
        self.assertFalse(self.same("X", '"a , b', '"a,b'))

    def test_linear(self) -> None:
        """A field of a megabyte takes no longer than a megabyte must, whatever it is made of."""
        made_of = {
            "x": (" ", " ,", '"', '" ', '"a', r'"\"', "\\"),
            "accept-language": (" ", " ;", '"a ;'),
        }
        for name, parts in made_of.items():
            for part in parts:
                value = "a" + part * (MEGABYTE // len(part)) + "x"
                with self.subTest(name=name, part=part), ended_if_runaway():
                    self.assertTrue(variant(HeaderFields([(name, value)]), (name,)))

    def test_lines(self) -> None:
        """Several lines are one list."""
        lines = HeaderFields([("X", "a"), ("X", "b")])
        self.assertEqual(variant(lines, ("x",)), variant(HeaderFields([("X", "a, b")]), ("x",)))

    def test_preferences(self) -> None:
        """Languages and codings match in any case and order; other lists do not."""
        self.assertTrue(self.same("Accept-Language", "en, de ;q=0.5", "DE;q=0.5,EN"))
        self.assertFalse(self.same("Accept-Language", "en, de;q=0.5", "en, de;q=0.6"))
        self.assertTrue(self.same("Accept-Encoding", "gzip, br", "br,gzip"))
        self.assertTrue(self.same("Accept-Encoding", "gzip,, br,", "br,gzip"))
        self.assertTrue(self.same("Accept-Charset", "UTF-8, latin1", "latin1,utf-8"))
        self.assertFalse(self.same("X", "a, b", "b, a"))
        self.assertFalse(self.same("X", "a", "A"))

    def test_absent(self) -> None:
        """A request with none of the fields is a variant; one with some is another."""
        names = ("a", "b")
        self.assertEqual(variant(HeaderFields(), names), b"")
        found = {variant(HeaderFields([(n, "")]), names) for n in names} | {
            variant(HeaderFields(), names)
        }
        self.assertEqual(len(found), 3)

    def test_users(self) -> None:
        """Fields that identify a user are digested as well."""
        self.assertFalse(self.same("Authorization", "a", "b"))

    def test_credentials_are_not_remembered(self) -> None:
        """Digests of fields without credentials are cached, those of credentials are not."""
        names = ("accept", "authorization", "cookie")
        for pair, remembered in (
            (("Authorization", "Bearer hunter2"), 0),
            (("Cookie", "session=hunter2"), 0),
            (("Accept", "text/hunter2"), 1),
        ):
            before = vary._cached_digest.cache_info()
            variant(HeaderFields([pair]), names)
            after = vary._cached_digest.cache_info()
            self.assertEqual(after.hits + after.misses - before.hits - before.misses, remembered)

    def test_names(self) -> None:
        """``Vary`` is a list of names, in several lines, in any case."""
        fields = HeaderFields([("Vary", "Accept, X-y"), ("vary", ",*")])
        self.assertEqual(vary_names(fields), {"accept", "x-y", "*"})
        self.assertEqual(vary_names(HeaderFields()), set())

    def test_many_names(self) -> None:
        """More names than the limit are ``*``."""
        names = [f"a{i}" for i in range(MAX_NAMES)]
        self.assertEqual(vary_names(HeaderFields([("Vary", ", ".join(names))])), set(names))
        self.assertEqual(vary_names(HeaderFields([("Vary", ", ".join([*names, "b"]))])), {"*"})
