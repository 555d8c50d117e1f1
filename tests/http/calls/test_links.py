"""Tests of :mod:`twisted_net.http.calls.links`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_net.http.calls.links import MAX_LENGTH, MAX_LINKS, MAX_PARAMETERS, WebLink, parse_links

BASE = "http://h.example/a/b?c"

words = st.text("abcXYZ019-._", min_size=1, max_size=8)
texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)


class LinkTests(SynchronousTestCase):
    """:func:`parse_links` parses ``Link`` (RFC 8288)."""

    def parsed(self, *values: str) -> list[tuple[str, str, dict[str, str]]]:
        """Return URL, relation types and parameters of each link."""
        return [
            (link.url, " ".join(link.relations), dict(link.parameters))
            for link in parse_links(values, BASE)
        ]

    def test_examples(self) -> None:
        """RFC 8288 §3.5."""
        chapter = "http://example.com/TheBook/chapter2"
        for value, expected in (
            (
                f'<{chapter}>; rel="previous"; title="previous chapter"',
                [(chapter, "previous", {"title": "previous chapter"})],
            ),
            (
                '</>; rel="http://example.net/foo"',
                [("http://h.example/", "http://example.net/foo", {})],
            ),
            ('</terms>; rel="copyright"; anchor="#foo"', []),
            (
                "</TheBook/chapter2>; rel=\"previous\"; title*=UTF-8'de'letztes%20Kapitel, "
                "</TheBook/chapter4>; rel=\"next\"; title*=UTF-8'de'n%c3%a4chstes%20Kapitel",
                [
                    ("http://h.example/TheBook/chapter2", "previous", {"title": "letztes Kapitel"}),
                    ("http://h.example/TheBook/chapter4", "next", {"title": "nächstes Kapitel"}),
                ],
            ),
            (
                '<http://example.org/>; rel="start http://example.net/relation/other"',
                [("http://example.org/", "start http://example.net/relation/other", {})],
            ),
        ):
            with self.subTest(value=value):
                self.assertEqual(self.parsed(value), expected)

    def test_forms(self) -> None:
        """Tokens, commas in texts, white space, and what is malformed."""
        for value, expected in (
            ("<?page=2>;rel=Next", [("http://h.example/a/b?page=2", "next", {})]),
            ("<>;rel=self", [(BASE, "self", {})]),
            ("<x>", []),
            ("<x>;rel", []),
            (
                '<x> ; rel = "a b" ;; type="t;,<>"',
                [("http://h.example/a/x", "a b", {"type": "t;,<>"})],
            ),
            ("<x>;rel=a;rel=b", [("http://h.example/a/x", "a", {})]),
            ('<x>;rel="a;b, <y>;rel=c', [("http://h.example/a/y", "c", {})]),
            ("nonsense, <y>;rel=c", [("http://h.example/a/y", "c", {})]),
            ("<http://[>;rel=a, <y>;rel=c", [("http://h.example/a/y", "c", {})]),
            (
                ",,<x>;rel=a,,<y>;rel=b",
                [("http://h.example/a/x", "a", {}), ("http://h.example/a/y", "b", {})],
            ),
            ("<x>;rel=a;title*=nonsense", [("http://h.example/a/x", "a", {})]),
        ):
            with self.subTest(value=value):
                self.assertEqual(self.parsed(value), expected)

    def test_bounds(self) -> None:
        """So many links are parsed, and so many parameters of one."""
        self.assertEqual(len(parse_links(["<x>;rel=a," * 700], BASE)), MAX_LINKS)
        self.assertEqual(len(parse_links(["<x>;rel=a"] * 1000, BASE)), MAX_LINKS)
        long = f'<x>;rel=a;t="{"x" * MAX_LENGTH}"'
        self.assertEqual(len(parse_links(["<x>;rel=a", long, "<x>;rel=a"], BASE)), 1)
        many = "<x>;rel=a" + "".join(f";p{number}=1" for number in range(100))
        (link,) = parse_links([many], BASE)
        self.assertEqual(len(link.parameters), MAX_PARAMETERS - 1)

    @given(st.lists(st.tuples(words, words, texts), max_size=5))
    def test_round_trip(self, links: list[tuple[str, str, str]]) -> None:
        """What is written is read."""

        def quoted(text: str) -> str:
            return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

        value = " , ".join(
            f"<http://x/p{path}>; title={quoted(title)}; rel={relation}"
            for path, relation, title in links
        )
        expected = [
            WebLink(f"http://x/p{path}", (relation.lower(),), {"title": title})
            for path, relation, title in links
        ]
        self.assertEqual(parse_links([value], BASE), expected)

    @given(st.text(st.sampled_from('<>;,="\\ rela*'), max_size=60))
    def test_garbage(self, value: str) -> None:
        """Whatever a line is, the next one is read as if it stood alone."""
        links = parse_links([value], BASE)
        self.assertTrue(all(link.relations for link in links))
        following = parse_links([value, "<b>; rel=next"], BASE)
        self.assertEqual(following, [*links, *parse_links(["<b>; rel=next"], BASE)])
